"""One odd pod costs that pod: whatever of it is odd, the others are seen, and it is not removed."""

import asyncio
import contextlib
import copy
import functools
import json
import logging
import math
import time
import unicodedata
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import hypothesis
import pytest
from aiohttp import web
from hypothesis import strategies as st

from backends import api
from backends.kubernetes import backend
from backends.kubernetes.api import client, decoding, errors, reflector
from backends.kubernetes.exec import channels, containers
from backends.kubernetes.pods import events, states
from backends.kubernetes.pods import pod as pods
from broker.core import model
from broker.core.decide import plan as plans
from broker.core.fleet import marks
from broker.core.model import BackendName, Phase
from broker.loop import observe
from tests import patience
from tests.core.worlds import OWNER, B, Scene, template
from tests.kubernetes import recorded, test_limits

Pod = dict[str, Any]
Change = Callable[[Pod], object]
HUGE = 10**400


@functools.cache
def _recorded() -> str:
    _, _, pod = recorded.events("pod-01")[4]
    return json.dumps(pod)


def good(name: str, number: int = 1) -> Pod:
    """A running pod of ours, as a real API server tells it."""
    pod: Pod = json.loads(_recorded())
    marked = marks.Marks(owner=OWNER, template="t", backend=B, revision="r1", created_at=1.0)
    pod["metadata"] |= {
        "name": name,
        "uid": f"uid-{name}-{number}",
        "labels": pods.owner_labels(OWNER),
        "annotations": {pods.NAME: name, pods.METADATA: json.dumps(marked.metadata(name))},
    }
    assert states.see(pod).instance.state is api.InstanceState.RUNNING
    return pod


def put(*path: Any, value: Any) -> Change:
    """Put a value somewhere into a pod."""

    def change(pod: Pod) -> None:
        inner: Any = pod
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


def ended(code: object, **more: object) -> Change:
    told = {"terminated": {"exitCode": code, "reason": "Error", **more}}
    return put("status", "containerStatuses", 0, "state", value=told)


def deep(levels: int = 100_000) -> Any:
    class Deep(int):
        """Written as it is by ``dumps`` below."""

    return Deep(levels)


# A readable name, and something odd where a conclusion would be drawn from it: shown as running.
NAMED: dict[str, Change] = {
    "status a number": put("status", value=7),
    "status a text": put("status", value="Running"),
    "status a list": put("status", value=[{"phase": "Failed"}]),
    "status a truth value": put("status", value=True),
    "spec a text": put("spec", value="Never"),
    "phase a number": put("status", "phase", value=4),
    "phase a section": put("status", "phase", value={"Failed": 1}),
    "phase a list": put("status", "phase", value=["Succeeded"]),
    "containerStatuses a number": put("status", "containerStatuses", value=3),
    "containerStatuses a text": put("status", "containerStatuses", value="terminated"),
    "containerStatuses a section": put("status", "containerStatuses", value={"jnlp": {}}),
    "containerStatuses of numbers": put("status", "containerStatuses", value=[1, 2]),
    "containerStatuses with null": put("status", "containerStatuses", value=[None]),
    "containerStatuses deep": put("status", "containerStatuses", value=deep()),
    "state a text": put("status", "containerStatuses", 0, "state", value="terminated"),
    "state a list": put("status", "containerStatuses", 0, "state", value=[{}]),
    "terminated a text": put(
        "status", "containerStatuses", 0, "state", value={"terminated": "yes"}
    ),
    "terminated a truth value": put(
        "status", "containerStatuses", 0, "state", value={"terminated": True}
    ),
    "exit code a text": ended("0"),
    "exit code null": ended(None),
    "exit code a truth value": ended(True),
    "exit code a list": ended([0]),
    "exit code not a number": ended(math.nan),
    "exit code infinite": ended(math.inf),
    "running and ended at once": put(
        "status",
        "containerStatuses",
        0,
        "state",
        value={"running": {}, "terminated": {"exitCode": 0}},
    ),
    "waiting and ended at once": put(
        "status",
        "containerStatuses",
        0,
        "state",
        value={"waiting": {"reason": "X"}, "terminated": {"exitCode": 1}},
    ),
    "container there twice": lambda pod: pod["status"].update(
        containerStatuses=[
            {"name": "jnlp", "state": {"terminated": {"exitCode": 0}}},
            {"name": "jnlp", "state": {"running": {}}},
        ]
    ),
    "initContainerStatuses a number": put("status", "initContainerStatuses", value=1),
    "conditions a text": put("status", "conditions", value="Ready"),
    "conditions of numbers": put("status", "conditions", value=[1.5]),
    "uid a number": put("metadata", "uid", value=12),
    "uid empty": put("metadata", "uid", value=""),
    "uid a path": put("metadata", "uid", value="../../secrets"),
    "uid missing": lambda pod: pod["metadata"].pop("uid"),
    "deletionTimestamp a number": put("metadata", "deletionTimestamp", value=1_700_000_000),
    "deletionTimestamp true": put("metadata", "deletionTimestamp", value=True),
    "deletionTimestamp empty": put("metadata", "deletionTimestamp", value=""),
    "deletionTimestamp a word": put("metadata", "deletionTimestamp", value="soon"),
    "deletionTimestamp a section": put("metadata", "deletionTimestamp", value={}),
    "deletionTimestamp in the year 0": put(
        "metadata", "deletionTimestamp", value="0000-01-01T00:00:00Z"
    ),
    "deletionTimestamp long": put("metadata", "deletionTimestamp", value="9" * 10_000),
}

