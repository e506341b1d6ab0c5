"""No secret comes back: an API server that tells back what it was sent, against every call.

``tests/echo.py`` gives the ways and the search, which shares nothing with what blanks secrets.
"""

import base64
import logging
import pathlib
import time
from collections.abc import Awaitable, Callable

import pytest

from backends import api, lease
from backends.kubernetes import backend, doctor, settings
from backends.kubernetes.api import access
from backends.kubernetes.api import lease as kubernetes_lease
from backends.kubernetes.exec import execution
from outside import waits
from tests import echo

TOKEN = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LW9mLXRoZS1icm9rZXI.Zm9yLW5vYm9keQ"
SECRET = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
POD = {
    "metadata": {
        "name": "a1",
        "uid": "u1",
        "resourceVersion": "5",
        "labels": {
            "app.kubernetes.io/managed-by": "agent-broker",
            "agent-broker/owner": "ours",
        },
        "annotations": {"agent-broker/name": "a1", "agent-broker/metadata": '{"owner": "ours"}'},
        "creationTimestamp": "2026-11-24T00:00:00Z",
    },
    "spec": {"nodeName": "n", "restartPolicy": "Never"},
    "status": {"phase": "Running"},
}
LIST = {"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [POD]}


def spec() -> api.InstanceSpec:
    return api.InstanceSpec(
        name="a1",
        metadata={"owner": "ours"},
        image="busybox",
        secret_files={"agent-secret": f"a1\n{SECRET}\n"},
    )


async def said(work: Awaitable[object]) -> list[str]:
    """Do it; return what a person could get to see of it."""
    try:
        return [repr(await work)]
    except api.BackendError as error:
        return [error.reason, str(error), repr(error)]


def made(told: settings.KubernetesSettings) -> backend.KubernetesBackend:
    return backend.KubernetesBackend(told, owner="ours", now=time.time)


async def _launch(told: settings.KubernetesSettings) -> list[str]:
    ours = made(told)
    try:
        return await said(ours.launch(spec()))
    finally:
        await ours.aclose()


async def _list(told: settings.KubernetesSettings) -> list[str]:
    ours = made(told)
    try:
        return await said(ours.list())
    finally:
        await ours.aclose()


async def _logs(told: settings.KubernetesSettings) -> list[str]:
    ours = made(told)
    try:
        return await said(ours.logs("a1", tail=20))
    finally:
        await ours.aclose()


async def _terminate(told: settings.KubernetesSettings) -> list[str]:
    ours = made(told)
    try:
        shown = await said(ours.terminate("a1", grace_s=0))
        return [*shown, *await said(ours.list())]
    finally:
        await ours.aclose()


async def _watch(told: settings.KubernetesSettings) -> list[str]:
    ours = made(told)

    async def follow() -> None:
        async for _ in ours.watch():
            return

    try:
        async with waits.timeout(1):  # no limit: a watch need not end
            return await said(follow())
    except TimeoutError:
        return []
    finally:
        await ours.aclose()


async def _lease(told: settings.KubernetesSettings) -> list[str]:
    held = kubernetes_lease.create(told, name="l")
    record = lease.Record(holder="h", lease_s=15, acquired="", renewed="", transitions=0)
    try:
        return [
            *await said(held.read()),
            *await said(held.write(record, over=None)),
            *await said(
                held.write(
                    record, over=lease.SeenRecord(record=record, version="1", uid="u", raw=LEASE)
                )
            ),
        ]
    finally:
        await held.aclose()


LEASE = {"kind": "Lease", "metadata": {"name": "l", "resourceVersion": "1"}, "spec": {}}


async def _exec(told: settings.KubernetesSettings) -> list[str]:
    found = await access.find(told, clock=time.monotonic)
    executor = execution.CommandExecutor(found, timeout_s=5)
    try:
        return await said(executor.open("a1", "side", ["sh", "-c", "true"]))
    finally:
        await executor.aclose()


async def _doctor(told: settings.KubernetesSettings) -> list[str]:
    return [
        repr(one)
        async for one in doctor.examine(told, owner="ours", orders={"t": spec()}, now=time.time)
    ]


CALLS = {
    "launch": _launch,
    "list": _list,
    "logs": _logs,
    "terminate": _terminate,
    "watch": _watch,
    "lease": _lease,
    "exec": _exec,
    "doctor": _doctor,
}


def _past(call: str) -> Callable[[echo.Request], bytes | None]:
    """Answer properly what has to go well before the call itself is tried."""

    def first(request: echo.Request) -> bytes | None:
        path = request.target.partition("?")[0]
        listed = (
            request.method == "GET" and path.endswith("/pods") and "watch=" not in request.target
        )
        if call in {"logs", "terminate", "watch"} and listed:
            return echo.reply(LIST)
        if call == "launch" and request.method == "POST" and path.endswith("/pods"):
            return echo.reply(POD, status="201 Created")
        if call == "doctor" and path == "/version":
            return echo.reply({"gitVersion": "v1.36.2"})
        return None

    return first


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("way", echo.WAYS)
async def test_nothing_that_was_sent_comes_back(
    way: str,
    call: str,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an error, a result, a log line; whatever the answer's status and form is."""
    monkeypatch.setattr(backend, "_END_MARGIN_S", 0.0)
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    with echo.serving(way, first=_past(call)) as server:
        told = settings.KubernetesSettings(
            namespace="agents",
            server=server.url,
            token_file=str(token),
            request_timeout_s=5,
        )
        shown = await CALLS[call](told)

    assert server.was_sent(TOKEN)
    if call == "launch":
        assert server.was_sent(SECRET)
    shown += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    for secret in (TOKEN, SECRET):
        assert [] == [found for text in shown for found in echo.found(secret, text)]


def test_the_search_would_find_it() -> None:
    """The checks above can fail."""
    assert echo.found(TOKEN, f"Bearer {TOKEN}")
    assert echo.found(SECRET, base64.b64encode(f"x{SECRET}".encode()).decode())
