"""What a pod's status means: the total table from pods to instances and their ends.

Pure; ``now`` is an argument. Made and tested against recordings of a real kubelet, which taught:

* the agent's container may be dead while a side container keeps the phase at Running: nothing ends
  by itself, so the agent's end is the instance's end;
* for about a second all containers are dead and the phase still says Running;
* a container may be ``OOMKilled`` with exit code 0 and the phase ``Succeeded``: the reason counts;
* image errors alternate between two reasons and leave the phase at Pending: time decides;
* a pod that is being deleted says ``Failed`` and ``ContainerStatusUnknown`` of containers that
  never ran: with a deletion time stamp nothing else counts.

A pod is read once for each of its versions (``see``); a look adds only what depends on the time.
What a pod says may be of any type: one that cannot be read is shown as running, with the reason,
for as long as it can be told whose it is; nothing is concluded from it. All words are cut and
cleaned here. Refuses to know HTTP, watches and what follows from a state; the reasons are in
``table``.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from backends import api
from backends.kit import names, runtime
from backends.kubernetes.api import decoding, errors
from backends.kubernetes.pods import pod as pods
from backends.kubernetes.pods import quantities, shared, table
from outside import addresses, counts, text, typed

Pod = Mapping[str, Any]

_WORDS = 256
_MANY = 1000
_PORTS_MAX = 64
_WORD = 64  # characters of a reason, a name
_BYTES_MAX = 1 << 62
_LONG = 8192  # of a message that are looked at: more than are shown
_POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_ID = re.compile(r"[\w.:-]{1,128}")  # a uid, a version
_CODE = 1 << 31
_LATE_S = 15.0  # a kubelet needs 2 to 3 s beyond the grace to report the end
_CHOSEN = "its node was chosen"
_SILENT_S = 15.0  # a kubelet says that it makes a pod within a second or two
_GRACE_S = 86_400.0 * 7
_LACKS = re.compile(r"Insufficient ([\w./-]*\w)|Too many (pods)")
_SIGNALS = 64
_STATES = ("waiting", "running", "terminated")
_SIGNALLED = 128  # exit codes above it are 128 and the number of the signal


def is_ours(pod: Any, owner: str) -> bool:
    """Tell whether a pod carries all marks of an owner.

    Raises ``errors.OddAnswer`` for one of which nobody can tell: it may be ours.
    """
    metadata = _section(pod, "metadata", "a pod")
    name = metadata.get("name")
    if not isinstance(name, str) or not _POD_NAME.fullmatch(name):
        raise errors.OddAnswer("a pod without a readable name")
    labels, annotations = (
        _section(metadata, key, f"pod {name}") if metadata.get(key) is not None else {}
        for key in ("labels", "annotations")
    )
    marks = pods.owner_labels(owner)
    strange = [key for key in marks if not isinstance(labels.get(key, ""), str)]
    if strange:
        raise errors.OddAnswer(f"pod {name}: its label {strange[0]} is not a text")
    if not marks.items() <= labels.items() or pods.NAME not in annotations:
        return False
    called = annotations[pods.NAME]
    if not isinstance(called, str) or names.name_problem(called) is not None:
        raise errors.OddAnswer(f"pod {name}: its annotation {pods.NAME} is not a name")
    if not _metadata(pod):
        raise errors.OddAnswer(f"pod {name}: its annotation {pods.METADATA} cannot be read")
    return pods.pod_name(called) == name  # else somebody's copy of one of ours


def _section(value: Any, key: str, whose: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping):
        raise errors.OddAnswer(f"{whose}: its {key} {typed_as(inner)}")
    return inner


def typed_as(value: Any) -> str:
    """Say what stands where something else ought to."""
    return "is not there" if value is None else f"is a {type(value).__name__}"


@frozen(kw_only=True)
class PodSighting:
    """All that is kept of one version of a pod of ours."""

    pod: str  # its name
    uid: str
    version: str
    speaker: str  # the container whose output tells most
    instance: api.Instance
    since: float | None  # when it last came a step forward, by the cluster's clock
    seen_at: float | None = None  # when we first saw it as far as that, by ours
    stuck: table.PodObstacle | None = None  # why it does not, as far as its status tells
    waits_beside: bool = False  # the agent's own container runs, and it waits for another one
    mute: bool = False  # it does not run yet, and its status does not tell why
    gone: api.Exit  # why, if it is gone with this as its last sight
    end: api.Exit | None = None  # how it had ended before it was deleted
    due_at: float | None = None  # when it should be gone, if it is being deleted and not held
    odd: str = ""  # why it cannot be read
    memory_limit: int | None = None  # of all its containers together, if each has one; bytes
    guards: tuple[str, ...] = ()  # annotations against eviction that are ours to set and remove
    guarded: tuple[str, ...] = ()  # those of them that are there
    shared: str = ""  # the name of the files of ours that it mounts, if it does

    @property
    def name(self) -> str:
        """The name of the instance that the pod is."""
        return self.instance.name

    def at(
        self, now: float, *, patience_s: float, told: table.PodObstacle | None = None
    ) -> api.Instance:
        """Return what a listing shows.

        ``patience_s``: how long a pod may be stuck before it is given up. ``told``: what the
        cluster's events say, which counts where the status says nothing.
        """
        why = self.stuck or (told if self.mute else None)
        silent_s = self.waited_s(now)
        if why is None and self.instance.detail == _CHOSEN and silent_s > _SILENT_S:
            detail = (
                f"its node {self.instance.place} was chosen {silent_s:.0f} s ago, and has not "
                "said anything of it since: does its kubelet run?"
            )
            return attrs.evolve(self.instance, detail=detail[:_WORDS])
        if why is None:
            if self.due_at is None or now <= self.due_at + _LATE_S:
                return self.instance
            late = "its node does not say that it has ended"
            if self.instance.spent:
                late = "it has ended, and nobody removes it"
            return attrs.evolve(self.instance, detail=f"{self.instance.detail}; {late}"[:_WORDS])
        patience_s = 0.0 if why.slug == "interrupted" else patience_s
        if why.slug is not None and self.waited_s(now) >= patience_s:
            end = api.Exit(slug=why.slug, message=why.words)
            if self.waits_beside:
                return attrs.evolve(
                    self.instance, state=api.InstanceState.RUNNING, detail=why.words, flaw=end
                )
            return attrs.evolve(self.instance, state=api.InstanceState.EXITED, detail="", exit=end)
        return attrs.evolve(self.instance, detail=why.words, fetching=why.fetching)

    def waited_s(self, now: float) -> float:
        """Return for how long it has not come a step forward, as far as we have seen.

        By our clock alone, where we have seen it ourselves: the cluster's may be ten minutes ahead
        or behind.
        """
        since = self.since if self.seen_at is None else self.seen_at
        return 0.0 if since is None else now - since

    def after(self, before: "PodSighting | None") -> "PodSighting":
        """Return the same with what an earlier version told: an end before a deletion counts."""
        if before is None or before.uid != self.uid:
            return self
        end = before.end or before.instance.exit
        instance = self.instance
        if end is not None and instance.state is api.InstanceState.STOPPING:
            instance = attrs.evolve(instance, exit=end)
        return attrs.evolve(self, end=end, instance=instance)

    def departed(self, at: float) -> api.Instance:
        """Return the death certificate of a pod that somebody else deleted."""
        return attrs.evolve(
            self.instance,
            state=api.InstanceState.EXITED,
            detail="",
            exit=attrs.evolve(self.end or self.gone, at=at),
        )


def see(pod: Pod) -> PodSighting:
    """Read a pod of ours (``is_ours``); never raises, whatever the pod says."""
    try:
        problem = next(_problems(pod), "")
        if not problem:
            return _see(pod)
    except Exception as error:  # noqa: BLE001 -- the pod is theirs, the picture is ours
        problem = text.clean(typed.odd_words(error), 120)
    return unreadable(pod, problem)


def _see(pod: Pod) -> PodSighting:
    metadata = part(pod, "metadata")
    state, detail, end = _judged(pod)
    stopping = state is api.InstanceState.STOPPING
    due_at = _time(metadata.get("deletionTimestamp"))
    grace_s = typed.number(metadata.get("deletionGracePeriodSeconds"), 0.0, _GRACE_S) or 0.0
    instance = api.Instance(
        name=_called(metadata),
        state=state,
        metadata=_metadata(pod),
        created_at=_time(metadata.get("creationTimestamp")),
        exit=end,
        detail=detail[:_WORDS],
        leaving_at=due_at - grace_s if stopping and due_at is not None else None,
        spent=stopping and _is_spent(pod),
        ends_because=_announced(pod),
        ends_at=due_at if stopping else None,
        mishap=_mishap(pod),
        flaw=_flaw(pod) if state is api.InstanceState.RUNNING else None,
        place=_node(pod),
        ports=_ports(pod) if state is api.InstanceState.RUNNING else (),
        host=_host_address(pod),
    )
    starting = state is api.InstanceState.STARTING
    stuck = _stuck(pod) if starting else None
    steps = [instance.created_at, _last_change(pod)]
    failed = _failed_inits(pod)
    annotations = part(metadata, "annotations")
    ours = typed.words(annotations.get(pods.GUARDED), _WORDS).split()
    guards = tuple(key for key in pods.GUARDS if key in ours)
    return PodSighting(
        pod=_name(metadata),
        uid=str(metadata["uid"]),
        version=typed.words(metadata.get("resourceVersion"), _WORD),
        speaker=_name(failed[0]) if failed else agent_container(pod),
        instance=instance,
        since=max((at for at in steps if at is not None), default=None),
        stuck=stuck,
        waits_beside=starting and bool(part(_agent(pod), "state", "running")),
        mute=starting and stuck is None and _mute(pod),
        gone=_gone(pod),
        guards=guards,
        guarded=tuple(key for key in guards if annotations.get(key) == pods.GUARDS[key]),
        due_at=due_at if stopping and not _holders(pod) else None,
        memory_limit=_memory_limit(pod),
        shared=_shared(pod),
    )


def _shared(pod: Pod) -> str:
    found = (v for v in entries(part(pod, "spec"), "volumes") if v.get("name") == shared.VOLUME)
    return next((_name(part(volume, "configMap")) for volume in found), "")


def _memory_limit(pod: Pod) -> int | None:
    limits = [
        quantities.amount(part(one, "resources", "limits").get("memory"))
        for one in entries(part(pod, "spec"), "containers")
    ]
    told = [limit for limit in limits if limit is not None]
    return int(min(sum(told), _BYTES_MAX)) if told and len(told) == len(limits) else None


def unreadable(pod: Pod, problem: str) -> PodSighting:
    """Return a pod of ours of which nothing more is known: neither ended nor gone."""
    metadata = part(pod, "metadata")
    detail = text.clean(f"the pod cannot be read: {problem}", _WORDS)
    return PodSighting(
        pod=_name(metadata),
        uid=typed.words(metadata.get("uid"), 128),
        version=typed.words(metadata.get("resourceVersion"), _WORD),
        speaker=agent_container(pod),
        instance=api.Instance(
            name=_called(metadata),
            state=api.InstanceState.RUNNING,
            metadata=_metadata(pod),
            created_at=_time(metadata.get("creationTimestamp")),
            detail=detail,
            place=_node(pod),
        ),
        since=None,
        gone=api.Exit(slug="unknown", message="the pod is gone; it could not be read before"),
        odd=problem,
    )


def _problems(pod: Pod) -> Iterator[str]:
    """Yield what of a pod is odd where a conclusion would be drawn from it."""
    metadata, status = part(pod, "metadata"), pod.get("status")
    uid, deleted = metadata.get("uid"), metadata.get("deletionTimestamp")
    if not isinstance(uid, str) or not _ID.fullmatch(uid):
        yield "its uid is not a uid"
    if deleted is not None and _time(deleted) is None:
        yield "its deletionTimestamp is not a time"
    for value, key in ((status, "status"), (pod.get("spec"), "spec")):
        if value is not None and not isinstance(value, Mapping):
            yield f"its {key} {typed_as(value)}"
    if not isinstance(status, Mapping):
        return
    phase = status.get("phase")
    if phase is not None and not isinstance(phase, str):
        yield f"its phase {typed_as(phase)}"
    for key in ("containerStatuses", "initContainerStatuses", "conditions"):
        yield from (f"its {key}{found}" for found in _odd_entries(status.get(key)))
    called = [_name(c) for c in entries(status, "containerStatuses")]
    twice = [name for at, name in enumerate(called[:_MANY]) if name in called[:at]]
    yield from (f"its container {name} is there twice" for name in twice)


def _odd_entries(listed: Any) -> Iterator[str]:
    if listed is not None and not isinstance(listed, list):
        yield f" {typed_as(listed)}"
    for number, entry in enumerate(listed if isinstance(listed, list) else ()):
        state = entry.get("state") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping):
            yield f"[{number}] {typed_as(entry)}"
        elif state is not None and not isinstance(state, Mapping):
            yield f"[{number}].state {typed_as(state)}"
        for kind, detail in state.items() if isinstance(state, Mapping) else ():
            where = f"[{number}].state.{text.clean(str(kind), _WORD)}"
            if detail is not None and not isinstance(detail, Mapping):
                yield f"{where} {typed_as(detail)}"
            elif kind == "terminated" and detail is not None and _no_code(detail):
                yield f"{where}.exitCode is not a number"
        if isinstance(state, Mapping) and sum(state.get(kind) is not None for kind in _STATES) > 1:
            yield f"[{number}].state is several at once"


def _no_code(ended: Pod) -> bool:
    return _whole(ended.get("exitCode")) is None


def agent_container(pod: Pod) -> str:
    """Return the name of the container that a pod's agent runs in."""
    told = part(pod, "metadata", "annotations").get(pods.AGENT_CONTAINER)
    return text.clean(typed.words(told, _WORD), _WORD) or pods.AGENT


