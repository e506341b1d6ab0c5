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
Refuses to know HTTP, watches and what follows from a state; the reasons are in ``table``.
"""

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import attrs
from attrs import frozen

from backends import api
from backends.kubernetes import pod as pods
from backends.kubernetes import table

Pod = Mapping[str, Any]

_WORDS = 256
_LACKS = re.compile(r"Insufficient ([\w./-]*\w)|Too many (pods)")
_SIGNALS = 64
_SIGNALLED = 128  # exit codes above it are 128 and the number of the signal


def is_ours(pod: Pod, owner: str) -> bool:
    """Tell whether a pod carries all marks of an owner."""
    labels = _part(pod, "metadata", "labels")
    return pods.owner_labels(owner).items() <= dict(labels).items() and pods.NAME in _part(
        pod, "metadata", "annotations"
    )


@frozen(kw_only=True)
class Seen:
    """All that is kept of one version of a pod of ours."""

    pod: str  # its name
    uid: str
    version: str
    speaker: str  # the container whose output tells most
    instance: api.Instance
    since: float | None  # when it last came a step forward
    stuck: table.Verdict | None = None  # why it does not, as far as its status tells
    mute: bool = False  # it does not run yet, and its status does not tell why
    gone: api.Exit  # why, if it is gone with this as its last sight
    end: api.Exit | None = None  # how it had ended before it was deleted

    @property
    def name(self) -> str:
        """The name of the instance that the pod is."""
        return self.instance.name

    def at(
        self, now: float, *, patience_s: float, told: table.Verdict | None = None
    ) -> api.Instance:
        """Return what a listing shows.

        ``patience_s``: how long a pod may be stuck before it is given up. ``told``: what the
        cluster's events say, which counts where the status says nothing.
        """
        why = self.stuck or (told if self.mute else None)
        if why is None:
            return self.instance
        if why.slug is not None and self.waited_s(now) >= patience_s:
            end = api.Exit(slug=why.slug, message=why.words)
            return attrs.evolve(self.instance, state=api.InstanceState.EXITED, detail="", exit=end)
        return attrs.evolve(self.instance, detail=why.words)

    def waited_s(self, now: float) -> float:
        """Return for how long it has not come a step forward."""
        return 0.0 if self.since is None else now - self.since

    def after(self, before: "Seen | None") -> "Seen":
        """Return the same with what an earlier version told: an end before a deletion counts."""
        if before is None or before.uid != self.uid:
            return self
        return attrs.evolve(self, end=before.end or before.instance.exit)

    def departed(self, at: float) -> api.Instance:
        """Return the death certificate of a pod that somebody else deleted."""
        return attrs.evolve(
            self.instance,
            state=api.InstanceState.EXITED,
            detail="",
            exit=attrs.evolve(self.end or self.gone, at=at),
        )


def see(pod: Pod) -> Seen:
    """Read a pod of ours; never raises, whatever the pod says."""
    metadata = _part(pod, "metadata")
    state, detail, end = _judged(pod)
    instance = api.Instance(
        name=str(_part(metadata, "annotations").get(pods.NAME, metadata.get("name"))),
        state=state,
        metadata=_metadata(pod),
        created_at=_time(metadata.get("creationTimestamp")),
        exit=end,
        detail=detail[:_WORDS],
    )
    starting = state is api.InstanceState.STARTING
    stuck = _stuck(pod) if starting else None
    steps = [instance.created_at, _last_change(pod)]
    failed = _failed_inits(pod)
    return Seen(
        pod=str(metadata.get("name")),
        uid=str(metadata.get("uid")),
        version=str(metadata.get("resourceVersion")),
        speaker=str(failed[0].get("name")) if failed else pods.AGENT,
        instance=instance,
        since=max((at for at in steps if at is not None), default=None),
        stuck=stuck,
        mute=starting and stuck is None and _mute(pod),
        gone=_gone(pod),
    )


def deleting(pod: Pod) -> bool:
    """Tell whether a pod is on its way out."""
    return "deletionTimestamp" in _part(pod, "metadata")


# --- the order in which things are looked at ---------------------------------------------------

_Judged = tuple[api.InstanceState, str, api.Exit | None]


def _judged(pod: Pod) -> _Judged:
    phase = str(_part(pod, "status").get("phase"))
    if deleting(pod):
        return api.InstanceState.STOPPING, _why_deleted(pod), None
    restarts = _part(pod, "spec").get("restartPolicy", "Always") != "Never"
    ended = _terminated(_agent(pod))
    over = not restarts and (ended or any(_failed_inits(pod)))
    if over or phase in {"Succeeded", "Failed"}:
        return api.InstanceState.EXITED, "", _end(pod)
    if _part(_agent(pod), "state", "running"):
        return api.InstanceState.RUNNING, _trouble(pod), None
    if phase == "Unknown":
        return api.InstanceState.RUNNING, "its node does not answer", None
    stuck = _stuck(pod)
    again = "ended and is started again" if ended else ""
    return api.InstanceState.STARTING, stuck.words if stuck else again or _not_yet(pod), None


def _end(pod: Pod) -> api.Exit:
    """Return how a pod ended that is not being deleted."""
    status, agent = _part(pod, "status"), _agent(pod)
    at = _time(_terminated(agent).get("finishedAt")) or _last_change(pod)
    told = table.find(table.Where.POD, status.get("reason")) or _disruption(pod)
    words = str(status.get("message") or "").strip()
    if told is not None:
        message = f"{told.text}: {words}" if words else told.text
        return api.Exit(slug=told.slug, message=message[:_WORDS], at=at)
    if status.get("reason"):  # a node that would not take it: OutOfcpu, NodeAffinity and the like
        message = f"refused by its node: {status['reason']}: {words}"
        return api.Exit(slug="evicted", message=message[:_WORDS], at=at)
    ends = [_of_container(c, at) for c in (*_failed_inits(pod), agent)]
    beside = [_of_container(c, at) for c in _others(pod)]
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


def _of_container(container: Pod, at: float | None) -> api.Exit | None:
    """Return how one container ended, or None while it has not."""
    ended = _terminated(container)
    if not ended:
        return None
    name, code = container.get("name"), _whole(ended.get("exitCode"))
    whose = "" if name == pods.AGENT else f"container {name}: "
    words = str(ended.get("message") or "").strip()
    row = table.find(table.Where.TERMINATED, ended.get("reason"))
    number = _whole(ended.get("signal")) or (0 if code is None else code - _SIGNALLED)
    if row is not None:
        slug, text = row.slug, row.text
        if slug == "out-of-memory" and code == 0:
            text += " (a child process; the container itself ended with 0)"
    elif 0 < number <= _SIGNALS:
        slug, text = "killed", f"killed by signal {number}"
    else:
        slug, text = "exited", f"ended with {code}"
    if 0 < number <= _SIGNALS and slug in {"killed", "out-of-memory"}:
        code = -number
    message = f"{whose}{text}: {words}" if words else f"{whose}{text}"
    return api.Exit(
        slug=slug, code=code, message=message[:_WORDS], at=_time(ended.get("finishedAt")) or at
    )


# --- words for what goes on --------------------------------------------------------------------


def _stuck(pod: Pod) -> table.Verdict | None:
    """Judge the first container that waits for a reason in the table."""
    for container in (_agent(pod), *_inits(pod), *_others(pod)):
        waiting = _part(container, "state", "waiting")
        row = table.find(table.Where.WAITING, waiting.get("reason"))
        if row is not None:
            name = container.get("name")
            whose = "" if name == pods.AGENT else f"container {name}: "
            words = str(waiting.get("message") or "").strip()
            text = f"{whose}{row.text} ({row.reason}): {words}"[:_WORDS]
            return table.Verdict(slug=row.slug, words=text)
    return None


def _mute(pod: Pod) -> bool:
    """Tell whether only the cluster's events can say more about a pod that is not stuck."""
    gated = _condition(pod, "PodScheduled").get("reason") == "SchedulingGated"
    inits = any(_part(c, "state", "running") for c in _inits(pod))
    return not (gated or inits or _terminated(_agent(pod)))


