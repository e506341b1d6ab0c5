"""Why an agent goes, how an order failed, how far a failure reaches: each a value, never a text.

Whoever steers on such a reason compares members; slugs are for labels, JSON and headings, words
for people, and both are told here alone: the metrics' label values, the page and the manual's
tables are made from the members. Refuses to know when any of it happens.
"""

import enum
from collections.abc import Mapping
from typing import Self

from backends import api as backends_api


class Scope(enum.Enum):
    """What a back-off holds back; all but the controller is a backend's ``Reach``."""

    CONTROLLER = "controller"  # it refuses to make nodes; ``backend`` is empty
    BACKEND = "backend"
    PLACE = "place"  # one of the backend's; the others serve
    TEMPLATE = "template"
    LAUNCH = "launch"  # this one start: the next may go well

    __hash__ = object.__hash__  # as of ``Phase``


SCOPES: Mapping[backends_api.Reach, Scope] = {
    backends_api.Reach.BACKEND: Scope.BACKEND,
    backends_api.Reach.PLACE: Scope.PLACE,
    backends_api.Reach.TEMPLATE: Scope.TEMPLATE,
    backends_api.Reach.LAUNCH: Scope.LAUNCH,
}


class Cause(enum.Enum):
    """Why an agent goes; the value is the slug: metric label, JSON, heading in the manual.

    ``words``: what that is, a sentence. ``scope``: what is held back after a start that ended so;
    None: nothing, it is no failure of a start. ``accident``: nobody planned it.
    ``needs_person``: it will go on like that until somebody acts.
    """

    words: str
    scope: Scope | None
    accident: bool
    needs_person: bool

    def __new__(
        cls,
        slug: str,
        words: str,
        scope: Scope | None = None,
        accident: bool = False,  # noqa: FBT001, FBT002 -- members are rows of a table
        needs_person: bool = False,  # noqa: FBT001, FBT002 -- as above
    ) -> Self:
        """Make a member whose value is its slug."""
        member = object.__new__(cls)
        member._value_ = slug
        member.words, member.scope = words, scope
        member.accident, member.needs_person = accident, needs_person
        return member

    ONCE = "once", "single use, and it has had its build"
    ONCE_UNWITNESSED = "once-unwitnessed", "single use, and it may have had its build unseen"
    MAX_BUILDS = "max-builds", "it has had all its builds"
    MAX_AGE = "max-age", "it is too old"
    IDLE = "idle", "it was idle for too long"
    DRIFT = "drift", "its template's definition changed"
    REMOVED = "removed", "its template is no longer configured"
    SURPLUS = "surplus", "nobody can want it, or it is one more than the cap"
    CLOSED = "closed", "the controller gave it no work", Scope.TEMPLATE
    YIELD = "yield", "it made room for others under a shared cap"
    DRAIN = "drain", "the broker drains"
    ORDERED = "ordered", "a person ordered it to go"
    DRAINED = "drained", "it was out of service, and is empty"
    BLACK_HOLE = "black-hole", "too many agents end, or builds fail, too soon where it runs"
    ANNOUNCED = "announced", "its platform announced that it will end it"
    READY_CHECK = (
        "ready-check", "its ready check did not pass", Scope.TEMPLATE, True, True,
    )  # fmt: skip
    DIRTY_CHECK = "dirty-check", "a dirty check of it did not pass", None, True
    SWEPT = "swept", "a leftover: a node without an instance, or the other way round"
    CONNECT_TIMEOUT = (
        "connect-timeout", "it was not online within its deadline", Scope.TEMPLATE, True, True,
    )  # fmt: skip
    LOST_JAVA = "lost-java", "its Java is too old", Scope.TEMPLATE, True, True
    LOST_REFUSED = "lost-refused", "the controller refused it", Scope.TEMPLATE, True
    LOST_NO_CONTROLLER = (
        "lost-no-controller", "it cannot reach its controller", Scope.TEMPLATE, True, True,
    )  # fmt: skip
    LOST_INSTANCE = "lost-instance", "its instance is gone", Scope.TEMPLATE, True
    LOST_EXITED = "lost-exited", "its program ended by itself", Scope.TEMPLATE, True
    LOST_KILLED = "lost-killed", "it was killed by a signal", Scope.TEMPLATE, True
    LOST_MEMORY = "lost-out-of-memory", "it needed too much memory", Scope.TEMPLATE, True, True
    LOST_IMAGE = "lost-image", "its image cannot be had", Scope.TEMPLATE, True, True
    LOST_COMMAND = "lost-command", "its program cannot be executed", Scope.TEMPLATE, True, True
    LOST_NETWORK = "lost-network", "it could not be connected to its network", Scope.TEMPLATE, True
    LOST_EVICTED = "lost-evicted", "the platform took its place away", Scope.LAUNCH, True
    LOST_PLATFORM = "lost-platform-lost", "its host or platform is gone", Scope.LAUNCH, True
    LOST_INTERRUPTED = (
        "lost-interrupted", "a broker ended in the midst of starting it", Scope.LAUNCH, True,
    )  # fmt: skip
    LOST_UNKNOWN = "lost-unknown", "it ended, and nobody says why", Scope.TEMPLATE, True

    @property
    def slug(self) -> str:
        """The label."""
        return str(self.value)

    @classmethod
    def find(cls, slug: str) -> "Cause | None":
        """Return the member of a slug that was written by somebody else, or None."""
        return _CAUSES.get(slug)

    @classmethod
    def of_exit(cls, slug: backends_api.ExitSlug) -> "Cause":
        """Return why an agent goes whose instance ended so."""
        return _OF_EXIT[slug]

    @property
    def unfit(self) -> bool:
        """Whether whoever is out of service for it is given nothing more, whatever waits."""
        return self in {Cause.READY_CHECK, Cause.DIRTY_CHECK}


