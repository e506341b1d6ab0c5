"""Whatever an API server sends: sizes are limited, redirects not followed, a wrong type is an error."""

import asyncio
import contextlib
import gzip
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from backends import api, lease
from backends.kubernetes import backend, settings
from backends.kubernetes.api import access, client
from backends.kubernetes.api import lease as kubernetes_lease
from backends.kubernetes.exec import execution
from tests import bombs, patience
from tests.kubernetes import fake
from tests.kubernetes.test_echo import LEASE, LIST, POD, spec

MIB = 1 << 20
PEAK = 96 * MIB
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that does not go is waited for no longer than its grace; fewer pods are many."""
    monkeypatch.setattr(backend, "_END_MARGIN_S", 0.0)
    monkeypatch.setattr(client, "_MOST_PODS", 5000)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def told(url: str, **more: Any) -> settings.KubernetesSettings:
    values = {"namespace": "agents", "server": url, "request_timeout_s": 20, "list_timeout_s": 20}
    return settings.KubernetesSettings(**{**values, **more})


async def _backend(url: str, what: Callable[[backend.KubernetesBackend], Awaitable[Any]]) -> Any:
    ours = backend.KubernetesBackend(told(url), owner="ours", now=time.time)
    try:
        return await what(ours)
    finally:
        await ours.aclose()


async def _follow(ours: backend.KubernetesBackend) -> None:
    async for _ in ours.watch():
        return


async def _read_lease(url: str) -> Any:
    held = kubernetes_lease.create(told(url), name="l")
    try:
        return await held.read()
    finally:
        await held.aclose()


async def _write_lease(url: str) -> Any:
    held = kubernetes_lease.create(told(url), name="l")
    record = lease.Record(holder="h", lease_s=15, acquired="", renewed="", transitions=0)
    try:
        return await held.write(
            record, over=lease.SeenRecord(record=record, version="1", uid="u", raw=LEASE)
        )
    finally:
        await held.aclose()


async def _exec(url: str) -> None:
    found = await access.find(told(url), clock=time.monotonic)
    executor = execution.CommandExecutor(found, timeout_s=5)
    try:
        await executor.open("a1", "side", ["true"])
    finally:
        await executor.aclose()


async def _ask(url: str) -> Any:
    asked = client.ApiServer(told(url), await access.find(told(url), clock=time.monotonic))
    try:
        return await asked.ask("create", "/apis/authorization.k8s.io/v1/x", body={})
    finally:
        await asked.aclose()


async def _events(url: str) -> Any:
    asked = client.ApiServer(told(url), await access.find(told(url), clock=time.monotonic))
    try:
        return await asked.events_of("u1")
    finally:
        await asked.aclose()


CALLS: dict[str, Callable[[str], Awaitable[Any]]] = {
    "list": lambda url: _backend(url, lambda ours: ours.list()),
    "watch": lambda url: _backend(url, _follow),
    "launch": lambda url: _backend(url, lambda ours: ours.launch(spec())),
    "terminate": lambda url: _backend(url, lambda ours: ours.terminate("a1", grace_s=0)),
    "logs": lambda url: _backend(url, lambda ours: ours.logs("a1", tail=20)),
    "read lease": _read_lease,
    "write lease": _write_lease,
    "exec": _exec,
    "ask": _ask,
    "events": _events,
}


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError):
        await answer.write(b'{"kind": "PodList", "items": [')
        while True:
            await answer.write(b" " * MIB)
    return answer


async def endless_refusal(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(status=500, headers={"Content-Type": "text/html"})
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await answer.write(b"no " * (MIB // 3))
    return answer


async def bomb(request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    return web.Response(body=bombs.packed(b" " * MIB, 1024), headers=headers)


async def bomb_refusal(request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    return web.Response(status=403, body=bombs.packed(b" " * MIB, 1024), headers=headers)


async def other_packing(request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    return web.Response(body=b"\x0b\x02\x80{}\x03", headers=headers)


HOSTILE = {h.__name__: h for h in (endless, endless_refusal, bomb, bomb_refusal, other_packing)}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("how", HOSTILE)
async def test_no_answer_takes_more_than_an_honest_one(how: str, call: str) -> None:
    """Each call ends with an error of the contract, in bounded memory, and says what it met."""

    async def answer(request: web.Request) -> web.StreamResponse:
        kind, _, _ = request.path.rpartition("/pods")
        if call in {"terminate", "logs"} and kind and request.query.get("fieldSelector"):
            return web.json_response(LIST)
        return await HOSTILE[how](request)

    async with serving(answer) as url:
        tracemalloc.start()
        try:
            async with patience.limit(50):
                raised = await _error(CALLS[call](url))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < PEAK
    if call in {"logs"} and how in {"endless", "bomb"}:
        return  # the beginning of an endless log is one
    if call == "terminate" and how in {"endless", "bomb", "other_packing"}:
        return  # it was done: what the answer says counts for nothing
    assert raised is not None, "an answer like this is none"


async def _error(work: Awaitable[Any]) -> api.BackendError | None:
    try:
        async with patience.limit(30):
            await work
    except api.BackendError as error:
        return error
    except TimeoutError:
        return None
    return None


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int, call: str) -> None:
    """Neither the token nor a secret goes anywhere else, not by the exec's WebSocket either."""
    elsewhere: list[str] = []

    async def other(request: web.Request) -> web.StreamResponse:
        elsewhere.append(request.path)
        return web.json_response(LIST)

    async with serving(other) as there:

        async def answer(request: web.Request) -> web.StreamResponse:
            if call in {"terminate", "logs"} and request.query.get("fieldSelector"):
                return web.json_response(LIST)
            return web.Response(status=status, headers={"Location": f"{there}{request.path}"})

        async with serving(answer) as url:
            error = await _error(CALLS[call](url))

    assert [] == elsewhere
    assert isinstance(error, api.Unavailable)
    assert "redirects" in error.reason


