"""What the status pages need from the process around them; declared by its consumer.

Refuses to know who provides it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from broker import config
from broker.core import model
from broker.core.fleet import death, ledger
from broker.core.fleet import hour as hours
from broker.hook import inbox, messages
from broker.leading import leadership


class TryRefused(Exception):  # noqa: N818 -- an answer
    """Nothing is tried; the text says why."""


class TryOrders(Protocol):
    """Trying agents of templates, one at a time."""

    def begin(self, template: str, backend: str | None) -> None:
        """Have one tried, on each of its backends or one. Raises TryRefused."""

    def document(self) -> dict[str, Any]:
        """Return what is tried, or was tried last."""


class PersonOrders(Protocol):
    """What a person may order beside a try."""

    def take(self, name: str, told: Mapping[str, str], *, who: str) -> str:
        """Do what is ordered, and say what was done.

        Raises ``orders.OrderDenied`` and ``orders.MalformedOrder``.
        """


class HookEnd(Protocol):
    """The broker's end of the push hook."""

    def admit(self, given: str) -> str:
        """Say why whoever brings this key is not let in; empty: it is."""

    def receive(self, body: bytes) -> messages.HookAnswer:
        """Take a message in, and answer it. Raises ``inbox.NotHeard``."""


class StatusSource(Protocol):
    """The last of everything. Read at every request, from the event loop's thread."""

    @property
    def version(self) -> str:
        """Version of the broker."""

    @property
    def policy(self) -> model.Policy:
        """The configuration in force."""

    @property
    def fingerprint(self) -> str:
        """What tells the file in force from another one; empty if it is not in force whole."""

    @property
    def configuration(self) -> config.ConfigurationState:
        """How the configuration in force stands to the files."""

    @property
    def world(self) -> model.World | None:
        """The last observation; None before the first."""

    @property
    def as_of(self) -> Mapping[str, float]:
        """When the last good read of each source began: ``controller``, ``backend NAME``."""

    @property
    def unread_since(self) -> Mapping[str, float]:
        """Since when a source is unknown, those that are; named alike, POSIX seconds both."""

    @property
    def plan(self) -> model.Plan | None:
        """The last plan; None before the first."""

    @property
    def last_read(self) -> tuple[model.World, model.Plan] | None:
        """The last observation, and its plan, of which the controller was a part."""

    @property
    def outcomes(self) -> Sequence[ledger.Outcome]:
        """The last actions that ended, oldest first; bounded."""

    @property
    def deaths(self) -> Sequence[death.Death]:
        """The last agents that ended, oldest first; bounded."""

    @property
    def waits(self) -> model.WaitBook:
        """What the time of who waits, and of who did, was spent on; bounded."""

    @property
    def leadership(self) -> leadership.LeadershipState:
        """Whether this broker acts, and who does."""

    @property
    def hour(self) -> hours.Hour:
        """The last hour, minute by minute."""

    @property
    def hooked(self) -> inbox.HookState | None:
        """What is known of the push hook; None where there is to be none."""

    def now(self) -> float:
        """POSIX seconds on the broker's clock, for ages."""

    def ready(self) -> tuple[bool, str]:
        """Whether all sources are synced, and what is missing (one short line)."""

    def alive(self) -> tuple[bool, str]:
        """Whether the last cycle is recent enough, and what is wrong if not (one short line)."""
