"""What the shell tells about its work, and the discarding default.

The shell sees this Protocol only, so it knows no metric. Times are in seconds; an empty slug
means success. Methods are called from the event loop's thread, never wait and never raise.
Refuses to know who listens.
"""

from typing import Protocol

from backends import api as backends_api
from broker.core import model


class Recorder(Protocol):
    """Listens to the shell."""

    def configured(self, policy: model.Policy) -> None:
        """A configuration is in force: at the start and after every reload."""

    def configuration_read(self, at: float, *, good: bool) -> None:
        """The files were read at a time: they are in force, or refused."""

    def cycle(self, world: model.World, plan: model.Plan, duration_s: float) -> None:
        """A cycle ended well. Exactly one call for each plan."""

    def cycle_failed(self, why: model.CycleFailure) -> None:
        """A cycle ended with an error."""

    def acted(self, verb: model.Verb, slug: str, seconds: float) -> None:
        """An action ended, of whatever kind."""

    def launched(
        self, template: str | None, backend: str | None, slug: str, seconds: float
    ) -> None:
        """A launch ended: node, secret and instance, or an error."""

    def ended(self, template: str | None, cause: model.Cause) -> None:
        """An agent is gone, by our doing or not."""

    def queue_latency(self, template: str | None, *, warm: bool, seconds: float) -> None:
        """An item that had been buildable for ``seconds`` began to run on one of our agents."""

    def checked(self, template: str | None, check: model.Check, *, passed: bool) -> None:
        """A ready or dirty check of an agent came to an end."""

    def left(self, outcome: str) -> None:
        """An item left the queue."""

    def waited(self, template: str | None, reason: str, seconds: float) -> None:
        """Waiting items spent so much time, all together, for a reason or step of an agent."""

    def extra_build(self, template: str | None) -> None:
        """A single-use agent was given another build after its first."""

    def unused(self, template: str | None) -> None:
        """An agent that was ordered for an item is gone, and has never had a build."""

    def harmed(self, template: str | None, slug: backends_api.ExitSlug) -> None:
        """Something befell the instance of an agent that lives on; told once for each agent."""

    def controller_call(self, kind: str, outcome: str, seconds: float) -> None:
        """The controller was asked."""

    def backend_call(self, backend: str, verb: str, outcome: str, seconds: float) -> None:
        """A backend was asked."""

    def loop_lag(self, seconds: float) -> None:
        """A timer of the event loop came this much late."""

    def hook_decided(self, seconds: float) -> None:
        """What the push hook told of is decided, so long after the controller saw it happen."""

    def hook_heard(self, *, heard: bool, lost: int) -> None:
        """Whether the push hook is there; events that it has dropped since it was installed."""

    def hook_refused(self, slug: str) -> None:
        """A message of the push hook was not taken."""

    def led(self, *, leading: bool, holder: str, transitions: int) -> None:
        """Who leads has changed; ``holder`` is empty where this broker is alone, or nobody."""


class NullRecorder:
    """Discards everything: for dry runs."""

    def configured(self, policy: model.Policy) -> None:
        """Discard."""

    def configuration_read(self, at: float, *, good: bool) -> None:
        """Discard."""

    def cycle(self, world: model.World, plan: model.Plan, duration_s: float) -> None:
        """Discard."""

    def cycle_failed(self, why: model.CycleFailure) -> None:
        """Discard."""

    def acted(self, verb: model.Verb, slug: str, seconds: float) -> None:
        """Discard."""

    def launched(
        self, template: str | None, backend: str | None, slug: str, seconds: float
    ) -> None:
        """Discard."""

    def ended(self, template: str | None, cause: model.Cause) -> None:
        """Discard."""

    def queue_latency(self, template: str | None, *, warm: bool, seconds: float) -> None:
        """Discard."""

    def checked(self, template: str | None, check: model.Check, *, passed: bool) -> None:
        """Discard."""

    def left(self, outcome: str) -> None:
        """Discard."""

    def waited(self, template: str | None, reason: str, seconds: float) -> None:
        """Discard."""

    def extra_build(self, template: str | None) -> None:
        """Discard."""

    def unused(self, template: str | None) -> None:
        """Discard."""

    def harmed(self, template: str | None, slug: backends_api.ExitSlug) -> None:
        """Discard."""

    def controller_call(self, kind: str, outcome: str, seconds: float) -> None:
        """Discard."""

    def backend_call(self, backend: str, verb: str, outcome: str, seconds: float) -> None:
        """Discard."""

    def loop_lag(self, seconds: float) -> None:
        """Discard."""

    def hook_decided(self, seconds: float) -> None:
        """Discard."""

    def hook_heard(self, *, heard: bool, lost: int) -> None:
        """Discard."""

    def hook_refused(self, slug: str) -> None:
        """Discard."""

    def led(self, *, leading: bool, holder: str, transitions: int) -> None:
        """Discard."""
