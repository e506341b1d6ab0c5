"""From the document to settings: cross-checks, secrets, connections, revisions.

Every check here needs more than one value to judge. Problems are collected. Refuses to know how
YAML is read.
"""

import hashlib
import pathlib
import re
import urllib.parse
import zoneinfo
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import define, field

from backends import api as backends_api
from broker import schedule
from broker.config import reading, shape, tree, values
from broker.config.settings import (
    BackendSettings,
    ControllerSettings,
    KindClasses,
    Settings,
    Warmth,
)
from broker.core import marks, model
from jnlp import http as jnlp_http
from jnlp import node as jnlp_node
from jnlp import secret as jnlp_secret
from jnlp import tunnel as jnlp_tunnel

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NAME_WORDS = "lower-case letters, digits and '-', a letter or digit at both ends"
_SUFFIX = "x" * 6
_MAX_NAME = 63
_LEAST_POLL_S = 0.25
_DEFAULT_BACKENDS = {"local": {"kind": "process"}}
_MAX_PORT = 65535
_EMPTY: Mapping[str, Any] = {"owner": "o", "controller": {"url": "http://c/"}, "templates": {}}


@define(kw_only=True)
class Builder:
    """Builds once; ``problems`` are there afterwards."""

    kinds: Mapping[str, KindClasses]
    environ: Mapping[str, str]
    base: pathlib.Path
    problems: list[reading.Problem] = field(factory=list)
    warnings: list[str] = field(factory=list)

    def bad(self, path: tree.Path, text: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(reading.Problem(path=path, text=text, hint=hint))

    def build(self, data: Any) -> Settings | None:
        """Return settings, or None when there are problems."""
        if not isinstance(data, dict):
            self.bad((), f"found {values.shown(data)}; allowed: a section of settings")
            return None
        plain = dict(data)
        sections = self._take_sections(plain)
        document = reading.read(shape.Document, plain, (), self.problems) or _mended(plain)
        backends = self._backends(data.get("backends", _DEFAULT_BACKENDS))
        self._check_document(document)
        controller = self._controller(document.controller)
        listen = self._listen(document.listen)
        templates = tuple(
            self._template(name, told, sections.get(name, {}), document, backends)
            for name, told in document.templates.items()
        )
        if not templates and not self.problems:
            self.bad(("templates",), "found none; allowed: one or more")
        if self.problems or controller is None:
            return None
        return Settings(
            owner=document.owner,
            controller=controller,
            poll=document.poll,
            state_dir=(self.base / document.state_dir).resolve(),
            listen=listen,
            log=document.log,
            backends=backends,
            limits=document.limits,
            advanced=document.advanced,
            templates=tuple(t for t in templates if t is not None),
            warmth={
                model.TemplateName(name): _warmth(told.warm)
                for name, told in document.templates.items()
            },
            warnings=tuple(self.warnings),
        )

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
        for name, told in templates.items():
            if not isinstance(told, dict):
                merged[name] = told
                continue
            whole = _merge(defaults or {}, told)
            sections[name] = {k: whole.pop(k) for k in list(whole) if k in self.kinds}
            merged[name] = whole
        plain["templates"] = merged
        plain["defaults"] = {}
        return sections

    # --- parts ---

    def _check_document(self, document: shape.Document) -> None:
        if not _NAME.fullmatch(document.owner):
            self.bad(("owner",), f"found {values.shown(document.owner)}; allowed: {_NAME_WORDS}")
        if document.poll.busy_s < _LEAST_POLL_S:
            self.bad(("poll", "busy"), f"found {document.poll.busy_s:g}s; allowed: 250ms or more")
        if document.poll.idle_s < document.poll.busy_s:
            self.bad(("poll", "idle"), "shorter than poll.busy", "idle is the slower of the two")
        for name in ("agents", "starting"):
            self._at_least(("limits", name), getattr(document.limits, name), 0)
        for name, least in (("sweep_floor", 0), ("sweep_share", 0.0)):
            self._at_least(("advanced", name), getattr(document.advanced, name), least)

    def _at_least(self, path: tree.Path, value: float | None, least: float) -> None:
        if value is not None and value < least:
            self.bad(path, f"found {value:g}; allowed: {least:g} or more")

    def _controller(self, told: shape.Controller) -> ControllerSettings | None:
        where: tree.Path = ("controller",)
        url = self._url((*where, "url"), told.url)
        agent_url = self._url((*where, "agent_url"), told.agent_url or told.url)
        if told.token is not None and told.password is not None:
            self.bad((*where, "password"), "given beside a token", "keep the token")
        secret = self._secret(
            (*where, "token" if told.token is not None else "password"),
            told.token if told.token is not None else told.password,
        )
        if told.user is None and secret is not None:
            self.bad((*where, "user"), "missing, and a token or password is given")
        if told.user is not None and told.token is None and told.password is None:
            self.bad((*where, "token"), "missing, and a user is given", "token: file:PATH")
        if not told.verify:
            self.warnings.append("controller.verify is false: anybody may pose as the controller")
        if told.user is None:
            self.warnings.append("controller.user is missing: the broker works as anonymous")
        elif url is not None and url.startswith("http://") and not _is_local(url):
            self.warnings.append("controller.url is not https: the token travels in the clear")
        ca_file = None if told.ca_file is None else str(self.base / told.ca_file)
        if ca_file is not None and not pathlib.Path(ca_file).is_file():
            self.bad((*where, "ca_file"), f"found {ca_file}, which is no file")
        if url is None or agent_url is None:
            return None
        credentials = None
        if told.user is not None and secret is not None:
            credentials = jnlp_http.Credentials(
                user=told.user, secret=secret, is_password=told.token is None
            )
        return ControllerSettings(
            url=url,
            agent_url=agent_url,
            credentials=credentials,
            ca_file=ca_file,
            verify=told.verify,
            proxy=told.proxy,
            timeout_s=told.timeout_s,
            placeholder=told.placeholder,
        )

    def _url(self, path: tree.Path, text: str) -> str | None:
        try:
            parts = urllib.parse.urlsplit(text)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            good = False
        if not good:
            self.bad(path, f"found {values.shown(text)}; allowed: http://… or https://…")
            return None
        if parts.username is not None or parts.query or parts.fragment:
            self.bad(
                path,
                "found a URL with a user, a query or a fragment (not shown)",
                "controller.user and controller.token say who the broker is",
            )
            return None
        return text if text.endswith("/") else f"{text}/"

    def _secret(self, path: tree.Path, told: str | None) -> jnlp_secret.Secret | None:
        if told is None:
            return None
        try:
            return values.resolve(told, base=self.base, environ=self.environ)
        except values.Bad as error:
            self.bad(path, f"found {error.found}; allowed: {error.allowed}", error.hint)
            return None

    def _listen(self, told: str | None) -> tuple[str, int] | None:
        if told is None:
            return None
        host, colon, port = told.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > _MAX_PORT or not host:
            self.bad(
                ("listen",),
                f"found {values.shown(told)}; allowed: HOST:PORT or off",
                "127.0.0.1:8087",
            )
            return None
        return host.removeprefix("[").removesuffix("]"), int(port)

    # --- backends ---

    def _backends(self, told: Any) -> dict[model.BackendName, BackendSettings]:
        found: dict[model.BackendName, BackendSettings] = {}
        if not isinstance(told, dict):
            self.bad(("backends",), f"found {values.shown(told)}; allowed: NAME with its settings")
            return found
        for name, entry in told.items():
            made = self._backend(("backends", name), entry)
            if not _NAME.fullmatch(name):
                self.bad(("backends", name), f"a name has {_NAME_WORDS}")
            elif made is not None:
                found[model.BackendName(name)] = made
        return found

    def _backend(self, path: tree.Path, entry: Any) -> BackendSettings | None:
        if not isinstance(entry, dict):
            self.bad(path, f"found {values.shown(entry)}; allowed: a section with a kind")
            return None
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in self.kinds:
            found = f"found {values.shown(kind)}" if "kind" in entry else "missing"
            self.bad((*path, "kind"), f"{found}; allowed: {', '.join(sorted(self.kinds))}")
            return None
        common = {reading.key_of(a) for a in attrs.fields(shape.Backend)}
        own_class = self.kinds[kind].settings
        own_known = {reading.key_of(a) for a in attrs.fields(own_class)}
        for key in sorted(set(entry) - common - own_known):
            self.problems.append(reading.unknown(path, key, sorted(common | own_known)))
        shared = reading.read(
            shape.Backend, {k: v for k, v in entry.items() if k in common}, path, self.problems
        )
        own = reading.read(
            own_class, {k: v for k, v in entry.items() if k in own_known}, path, self.problems
        )
        if shared is None or own is None:
            return None
        for name, least in (("cap", 0), ("starting", 1), ("launch_burst", 1)):
            self._at_least((*path, name), getattr(shared, name), least)
        if shared.launch_rate <= 0:
            self.bad((*path, "launch_rate"), f"found {shared.launch_rate:g}; allowed: more than 0")
        limits = model.BackendPolicy(
            cap=shared.cap,
            max_starting=shared.starting,
            launch_rate=shared.launch_rate,
            launch_burst=shared.launch_burst,
        )
        return BackendSettings(kind=kind, settings=own, limits=limits)

    # --- templates ---

    def _template(
        self,
        name: str,
        told: shape.Template,
        sections: Mapping[str, Any],
        document: shape.Document,
        backends: Mapping[model.BackendName, BackendSettings],
    ) -> model.Template | None:
        path: tree.Path = ("templates", name)
        self._check_template(path, name, told, document.owner)
        chosen = self._chosen(path, told, backends)
        connection = self._connection((*path, "connect"), told.connect)
        platform = self._platform(path, chosen, sections, backends)
        if connection is None:
            return None
        agent_url = document.controller.agent_url or document.controller.url
        launch = model.LaunchSettings(
            connection=connection,
            agent_url=agent_url if agent_url.endswith("/") else f"{agent_url}/",
            remote_fs=told.remote_fs,
            image=told.image,
            command=told.command,
            java=told.java,
            jvm_options=told.jvm_options,
            environment=told.environment,
            resources=backends_api.Resources(**attrs.asdict(told.resources)),
            reconnect_for_s=told.reconnect_for_s,
            platform=platform,
        )
        template = model.Template(
            name=model.TemplateName(name),
            labels=frozenset(told.labels),
            backends=chosen,
            revision="",
            executors=told.executors,
            exclusive=told.mode == "exclusive",
            takes_unlabelled=told.takes_unlabelled,
            start_early=told.start_early,
            paused=told.paused,
            cap=told.cap,
            min_idle=told.warm.min_idle,
            retention=model.Retention(**attrs.asdict(told.retention)),
            connect_deadline_s=told.connect_deadline_s,
            launch=launch,
        )
        return attrs.evolve(template, revision=revision(template))

    def _check_template(
        self, path: tree.Path, name: str, told: shape.Template, owner: str
    ) -> None:
        if not _NAME.fullmatch(name):
            self.bad(path, f"a name has {_NAME_WORDS}")
        full = marks.node_name(owner, name, _SUFFIX)
        if len(full) > _MAX_NAME:
            self.bad(
                path,
                f"agents would be called {full[:_MAX_NAME]}…, {len(full)} characters; allowed: "
                f"{_MAX_NAME}",
                "a shorter owner or template name",
            )
        for number, label in enumerate(told.labels):
            for text in jnlp_node.label_problems(label):
                self.bad((*path, "labels", number), text)
        for name_, value, least in (
            (("executors",), told.executors, 1),
            (("cap",), told.cap, 0),
            (("warm", "min_idle"), told.warm.min_idle, 0),
            (("retention", "max_builds"), told.retention.max_builds, 1),
        ):
            self._at_least((*path, *name_), value, least)
        if told.takes_unlabelled and told.mode == "exclusive":
            self.bad(
                (*path, "takes_unlabelled"),
                "true, and mode is exclusive: the controller gives such agents only builds that "
                "ask for a label",
                "mode: normal",
            )
        self._check_warm(path, told)
        self._check_retention(path, told)

    def _check_warm(self, path: tree.Path, told: shape.Template) -> None:
        most = max(
            [told.warm.min_idle]
            + [w.min_idle for w in (told.warm.schedule.windows if told.warm.schedule else ())]
        )
        if told.cap is not None and most > told.cap:
            self.bad((*path, "warm"), f"{most} agents are to be idle, and cap is {told.cap}")
        if told.warm.schedule is not None:
            zone = told.warm.schedule.zone
            try:
                zoneinfo.ZoneInfo(zone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                self.bad(
                    (*path, "warm", "schedule", "zone"),
                    f"found {values.shown(zone)}; allowed: a time zone like Europe/Berlin",
                )

    def _check_retention(self, path: tree.Path, told: shape.Template) -> None:
        keep = told.retention
        where = (*path, "retention")
        if keep.max_age_s is not None and keep.max_age_s <= 0:
            self.bad((*where, "max_age"), "found 0s; allowed: more than 0s")
        if keep.once and told.executors > 1:
            self.bad(
                (*where, "once"),
                f"true, and executors is {told.executors}: one build leaves the others no slot",
                "executors: 1",
            )
        if keep.once and keep.max_builds not in {None, 1}:
            self.bad((*where, "max_builds"), "given beside once", "keep one of them")
        if keep.max_builds is not None and told.executors > 1:
            self.warnings.append(
                f"{reading.dotted(where)}.max_builds with {told.executors} executors: builds that "
                "run at the same time may exceed it"
            )

    def _chosen(
        self,
        path: tree.Path,
        told: shape.Template,
        backends: Mapping[model.BackendName, BackendSettings],
    ) -> tuple[model.BackendName, ...]:
        if told.backends is None:
            return tuple(backends)
        for number, name in enumerate(told.backends):
            if name not in backends:
                self.bad(
                    (*path, "backends", number),
                    f"found {values.shown(name)}; allowed: {', '.join(backends) or 'none'}",
                )
        if not told.backends:
            self.bad((*path, "backends"), "found none; allowed: one or more, or leave it out")
        return tuple(model.BackendName(name) for name in told.backends)

    def _connection(self, path: tree.Path, told: shape.Connect) -> jnlp_tunnel.Connection | None:
        try:
            return jnlp_tunnel.connection(
                transport=jnlp_tunnel.Transport(told.mode),
                tunnel=told.tunnel,
                direct=told.direct,
                instance_identity=told.instance_identity,
                protocols=told.protocols,
            )
        except jnlp_tunnel.ConnectionSettingError as error:
            self.bad(
                (*path, error.field), f"found {error.found}; allowed: {error.allowed}", error.hint
            )
            return None

    def _platform(
        self,
        path: tree.Path,
        chosen: tuple[model.BackendName, ...],
        sections: Mapping[str, Any],
        backends: Mapping[model.BackendName, BackendSettings],
    ) -> dict[model.BackendName, Any]:
        """Read what a template sets for each kind, and give it to the backends of that kind."""
        used = {backends[name].kind for name in chosen if name in backends}
        for kind in sorted(set(sections) - used):
            self.warnings.append(f"{reading.dotted((*path, kind))}: no backend of it is this kind")
        by_kind = {
            kind: reading.read(
                self.kinds[kind].template_settings,
                sections.get(kind, {}),
                (*path, kind),
                self.problems,
            )
            for kind in used | set(sections)
        }
        return {name: by_kind[backends[name].kind] for name in chosen if name in backends}


def _mended(plain: Mapping[str, Any]) -> shape.Document:
    """Return the document without what could not be read, so that the rest is checked, too."""
    good: dict[str, Any] = {
        key: value
        for key, value in plain.items()
        if key != "templates" and reading.read(shape.Document, {**_EMPTY, key: value}, (), [])
    }
    templates = plain.get("templates")
    good["templates"] = {
        name: told
        for name, told in (templates.items() if isinstance(templates, dict) else ())
        if reading.read(shape.Document, {**_EMPTY, "templates": {name: told}}, (), [])
    }
    mended: shape.Document = reading.read(shape.Document, {**_EMPTY, **good}, (), [])
    return mended


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``over`` upon ``under``; sections are merged, everything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def revision(template: model.Template) -> str:
    """Return a short text that changes with what an agent is, not with when it goes."""
    told = (
        sorted(template.labels),
        template.executors,
        template.exclusive,
        {
            a.name: _plain(getattr(template.launch, a.name))
            for a in attrs.fields(model.LaunchSettings)
        },
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()[:10]


def _plain(value: Any) -> Any:
    """Return a value whose ``repr`` is the same in every process, secrets and all."""
    if attrs.has(type(value)):
        return {a.name: _plain(getattr(value, a.name)) for a in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return sorted((str(k), _plain(v)) for k, v in value.items())
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return str(value)


def _warmth(told: shape.Warm) -> Warmth:
    week = told.schedule
    if week is None:
        return Warmth(base=told.min_idle)
    return Warmth(
        base=told.min_idle,
        zone=week.zone,
        windows=tuple(
            schedule.Window(days=w.days, start_min=w.start, end_min=w.end, min_idle=w.min_idle)
            for w in week.windows
        ),
    )


def _is_local(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
