"""What stands in files is renewed there: a backend that was refused for it comes back by itself."""

import asyncio
import contextlib
import pathlib
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable

import pytest

from backends import api
from backends.kubernetes import access, backend, client, lease, settings
from tests import patience
from tests.docker import certificates
from tests.kubernetes import fake


class Secured:
    """A cluster behind TLS on one port, with the certificate of the moment."""

    def __init__(self, cluster: fake.Cluster) -> None:
        self._host, self._port = cluster.url.removeprefix("http://").split(":")
        self._lines: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def show(self, pair: certificates.Pair) -> None:
        """Begin anew with this certificate; every connection is cut."""
        await self.aclose()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.cert, pair.key)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._lines:
            writer.transport.abort()
        self._lines.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, int(self._port))
        self._lines |= {writer, back}
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()


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
        front = Secured(cluster)
        await front.show(old)
        where = {
            "namespace": "agents",
            "server": f"https://127.0.0.1:{front.port}",
            "ca_file": str(trusted),
        }
        made = backend.KubernetesBackend(
            settings.KubernetesSettings(**where), owner="ours", now=time.time
        )
        held = lease.create(settings.Cluster(**where), name="agent-broker-ours")
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