WRONG: list[Any] = [
    {}, [], None, 7, "pods", True, {"items": []}, {"kind": "PodList"},
    {"kind": "PodList", "items": []},
    {"kind": "PodList", "metadata": {}, "items": []},
    {"kind": "PodList", "metadata": {"resourceVersion": 5}, "items": []},
    {"kind": "PodList", "metadata": {"resourceVersion": "5&watch=0#x"}, "items": []},
    {"kind": "PodList", "metadata": {"resourceVersion": "5"}},
    {"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": {}},
    {"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": "none"},
    {"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": 0},
    {"kind": "PodList", "metadata": [], "items": []},
    {"kind": "Status", "metadata": {"resourceVersion": "5"}, "items": []},
    {"kind": "PodList", "metadata": {"resourceVersion": "5", "continue": 7}, "items": []},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: json.dumps(wrong)[:60])
@pytest.mark.parametrize(
    "call", ["list", "terminate", "events", "read lease", "write lease", "launch"]
)
async def test_a_wrong_type_is_an_error(wrong: Any, call: str) -> None:
    """Never an empty list, never a pod that is gone."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(wrong)

    async with serving(answer) as url:
        error = await _error(CALLS[call](url))

    if call in {"events", "terminate"} and wrong == WRONG[-1]:
        assert error is None or isinstance(error, api.BackendError)
        return
    assert isinstance(error, api.BackendError)
    assert not isinstance(error, api.NotFound)


async def test_an_older_server_says_null_for_an_empty_list() -> None:
    """That one is known, and with everything else in its place."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/pods"):
            return web.json_response({**LIST, "items": None})
        return web.json_response({"kind": "Namespace"})

    async with serving(answer) as url:
        assert [] == await CALLS["list"](url)


async def test_a_page_of_large_pods_is_asked_for_with_fewer_of_them() -> None:
    """A namespace of pods of 200 KiB each is listed whole; nobody need set anything."""
    pods = []
    for number in range(60):
        pod = json.loads(json.dumps(POD))
        pod["metadata"] |= {"name": f"a{number}", "uid": f"u{number}"}
        pod["metadata"]["annotations"] |= {
            "agent-broker/name": f"a{number}",
            "x": "y" * (MIB // 5),
        }
        pods.append(pod)
    sizes: list[int] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/pods"):
            return web.json_response({**LIST, "kind": "EventList", "items": []})
        size, at = int(request.query["limit"]), int(request.query.get("continue") or 0)
        sizes.append(size)
        meta = {"resourceVersion": "5"}
        if at + size < len(pods):
            meta["continue"] = str(at + size)
        return web.json_response({**LIST, "metadata": meta, "items": pods[at : at + size]})

    async with serving(answer) as url:
        found = await CALLS["list"](url)

    assert {f"a{number}" for number in range(60)} == {one.name for one in found}
    assert [250, 62, 15, 15, 15, 15] == sizes


@pytest.mark.parametrize(("same", "most"), [(True, 3), (False, 100)])
async def test_a_list_without_end_is_no_list(same: bool, most: int) -> None:
    """A server that sends the same page again, and one that always has one more."""
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        meta = {"resourceVersion": "5", "continue": "again" if same else f"page-{asked}"}
        return web.json_response({**LIST, "metadata": meta, "items": [POD] * 250})

    async with serving(answer) as url:
        error = await _error(CALLS["list"](url))
    assert isinstance(error, api.Unavailable)
    assert asked <= most


async def test_a_watch_that_is_packed_or_never_ends_a_line_is_opened_anew(
    cluster: fake.Cluster,
) -> None:
    """The listing goes on; what the stream says counts for nothing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response(LIST)
        return await (endless if request.query.get("resourceVersion") else bomb)(request)

    async with serving(answer) as url:
        ours = backend.KubernetesBackend(told(url), owner="ours", now=time.time)
        following = asyncio.ensure_future(_follow(ours))
        try:
            for _ in range(20):
                assert ["a1"] == [one.name for one in await ours.list()]
                await asyncio.sleep(0.05)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await ours.aclose()


async def test_a_log_is_limited_by_the_server_and_by_us() -> None:
    """Lines and bytes are asked for; a server that sends more is not read to its end."""
    queries: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/log"):
            return web.json_response(LIST)
        queries.append(dict(request.query))
        lines = "".join(f"line {n} \x1b[31m\u202e{'x' * 400}\n" for n in range(100_000))
        return web.Response(text=lines)

    async with serving(answer) as url:
        found = await CALLS["logs"](url)

    assert (queries[0]["tailLines"], queries[0]["limitBytes"]) == ("20", str(MIB // 4))
    lines = found.splitlines()
    assert 20 == len(lines)
    assert all(len(line) <= 256 for line in lines)
    assert "\x1b" not in found
    assert "\u202e" not in found


async def test_an_honest_packed_answer_is_read() -> None:
    """Identity is asked for; a proxy that packs all the same does no harm."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return web.Response(body=gzip.compress(json.dumps(LIST).encode()), headers=headers)

    async with serving(answer) as url:
        assert ["a1"] == [one.name for one in await CALLS["list"](url)]