def deleting(pod: Pod) -> bool:
    """Tell whether a pod is on its way out."""
    return part(pod, "metadata").get("deletionTimestamp") is not None


def _is_spent(pod: Pod) -> bool:
    """Tell whether nothing of a pod runs any more, or ever did."""
    if part(pod, "status").get("phase") in {"Succeeded", "Failed"}:
        return True
    if not part(pod, "spec").get("nodeName"):
        return True
    every = [*_containers(pod), *_all_inits(pod)]
    return bool(every) and all(_terminated(c) for c in every)


# --- the order in which things are looked at ---------------------------------------------------

_EMPTY = "the runtime of inject is not in its volume (does the cluster mount images?): "
_FIRST = f'"{runtime.TOOLS}/sh": '
"""What such an agent begins with, where a container's program is told to be missing."""
_NOWHERE = 'failed to mkdir ""'
"""Of containerd below 2.1, which is given an image where it knows paths of its host alone."""
_Judged = tuple[api.InstanceState, str, api.Exit | None]


def _judged(pod: Pod) -> _Judged:
    phase = word(part(pod, "status"), "phase")
    if deleting(pod):
        why = _disruption(pod)
        said = f"{why.text} (node {_node(pod)})" if why is not None and _node(pod) else ""
        words_of = said or (why.text if why is not None else "")
        end = api.Exit(slug=why.slug, message=words_of) if why is not None else None
        return api.InstanceState.STOPPING, _why_deleted(pod), end
    restarts = part(pod, "spec").get("restartPolicy", "Always") != "Never"
    ended = _terminated(_agent(pod))
    over = not restarts and (ended or any(_failed_inits(pod)))
    if over or phase in {"Succeeded", "Failed"}:
        return api.InstanceState.EXITED, "", _end(pod)
    if part(_agent(pod), "state", "running"):
        waits = _waits_beside(pod)
        if waits:
            return api.InstanceState.STARTING, waits, None
        return api.InstanceState.RUNNING, _trouble(pod), None
    if phase == "Unknown":
        return api.InstanceState.RUNNING, "its node does not answer", None
    stuck = _stuck(pod)
    again = "ended and is started again" if ended else ""
    return api.InstanceState.STARTING, stuck.words if stuck else again or _not_yet(pod), None


