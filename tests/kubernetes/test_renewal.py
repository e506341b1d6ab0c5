"""What stands in files is renewed there: a backend that was refused for it comes back by itself."""

import asyncio
import contextlib
import pathlib
import shutil
import time
from collections.abc import Awaitable, Callable

import pytest

from backends import api
from backends.kubernetes import backend, settings
from backends.kubernetes.api import access, client, lease
from tests import patience, tls_front
from tests.docker import certificates
from tests.kubernetes import fake


@pytest.fixture
def authorities(tmp_path: pathlib.Path) -> list[certificates.Authority]:
    (tmp_path / "tls").mkdir()
    return [certificates.Authority(tmp_path / "tls", name) for name in ("first", "second")]


async def test_a_new_authority_in_the_same_file_needs_no_restart(
    authorities: list[certificates.Authority],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cluster's authority is changed: refused at first, and then trusted, lease and all."""
    monkeypatch.setattr(client, "_ANEW_S", 0.2)
    old, new = (one.signed("server", "IP:127.0.0.1") for one in authorities)
    trusted = tmp_path / "ca.pem"
    shutil.copy(authorities[0].file, trusted)
    async with fake.Cluster().serving() as cluster:
        host, port = cluster.url.removeprefix("http://").split(":")
        front = tls_front.Front(lambda: asyncio.open_connection(host, int(port)))
        await front.show(old)
        where = {
            "namespace": "agents",
            "server": f"https://127.0.0.1:{front.port}",
            "ca_file": str(trusted),
        }
        made = backend.KubernetesBackend(
            settings.KubernetesSettings(**where), owner="ours", now=time.time
        )
        held = lease.create(settings.ClusterSettings(**where), name="agent-broker-ours")
        try:
            assert list(await made.list()) == []
            assert await held.read() is None
            await front.show(new)
            for ask in (made.list, held.read, made.list, held.read):  # the file is the old one
                with pytest.raises(api.Unavailable, match=r"(?i)certificate"):
                    await ask()
            shutil.copy(authorities[1].file, trusted)
            for ask in (made.list, held.read):
                await comes_back(ask)
        finally:
            await made.aclose()
            await held.aclose()
            await front.aclose()


async def comes_back(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until there is an answer."""
    async with patience.limit(20):
        while True:
            with contextlib.suppress(api.BackendError):
                assert not await ask()
                return
            await asyncio.sleep(0.05)


async def test_a_token_that_came_later_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was started before its account was there, and a cluster that wants one."""
    monkeypatch.setattr(client, "_ANEW_S", 0.1)
    real = access.find

    async def find(told, *, clock):
        return await real(told, clock=clock, account=tmp_path)

    monkeypatch.setattr(access, "find", find)
    async with fake.Cluster(token="t0ken").serving() as cluster:
        told = settings.KubernetesSettings(namespace="agents", server=cluster.url)
        made = backend.KubernetesBackend(told, owner="ours", now=time.time)
        try:
            with pytest.raises(api.Unauthorized):
                await made.list()
            (tmp_path / "token").write_text("t0ken")
            await comes_back(made.list)
        finally:
            await made.aclose()
