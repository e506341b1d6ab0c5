"""From the document to settings: cross-checks, secrets, connections, revisions.

Every check here needs more than one value to judge. Problems are collected. Refuses to know how
YAML is read.
"""

import copy
import hashlib
import json
import pathlib
import urllib.parse
import zoneinfo
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from backends.kit import remarks
from broker.config import (
    collector,
    errors,
    exposure,
    merging,
    parts,
    places,
    reading,
    shape,
    templating,
    tree,
    values,
)
from broker.config import (
    high_availability as sharing,
)
from broker.config.settings import (
    BackendSettings,
    ControllerSettings,
    HookSettings,
    KindClasses,
    Secrets,
    Settings,
)
from broker.core import model
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings
from jnlp import trust
from outside import counts, paths, secrets

SHORTEST_KEY = 20
_DEFAULT_BACKENDS = {"local": {"kind": "process"}}


@define(kw_only=True)
class Builder:
    """Builds once; the problems are in ``notes`` afterwards."""

    kinds: Mapping[str, KindClasses]
    environ: Mapping[str, str]
    base: pathlib.Path
    secrets: Secrets = Secrets.NEEDED
    notes: collector.Notes = field(factory=collector.Notes)

    def build(self, data: Any) -> Settings | None:
        """Return settings, or None when there are problems."""
        if not isinstance(data, dict):
            self.notes.bad((), f"found {values.shown(data)}; allowed: a section of settings")
            return None
        plain = dict(data)
        shared = plain.pop("high_availability", None)
        sections = self._take_sections(plain)
        document = _read(plain, self.notes.problems)
        unread = {problem.path for problem in self.notes.problems}
        backends = self._backends(data.get("backends", _DEFAULT_BACKENDS))
        self._check_document(document)
        controller = self._controller(document.controller)
        state_dir = self._state_dir(document.state_dir)
        exposure.check_state_dir(self.notes, state_dir)
        listen = self._listen(document.listen)
        exposure.check_listen(self.notes, listen)
        hook = self._hook(document.control.hook, listen)
        replicas = sharing.high_availability(
            shared, self.kinds, self.notes, owner=document.owner, backends=backends
        )
        makes = templating.Templates(
            named=tuple(told) if isinstance(told := data.get("backends"), dict) else (),
            kinds=self.kinds,
            notes=self.notes,
            document=document,
            backends=backends,
            base=self.base,
            secrets=self.secrets,
            unread={path[1] for path in unread if len(path) > 1 and path[0] == "templates"},
        )
        templates = tuple(
            makes.template(name, entry, sections.get(name, {}))
            for name, entry in document.templates.items()
        )
        self._check_warm(document)
        if not templates and not self.notes.problems:
            self.notes.bad(("templates",), "found none; allowed: one or more")
        if self.notes.problems or controller is None:
            self.notes.problems = [p for p in self.notes.problems if not _follows(p, unread)]
            self._hint()
            return None
        return Settings(
            owner=document.owner,
            controller=controller,
            poll=document.poll,
            state_dir=state_dir,
            listen=listen,
            log=document.log,
            backends=backends,
            limits=document.limits,
            advanced=document.advanced,
            templates=tuple(t for t in templates if t is not None),
            warmth={
                model.TemplateName(name): templating.warmth(entry.warm)
                for name, entry in document.templates.items()
            },
            high_availability=replicas,
            tokens_file=self._tokens_file(document.control.tokens_file, listen),
            hook=hook,
            watch_files_s=document.watch_files_s,
            parts=parts.digests(
                document,
                sections,
                backends,
                {} if replicas is None else {"high_availability": replicas},
            ),
            fingerprint=_fingerprint(data),
        )

    def _check_warm(self, document: shape.Document) -> None:
        """Look whether all that is to be idle at one moment of a week may be there."""
        most = document.limits.agents
        if most is None:
            return
        warmths = {
            name: templating.warmth(entry.warm)
            for name, entry in document.templates.items()
            if not entry.paused
        }
        try:
            moments = sorted({m for one in warmths.values() for m in one.changes()})
            totals = [
                {name: n for name, one in warmths.items() if (n := one.at(moment)) > 0}
                for moment in moments
            ]
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            return  # the zone was told
        fullest = max(totals, key=lambda total: sum(total.values()), default={})
        if sum(fullest.values()) > most and len(fullest) > 1:  # one alone was told
            each = ", ".join(f"{name} {number}" for name, number in fullest.items())
            idle = counts.told(sum(fullest.values()), "agent is", "agents are")
            self.notes.bad(
                ("limits", "agents"),
                f"found {most}, and {idle} to be idle at once: {each}",
                "a larger limit, or smaller figures in `warm`",
            )

    def check_values(self, data: Any) -> None:
        """Note what is wrong with values by themselves, of a document that is not all there."""
        if not isinstance(data, dict):
            return
        plain = dict(data)
        plain.pop("high_availability", None)
        sections = self._take_sections(plain)
        document = _read(plain, self.notes.problems)
        self._backends(data.get("backends", {}))
        self._check_document(document)
        self._controller(document.controller)
        self._listen(document.listen)
        for name, kinds in sections.items():
            for kind, section in kinds.items():
                told = self.kinds[kind].template_settings
                reading.read_each(told, section, ("templates", name, kind), self.notes.problems)
        self._hint()

    def _hint(self) -> None:
        """Say of settings at a wrong place where theirs is."""
        right = places.Places(kinds=self.kinds)
        self.notes.problems = [right.hinted(problem) for problem in self.notes.problems]

    def _state_dir(self, told: str) -> pathlib.Path:
        try:
            return (self.base / told).resolve()
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
            self.notes.bad(("state_dir",), f"found {values.shown(told)}: {error}"[:256])
            return self.base

    # --- sections that belong to a kind, and defaults ---

    def _take_sections(self, plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Merge the defaults into every template, and take out what belongs to a kind."""
        plain.pop("backends", None)
        defaults, templates = plain.get("defaults"), plain.get("templates")
        if defaults is not None and not isinstance(defaults, dict):
            return {}  # told by the reader
        if not isinstance(templates, dict):
            return {}
        sections: dict[str, dict[str, Any]] = {}
        merged: dict[str, Any] = {}
        for name, entry in templates.items():
            if not isinstance(entry, dict):
                merged[name] = entry
                continue
            whole = merging.laid_over(defaults or {}, entry)
            sections[name] = {k: whole.pop(k) for k in list(whole) if k in self.kinds}
            merged[name] = whole
        plain["templates"] = merged
        plain["defaults"] = {}
        return sections

    # --- parts ---

    def _check_document(self, document: shape.Document) -> None:
        if not values.NAME.fullmatch(document.owner):
            self.notes.bad(
                ("owner",), f"found {values.shown(document.owner)}; allowed: {values.NAME_WORDS}"
            )
        if document.poll.idle_s < document.poll.busy_s:
            self.notes.bad(
                ("poll", "idle"), "shorter than poll.busy", "idle is the slower of the two"
            )
        if document.advanced.backoff_max_s < document.advanced.backoff_base_s:
            self.notes.bad(("advanced", "backoff_max"), "shorter than advanced.backoff_base")

    def _controller(self, section: shape.Controller) -> ControllerSettings | None:
        where: tree.Path = ("controller",)
        url = self._url((*where, "url"), section.url)
        agent_url = url
        if section.agent_url is not None:
            agent_url = self._url((*where, "agent_url"), section.agent_url)
        if section.token is not None and section.password is not None:
            self.notes.bad((*where, "password"), "given beside a token", "keep the token")
        secret = self._secret(
            (*where, "token" if section.token is not None else "password"),
            section.token if section.token is not None else section.password,
        )
        if section.user is None and (section.token is not None or section.password is not None):
            self.notes.bad((*where, "user"), "missing, and a token or password is given")
        if section.user is not None and section.token is None and section.password is None:
            self.notes.bad((*where, "token"), "missing, and a user is given", "token: file:PATH")
        if not section.verify:
            self.notes.warn((*where, "verify"), "false: anybody may pose as the controller")
        if section.user is None:
            self.notes.warn((*where, "user"), "missing: the broker works as anonymous")
        else:
            exposure.check_url(self.notes, (*where, "url"), url, "the token travels")
        ca_file = self._authority((*where, "ca_file"), section.ca_file)
        proxy = self._proxy((*where, "proxy"), section.proxy)
        if url is None or agent_url is None:
            return None
        credentials = None
        if section.user is not None and secret is not None:
            credentials = jnlp_settings.Credentials(
                user=section.user,
                secret=secret,
                is_password=section.token is None,
                secret_file=self._file_of(
                    section.token if section.token is not None else section.password
                ),
            )
        return ControllerSettings(
            url=url,
            agent_url=agent_url,
            credentials=credentials,
            ca_file=ca_file,
            verify=section.verify,
            proxy=proxy,
            timeout_s=section.timeout_s,
            placeholder=section.placeholder,
            agents_trust_ca=section.agents_trust_ca,
        )

    def _authority(self, path: tree.Path, path_text: str | None) -> str | None:
        """Return the path of the PEM file; it is read here to be sure of it."""
        if path_text is None:
            return None
        ca_file = str(self.base / path_text)
        try:
            if self.secrets is not Secrets.NEEDED and paths.mode(ca_file) is None:
                self.notes.warn(path, f"not here: found {ca_file}, and there is no such file")
                return ca_file
            if not paths.is_regular(ca_file):
                self.notes.bad(path, f"found {ca_file}, which is not a file")
                return ca_file
            many = len(ControllerSettings.certificates(ca_file)) > trust.MOST
        except OSError as error:
            self.notes.bad(path, f"{ca_file} cannot be read: {error.strerror}")
        except ValueError as error:
            self.notes.bad(path, f"found {ca_file}: {error}")
        else:
            if many:
                self.notes.warn(
                    path,
                    f"holds more than {trust.MOST} certificates: agents are not given them and "
                    "trust what their Java trusts; name the controller's own authority alone",
                )
        return ca_file

    def _url(self, path: tree.Path, text: str) -> str | None:
        if not _is_url(text):
            self.notes.bad(path, f"found {values.shown_url(text)}; allowed: http://… or https://…")
            return None
        parts = urllib.parse.urlsplit(text)
        if parts.username is not None or parts.query or parts.fragment:
            self.notes.bad(
                path,
                "found a URL with a user, a query or a fragment (not shown)",
                "controller.user and controller.token say who the broker is",
            )
            return None
        return text if text.endswith("/") else f"{text}/"

    def _proxy(self, path: tree.Path, setting: str | None) -> str | None:
        """Return the proxy's URL; one with a password is only referred to."""
        if setting is None:
            return None
        if setting.startswith(("file:", "env:")):
            secret = self._secret(path, setting)
            text = secret.reveal() if secret is not None else None
        else:
            text = setting
            if "@" in setting:
                self.notes.bad(
                    path,
                    "found a URL with a user (not shown); allowed: a URL, file:PATH or env:NAME",
                    "put the whole URL into a file and name the file",
                )
                return None
        if text is not None and not _is_url(text):
            self.notes.bad(
                path, "found no URL of http; allowed: http://HOST:PORT, file:PATH or env:NAME"
            )
            return None
        if text is not None and "@" in text:
            exposure.check_url(self.notes, path, text, "the proxy's password travels")
        return text

    def _secret(self, path: tree.Path, setting: str | None) -> jnlp_secret.Secret | None:
        if setting is None or self.secrets is Secrets.UNREAD:
            return None
        if setting.startswith("file:"):
            file = self.base / setting.removeprefix("file:")
            exposure.check_secret_file(self.notes, path, file)
        try:
            return values.resolve(setting, base=self.base, environ=self.environ)
        except values.Bad as error:
            text = f"found {error.found}; allowed: {error.allowed}"
            if isinstance(error, values.Absent) and self.secrets is not Secrets.NEEDED:
                self.notes.warn(path, f"not here: {text}", error.hint)
            else:
                self.notes.bad(path, text, error.hint)
            return None

    def _file_of(self, told: str | None) -> pathlib.Path | None:
        """Return where a secret can be read again; one of the environment stays what it was."""
        kind, _, name = (told or "").partition(":")
        return (self.base / name).absolute() if kind == "file" else None

    def _listen(self, setting: str | None) -> tuple[str, int] | None:
        if setting is None:
            return None
        found = values.address(setting)
        if found is None:
            self.notes.bad(
                ("listen",),
                f"found {values.shown(setting)}; allowed: HOST:PORT or off",
                "127.0.0.1:8087",
            )
        return found

    def _tokens_file(
        self, setting: str | None, listen: tuple[str, int] | None
    ) -> pathlib.Path | None:
        if setting is None:
            return None
        path, file = ("control", "tokens_file"), (self.base / setting).absolute()
        exposure.check_secret_file(self.notes, path, file)
        exposure.check_control(self.notes, listen)
        return file

    def _hook(
        self, section: shape.HookSection | None, listen: tuple[str, int] | None
    ) -> HookSettings | None:
        if section is None:
            return None
        path = ("control", "hook")
        key = self._secret((*path, "key"), section.key)
        if key is not None and len(key.reveal()) < SHORTEST_KEY:
            self.notes.bad(
                (*path, "key"),
                f"found one of fewer than {SHORTEST_KEY} characters (not shown)",
                "openssl rand -hex 32",
            )
            return None
        url = None
        if section.url is not None:
            url = self._url((*path, "url"), section.url)
        elif listen is not None and exposure.is_any(listen[0]):
            self.notes.bad(
                (*path, "url"),
                f"missing, and listen says no address that a controller could ask ({listen[0]})",
                "url: http://broker.example.com:8087/",
            )
        if listen is None:
            self.notes.warn(path, "nothing can be told: listen is off", "listen: 127.0.0.1:8087")
        exposure.check_url(self.notes, (*path, "url"), url, "the hook's key travels")
        if key is None:
            if self.secrets is Secrets.NEEDED:
                return None
            key = jnlp_secret.Secret("")  # which is nobody's
        secrets.register(key.reveal(), pool="hook")
        return HookSettings(
            key=key, url=url, install=section.install, tells_builds=section.tells_builds
        )

    # --- backends ---

    def _backends(self, section: Any) -> dict[model.BackendName, BackendSettings]:
        backends: dict[model.BackendName, BackendSettings] = {}
        if not isinstance(section, dict):
            self.notes.bad(
                ("backends",), f"found {values.shown(section)}; allowed: NAME with its settings"
            )
            return backends
        if not section:
            self.notes.bad(
                ("backends",), "found none; allowed: one or more", "leave it out for processes"
            )
        for name, entry in section.items():
            settings = self._backend(("backends", name), entry)
            if not values.NAME.fullmatch(name):
                self.notes.bad(("backends", name), f"a name has {values.NAME_WORDS}")
            elif settings is not None:
                backends[model.BackendName(name)] = settings
        return backends

    def _backend(self, path: tree.Path, entry: Any) -> BackendSettings | None:
        if not isinstance(entry, dict):
            self.notes.bad(path, f"found {values.shown(entry)}; allowed: a section with a kind")
            return None
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in self.kinds:
            found = f"found {values.shown(kind)}" if "kind" in entry else "missing"
            allowed = sorted(self.kinds)
            hint = reading.guess(str(kind), allowed) if "kind" in entry else ""
            self.notes.bad((*path, "kind"), f"{found}; allowed: {', '.join(allowed)}", hint)
            return None
        shared, own = reading.read_both(
            shape.Backend, self.kinds[kind].settings, entry, path, self.notes.problems
        )
        if shared is None:
            return None
        cap = self.kinds[kind].cap if shared.cap is None else shared.cap
        limit = None if cap == shape.UNLIMITED else cap
        if own is None:
            return None
        self.notes.remarks(path, remarks.of_settings(own))
        exposure.check_secret_files(self.notes, path, own)
        exposure.check_user(self.notes, path, kind)
        limits = model.BackendPolicy(
            cap=limit,
            max_starting=shared.starting,
            launch_rate=shared.launch_rate,
            launch_burst=shared.launch_burst,
        )
        return BackendSettings(kind=kind, settings=own, limits=limits)


def _is_url(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        _ = parts.port
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _read(plain: Mapping[str, Any], problems: list[errors.Problem]) -> shape.Document:
    """Return the document; what cannot be read is left out, so that the rest is checked, too."""
    told: list[errors.Problem] = []
    document = reading.read(shape.Document, plain, (), told)
    problems += told
    data = copy.deepcopy(dict(plain))
    while document is None and told:
        for problem in told:
            _take_out(data, problem.path)
        missing: tuple[tuple[str, Any], ...]
        missing = (("owner", "o"), ("controller", {}), ("templates", {}))
        for key, value in missing:
            data.setdefault(key, value)
        for place, key, value in (
            (data["controller"], "url", "http://c/"),
            *((entry, "labels", "x") for entry in (data.get("templates") or {}).values()),
        ):
            if isinstance(place, dict):
                place.setdefault(key, value)
        before, told = told, []
        document = reading.read(shape.Document, data, (), told)
        if told == before:
            break
    return document or shape.Document(
        owner="o", controller=shape.Controller(url="http://c/"), templates={}
    )


def _follows(problem: errors.Problem, unread: set[tree.Path]) -> bool:
    """Tell whether what is missed may be what stands there and could not be read."""
    return problem.text.startswith("missing, and") and any(
        problem.path[:-1] == path[:-1] or problem.path == path[: len(problem.path)]
        for path in map(_listed, unread)
    )


def _listed(path: tree.Path) -> tree.Path:
    """Return the setting that a place is in the list of, or the place itself."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return path


def _take_out(data: Any, path: tree.Path) -> None:
    """Take out what stands at a path: the innermost setting that it leads to."""
    found: tuple[dict[str, Any], str] | None = None
    for key in path:
        if isinstance(data, dict) and key in data:
            found = (data, str(key))
        elif not isinstance(data, list):
            break
        data = data[key]
    if found is not None:
        found[0].pop(found[1], None)


def _fingerprint(data: Any) -> str:
    """Return what tells one file from another: all that it says, nothing of how it is laid out."""
    return hashlib.sha256(json.dumps(data, default=str).encode()).hexdigest()[:16]