def _end(pod: Pod) -> api.Exit:
    """Return how a pod ended that is not being deleted."""
    status, agent = part(pod, "status"), _agent(pod)
    at = _time(_terminated(agent).get("finishedAt")) or _last_change(pod)
    reason, said = word(status, "reason"), words(status, "message")
    told = table.find(table.StatusPart.POD, reason) or _disruption(pod)
    if told is not None:
        message = f"{told.text}: {said}" if said else told.text
        return api.Exit(slug=told.slug, message=message[:_WORDS], at=at)
    if reason:  # a node that would not take it: OutOfcpu, NodeAffinity and the like
        message = f"refused by its node: {reason}: {said}"
        return api.Exit(slug="evicted", message=message[:_WORDS], at=at)
    ends = [_of_container(pod, c, at) for c in (*_failed_inits(pod), agent)]
    beside = [_of_container(pod, c, at) for c in _others(pod)]
    known = [end for end in ends if end is not None]
    memory = [e for e in (*ends, *beside) if e is not None and e.slug == "out-of-memory"]
    unknown = api.Exit(slug="unknown", message="Kubernetes does not say why it ended", at=at)
    return next(iter((*memory, *known, unknown)))


def _gone(pod: Pod) -> api.Exit:
    """Return why a pod is gone, if this was the last that was seen of it."""
    why = _disruption(pod)
    if why is not None:
        return api.Exit(slug=why.slug, message=why.text)
    if deleting(pod):
        return api.Exit(slug="killed", message="the pod was deleted by somebody else")
    return api.Exit(
        slug="unknown", message="the pod is gone, or its owner marks are; nobody saw why"
    )