_CAUSES: Mapping[str, Cause] = {cause.slug: cause for cause in Cause}
_OF_EXIT: Mapping[backends_api.ExitSlug, Cause] = {
    "exited": Cause.LOST_EXITED,
    "killed": Cause.LOST_KILLED,
    "out-of-memory": Cause.LOST_MEMORY,
    "image": Cause.LOST_IMAGE,
    "command": Cause.LOST_COMMAND,
    "network": Cause.LOST_NETWORK,
    "evicted": Cause.LOST_EVICTED,
    "platform-lost": Cause.LOST_PLATFORM,
    "interrupted": Cause.LOST_INTERRUPTED,
    "unknown": Cause.LOST_UNKNOWN,
}


class Failure(enum.Enum):
    """How an order or a call failed; the value is the slug of the error that was raised.

    ``words``: what that is, a sentence. ``needs_person``: it will go on until somebody acts.
    How far it reaches is told by the error itself; one of the controller holds back all launches,
    unless it refuses what this very template sends.
    """

    words: str
    needs_person: bool

    def __new__(
        cls,
        slug: str,
        words: str,
        needs_person: bool = False,  # noqa: FBT001, FBT002 -- members are rows of a table
    ) -> Self:
        """Make a member whose value is its slug."""
        member = object.__new__(cls)
        member._value_ = slug
        member.words, member.needs_person = words, needs_person
        return member

    # a backend's
    REJECTED = "rejected", "the platform refuses what the template or the configuration says", True
    NO_CAPACITY = "no-capacity", "the platform is full; that is not a failure"
    UNAVAILABLE = "unavailable", "the platform, or what it needs, does not answer in time"
    PARTIAL = "partial", "a list is not whole"
    ALREADY_EXISTS = "already-exists", "the name is taken by something else"
    # a backend's or the controller's
    UNAUTHORIZED = "unauthorized", "credentials or rights are missing", True
    NOT_FOUND = "not-found", "what was meant is not there any more"
    # the controller's
    UNREACHABLE = "unreachable", "the controller does not answer"
    STARTING = "starting", "the controller is starting, or a proxy stands before it"
    FORBIDDEN = "forbidden", "the broker's user lacks a permission", True
    NODE_EXISTS = "node-exists", "a node of that name exists"
    BAD_REQUEST = "bad-request", "the controller refuses what was sent", True
    UNEXPECTED = "unexpected", "the controller answers something that makes no sense"
    # ours
    BUG = "bug", "a mistake in the broker", True

    @property
    def slug(self) -> str:
        """The label."""
        return str(self.value)

    @classmethod
    def of(cls, slug: str) -> "Failure":
        """Return the member of an error's slug; an error of no known class is a bug."""
        return _FAILURES.get(slug, Failure.BUG)


_FAILURES: Mapping[str, Failure] = {failure.slug: failure for failure in Failure}


class CycleFailure(enum.Enum):
    """Why a cycle did not end well; the value is the metric label."""

    CONTROLLER = "controller"  # it cannot be read
    STATE = "state"  # the state directory cannot be written
    BUG = "bug"