# Odd, and nothing hangs on it: as if it were not there.
HARMLESS: dict[str, Change] = {
    "creationTimestamp a number": put("metadata", "creationTimestamp", value=HUGE),
    "creationTimestamp long ago": put("metadata", "creationTimestamp", value="0001-01-01T00:00"),
    "finalizers a text": put("metadata", "finalizers", value="hold"),
    "finalizers of numbers": put("metadata", "finalizers", value=[1, None]),
    "deletionTimestamp null": put("metadata", "deletionTimestamp", value=None),
    "resourceVersion a number": put("metadata", "resourceVersion", value=5),
    "grace a text": put("metadata", "deletionGracePeriodSeconds", value="x"),
    "started at a number": put(
        "status", "containerStatuses", 0, "state", value={"running": {"startedAt": HUGE}}
    ),
    "restarts huge": put("status", "containerStatuses", 0, "restartCount", value=HUGE),
    "digits without end": put("status", "observedGeneration", value=int("9" * 4000)),
    "an infinite number": put("status", "x", value=math.inf),
    "a name of a container that is none": put("spec", "initContainers", value=[{"name": 5}]),
    "times of conditions": put(
        "status", "conditions", value=[{"type": "Ready", "lastTransitionTime": 5}]
    ),
    "reason a section": put("status", "conditions", 0, "reason", value={"a": [HUGE]}),
    "half a surrogate pair": put("status", "message", value="\ud800\u202e\x1b[2J"),
    "deep beside": put("metadata", "managedFields", value=deep()),
    "spec null": put("spec", value=None),
    "labels of others": put("metadata", "labels", "x", value=[HUGE]),
    "annotations of others": put("metadata", "annotations", "x", value={"y": deep(500)}),
}

# Nobody can tell whose it is: the list is not whole.
WHOSE: dict[str, Change] = {
    "metadata a text": put("metadata", value="a1"),
    "metadata a list": put("metadata", value=[]),
    "metadata null": put("metadata", value=None),
    "metadata missing": lambda pod: pod.pop("metadata"),
    "name a number": put("metadata", "name", value=5),
    "name empty": put("metadata", "name", value=""),
    "name missing": lambda pod: pod["metadata"].pop("name"),
    "name a path": put("metadata", "name", value="../a1"),
    "name with a line end": put("metadata", "name", value="a1\nx"),
    "name long": put("metadata", "name", value="a" * 10_000),
    "labels a text": put("metadata", "labels", value="ours"),
    "labels a list": put("metadata", "labels", value=["ours"]),
    "owner label a number": put("metadata", "labels", "agent-broker/owner", value=1),
    "annotations a number": put("metadata", "annotations", value=1),
    "annotated name a number": put("metadata", "annotations", pods.NAME, value=1),
    "annotated name no name": put("metadata", "annotations", pods.NAME, value="a\nb"),
    "annotated metadata no JSON": put("metadata", "annotations", pods.METADATA, value="{"),
    "annotated metadata a list": put("metadata", "annotations", pods.METADATA, value="[]"),
    "annotated metadata deep": put("metadata", "annotations", pods.METADATA, value="[" * 99_999),
    "annotated metadata of numbers": put(
        "metadata", "annotations", pods.METADATA, value='{"owner": 1}'
    ),
    "annotated metadata missing": lambda pod: pod["metadata"]["annotations"].pop(pods.METADATA),
}