def _of_container(pod: Pod, container: Pod, at: float | None) -> api.Exit | None:
    """Return how one container ended, or None while it has not."""
    return _of_ended(pod, container, _terminated(container), at)


def _of_ended(pod: Pod, container: Pod, ended: Pod, at: float | None) -> api.Exit | None:
    if not ended:
        return None
    name, code = _name(container), _whole(ended.get("exitCode"))
    said = words(ended, "message")
    is_agent = name == agent_container(pod)
    whose = _EMPTY if is_agent and _FIRST in said else _whose(pod, name)
    row = table.find(table.StatusPart.TERMINATED, word(ended, "reason"))
    number = _whole(ended.get("signal")) or (0 if code is None else code - _SIGNALLED)
    if row is not None:
        slug, what = row.slug, row.text
        if slug == "out-of-memory" and code == 0:
            what += " (a child process; the container itself ended with 0)"
    elif 0 < number <= _SIGNALS:
        slug, what = "killed", f"killed by signal {number}"
    else:
        slug, what = "exited", f"ended with {code}"
    if 0 < number <= _SIGNALS and slug in {"killed", "out-of-memory"}:
        code = -number
    message = f"{whose}{what}: {said}" if said else f"{whose}{what}"
    return api.Exit(
        slug=slug, code=code, message=message[:_WORDS], at=_time(ended.get("finishedAt")) or at
    )