def _not_yet(pod: Pod) -> str:
    """Return why a pod does not run yet, in the platform's words."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        reason, words = scheduled.get("reason"), scheduled.get("message") or ""
        known = {"Unschedulable": "no node fits", "SchedulingGated": "held back by a gate"}
        lacks = ", ".join(sorted({one or more for one, more in _LACKS.findall(str(words))}))
        text = f"{known.get(str(reason), reason)}{f', for want of {lacks}' if lacks else ''}"
        return f"{text}: {words}"
    for container in (*_inits(pod), _agent(pod)):
        if _part(container, "state", "running") and container.get("name") != pods.AGENT:
            return f"container {container.get('name')} runs first"
    reasons = [_part(c, "state", "waiting").get("reason") for c in _containers(pod)]
    words = next((str(reason) for reason in reasons if reason), "")
    if words:
        return f"being made: {words}"
    if _part(pod, "spec").get("nodeName"):
        return "its node was chosen"
    phase = _part(pod, "status").get("phase")
    return "waits for a node" if phase in (None, "Pending") else f"phase {phase}"


def _trouble(pod: Pod) -> str:
    """Return what is wrong with a pod whose agent runs, or nothing."""
    why = _disruption(pod)
    if why is not None:
        return why.text
    for container in _others(pod):
        ended = _of_container(container, None)
        if ended is not None and (ended.slug != "exited" or ended.code):
            return ended.message
    stuck = _stuck(pod)
    if stuck is not None:
        return stuck.words
    ready = _condition(pod, "Ready")
    everything = all(_part(c, "state", "running") for c in (_agent(pod), *_others(pod)))
    if ready.get("status") == "False" and not ready.get("reason") and everything:
        return "its node does not answer"
    return ""


def _why_deleted(pod: Pod) -> str:
    why = _disruption(pod)
    text = "being deleted" if why is None else why.text
    held = _part(pod, "metadata").get("finalizers")
    return f"{text}; held by {', '.join(map(str, held))}" if _is_list(held) and held else text


def _disruption(pod: Pod) -> table.Row | None:
    condition = _condition(pod, "DisruptionTarget")
    if condition.get("status") != "True":
        return None
    reason = str(condition.get("reason"))
    unknown = table.Row(
        where=table.Where.CONDITION, reason=reason, slug="evicted", text=f"disrupted: {reason}"
    )
    return table.find(table.Where.CONDITION, reason) or unknown


# --- reading a pod without trusting it ---------------------------------------------------------


def _part(value: Pod, *path: str) -> Pod:
    """Return an inner section, empty where there is none."""
    for key in path:
        inner = value.get(key)
        if not isinstance(inner, Mapping):
            return {}
        value = inner
    return value


def _list(value: Pod, key: str) -> Iterator[Pod]:
    told = value.get(key)
    return (entry for entry in told if isinstance(entry, Mapping)) if _is_list(told) else iter(())


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _agent(pod: Pod) -> Pod:
    return next((c for c in _containers(pod) if c.get("name") == pods.AGENT), {})


def _containers(pod: Pod) -> Iterator[Pod]:
    return _list(_part(pod, "status"), "containerStatuses")


def _others(pod: Pod) -> list[Pod]:
    """Return the side containers, native ones (restartable init containers) too."""
    native = _native(pod)
    beside = [c for c in _containers(pod) if c.get("name") != pods.AGENT]
    return beside + [c for c in _all_inits(pod) if c.get("name") in native]


def _inits(pod: Pod) -> list[Pod]:
    native = _native(pod)
    return [c for c in _all_inits(pod) if c.get("name") not in native]


def _all_inits(pod: Pod) -> Iterator[Pod]:
    return _list(_part(pod, "status"), "initContainerStatuses")


def _native(pod: Pod) -> list[Any]:
    told = _list(_part(pod, "spec"), "initContainers")
    return [c.get("name") for c in told if c.get("restartPolicy") == "Always"]


def _failed_inits(pod: Pod) -> list[Pod]:
    return [c for c in _inits(pod) if _terminated(c).get("exitCode")]


def _terminated(container: Pod) -> Pod:
    return _part(container, "state", "terminated")


def _condition(pod: Pod, kind: str) -> Pod:
    told = _list(_part(pod, "status"), "conditions")
    return next((c for c in told if c.get("type") == kind), {})


def _last_change(pod: Pod) -> float | None:
    told = _list(_part(pod, "status"), "conditions")
    times = [_time(c.get("lastTransitionTime")) for c in told]
    return max((t for t in times if t is not None), default=None)


def _metadata(pod: Pod) -> dict[str, str]:
    """Read the metadata back; a pod whose marks were damaged shows none, and is left alone."""
    try:
        told = json.loads(str(_part(pod, "metadata", "annotations").get(pods.METADATA)))
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _time(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        return dt.datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None
