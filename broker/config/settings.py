"""The settings in force, as values that can be used, and the policy of a moment.

Refuses to know how they are written, and what follows from a policy.
"""

import enum
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
from attrs import Factory, field, frozen

from backends import api as backends_api
from backends.kit import honoured
from broker.config import errors, schedule, shape
from broker.core import election, model
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings
from jnlp import trust
from outside import files

_CA_BYTES = 1 << 20
"""Several times what the whole world's authorities take."""


class Secrets(enum.Enum):
    """What a reading makes of the secrets that a configuration refers to."""

    NEEDED = enum.auto()  # one that is not there is a problem
    LOOKED_FOR = enum.auto()  # it is a warning: the broker may run elsewhere
    UNREAD = enum.auto()  # nobody looks


@frozen(kw_only=True)
class KindClasses:
    """The settings classes of a kind of backend, handed in by who knows the kinds."""

    settings: type[Any]
    template_settings: type[Any]
    alone: str = ""  # why two brokers of one owner cannot share its agents
    lease: type[Any] | None = None  # how a lease on this platform is reached
    cap: int = 50  # agents on a backend of it that says nothing
    style: str = "command"  # how it starts an agent (``core.decide.spec.Style``)
    maker: Callable[..., object] | None = None  # ``registry.maker``
    given_refusal: str = ""  # why it brings no files of ours of more than ...
    given_most_bytes: int = 0  # ... this; empty: any
    given_needs: str = ""  # a setting of the backend with which it brings any
    given_file_bytes: int = 0  # of one of them at most; 0: no matter
    # modes of ``docker_pipelines``, and why it does not honour one; empty: it does
    pipelines: Mapping[str, str] = Factory(dict)
    own_folder: str = ""  # of an agent with the socket of its engine; empty: ``pipelines.FOLDER``
    run_refusal: str = ""  # why it runs no commands in its agents; empty: it does
    unheard: tuple[honoured.Unheard, ...] = ()  # ``registry.unheard``
    pretends: bool = False  # it starts nothing, and honours nothing of a launch


@frozen(kw_only=True)
class ControllerSettings:
    """How the controller is reached."""

    url: str
    agent_url: str
    credentials: jnlp_settings.Credentials | None = None
    ca_file: str | None = None
    verify: bool = True
    proxy: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    placeholder: bool = True
    agents_trust_ca: bool = True

    def route(self) -> backends_api.Route:
        """Return how files are fetched from it."""
        return backends_api.Route(ca_file=self.ca_file, verify=self.verify, proxy=self.proxy)

    def authorities(self) -> tuple[str, ...]:
        """Return what agents are to trust besides their Java's authorities, as PEM texts.

        Read anew for each launch: a new authority needs no restart. Nothing where there are too
        many for a command line. Raises ValueError for a file without a certificate, and OSError.
        """
        if self.ca_file is None or not self.verify or not self.agents_trust_ca:
            return ()
        found = self.certificates(self.ca_file)
        return found if len(found) <= trust.MOST else ()

    @staticmethod
    def certificates(path: str) -> tuple[str, ...]:
        """Read a PEM file. Raises ValueError for one without a certificate, and OSError."""
        return trust.certificates(files.read(path, limit=_CA_BYTES).decode("ascii", "replace"))

    def session(self) -> jnlp_settings.ControllerAccess:
        """Return what the HTTP session wants."""
        return jnlp_settings.ControllerAccess(
            url=self.url,
            credentials=self.credentials,
            ca_file=self.ca_file,
            verify=self.verify,
            proxy=self.proxy,
            timeout_s=self.timeout_s,
        )


@frozen(kw_only=True)
class BackendSettings:
    """One configured backend: its kind, the kind's own settings, its limits."""

    kind: str
    settings: Any
    limits: model.BackendPolicy


@frozen(kw_only=True)
class HighAvailability:
    """Who of several brokers acts is agreed on by a lease."""

    kind: str  # of the backend whose platform holds it
    settings: Any  # how that is reached
    name: str
    identity: str | None
    terms: election.Terms


@frozen(kw_only=True)
class Warmth:
    """How many agents of a template to keep idle, by the week."""

    base: int = 0
    zone: str = "UTC"
    windows: tuple[schedule.Window, ...] = ()

    def at(self, moment: float) -> int:
        """Return the figure of a moment (POSIX seconds, wall clock)."""
        return schedule.min_idle(self.base, self.windows, zone=self.zone, at=moment)

    def changes(self) -> Iterator[float]:
        """Yield moments of a week in winter and of one in summer, one in each span of a figure."""
        return schedule.changes(self.windows, zone=self.zone)


@frozen(kw_only=True)
class HookSettings:
    """The controller's push hook."""

    key: jnlp_secret.Secret
    url: str | None = None  # of the broker's page, as the controller reaches it; None: its own
    install: bool = False  # the broker puts it in by itself
    tells_builds: bool = True


@frozen(kw_only=True)
class Settings:
    """Everything, checked."""

    owner: str
    controller: ControllerSettings
    poll: shape.Poll
    state_dir: pathlib.Path
    listen: tuple[str, int] | None
    log: shape.Log
    backends: Mapping[model.BackendName, BackendSettings]
    limits: shape.Limits
    advanced: shape.Advanced
    templates: tuple[model.Template, ...]  # ``min_idle`` without the schedule
    warmth: Mapping[model.TemplateName, Warmth]
    high_availability: HighAvailability | None = None
    warnings: tuple[errors.Problem, ...] = ()  # what works and is unwise
    digest: str = ""  # of the files' texts
    tokens_file: pathlib.Path | None = None  # of whoever may order something; None: nobody may
    hook: HookSettings | None = None
    watch_files_s: float | None = None  # None: only when asked
    parts: Mapping[str, str] = field(factory=dict, repr=False)  # ``parts.digests``
    fingerprint: str = ""  # of what the file says, whatever its layout; empty: in force in part

    def secrets(self) -> tuple[str, ...]:
        """Return the texts that must never be shown, for the log to blank."""
        given = self.controller.credentials
        proxy = urllib.parse.urlsplit(self.controller.proxy or "").password
        key = self.hook.key.reveal() if self.hook else None
        return tuple(s for s in (given.secret.reveal() if given else None, proxy, key) if s)


RESTARTS = frozenset(
    {"backends", "controller", "high_availability", "listen", "log", "owner", "state_dir"}
)
"""What a broker at work keeps until it is started again."""


@frozen(kw_only=True)
class ConfigurationState:
    """How the configuration in force stands to the files."""

    read_at: float = 0.0  # POSIX seconds on the broker's clock
    parts: Mapping[str, str] = field(factory=dict)  # of what is in force, by setting
    waits: tuple[str, ...] = ()  # settings that the files change and only a restart puts in force
    refused_at: float | None = None  # a newer one was refused then; it counts no more afterwards
    refusal: str = ""  # why, for people


def policy(settings: Settings, *, wall_now: float, draining: bool = False) -> model.Policy:
    """Return the policy of a moment (POSIX seconds, wall clock: schedules go by it)."""
    return model.Policy(
        owner=settings.owner,
        templates=tuple(
            attrs.evolve(t, min_idle=settings.warmth[t.name].at(wall_now))
            for t in settings.templates
        ),
        backends={name: entry.limits for name, entry in settings.backends.items()},
        cap=settings.limits.agents,
        max_starting=settings.limits.starting,
        give_up_s=settings.limits.give_up_s,
        placeholder=settings.controller.placeholder,
        draining=draining,
        **{a.name: getattr(settings.advanced, a.name) for a in attrs.fields(shape.Advanced)},
    )