# --- words for what goes on --------------------------------------------------------------------


def _stuck(pod: Pod) -> table.PodObstacle | None:
    """Judge the first container that waits for a reason in the table."""
    for container in (_agent(pod), *_inits(pod), *_others(pod)):
        waiting = part(container, "state", "waiting")
        row = table.find(table.StatusPart.WAITING, word(waiting, "reason"))
        if row is not None:
            message = words(waiting, "message")
            whose = _whose(pod, _name(container)) or _of_mounted(pod, row, message)
            said = f"{whose}{row.text} ({row.reason}): {message}"
            fetching = row.slug == "image"
            return table.PodObstacle(slug=row.slug, words=said[:_WORDS], fetching=fetching)
    return None


def _whose(pod: Pod, name: str) -> str:
    """Return how words about a container begin."""
    if name == agent_container(pod):
        return ""
    if name == pods.RUNTIME:
        return f"the runtime of inject (container {name}): "
    return f"container {name}: "


def _of_mounted(pod: Pod, row: table.StatusRow, message: str) -> str:
    """Return how words begin about the agent's container, if it is the mounted runtime's matter.

    The kubelet tells of its image as if it were the container's; a runtime of containers that
    knows no image volumes fails when it makes the container.
    """
    volumes = entries(part(pod, "spec"), "volumes")
    named = next((one for one in volumes if one.get("name") == pods.RUNTIME), {})
    reference = typed.words(part(named, "image").get("reference"), _WORDS)
    if reference and row.slug == "image" and reference in message:
        return f"the runtime of inject (volume {pods.RUNTIME}): "
    if reference and _NOWHERE in message:
        return f"the runtime of inject (volume {pods.RUNTIME}): its node mounts no images: "
    return ""