def dumps(told: Any) -> bytes:
    """Write JSON, with what Python cannot nest or write as a whole."""
    text = json.dumps(_flat(told))
    for levels in (500, 100_000):
        text = text.replace(f'"deep {levels}"', "[" * levels + "]" * levels)
    return text.replace('"long"', "9" * 5000).encode()


def _flat(value: Any) -> Any:
    if type(value).__name__ == "Deep":
        return f"deep {int(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**300:
        return "long"
    if isinstance(value, dict):
        return {key: _flat(inner) for key, inner in value.items()}
    return [_flat(inner) for inner in value] if isinstance(value, list) else value


def others(odd: Any) -> list[Any]:
    return [good("a0"), odd, good("a2")]


def odd_pod(change: Change) -> Pod:
    pod = good("a1")
    change(pod)
    return pod


@contextlib.asynccontextmanager
async def told(
    listed: Callable[[], list[Any]], *lines: bytes
) -> AsyncIterator[backend.KubernetesBackend]:
    """Give a backend on a server that lists these, and whose watches say these lines."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            kind = "PodList" if request.path.endswith("/pods") else "EventList"
            items = listed() if kind == "PodList" else [7, {"reason": HUGE}, None]
            meta = {"resourceVersion": "5"}
            body = dumps({"kind": kind, "metadata": meta, "items": items})
            return web.Response(body=body, content_type="application/json")
        stream = web.StreamResponse()
        await stream.prepare(request)
        for line in lines:
            await stream.write(line + b"\n")
        await asyncio.sleep(60)
        return stream

    async with test_limits.serving(answer) as url:
        ours = backend.KubernetesBackend(test_limits.told(url), owner=OWNER, now=time.time)
        try:
            yield ours
        finally:
            await ours.aclose()


async def seen(ours: backend.KubernetesBackend) -> model.BackendView:
    return await observe.read_backend(ours, now=time.time, time_limit_s=30)


def judged(view: model.BackendView, phase: Phase) -> model.Plan:
    """Plan with that view of the backend, beside nodes of all three in a phase."""
    scene = Scene(template("t"))
    age_s = 5.0 if phase is Phase.CONNECTING else 600.0
    names = [scene.agent("t", phase, idle_s=1, age_s=age_s) for _ in range(3)]
    called = dict(zip(names, ("a0", "a1", "a2"), strict=True))
    scene.computers = [attrs.evolve(c, name=called[c.name]) for c in scene.computers]
    scene.ledger = attrs.evolve(
        scene.ledger,
        memories={
            model.NodeName(called[n]): attrs.evolve(m, orphan_sightings=9, orphan_at=1.0)
            for n, m in scene.ledger.memories.items()
        },
    )
    world = attrs.evolve(scene.world(), backends={BackendName(B): view})
    return plans.plan(world, scene.policy)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "_ODD_S", 0.02)


@pytest.mark.parametrize("how", [*NAMED, *HARMLESS])
async def test_a_pod_with_a_name_is_neither_gone_nor_ended(how: str) -> None:
    """Whether listed or told by a watch; what cannot be read is said; the others are as ever."""
    pod = odd_pod({**NAMED, **HARMLESS}[how])
    async with told(lambda: others(pod)) as ours:
        check_named(how, await seen(ours))
    line = dumps({"type": "MODIFIED", "object": pod})
    async with told(lambda: others(good("a1")), line) as ours, followed(ours) as hints:
        async with patience.limit(20):
            while not hints:
                await asyncio.sleep(0.01)
        check_named(how, await seen(ours))


def check_named(how: str, view: model.BackendView) -> None:
    found = {one.name: one for one in view.instances}
    assert (view.synced, view.odd, set(found)) == (True, "", {"a0", "a1", "a2"})
    assert all(one.state is api.InstanceState.RUNNING for one in found.values())
    assert all(one.exit is None for one in found.values())
    assert found["a1"].detail.startswith("the pod cannot be read: ") == (how in NAMED)
    assert not any(ord(c) < 32 or c in "\ud800\u202e" for c in found["a1"].detail)
    assert ("", "") == (found["a0"].detail, found["a2"].detail)
    for phase in (Phase.IDLE, Phase.BUSY):
        assert () == judged(view, phase).actions


@pytest.mark.parametrize("how", WHOSE)
async def test_of_a_pod_without_a_name_nothing_is_concluded(how: str) -> None:
    """The list is partial: nobody is removed for not being in it."""
    pod = odd_pod(WHOSE[how])
    async with told(lambda: others(pod)) as ours:
        with pytest.raises(api.Partial) as raised:
            await ours.list()
        check_whose(await seen(ours))
    assert raised.value.odd
    assert "1 pod cannot be read: " in raised.value.reason


def check_whose(view: model.BackendView) -> None:
    assert view.synced
    assert view.odd
    assert {"a0", "a2"} == {one.name for one in view.instances}
    for phase in (Phase.IDLE, Phase.BUSY, Phase.CONNECTING):
        assert () == judged(view, phase).actions


LINES = {
    "no JSON": b"<html>",
    "half": b'{"type": "MODIFIED", "object": ',
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "no type": b'{"object": {}}',
    "type a number": b'{"type": 5, "object": {}}',
    "no object": b'{"type": "MODIFIED"}',
    "object a text": b'{"type": "MODIFIED", "object": "a1"}',
    "object empty": b'{"type": "MODIFIED", "object": {}}',
    "error a text": b'{"type": "ERROR", "object": "too old"}',
    "error of a huge code": b'{"type": "ERROR", "object": {"code": 1' + b"0" * 400 + b"}}",
    "error of a true code": b'{"type": "ERROR", "object": {"code": true, "message": 5}}',
    "deep": b'{"type": "MODIFIED", "object": ' + b"[" * 99_999,
    "digits": b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": '
    + b"9" * 5000
    + b"}}}",
    "an odd version": b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "5&a=b"}}}',
    "deleted without a name": b'{"type": "DELETED", "object": {"metadata": {"uid": "u"}}}',
    "an unknown type": b'{"type": "RENAMED", "object": {"metadata": {"name": "a1"}}}',
    **{
        f"{kind} {how}": dumps({"type": kind, "object": odd_pod(WHOSE[how])})
        for how in ("metadata a text", "labels a list", "name a number")
        for kind in ("ADDED", "MODIFIED", "DELETED")
    },
    "DELETED with an odd uid": dumps(
        {"type": "DELETED", "object": odd_pod(NAMED["uid a number"])}
    ),
}


@pytest.mark.parametrize("how", LINES)
async def test_an_odd_event_makes_us_list_anew(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The picture stays true, and it is said."""
    async with told(lambda: others(good("a1")), LINES[how]) as ours, followed(ours):
        for _ in range(10):
            view = await seen(ours)
            assert (view.synced, view.odd, len(view.instances)) == (True, "", 3)
            assert all(one.state is api.InstanceState.RUNNING for one in view.instances)
            await asyncio.sleep(0.01)
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) <= 1
    assert all(r.exc_info is None for r in said)


