"""Engines beside agents: one container each, which begins before its agent and ends with it.

Blocking. Refuses to know what an engine's container looks like (``container``), and when agents
come and go (``host``).

Theory of operation: the agent's container is created first, so the volumes that both have are
there, and the user's. Then the engine is started, and the agent only when the engine has answered:
no build finds one that is still starting. It has labels of its own, by which no listing takes it
for an agent, and by which one that a broker left is found: it is removed once its agent is none of
those that are there.
"""

import contextlib
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from backends import api
from backends.docker.containers import container
from backends.docker.engine import client
from backends.kit import names, pipelines

_BESIDE = f"{container.PREFIX}beside."
_OF = f"{container.PREFIX}beside"
_LOOK_S = 0.2
_WORDS = 3


class Engines:
    """The engines beside agents of one owner, on one engine."""

    def __init__(self, engine: client.Engine, *, owner: str) -> None:
        self._engine = engine
        self._marks = names.encode_metadata({names.OWNER: owner}, prefix=_BESIDE)

    def provide(self, plan: container.ContainerPlan, cancelled: threading.Event) -> None:
        """Start the engine of an agent that is created, and wait until it answers.

        One that is there already is taken away first: it may be of other volumes. Raises Rejected
        with its last words, Unavailable, ``client.NoImageError``.
        """
        if plan.beside is None:
            return
        called = _called(plan.container)
        self.remove(plan.container)
        labels = {**self._marks, _OF: plan.body["Labels"][container.NAME]}
        body: dict[str, Any] = {**plan.beside, "Labels": labels}
        container_id = self._engine.create_body(called, body)
        try:
            self._engine.start(container_id)
        except client.StartError as failed:
            raise api.Rejected(
                f"docker_pipelines: no privileged engine beside the agent: {failed.error.reason}"
            ) from failed
        self._wait(container_id, cancelled)

    def _wait(self, container_id: str, cancelled: threading.Event) -> None:
        end = time.monotonic() + pipelines.STARTED_WITHIN_S
        while True:
            there = self._engine.inspect(container_id)
            if there.health == "healthy" or cancelled.wait(_LOOK_S):
                return
            if there.state in {"exited", "dead"} or there.restarts or time.monotonic() > end:
                words = self._engine.logs(container_id, _WORDS, has_terminal=False).split("\n")
                last = next((line.strip() for line in reversed(words) if line.strip()), "")
                raise api.Rejected(
                    "docker_pipelines: the engine beside the agent does not answer; it says: "
                    f"{last[-150:] or 'nothing'}"
                )

    def remove(self, agent: str) -> None:
        """Remove the engine of an agent's container, with all that it has; idempotent."""
        called = _called(agent)
        with contextlib.suppress(api.NotFound):
            there = self._engine.inspect(called)
            if self._is_ours(there.labels):
                self._engine.remove(there.id)

    def sweep(self, needed: Collection[str]) -> None:
        """Remove those whose agent is none of ``needed``, by the instance's name."""
        listed, _ = self._engine.list(self._marks)
        for one in listed:
            name = one.labels.get(_OF)
            if one.id and name and name not in needed and self._is_ours(one.labels):
                with contextlib.suppress(api.NotFound):
                    self._engine.remove(one.id)

    def _is_ours(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == text for key, text in self._marks.items())


def _called(agent: str) -> str:
    return f"{agent}-engine"