def _mute(pod: Pod) -> bool:
    """Tell whether only the cluster's events can say more about a pod that is not stuck."""
    gated = _condition(pod, "PodScheduled").get("reason") == "SchedulingGated"
    inits = any(part(c, "state", "running") for c in _inits(pod))
    return not (gated or inits or _terminated(_agent(pod)))


def _not_yet(pod: Pod) -> str:
    """Return why a pod does not run yet, in the platform's words."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        reason, said = word(scheduled, "reason"), words(scheduled, "message")
        known = {"Unschedulable": "no node fits", "SchedulingGated": "held back by a gate"}
        lacks = ", ".join(sorted({one or more for one, more in _LACKS.findall(said)}))
        what = f"{known.get(reason, reason)}{f', for want of {lacks}' if lacks else ''}"
        return f"{what}: {said}"
    for container in (*_inits(pod), _agent(pod)):
        if part(container, "state", "running") and _name(container) != agent_container(pod):
            return f"container {_name(container)} runs first"
    reasons = [word(part(c, "state", "waiting"), "reason") for c in _containers(pod)]
    first = next((reason for reason in reasons if reason), "")
    if first:
        return f"being made: {first}"
    if part(pod, "spec").get("nodeName"):
        return _CHOSEN
    phase = word(part(pod, "status"), "phase")
    return "waits for a node" if phase in {"", "Pending"} else f"phase {phase}"


def _trouble(pod: Pod) -> str:
    """Return what is wrong with a pod whose agent runs, or nothing."""
    why = _disruption(pod)
    if why is not None:
        return why.text
    for container in _others(pod):
        ended = _of_container(pod, container, None)
        if ended is not None and (ended.slug != "exited" or ended.code):
            return ended.message
    stuck = _stuck(pod)
    if stuck is not None:
        return stuck.words
    ready = _condition(pod, "Ready")
    everything = all(part(c, "state", "running") for c in (_agent(pod), *_others(pod)))
    if ready.get("status") == "False" and not ready.get("reason") and everything:
        return "its node does not answer"
    return ""


def _needs_all(pod: Pod) -> bool:
    """Tell whether the agent counts only while all containers run."""
    return pods.AGENT_ALONE not in part(pod, "metadata", "annotations")


def _waits_beside(pod: Pod) -> str:
    """Return what a pod waits for whose agent runs before its side containers do."""
    for container in _others(pod) if _needs_all(pod) else ():
        state = part(container, "state")
        if "running" in state or "terminated" in state:
            continue
        stuck = _stuck(pod)
        if stuck is not None:
            return stuck.words
        reason = word(part(state, "waiting"), "reason")
        return f"container {_name(container)} is being made{f': {reason}' if reason else ''}"
    return ""


def _flaw(pod: Pod) -> api.Exit | None:
    """Return how a side container ended that is not started again."""
    again = part(pod, "spec").get("restartPolicy", "Always") != "Never"
    if again or not _needs_all(pod):
        return None
    native = _native(pod)
    ends = (_of_container(pod, c, None) for c in _others(pod) if _name(c) not in native)
    return next((end for end in ends if end is not None), None)


def _mishap(pod: Pod) -> api.Mishap | None:
    """Return that a container was killed for memory and started again.

    Of a process beside a container's first one the API tells only when the container ends.
    """
    for container in (_agent(pod), *_others(pod)):
        end = _of_ended(pod, container, part(container, "lastState", "terminated"), None)
        if end is not None and end.slug == "out-of-memory":
            name = text.clean(_name(container), _WORD)
            return api.Mishap(
                slug="out-of-memory",
                text=f"container {name} was killed for memory, and started again",
                at=end.at,
            )
    return None


def _why_deleted(pod: Pod) -> str:
    why = _disruption(pod)
    what = "being deleted" if why is None else why.text
    held = _holders(pod)
    if not held or not _is_spent(pod):
        return what
    called = "finalizer" if len(held) == 1 else counts.told(len(held), "finalizer")
    said = f"held by {called} {', '.join(held[:_FINALIZERS])}"
    return said if why is None else f"{what}; {said}"


def _holders(pod: Pod) -> list[str]:
    """Return the finalizers of a pod: it stays until they are taken off."""
    held = part(pod, "metadata").get("finalizers")
    listed = held[:_MANY] if isinstance(held, list) else []
    return [text.clean(typed.words(one, _LONG), _WORD) or "?" for one in listed]


def _announced(pod: Pod) -> str:
    """Say why a pod whose containers run still will be ended; "" if nobody has said so."""
    why = _disruption(pod)
    if _is_spent(pod) or (why is None and not deleting(pod)):
        return ""
    node = _node(pod)
    where = f" (node {node})" if node else ""
    return f"{'its pod is being deleted' if why is None else why.text}{where}"[:_WORDS]


def _disruption(pod: Pod) -> table.StatusRow | None:
    condition = _condition(pod, "DisruptionTarget")
    if condition.get("status") != "True":
        return None
    reason = word(condition, "reason")
    unknown = table.StatusRow(
        where=table.StatusPart.CONDITION,
        reason=reason,
        slug="evicted",
        text=f"disrupted: {reason}",
    )
    return table.find(table.StatusPart.CONDITION, reason) or unknown


# --- reading a pod without trusting it ---------------------------------------------------------

_FINALIZERS = 3


def part(value: Pod, *path: str) -> Pod:
    """Return an inner section, empty where there is none."""
    for key in path:
        inner = value.get(key)
        if not isinstance(inner, Mapping):
            return {}
        value = inner
    return value


def entries(value: Pod, key: str) -> Iterator[Pod]:
    """Return the sections in a list, none where there is none."""
    told = value.get(key)
    return (e for e in (told if isinstance(told, list) else ()) if isinstance(e, Mapping))


def words(value: Pod, key: str) -> str:
    """Return a message, fit to be shown."""
    return text.clean(typed.words(value.get(key), _LONG), _WORDS)


def word(value: Pod, key: str) -> str:
    """Return a reason or the like, fit to be shown."""
    return text.clean(typed.words(value.get(key), _LONG), _WORD)


def _name(value: Pod) -> str:
    return text.clean(typed.words(value.get("name"), 253), 253)


def _node(pod: Pod) -> str:
    """Return the node that a pod was given to; empty before that."""
    return text.clean(typed.words(part(pod, "spec").get("nodeName"), 253), 253)


def _host_address(pod: Pod) -> str:
    """Return the address of the node that a pod is on, as its kubelet tells it (``hostIP``)."""
    return addresses.plain(typed.words(part(pod, "status").get("hostIP"), _WORD))


def _ports(pod: Pod) -> tuple[api.Port, ...]:
    """Return the ports of the node that the agent's container has.

    An API server fills in ``hostPort`` where the pod is in its node's network: there all ports are
    the node's own, and those that somebody has written down are told.
    """
    agent = agent_container(pod)
    container = next(
        (c for c in entries(part(pod, "spec"), "containers") if _name(c) == agent), {}
    )
    found = set()
    for told in list(entries(container, "ports"))[:_MANY]:
        inside = addresses.port(told.get("containerPort"))
        host_port = addresses.port(told.get("hostPort"))
        if inside is None or host_port is None:
            continue
        protocol = typed.words(told.get("protocol"), _WORD).lower()
        address = addresses.plain(typed.words(told.get("hostIP"), _WORD))
        found.add((inside, protocol or "tcp", addresses.own(address), host_port))
    return tuple(
        api.Port(port=inside, protocol=protocol, address=address, host_port=host_port)
        for inside, protocol, address, host_port in sorted(found)[:_PORTS_MAX]
    )


def _called(metadata: Pod) -> str:
    """Return the name of the instance that a pod of ours is."""
    return typed.words(part(metadata, "annotations").get(pods.NAME), 253) or _name(metadata)


def _agent(pod: Pod) -> Pod:
    agent = agent_container(pod)
    return next((c for c in _containers(pod) if _name(c) == agent), {})


def _containers(pod: Pod) -> Iterator[Pod]:
    return entries(part(pod, "status"), "containerStatuses")


def _others(pod: Pod) -> list[Pod]:
    """Return the side containers, native ones (restartable init containers) too."""
    native = _native(pod)
    agent = agent_container(pod)
    beside = [c for c in _containers(pod) if _name(c) != agent]
    return beside + [c for c in _all_inits(pod) if _name(c) in native]


def _inits(pod: Pod) -> list[Pod]:
    native = _native(pod)
    return [c for c in _all_inits(pod) if _name(c) not in native]


def _all_inits(pod: Pod) -> Iterator[Pod]:
    return entries(part(pod, "status"), "initContainerStatuses")


def _native(pod: Pod) -> list[Any]:
    told = entries(part(pod, "spec"), "initContainers")
    return [_name(c) for c in told if c.get("restartPolicy") == "Always"]


def _failed_inits(pod: Pod) -> list[Pod]:
    return [c for c in _inits(pod) if _terminated(c).get("exitCode")]


def _terminated(container: Pod) -> Pod:
    return part(container, "state", "terminated")


def _condition(pod: Pod, kind: str) -> Pod:
    told = entries(part(pod, "status"), "conditions")
    return next((c for c in told if c.get("type") == kind), {})


def _last_change(pod: Pod) -> float | None:
    told = entries(part(pod, "status"), "conditions")
    times = [_time(c.get("lastTransitionTime")) for c in told]
    return max((t for t in times if t is not None), default=None)


def _metadata(pod: Pod) -> dict[str, str]:
    """Read the metadata back; a pod whose marks were damaged shows none, and is left alone."""
    said = part(pod, "metadata", "annotations").get(pods.METADATA)
    try:
        metadata = (
            decoding.loads(said.encode("utf-8", "replace")) if isinstance(said, str) else None
        )
    except ValueError:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        return {}
    return metadata


def _whole(value: Any) -> int | None:
    return typed.integer(value, -_CODE, _CODE)


def _time(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        return dt.datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