@contextlib.asynccontextmanager
async def followed(ours: backend.KubernetesBackend) -> AsyncIterator[list[None]]:
    """Watch as the broker does: opened again when it ends."""
    hints: list[None] = []

    async def follow() -> None:
        while True:
            with contextlib.suppress(api.BackendError):
                async for _ in ours.watch():
                    hints.append(None)
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(follow())
    try:
        async with patience.limit(20):
            while ours._reflector is None:
                await asyncio.sleep(0.005)
        yield hints
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_odd_and_is_mended_counts_again() -> None:
    """The doubt goes with the next list, and removals go on."""
    listed = others(odd_pod(WHOSE["metadata a text"]))
    async with told(lambda: listed) as ours, followed(ours):
        assert (await seen(ours)).odd
        listed[1] = good("a1")
        view = await seen(ours)
    assert ("", 3) == (view.odd, len(view.instances))


async def test_a_pod_that_is_listed_twice_has_not_ended() -> None:
    """Which of the two it is nobody knows."""
    dead = good("a1", 2)
    dead["status"]["phase"] = "Failed"
    for pair in ([good("a1"), dead], [dead, good("a1")]):
        async with told(lambda pair=pair: [good("a0"), good("a2"), *pair]) as ours:
            view = await seen(ours)
        found = {one.name: one for one in view.instances}
        assert (3, 3) == (len(found), len(view.instances))
        assert found["a1"].state is api.InstanceState.RUNNING
        assert "listed twice" in found["a1"].detail


