"""From one template of the document to the template that the core sees.

Names, labels, limits and connections are checked here, because the controller takes whatever it is
given. Refuses to know the controller and how backends are reached.
"""

import hashlib
import math
import pathlib
import re
import urllib.parse
import zoneinfo
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import attrs
from attrs import field, frozen

from backends import api as backends_api
from backends.kit import names, pipelines, remarks, setting
from broker.config import (
    collector,
    exposure,
    honouring,
    parameters,
    proxies,
    reading,
    rehearsal,
    schedule,
    shape,
    tree,
    trusting,
    values,
)
from broker.config.settings import BackendSettings, KindClasses, Secrets, Warmth
from broker.core import model
from broker.core.fleet import marks
from jnlp import launch as jnlp_launch
from jnlp import node as jnlp_node
from jnlp import truststore as jnlp_truststore
from jnlp import tunnel as jnlp_tunnel
from outside import counts

_SECRET_LIKE = re.compile(r"(?i)passw|token|secret|api_?key")
# what people put between or around labels, and what nobody sees
_ODD_IN_LABELS = re.compile(
    "[,;'\u00ab\u00ad\u00bb\u2018-\u201f\u2032\u2033\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
# what people copy of a page, where names are shown in other ways
_ODD_IN_JOBS = re.compile(r"://|\bjob/| [»>] |^ | $")
_SUFFIX = "x" * 6
_MAX_NAME = 63
_LEAST_JAVA = 64 << 20
"""Bytes; with less agent.jar is ended by the kernel before it is connected."""
_NOT_ALWAYS = frozenset({"docker_pipelines", "inherits", "proxy", "side_images", "trust"})
"""Of a launch, nothing unless it is set: most templates have no such thing."""
_FIT = 0.5  # of its lifetime an agent takes builds; in the rest the last of them may end


@frozen(kw_only=True)
class Templates:
    """Makes the templates of one document."""

    kinds: Mapping[str, KindClasses]
    notes: collector.Notes
    document: shape.Document
    backends: Mapping[model.BackendName, BackendSettings]
    named: tuple[str, ...] = ()  # all backends, also those with mistakes of their own
    base: pathlib.Path  # where relative paths begin
    secrets: Secrets = Secrets.NEEDED
    unread: AbstractSet[str | int] = frozenset()  # templates of which something could not be read
    places: dict[tuple[model.BackendName, str], str] = field(factory=dict)  # whose they are
    astray: set[str] = field(factory=set)  # hosts that agents would look for in themselves

    def template(
        self, name: str, section: shape.Template, sections: Mapping[str, Any]
    ) -> model.Template | None:
        """Return a template; None when its connection cannot be."""
        path: tree.Path = ("templates", name)
        before = len(self.notes.problems)
        self._check_template(path, name, section)
        chosen = self._chosen(path, section)
        connection = self._connection((*path, "connect"), section.connect)
        platform = self._platform(path, chosen, sections)
        docker = self._docker_pipelines(path, section, chosen)
        if docker is not None and docker.mode == "socket" and section.remote_fs is None:
            section = attrs.evolve(section, remote_fs=self._own_folder(chosen))
        self._judge(path, name, section, platform, docker)
        self._check_injected(path, section, chosen)
        self._check_checks(path, section, chosen)
        honouring.Honouring.of(self.notes, path, section).check(
            self.kinds, self.backends, platform
        )
        self._check_slots(path, name, platform)
        self._check_slot_sharing(path, section, platform)
        if connection is None:
            return None
        controller = self.document.controller
        agent_url = controller.agent_url or controller.url
        if connection.transport is not jnlp_tunnel.Transport.DIRECT:
            self._check_reach(name, agent_url, platform)
        if connection.transport is jnlp_tunnel.Transport.WEBSOCKET:
            what = "the agents' secrets and all that their builds send travel"
            exposure.check_url(self.notes, (*path, "connect", "mode"), agent_url, what)
        launch = model.LaunchSettings(
            connection=connection,
            agent_url=agent_url if agent_url.endswith("/") else f"{agent_url}/",
            remote_fs=section.remote_fs,
            image=section.image,
            command=section.command,
            inject=section.inject,
            docker_pipelines=docker,
            java=section.java,
            jvm_options=section.jvm_options,
            heap_share=section.heap_share,
            environment=section.environment,
            proxy=proxies.read(self.notes, path, section, connection, agent_url),
            trust=self._trust(path, section, chosen),
            resources=backends_api.Resources(**attrs.asdict(section.resources)),
            reconnect_for_s=section.reconnect_for_s,
            platform=platform,
        )
        asked = parameters.Parameters(
            notes=self.notes, path=(*path, "parameters"), labels=section.labels
        )
        allowed = asked.read(section.parameters)
        asked.check_backends(section.parameters, {b: self.backends[b] for b in platform})
        launch = asked.defaulted(launch, section.parameters, allowed)
        template = model.Template(
            name=model.TemplateName(name),
            labels=frozenset(section.labels),
            backends=chosen,
            revision="",
            executors=section.executors,
            exclusive=section.mode == "exclusive",
            takes_unlabelled=section.takes_unlabelled,
            start_early=section.start_early,
            paused=section.paused,
            only_for=section.only_for or (),
            not_for=section.not_for or (),
            cap=section.cap,
            parameters=allowed,
            variants=section.variants,
            min_idle=section.warm.min_idle,
            retention=self._retention((*path, "retention"), section.retention, platform),
            checks=model.Checks(
                ready=_check_command(section.checks.ready),
                dirty=_check_command(section.checks.dirty),
            ),
            give_up_s=section.give_up_s,
            connect_deadline_s=section.connect_deadline_s,
            numbered=names.has_slot(launch)
            or any(names.has_slot(self.backends[one].settings) for one in platform),
            launch=launch,
        )
        if len(self.notes.problems) == before and name not in self.unread:
            refused = self._rehearse(path, template, sections)
            for place, label in asked.examples(section.parameters, allowed):
                self._rehearse_asked(place, template, label, refused)
        return attrs.evolve(template, revision=revision(template))

    def _rehearse(
        self, path: tree.Path, template: model.Template, sections: Mapping[str, Any]
    ) -> AbstractSet[tuple[model.BackendName, str]]:
        """Note on which backends it can have no agent, whatever the platform says; return it."""
        owner = self.document.owner
        found = list(rehearsal.refusals(template, self.backends, self.kinds, owner=owner))
        note = self.notes.bad if len(found) == len(template.backends) else self.notes.warn
        for backend, text in found:
            kind = self.backends[backend].kind
            words, _, hint = text.partition("; hint: ")
            note(
                (*path, kind) if kind in sections else path, f"on backend {backend}: {words}", hint
            )
        return set(found)

    def _rehearse_asked(
        self,
        path: tree.Path,
        template: model.Template,
        label: str,
        told: AbstractSet[tuple[model.BackendName, str]],
    ) -> None:
        """Note on which backends nobody can have what a build may ask for; no more than once."""
        found = list(
            rehearsal.refusals(
                template, self.backends, self.kinds, owner=self.document.owner, asked=(label,)
            )
        )
        note = self.notes.bad if len(found) == len(template.backends) else self.notes.warn
        for backend, text in found:
            if (backend, text) in told:
                continue
            words, _, hint = text.partition("; hint: ")
            note(path, f"{label} on backend {backend}: {words}", hint)

    def _check_template(self, path: tree.Path, name: str, section: shape.Template) -> None:
        if not values.NAME.fullmatch(name):
            self.notes.bad(path, f"a name has {values.NAME_WORDS}")
        full = marks.node_name(self.document.owner, name, _SUFFIX)
        if len(full) > _MAX_NAME:
            self.notes.bad(
                path,
                f"agents would be called {full[:_MAX_NAME]}…, "
                f"{counts.told(len(full), 'character')}; allowed: "
                f"{_MAX_NAME}",
                "a shorter owner or template name",
            )
        if not section.labels and not section.takes_unlabelled:
            self.notes.bad(
                (*path, "labels"),
                "found none; allowed: one or more",
                "takes_unlabelled: true, with mode: normal, is for builds without a label",
            )
        for number, label in enumerate(section.labels):
            apart = f"labels: [{', '.join(label.split())}]" if len(label.split()) > 1 else ""
            for text in jnlp_node.label_problems(label):
                self.notes.bad((*path, "labels", number), text, apart)
            self._check_odd((*path, "labels", number), label)
        for asked, parameter in section.parameters.items():
            place = (*path, "parameters", asked)
            self._check_odd(place, asked)
            for value, choice in (parameter.values or {}).items():
                self._check_odd((*place, "values", value), value)
                self._check_memory(
                    (*place, "values", value),
                    choice.memory_bytes,
                    has_java=section.command is None,
                )
        self._check_jobs(path, section)
        if section.takes_unlabelled and section.mode == "exclusive":
            self.notes.bad(
                (*path, "takes_unlabelled"),
                "true, and mode is exclusive: the controller gives such agents only builds that "
                "ask for a label",
                "mode: normal",
            )
        if section.command is not None and not section.command:
            self.notes.bad((*path, "command"), "found none; allowed: a program, or leave it out")
        self._check_environment((*path, "environment"), section.environment)
        self._check_resources(
            (*path, "resources"), section.resources, has_java=section.command is None
        )
        self._check_warm(path, section)
        self._check_retention(path, section)

    def _check_jobs(self, path: tree.Path, section: shape.Template) -> None:
        for key, patterns in (("only_for", section.only_for), ("not_for", section.not_for)):
            if patterns == ():
                self.notes.bad((*path, key), "found none; allowed: one or more, or leave it out")
            for number, pattern in enumerate(patterns or ()):
                meant = _ODD_IN_JOBS.search(pattern)
                if meant is not None:
                    self.notes.warn(
                        (*path, key, number),
                        f"{values.shown(pattern)} is for jobs that have {values.shown(meant[0])} "
                        "in their full name",
                        "full names are as in addresses, without the /job/ between: team-a/app",
                    )
        if section.only_for and {*section.only_for} <= {*(section.not_for or ())}:
            self.notes.bad(
                (*path, "only_for"), "all of it is in not_for, too", "paused: true is for nobody"
            )
        if "**" in (section.not_for or ()):
            self.notes.bad(
                (*path, "not_for"), "found **, which is every job", "paused: true is for nobody"
            )

    def _check_resources(
        self, path: tree.Path, section: shape.Resources, *, has_java: bool
    ) -> None:
        limit, reserved = section.memory_bytes, section.memory_reservation_bytes
        self._check_memory(path, limit, has_java=has_java)
        if limit is not None and reserved is not None and reserved > limit:
            self.notes.bad(
                (*path, "memory_reservation"), "more than memory", "memory is the limit"
            )

    def _check_memory(self, path: tree.Path, limit: int | None, *, has_java: bool) -> None:
        if has_java and limit is not None and limit < _LEAST_JAVA:
            self.notes.bad(
                (*path, "memory"),
                f"found {setting.size(limit)}; allowed: {setting.size(_LEAST_JAVA)} or more for "
                "an agent in Java",
                "its Java takes about 100Mi before any build",
            )

    def _check_odd(self, path: tree.Path, label: str) -> None:
        odd = _ODD_IN_LABELS.search(label)
        if odd is not None:
            self.notes.warn(
                path,
                f"{values.shown(label)} has {_spelled(odd[0])} in it, which builds ask for "
                "only if they write it, too",
                "blanks stand between labels, and nothing around them",
            )

    def _check_environment(self, path: tree.Path, told: Mapping[str, str]) -> None:
        for name, value in told.items():
            if not name or "=" in name or "\0" in name + value:
                self.notes.bad((*path, name), "allowed: a name without '=', a value without NUL")
            elif name in jnlp_launch.VARIABLES:
                meant = jnlp_launch.VARIABLES[name]
                self.notes.bad(
                    (*path, name),
                    "the broker gives it to each agent",
                    f"set {meant}" if meant else "leave it out",
                )
            elif _SECRET_LIKE.search(name):
                self.notes.warn(
                    (*path, name),
                    "every build can read it; secrets belong into the controller's credentials",
                )

    def _check_warm(self, path: tree.Path, section: shape.Template) -> None:
        schedule = section.warm.schedule
        windows = schedule.windows if schedule is not None else ()
        most = max([section.warm.min_idle, *(window.min_idle for window in windows)])
        for setting_, cap in self._caps(section):
            if cap < most:
                self.notes.bad(
                    (*path, "warm"),
                    f"{counts.told(most, 'agent is', 'agents are')} to be idle, "
                    f"and {setting_} is {cap}",
                )
                break
        for number, window in enumerate(windows):
            if window.start == window.end:
                self.notes.bad(
                    (*path, "warm", "schedule", "windows", number, "to"),
                    "the same as `from`: no time at all, or a whole day",
                    'from: "00:00", to: "24:00" is a day',
                )
        if schedule is not None:
            zone = schedule.zone
            try:
                zoneinfo.ZoneInfo(zone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                self.notes.bad(
                    (*path, "warm", "schedule", "zone"),
                    f"found {values.shown(zone)}; allowed: a time zone like Europe/Berlin",
                )

    def _caps(self, section: shape.Template) -> Iterator[tuple[str, int]]:
        """Yield what bounds the agents of a template: its cap, its backends, that of all."""
        if section.cap is not None:
            yield "cap", section.cap
        names = self.backends if section.backends is None else section.backends
        caps = [
            self.backends[name].limits.cap
            for name in map(model.BackendName, names)
            if name in self.backends
        ]
        known = [cap for cap in caps if cap is not None]
        unread = any(problem.path[:1] == ("backends",) for problem in self.notes.problems)
        if known and len(known) == len(caps) and not unread:
            yield "the cap of its backends in all", sum(known)
        if self.document.limits.agents is not None:
            yield "limits.agents", self.document.limits.agents

    def _check_retention(self, path: tree.Path, section: shape.Template) -> None:
        keep = section.retention
        where = (*path, "retention")
        if keep.once and section.executors > 1:
            self.notes.bad(
                (*where, "once"),
                f"true, and executors is {section.executors}: one build leaves the others no slot",
                "executors: 1",
            )
        if keep.once and keep.max_builds not in {None, 1}:
            self.notes.bad((*where, "max_builds"), "given beside once", "keep one of them")
        if keep.max_builds is not None and section.executors > 1:
            self.notes.warn(
                (*where, "max_builds"),
                f"with {counts.told(section.executors, 'executor')}, builds that run at the same "
                "time may exceed it",
            )

    def _retention(
        self, path: tree.Path, told: shape.Retention, platform: Mapping[model.BackendName, Any]
    ) -> model.Retention:
        """Let no agent grow so old that its platform ends it, build or not."""
        kept = model.Retention(**attrs.asdict(told))
        ends = [getattr(options, "lifetime_s", None) for options in platform.values()]
        lifetime_s = min((end for end in ends if end is not None), default=None)
        if lifetime_s is None or (kept.max_age_s or math.inf) <= _FIT * lifetime_s:
            return kept
        if kept.max_age_s is not None:
            self.notes.warn(
                (*path, "max_age"),
                f"{kept.max_age_s:.0f} s, and the platform ends an agent after "
                f"{lifetime_s:.0f} s, build or not: half of that is taken",
            )
        return attrs.evolve(kept, max_age_s=_FIT * lifetime_s)

    def _chosen(
        self,
        path: tree.Path,
        section: shape.Template,
    ) -> tuple[model.BackendName, ...]:
        if section.backends is None:
            return tuple(self.backends)
        named = self.named or tuple(self.backends)
        for number, name in enumerate(section.backends):
            if name not in named:
                self.notes.bad(
                    (*path, "backends", number),
                    f"found {values.shown(name)}; allowed: {', '.join(named) or 'none'}",
                    reading.guess(name, named),
                )
        if not section.backends:
            self.notes.bad(
                (*path, "backends"), "found none; allowed: one or more, or leave it out"
            )
        return tuple(model.BackendName(name) for name in section.backends)

    def _connection(
        self, path: tree.Path, section: shape.Connect
    ) -> jnlp_tunnel.Connection | None:
        try:
            return jnlp_tunnel.connection(
                transport=jnlp_tunnel.Transport(section.mode),
                tunnel=section.tunnel,
                direct=section.direct,
                instance_identity=section.instance_identity,
                protocols=section.protocols,
            )
        except jnlp_tunnel.ConnectionSettingError as error:
            self.notes.bad(
                (*path, error.field), f"found {error.found}; allowed: {error.allowed}", error.hint
            )
            return None

    def _trust(
        self, path: tree.Path, section: shape.Template, chosen: tuple[model.BackendName, ...]
    ) -> jnlp_truststore.Trust | None:
        """Return whom agents trust, if every backend brings the files."""
        trust = trusting.read(self.notes, path, section, base=self.base, secrets=self.secrets)
        if trust is None:
            return None
        for backend in chosen:
            if (entry := self.backends.get(backend)) is None:
                continue
            kind = self.kinds[entry.kind]
            words, _, hint = kind.given_refusal.partition("; hint: ")
            most = kind.given_file_bytes
            if most and (found := trusting.largest(trust)) > most:
                self.notes.bad(
                    (*path, "trust"),
                    f"a file of {counts.told(found, 'byte')}; backend {backend}, of kind "
                    f"{entry.kind}, takes {most}",
                    "a smaller public_file, or public: false",
                )
            if kind.given_needs and getattr(entry.settings, kind.given_needs) is not None:
                continue
            if words and trusting.size(trust) > kind.given_most_bytes:
                self.notes.bad(
                    (*path, "trust"),
                    f"backend {backend}, of kind {entry.kind}, does not honour it: {words}",
                    f"{hint + ', and ' if hint else ''}name the files in `environment` and "
                    "`jvm_options`",
                )
        return trust

    def _platform(
        self,
        path: tree.Path,
        chosen: tuple[model.BackendName, ...],
        sections: Mapping[str, Any],
    ) -> dict[model.BackendName, Any]:
        """Read what a template sets for each kind, and give it to the backends of that kind."""
        used = {self.backends[name].kind for name in chosen if name in self.backends}
        for kind in sorted(set(sections) - used):
            self.notes.warn((*path, kind), "no backend of it is this kind")
        by_kind = {
            kind: reading.read_each(
                self.kinds[kind].template_settings,
                sections.get(kind, {}),
                (*path, kind),
                self.notes.problems,
            )
            for kind in used | set(sections)
        }
        return {
            name: by_kind[self.backends[name].kind] for name in chosen if name in self.backends
        }

    def _judge(
        self,
        path: tree.Path,
        name: str,
        section: shape.Template,
        platform: Mapping[model.BackendName, Any],
        docker: backends_api.DockerPipelines | None,
    ) -> None:
        """Note what the settings for each kind say about themselves, backend by backend."""
        for backend, options in platform.items():
            entry = self.backends[backend]
            common = remarks.Common(
                settings=entry.settings,
                name=name,
                remote_fs=section.remote_fs,
                pipelines=docker,
                image=section.image,
                environment=section.environment,
                reserved=jnlp_launch.VARIABLES,
                alone=section.cap == 1,
                asks_image=_asks_image(section),
                injects=section.inject is not None,
                sole=all(self.backends[name].kind == entry.kind for name in platform),
            )
            told = set[str]()
            for remark in remarks.of_template(options, common):
                place = path if remark.common else (*path, entry.kind)
                self.notes.remarks(place, (remark,))
                told.add(remark.text)
            for shared in remarks.shares(options, common):
                setting = ("remote_fs",) if shared.path is None else (entry.kind, *shared.path)
                self._check_shared((*path, *setting), (backend, shared.where), name, section.cap)
            for place, inherits in parameters.inherited(section.parameters):
                common = attrs.evolve(common, inherits=inherits)
                for remark in remarks.of_template(options, common):
                    if remark.text not in told:
                        note = self.notes.bad if remark.wrong else self.notes.warn
                        note((*path, "parameters", *place), remark.text, remark.hint)
                for shared in remarks.shares(options, common):
                    self._check_shared(
                        (*path, "parameters", *place), (backend, shared.where), name, section.cap
                    )

    def _check_injected(
        self, path: tree.Path, section: shape.Template, chosen: tuple[model.BackendName, ...]
    ) -> None:
        """Note where the Java that is to be brought into the image is not, or does not fit."""
        if section.inject is None:
            return
        for name in ("command", "java"):
            if getattr(section, name) != setting.default_of(model.LaunchSettings, name):
                self.notes.bad((*path, name), "given beside inject", "keep one of them")
        for backend in chosen:
            entry = self.backends.get(backend)
            if entry is None:
                continue
            runtimes = getattr(entry.settings, "runtimes", None)
            if runtimes is None:
                self.notes.bad(
                    (*path, "inject"),
                    f"backend {backend}, of kind {entry.kind}, brings no Java into agents",
                    "leave it out, or choose other backends for this template",
                )
            elif section.inject not in runtimes:
                self.notes.bad(
                    (*path, "inject"),
                    f"backend {backend} has no runtime {values.shown(section.inject)}; its "
                    f"runtimes: {', '.join(sorted(runtimes)) or 'none'}",
                    f"backends.{backend}.runtimes",
                )

    def _check_checks(
        self, path: tree.Path, section: shape.Template, chosen: tuple[model.BackendName, ...]
    ) -> None:
        """Note where a command that is to be run in agents cannot be, and where it never would."""
        where = (*path, "checks")
        if section.checks.dirty is not None and section.retention.once:
            self.notes.bad(
                (*where, "dirty"),
                "given beside retention.once: after its one build an agent is given no other",
                "keep one of them",
            )
        for check, told in (("ready", section.checks.ready), ("dirty", section.checks.dirty)):
            for backend in chosen if told is not None else ():
                entry = self.backends.get(backend)
                refusal = self.kinds[entry.kind].run_refusal if entry is not None else ""
                if entry is not None and refusal:
                    self.notes.bad(
                        (*where, check),
                        f"backend {backend}, of kind {entry.kind}, cannot: {refusal}",
                        "leave it out, or choose other backends for this template",
                    )
        ready = section.checks.ready
        if ready is not None and ready.timeout_s >= section.connect_deadline_s:
            self.notes.bad(
                (*where, "ready", "timeout"),
                f"{ready.timeout_s:g} s, and connect_deadline, within which an agent must have "
                f"passed it and be online, is {section.connect_deadline_s:g} s",
                "a longer connect_deadline",
            )

    def _docker_pipelines(
        self, path: tree.Path, section: shape.Template, chosen: tuple[model.BackendName, ...]
    ) -> backends_api.DockerPipelines | None:
        """Return the engine for the builds, if the cost is known and every backend honours it."""
        told = section.docker_pipelines
        if told is None:
            return None
        where = (*path, "docker_pipelines")
        mode = next(one for one in pipelines.MODES if one == told.mode)
        way = pipelines.WAYS[mode]
        if told.acknowledge != way.acknowledged:
            found = "missing" if told.acknowledge is None else f"found {told.acknowledge[:80]!r}"
            self.notes.bad(
                (*where, "acknowledge"),
                f"{found}: {way.cost}",
                f"acknowledge: {way.acknowledged}, in a template of its own, for labels whose "
                "users may be that",
            )
        of_engine = ("engine_image", "engine_memory_bytes", "engine_cpu_limit")
        for key in () if way.image else of_engine:
            if getattr(told, key) is not None:
                words = f"mode {mode} starts no engine"
                self.notes.bad((*where, key.removesuffix("_bytes")), words, "leave it out")
        default = self._own_folder(chosen)
        folder = section.remote_fs or default
        if mode == "socket" and not (folder.startswith("/") and names.is_own(folder)):
            self.notes.bad(
                (*path, "remote_fs"),
                "with docker_pipelines of mode socket it is a folder of the engine's host, one "
                "for each agent",
                f"leave it out for {default}, or put {names.TOKEN} into it",
            )
        for backend in chosen:
            if (entry := self.backends.get(backend)) is None:
                continue
            honoured = self.kinds[entry.kind].pipelines
            words = honoured.get(mode, "it has no engine to give to builds")
            if words:
                others = [one for one in pipelines.MODES if honoured.get(one) == ""]
                self.notes.bad(
                    (*where, "mode"),
                    f"backend {backend}, of kind {entry.kind}, does not honour {mode}: {words}",
                    f"mode: {' or '.join(others)}"
                    if others
                    else "leave it out, or choose other backends for this template",
                )
        return backends_api.DockerPipelines(
            mode=mode,
            image=told.engine_image,
            memory_bytes=told.engine_memory_bytes,
            cpu_limit=told.engine_cpu_limit,
        )

    def _own_folder(self, chosen: tuple[model.BackendName, ...]) -> str:
        """Return where agents with their engine's socket work; backends of two minds have one."""
        kinds = [self.backends[name].kind for name in chosen if name in self.backends]
        folders = {self.kinds[kind].own_folder or pipelines.FOLDER for kind in kinds}
        return folders.pop() if len(folders) == 1 else pipelines.FOLDER

    def _check_slots(
        self, path: tree.Path, name: str, platform: Mapping[model.BackendName, Any]
    ) -> None:
        """Refuse a place by slot that another template names alike: each counts for itself."""
        for backend, options in platform.items():
            parts = getattr(self.backends[backend].settings, "pods", {})
            inherited = [parts.get(part) for part in getattr(options, "inherits", ())]
            for text in sorted(names.slotted((options, inherited))):
                first = self.places.setdefault((backend, text), name)
                if first != name:
                    self.notes.bad(
                        (*path, self.backends[backend].kind),
                        f"template {first} names {values.shown(text)}, too, and slots are counted "
                        "for each template: two agents would have it at the same time",
                        "put the template's name into it",
                    )

    def _check_slot_sharing(
        self,
        path: tree.Path,
        section: shape.Template,
        platform: Mapping[model.BackendName, Any],
    ) -> None:
        """Say that a place by slot has as many writers as the agent has builds at a time."""
        told = (section.remote_fs, section.environment, platform)
        if section.executors > 1 and names.has_slot(told):
            self.notes.warn(
                (*path, "executors"),
                f"{counts.told(section.executors, 'build')} of one agent share what {names.SLOT} "
                "names: it is the agent's, and no build's",
                "executors: 1, where what is there has one writer",
            )

    def _check_reach(
        self, name: str, agent_url: str, platform: Mapping[model.BackendName, Any]
    ) -> None:
        """Say once of a controller that is told to agents in containers as their own machine."""
        try:
            host = urllib.parse.urlsplit(agent_url).hostname or ""
        except ValueError:  # it is told where it stands
            return
        if host in self.astray or not exposure.is_local(host):
            return
        if any(getattr(options, "has_own_network", False) for options in platform.values()):
            self.astray.add(host)
            given = self.document.controller.agent_url is not None
            self.notes.warn(
                ("controller", "agent_url" if given else "url"),
                f"agents of {name} run in containers, to which {host} is the container itself: "
                "they will not find the controller there",
                "controller.agent_url: an address that they reach; or give them the network of "
                "their host, or a connect.mode direct",
            )

    def _check_shared(
        self,
        path: tree.Path,
        place: tuple[model.BackendName, str],
        name: str,
        cap: int | None,
    ) -> None:
        """Refuse a place where two agents could work at the same time."""
        first = self.places.setdefault(place, name)
        if cap != 1:
            self.notes.bad(
                path,
                f"agents of this template would work together in {values.shown(place[1])}, and "
                "find each other's files",
                f"put {names.TOKEN} into it: a place for each, or {names.SLOT}: one at a time has "
                "it; or read_only, or cap: 1",
            )
        elif first != name:
            self.notes.bad(
                path,
                f"agents of template {first} work in {values.shown(place[1])}, too, and would "
                "find each other's files",
                f"put {names.TOKEN} into it: a place for each",
            )


def _spelled(character: str) -> str:
    """Return a character as it can be read, whether it can be seen or not."""
    code = f"U+{ord(character):04X}"
    return code if character.isspace() or not character.isprintable() else f"{character} ({code})"


def _check_command(told: shape.Check | None) -> model.CheckCommand | None:
    if told is None:
        return None
    return model.CheckCommand(argv=tuple(told.command), within_s=told.timeout_s)


def _asks_image(section: shape.Template) -> bool:
    """Return whether builds may ask for an image of their own."""
    return any(
        bool(one.allow) or any(choice.image is not None for choice in (one.values or {}).values())
        for one in section.parameters.values()
    )


def revision(template: model.Template) -> str:
    """Return a short text that changes with what an agent is, not with when it goes."""
    parts: tuple[object, ...] = (
        sorted(template.labels),
        template.executors,
        template.exclusive,
        {
            a.name: _plain(getattr(template.launch, a.name))
            for a in attrs.fields(model.LaunchSettings)
            if a.name not in _NOT_ALWAYS or getattr(template.launch, a.name)
        },
    )
    if template.parameters:
        parts += (_plain(template.parameters),)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def _plain(value: Any) -> Any:
    """Return a value whose ``repr`` is the same in every process, secrets and all."""
    if attrs.has(type(value)):
        return {
            a.name: _plain(getattr(value, a.name))
            for a in attrs.fields(type(value))
            if a.metadata.get("revised", True)
        }
    if isinstance(value, Mapping):
        return sorted((str(k), _plain(v)) for k, v in value.items())
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return str(value)


def warmth(section: shape.Warm) -> Warmth:
    """Return how many agents to keep idle, by the week."""
    week = section.schedule
    if week is None:
        return Warmth(base=section.min_idle)
    return Warmth(
        base=section.min_idle,
        zone=week.zone,
        windows=tuple(
            schedule.Window(days=w.days, start_min=w.start, end_min=w.end, min_idle=w.min_idle)
            for w in week.windows
        ),
    )
