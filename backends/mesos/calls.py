"""The JSON of the v1 scheduler calls that we make, named as the scheduler driver's methods.

Pure: values in, plain JSON documents out; refuses to know when a call is right (that is
``session``) and how it travels (``transport``). The shapes are those of recordings of a 1.11.0
master, which answers 400 to an unknown enum value and ignores an unknown member.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

Call = Mapping[str, Any]

CAPABILITIES = ("PARTITION_AWARE", "TASK_KILLING_STATE", "MULTI_ROLE")
"""PARTITION_AWARE: an unreachable agent is told apart from a dead one. MULTI_ROLE: ``roles``
instead of ``role``, and offers that say for which role they are."""


@frozen(kw_only=True)
class Framework:
    """Who we are to the master. ``id`` is ours to choose and is kept before it is first used."""

    id: str
    name: str
    user: str
    role: str
    failover_timeout_s: float
    principal: str | None = None
    hostname: str = ""
    web_url: str = ""
    gpus: bool = False

    def info(self) -> dict[str, Any]:
        """Return the FrameworkInfo. ``checkpoint``: tasks survive a restart of the agent."""
        info: dict[str, Any] = {
            "user": self.user,
            "name": self.name,
            "id": {"value": self.id},
            "failover_timeout": self.failover_timeout_s,
            "checkpoint": True,
            "roles": [self.role],
            "capabilities": [{"type": name} for name in CAPABILITIES],
        }
        if self.gpus:
            info["capabilities"].append({"type": "GPU_RESOURCES"})
        optional = {
            "principal": self.principal,
            "hostname": self.hostname,
            "webui_url": self.web_url,
        }
        return info | {key: value for key, value in optional.items() if value}


def encode(call: Call) -> bytes:
    """Return the body of a request."""
    return json.dumps(call, separators=(",", ":")).encode()


def subscribe(framework: Framework, *, suppressed: bool) -> Call:
    """Begin, or return. A suppressed role gets no offers; SUPPRESS itself is forgotten here."""
    call = {
        "type": "SUBSCRIBE",
        "framework_id": {"value": framework.id},
        "subscribe": {"framework_info": framework.info()},
    }
    if suppressed:
        call["subscribe"]["suppressed_roles"] = [framework.role]  # type: ignore[index]  # a dict
    return call


def accept_offers(
    framework: Framework,
    *,
    offer_ids: Iterable[str],
    task_infos: Sequence[Mapping[str, Any]],
    refuse_s: float,
) -> Call:
    """Launch tasks on offers of one agent; ``refuse_s`` is about the resources left over."""
    operation = {"type": "LAUNCH", "launch": {"task_infos": list(task_infos)}}
    return _call(
        framework,
        "ACCEPT",
        offer_ids=_ids(offer_ids),
        operations=[operation],
        filters={"refuse_seconds": refuse_s},
    )


def decline_offers(framework: Framework, *, offer_ids: Iterable[str], refuse_s: float) -> Call:
    """Give offers back."""
    filters = {"refuse_seconds": refuse_s}
    return _call(framework, "DECLINE", offer_ids=_ids(offer_ids), filters=filters)


def decline_inverse_offers(
    framework: Framework, *, offer_ids: Iterable[str], refuse_s: float
) -> Call:
    """Say that we cannot promise to be gone by then: builds end when they end."""
    return _call(
        framework,
        "DECLINE_INVERSE_OFFERS",
        inverse_offer_ids=_ids(offer_ids),
        filters={"refuse_seconds": refuse_s},
    )


def revive_offers(framework: Framework) -> Call:
    """Ask for offers again and forget every refusal."""
    return _call(framework, "REVIVE", roles=[framework.role])


def suppress_offers(framework: Framework) -> Call:
    """Ask for no more offers."""
    return _call(framework, "SUPPRESS", roles=[framework.role])


def acknowledge_status_update(framework: Framework, *, task: str, agent: str, uuid: str) -> Call:
    """Tell the agent that an update need not come again."""
    return _call(
        framework, "ACKNOWLEDGE", task_id={"value": task}, agent_id={"value": agent}, uuid=uuid
    )


def reconcile_tasks(framework: Framework, tasks: Mapping[str, str | None]) -> Call:
    """Ask for the state of tasks (name to its agent, if known); of all when there are none."""
    asked = []
    for name, agent in tasks.items():
        one: dict[str, Any] = {"task_id": {"value": name}}
        if agent is not None:
            one["agent_id"] = {"value": agent}
        asked.append(one)
    return _call(framework, "RECONCILE", tasks=asked)


def kill_task(framework: Framework, *, task: str, agent: str | None, grace_s: float) -> Call:
    """End a task; the grace given here is stronger than the task's own kill policy."""
    policy = {"grace_period": {"nanoseconds": round(grace_s * 1e9)}}
    members: dict[str, Any] = {"task_id": {"value": task}, "kill_policy": policy}
    if agent is not None:
        members["agent_id"] = {"value": agent}
    return _call(framework, "KILL", **members)


def teardown(framework: Framework) -> Call:
    """End the framework for good; the master kills what still runs of it."""
    return {"type": "TEARDOWN", "framework_id": {"value": framework.id}}


def _call(framework: Framework, kind: str, **members: Any) -> Call:
    return {"type": kind, "framework_id": {"value": framework.id}, kind.lower(): members}


def _ids(values: Iterable[str]) -> list[dict[str, str]]:
    return [{"value": value} for value in values]