async def test_a_copy_of_a_pod_is_not_that_agent() -> None:
    """Somebody who copies a pod with its annotations does not end the agent with its copy."""
    copied = good("a1", 2)
    copied["metadata"]["name"] = "a1-debug"
    copied["status"]["phase"] = "Failed"
    async with told(lambda: [good("a0"), good("a1"), good("a2"), copied]) as ours:
        view = await seen(ours)
    assert ["a0", "a1", "a2"] == [one.name for one in view.instances]
    assert all(one.state is api.InstanceState.RUNNING for one in view.instances)


async def test_a_bug_of_ours_does_not_end_the_following(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback, the pods are listed anew, and the picture is kept again."""
    bugs = [ZeroDivisionError("ours")]
    apply = reflector.Reflector._apply

    def buggy(self: reflector.Reflector, event: client.WatchEvent) -> str | None:
        if bugs:
            raise bugs.pop()
        return apply(self, event)

    monkeypatch.setattr(reflector.Reflector, "_apply", buggy)
    line = dumps({"type": "MODIFIED", "object": good("a1")})
    async with told(lambda: others(good("a1")), line) as ours, followed(ours):
        async with patience.limit(20):
            while bugs or ours._reflector is None or not ours._reflector.live:
                assert 3 == len(await ours.list())
                await asyncio.sleep(0.01)
    (said,) = [r for r in caplog.records if r.exc_info]
    assert "bug" in said.getMessage()


# --- the fuzz ----------------------------------------------------------------------------------

_ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(HUGE), st.just(-HUGE), st.floats(), st.text(),
    st.sampled_from(["Failed", "Succeeded", "True", "2026-11-23T23:51:34Z", "jnlp", "\ud800", "x" * 5000]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip
_LIVES = recorded.names("pod-")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    for key, one in inner:
        if isinstance(one, dict | list):
            found += _places(one, (*path, key))
        else:
            found.append((*path, key))
    return found


@st.composite
def _mutated(draw: st.DrawFn) -> tuple[Pod, Pod]:
    """A recorded pod of ours, and the same with something changed or taken away."""
    _, _, told = draw(st.sampled_from(recorded.events(draw(st.sampled_from(_LIVES)))))
    pod = copy.deepcopy(told)
    pod["metadata"] |= {
        key: good("a1")["metadata"][key] for key in ("name", "labels", "annotations")
    }
    changed = copy.deepcopy(pod)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(changed)
        if not places:
            break
        path = draw(st.sampled_from(places))
        inner: Any = changed
        for key in path[:-1]:
            inner = inner[key]
        if draw(st.booleans()) or isinstance(inner, list):
            inner[path[-1]] = draw(_ODD)
        else:
            del inner[path[-1]]
    return pod, changed


def fit(words: str) -> bool:
    """Whether a text is short, one line, and steers no terminal."""
    bad = {"Cc", "Cs", "Zl", "Zp"}
    turns = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
    return len(words) <= 256 and not any(
        unicodedata.category(c) in bad or c in turns for c in words
    )


class _Script:
    """A client that lists what it was given."""

    def __init__(self, *found: Any) -> None:
        self.found = list(found)

    async def list_pods(self, selector: str) -> AsyncIterator[client.Page]:
        yield client.Page(pods=self.found, version="1")


@hypothesis.given(_mutated())
def test_no_change_of_a_recorded_pod_harms_the_others(pair: tuple[Pod, Pod]) -> None:
    """Only our own errors leave a parser, and only where nobody can tell whose the pod is."""
    _, changed = pair
    kept = reflector.Reflector(
        _Script(*others(changed)),  # type: ignore[arg-type]  # a client in what is used of it
        owner=OWNER,
        selector="",
        now=lambda: 1e9,
    )
    picture = asyncio.run(kept.look())
    found = {one.name: one for one in picture.pods}

    assert {"a0", "a2"} <= set(found)
    assert found["a0"].instance == states.see(good("a0")).instance
    for one in found.values():
        for now in (0.0, 1e9, 4e9):
            instance = one.at(now, patience_s=30)
            assert instance.exit is not None or instance.state is not api.InstanceState.EXITED
            said = [instance.detail, instance.exit.message if instance.exit is not None else ""]
            assert all(fit(words) for words in said), said
        assert one.departed(1.0).exit is not None
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        with contextlib.suppress(errors.OddAnswer):
            kept._apply(client.WatchEvent(kind=kind, object=changed))
    containers.obstacle(changed, "side")


@hypothesis.given(
    st.recursive(_ODD, lambda i: st.lists(i, max_size=3) | st.dictionaries(
        st.sampled_from("message reason details causes kind retryAfterSeconds status code count "
                        "series lastObservedTime lastTimestamp type".split()), i, max_size=5)),
    st.sampled_from([400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 307]),
)  # fmt: skip
def test_refusals_events_and_ends_of_any_kind_are_read(body: Any, status: int) -> None:
    """Causes of numbers and the like: an error of the contract, in bounded and printable words."""
    answer = errors.ErrorAnswer(status=status, body=body, headers={"Retry-After": str(body)})
    error = errors.mapped("create", "pods", answer)
    assert isinstance(error, api.BackendError)
    assert fit(error.reason)
    assert error.retry_after is None or 0 <= error.retry_after <= 120
    verdict = events.judge([body] if isinstance(body, dict) else [])
    assert verdict is None or len(verdict.words) <= 256
    ended_ = channels.status(json.dumps(_flat(body)).encode())
    assert ended_.code is None or 0 <= ended_.code <= 255


@hypothesis.given(
    st.binary(max_size=200) | st.text(alphabet='[]{}",:\\9a', max_size=300).map(str.encode)
)
def test_the_decoder_raises_nothing_but_value_errors(raw: bytes) -> None:
    """And where Python reads it, it reads the same."""
    try:
        mine = decoding.loads(raw)
    except ValueError:
        with pytest.raises(ValueError):
            json.loads(raw.decode())
    else:
        assert repr(mine) == repr(json.loads(raw.decode("utf-8", "replace")))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * (8 << 20),
        b'{"a":' * (1 << 20),
        b'["' + b'\\"' * (4 << 20),
        b'"' + b"\\" * (8 << 20),
        b"[" * 70_000 + b"]" * 70_000 + b'"' * (1 << 20),
    ],
    ids=["brackets", "sections", "escapes", "backslashes", "quotes"],
)
def test_the_decoder_is_linear(raw: bytes) -> None:
    """The largest answer of the worst kind takes a moment, once."""
    began = time.process_time()
    with contextlib.suppress(ValueError):
        decoding.loads(raw)
    assert time.process_time() - began < 80 * patience.fifty_ms()


# --- no text is dear ---------------------------------------------------------------------------

_64K = 1 << 16
WORST = [
    "exceeded quota: " * 4096,
    'User "' * 10_000,
    'User "a" cannot ' * 4096,
    'User "a" cannot b resource "c" in API group "' * 1500,
    "Insufficient " * 5000,
    "Insufficient " + "." * _64K,
    "executable file not foun" * 2700,
    "a" * _64K,
    " " * _64K,
    "\x1b\u202e" * (_64K // 2),
    "[" * _64K,
    '{"a":' * (_64K // 5),
    "0" * _64K,
    "AAAA" * (_64K // 4),
    "a=a " * (_64K // 4),
]


@pytest.mark.parametrize("number", range(len(WORST)))
def test_no_text_of_a_server_is_dear(number: int) -> None:
    """Each reader takes the worst 64 KB in a moment: it is cut first, and patterns are linear."""
    words = WORST[number]
    pod = good("a1")
    pod["status"] |= {"message": words, "reason": words, "phase": words}
    state = {"waiting": {"reason": words, "message": words}}
    pod["status"]["containerStatuses"][0]["state"] = state
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": words, "message": words}
    ]
    pod["metadata"]["finalizers"] = [words] * 5
    marks_ = copy.deepcopy(pod)
    marks_["metadata"]["annotations"] |= {pods.NAME: words, pods.METADATA: words}
    readers: list[Callable[[], object]] = [
        lambda: states.see(pod),
        lambda: _odd_or(lambda: states.is_ours(marks_, OWNER)),
        lambda: containers.obstacle(pod, "jnlp2"),
        lambda: channels.status(json.dumps({"status": "Failure", "message": words}).encode()),
        lambda: events.judge([{"reason": "FailedMount", "message": words, "count": 9}]),
        *(
            lambda status=status: errors.mapped(
                "create", "pods", errors.ErrorAnswer(status=status, body={"message": words})
            )
            for status in (403, 409, 422, 500)
        ),
        lambda: _odd_or(lambda: decoding.loads(words.encode())),
    ]
    for read in readers:
        shares = (_seconds(read) / patience.fifty_ms() for _ in range(3))
        assert any(share < 1 for share in shares), (number, read)


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _odd_or(work: Callable[[], object]) -> object:
    try:
        return work()
    except (errors.OddAnswer, ValueError) as error:
        return error
