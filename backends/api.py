"""The contract between the broker and whatever runs its agents.

A backend knows instances (containers, pods, tasks, processes), never Jenkins. This file holds the
Protocol, its values and the closed set of errors; it refuses to know any platform or SDK.

Theory of operation: the broker lists, decides, then calls ``reserve`` and ``launch``, or
``terminate``; all are idempotent by name, so repeating after a crash or a time-out is always safe.
``list`` is the truth: it returns every instance that carries our owner mark, or raises. A partial
answer is an error (``Partial``), because absence may mean "terminate". ``watch`` only wakes the
broker.
"""

import enum
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, get_args

from attrs import Factory, field, frozen

SECRETS = "${secrets}"
"""In ``argv`` and ``env`` values: replaced by the directory that holds ``secret_files``."""
WORK = "${work}"
"""In ``argv`` and ``env`` values: replaced by the instance's own working directory."""
FILES = "${files}"
"""The same by the directory of ``files`` and ``given_files``."""
SHARED = "${shared}"
"""The same, by a directory of all instances that outlives them (``registry.Kind.shares``)."""


class InstanceState(enum.Enum):
    """Every platform state maps to one of these by a total table in its backend."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"


ExitSlug = Literal[
    "exited",
    "killed",
    "out-of-memory",
    "image",
    "command",
    "network",
    "evicted",
    "platform-lost",
    "interrupted",
    "unknown",
]
"""What an instance ended of. A closed set: the core knows of each what follows from it."""
EXIT_SLUGS: tuple[ExitSlug, ...] = get_args(ExitSlug)


def exit_slug(told: object) -> ExitSlug:
    """Return the slug that was read from somewhere; whatever is none is unknown."""
    return next((slug for slug in EXIT_SLUGS if slug == told), "unknown")


@frozen(kw_only=True)
class Exit:
    """How an instance ended, as far as the platform tells.

    ``code`` is the exit status (negative: minus the signal's number). ``witnessed``: also without
    one the platform has seen that nothing of it runs any more, and has not concluded it from
    silence: it cannot come back.
    """

    slug: ExitSlug
    code: int | None = None
    message: str = ""
    at: float | None = None
    witnessed: bool = False


@frozen(kw_only=True)
class Mishap:
    """What has befallen an instance that lives on, and of which its work may have failed.

    ``text``, cleaned and at most 128 characters, is the same however often it happens. Of an
    instance that has ended it is what the words of its ``exit`` do not say.
    """

    slug: ExitSlug  # what the whole instance would have ended of
    text: str
    times: int = 1  # as far as they are counted
    at: float | None = None  # POSIX seconds, the last time


@frozen(kw_only=True)
class Usage:
    """What an instance has used by now. None: its platform does not tell.

    Platforms are asked now and then: a peak between two answers is seen only where the kernel
    keeps it (``memory_cached_peak_bytes``). Of one that was started anew the largest life counts.
    """

    at: float  # POSIX seconds: as of when
    memory_bytes: int | None = None  # without what the kernel would give back at once
    memory_peak_bytes: int | None = None  # the most of what was seen
    memory_cached_peak_bytes: int | None = None  # at any time, with files that are kept in memory
    memory_limit_bytes: int | None = None
    cpu_s: float | None = None  # of all processors together
    cpu_peak_cores: float | None = None  # the most of what was seen
    throttled_s: float | None = None  # for how long its limit of processors held it back


@frozen(kw_only=True)
class Ran:
    """What came of a command in an instance.

    ``code``: its exit status; negative: minus the signal's number, where the platform tells it
    apart; None: it did not end in time, and was ended as far as the platform lets us.
    ``output``: both streams, secrets blanked out, lines cleaned, the last 4 KiB
    (``kit.running``).
    """

    code: int | None
    output: str = ""


@frozen(kw_only=True)
class Port:
    """A port of an instance, and where it is reached on the machine that the instance runs on.

    ``address``: the one it is bound to; "": all of the machine's.
    """

    port: int
    host_port: int
    protocol: str = "tcp"
    address: str = ""


@frozen(kw_only=True)
class Instance:
    """What a backend runs for one agent. ``metadata`` comes back byte for byte."""

    name: str
    state: InstanceState
    metadata: Mapping[str, str] = Factory(dict)
    created_at: float | None = None  # POSIX seconds, wall clock
    exit: Exit | None = None  # with EXITED; with STOPPING why it ends, where the platform says so
    detail: str = ""  # the platform's words on why it does not run yet, or does not go
    fetching: bool = False  # with STARTING: its image is being fetched, as far as that is told
    leaving_at: float | None = None  # POSIX seconds: since when it is being removed, if known
    spent: bool = False  # nothing of it runs any more, and something keeps it from being removed
    # with RUNNING: a part of it has ended, or never will run, without which it is no good
    flaw: Exit | None = None
    place: str = ""  # where it runs, cleaned: an engine, a node; "": not known, or nothing to tell
    ends_because: str = ""  # the platform's words on why it will soon end what runs still; "": no
    ends_at: float | None = None  # with ``ends_because``, POSIX seconds, where it says when
    mishap: Mishap | None = None
    look: str = ""  # of one that has ended: a command that shows people what it has left
    ports: tuple[Port, ...] = ()  # that are published while it runs, as they are bound now
    host: str = ""  # by which its place is reached: a name or an address; "": not told
    # also of one that has ended, as far as it was seen before; that it changed is no news
    usage: Usage | None = field(default=None, eq=False)


@frozen(kw_only=True)
class Resources:
    """What the platform's scheduler is told. None: the platform's default."""

    memory_bytes: int | None = None  # hard limit
    memory_reservation_bytes: int | None = None
    cpu_limit: float | None = None  # cores, hard limit
    cpu_shares: float | None = None  # cores, relative weight


@frozen(kw_only=True)
class Route:
    """How the server of a file is reached, where the platform leaves that to us."""

    ca_file: str | None = None  # PEM on the broker's machine; None: the system's authorities
    verify: bool = True
    proxy: str | None = field(default=None, repr=False)  # may hold a password


@frozen(kw_only=True)
class RemoteFile:
    """A file that the platform fetches before the start (HTTP GET, no credentials)."""

    url: str
    name: str
    route: Route = Factory(Route)


PipelineMode = Literal["socket", "dind", "dind-rootless"]
"""Whose engine builds command: that which the instance runs on, or one beside it."""


@frozen(kw_only=True)
class DockerPipelines:
    """An engine for the builds of an instance, by somebody who knows what that costs.

    ``image``: of the engine beside the instance; None: the official one (``kit.pipelines``). The
    limits are those of that engine with all that it runs; None: what the platform makes of it.
    """

    mode: PipelineMode
    image: str | None = None
    memory_bytes: int | None = None
    cpu_limit: float | None = None  # cores


@frozen(kw_only=True)
class InstanceSpec:
    """All that a backend needs to start one instance.

    ``secret_files`` maps a file name to its content; it never appears in ``repr``, in metadata,
    in a command line or in the environment.
    """

    name: str
    metadata: Mapping[str, str]
    argv: tuple[str, ...] = ()  # empty: the image's own entry point without arguments
    use_entry_point: bool = False  # argv are arguments to the image's entry point
    image: str | None = None
    env: Mapping[str, str] = Factory(dict)
    secret_files: Mapping[str, str] = field(factory=dict, repr=False)
    files: tuple[RemoteFile, ...] = ()
    # beside these, name to content: ours to bring, no secrets, and alike for what is alike in all
    # else; only kinds that bring them are given some (``registry.Kind.given_refusal``)
    given_files: Mapping[str, bytes] = field(factory=dict, repr=False)
    resources: Resources = Factory(Resources)
    # where the template wants the agent to work, if not where the backend has it; with the
    # instance's name in it it is this instance's own: made before the start, removed with it
    work_dir: str | None = None
    options: Any = None  # the kind's own template settings (``Kind.template_settings``)
    # places, as ``Instance.place`` calls them, where it must not go; no part of what it is: the
    # same name with others is the same instance
    avoid: tuple[str, ...] = ()
    # parts by name among those of the backend's settings (``pods``), the later over the earlier,
    # and images by container; only backends that have such parts are given some
    inherits: tuple[str, ...] = ()
    side_images: Mapping[str, str] = Factory(dict)
    # the Java to be brought into the image (``kit.runtime``), by its name among those of the
    # backend's settings (``runtimes``); only backends that have some are given one
    runtime: str | None = None
    # only backends that honour its mode are given one (``registry.Kind.pipelines``)
    pipelines: DockerPipelines | None = None
    # that no other instance of its template has while it is there (``kit.names.SLOT``); it is in
    # ``options``, ``env`` and ``work_dir`` already, and not in parts by name
    slot: int | None = None


@frozen(kw_only=True)
class Capacity:
    """Free room, where the platform can tell.

    ``room_at``: when it last showed that there is room where it had refused some (POSIX seconds);
    whoever waits for that asks again at once. ``places``: where instances may be put, as
    ``Instance.place`` has it; empty where that is not told.
    """

    free_instances: int | None = None
    text: str = ""
    room_at: float | None = None
    places: tuple[str, ...] = ()


class Reach(enum.Enum):
    """How far a failure reaches: what else would fail in the same way, just now.

    Only the adapter can know: a registry that does not answer is the trouble of one template, an
    engine that does not answer that of everybody. The core leaves alone exactly that.
    """

    LAUNCH = "launch"  # nothing but this start: the next one may go well at once
    TEMPLATE = "template"  # this template here: its image, its registry, its specification
    PLACE = "place"  # one host of several; the backend itself goes round it
    BACKEND = "backend"


class BackendError(Exception):
    """Base of the closed set. ``slug`` is the metric label, ``fault`` says who has to act.

    ``usual`` is how far one reaches whose adapter says nothing else.
    """

    slug: ClassVar[str] = "bug"
    fault: ClassVar[str] = "us"
    usual: ClassVar[Reach] = Reach.TEMPLATE

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float | None = None,
        reach: Reach | None = None,
        place: str = "",
    ) -> None:
        """``reason`` is for people and at most 256 characters; ``retry_after`` in seconds.

        ``place`` names the one that ``Reach.PLACE`` is about, as its configuration does.
        """
        super().__init__(reason[:256])
        self.reason = reason[:256]
        self.retry_after = retry_after
        self.reach = reach or (Reach.PLACE if place else self.usual)
        self.place = place
        self.nothing_left = False  # of ``launch``: it is certain that nothing was made, or stayed


class Rejected(BackendError):
    """Our specification or the configuration is wrong: the same call will fail again."""

    slug = "rejected"
    fault = "configuration"
    usual = Reach.TEMPLATE


class NoCapacity(BackendError):
    """The platform is full. Not a failure: the next backend, or wait."""

    slug = "no-capacity"
    fault = "nobody"
    usual = Reach.TEMPLATE


class Unauthorized(BackendError):
    """The platform does not let us: the operator has to act."""

    slug = "unauthorized"
    fault = "operator"
    usual = Reach.BACKEND


class Unavailable(BackendError):
    """The platform does not answer, or not in time."""

    slug = "unavailable"
    fault = "platform"
    usual = Reach.BACKEND


class Partial(Unavailable):
    """A list that is not whole; ``seen`` is what could be read of it.

    Of a pool of places some have not answered since the broker started: what was in an earlier
    list and is not in ``seen`` is gone; of what was in none nothing is known. Or, ``odd``, some
    entries could not be read: then nothing is known of whatever is not in ``seen``, because it may
    be one of them. Who does not care for the difference treats it as the error that it is.
    """

    slug = "partial"

    def __init__(self, reason: str, *, seen: "Sequence[Instance]", odd: bool = False) -> None:
        super().__init__(reason)
        self.seen = seen
        self.odd = odd


class NotFound(BackendError):
    """No such instance of ours. Callers of ``terminate`` treat it as done."""

    slug = "not-found"
    fault = "nobody"
    usual = Reach.LAUNCH


class AlreadyExists(BackendError):
    """The name is taken by something that is not ours, or by another specification."""

    slug = "already-exists"
    fault = "nobody"
    usual = Reach.LAUNCH


class Backend(Protocol):
    """What the broker asks of a platform."""

    kind: str

    async def reserve(self, spec: InstanceSpec) -> None:
        """Take the room of an instance, and start nothing; idempotent by ``spec.name``.

        ``spec`` is the one that ``launch`` is given afterwards, but for the contents of its
        secrets. ``terminate`` undoes it. What the platform would refuse is refused here, as far as
        it can hold an instance back or tells its room; elsewhere nothing happens. A launch without
        it is whole. Raises what ``launch`` does.
        """

    async def launch(self, spec: InstanceSpec) -> None:
        """Start an instance; idempotent by ``spec.name``. Raises any ``BackendError``."""

    async def list(self) -> Sequence[Instance]:
        """All instances with our owner mark, complete, or an error."""

    def watch(self) -> AsyncIterator[None]:
        """Yield when something may have changed; may end at any time."""

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """End and remove an instance with all it left; idempotent. Unknown: ``NotFound``."""

    async def capacity(self) -> Capacity | None:
        """Free room, or None where the platform cannot tell."""

    async def logs(self, name: str, *, tail: int) -> str:
        """Last ``tail`` lines of output, also of an exited instance. Unknown: ``NotFound``."""

    def work_dir(self, name: str) -> str | None:
        """Return the absolute path that ``WORK`` will stand for, or None if the image decides.

        Known before the launch: the controller wants it when the node is created.
        """

    async def aclose(self) -> None:
        """Let go of connections and threads, not of instances; idempotent.

        Watches end; every other call after it raises ``Unavailable``.
        """


async def depart(backend: Backend) -> None:
    """Have the platform forget us for good, where it remembers more than instances.

    For the last of a broker, when a person has asked for everything to go. A backend that has
    something to say then has a method ``depart``: it looks whether nothing of ours is left, raises
    a ``BackendError`` if something is, and is as good as closed afterwards.
    """
    said = getattr(backend, "depart", None)
    if said is not None:
        await said()


async def tell_idle(backend: Backend, names: Collection[str]) -> bool:
    """Tell the platform which instances have been idle for a while; True once all of it is done.

    For platforms that take machines away to save them: it is to spare all others, which have a
    build or may get one at once. A backend that can say so has a method ``tell_idle``, which is
    given all idle names each time, makes a few changes at most, and may raise any
    ``BackendError``. It is called when the names have changed and again while it is not done;
    nothing else depends on it.
    """
    told = getattr(backend, "tell_idle", None)
    return True if told is None else bool(await told(names))


async def run(backend: Backend, name: str, argv: Sequence[str], *, within_s: float) -> Ran:
    """Run a short command in an instance that runs: beside its program, as its user.

    ``argv`` is a program and its arguments, no shell and no placeholders; it has the instance's
    environment and no input, and starts in the directory that its program started in, as far as
    the platform does that. Not idempotent: who calls again runs it again, and one whose call was
    cancelled may still run. What it leaves running in the background is nobody's to end but the
    instance's.

    A backend that can has a method ``run``; ``registry.Kind.runs`` says which can. Raises NotFound
    (no such instance of ours, or it does not run), Rejected (its image has no such program, or
    this backend cannot), Unauthorized, Unavailable (the platform does not answer).
    """
    method = getattr(backend, "run", None)
    if method is None:
        raise Rejected(f"backends of kind {backend.kind} run no commands in their instances")
    if not argv or not argv[0] or any("\0" in word for word in argv):
        raise Rejected("a command is a program and its arguments, without NUL characters")
    ran: Ran = await method(name, tuple(argv), within_s=within_s)
    return ran


class Store(Protocol):
    """Where a backend keeps the few facts that no platform can be asked for again."""

    def load(self, key: str) -> str | None:
        """Return the value last saved, or None."""

    def save(self, key: str, value: str) -> None:
        """Write durably before returning. Raises OSError."""
