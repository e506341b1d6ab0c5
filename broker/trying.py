"""An agent of a template is started, watched until it is online, and removed: nobody's agent.

Its node has no label and takes no build, and its template is none that can be configured. Beside a
broker at work it is marked as that broker's: it takes room of the backend and of the broker as
every agent does, nobody decides about it while it is tried (``hold``), and what a broker that was
killed in the middle has left is swept like what a template left that is configured no more. A
command that has no broker to ask tries it as an owner of its own.
Refuses to know platforms, and to do anything unless it is asked.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

import attrs
from attrs import define, field, frozen

from backends import api as backends_api
from backends.kit import finding, runtime
from broker.core import model
from broker.core.fleet import marks
from broker.loop import execute
from jnlp import errors as jnlp_errors
from jnlp import node as jnlp_node
from outside import text, waits

OWNER = "{}-try"
"""Who tries where no broker is at work."""
_LOOK_S = 0.25
_SLOT = 999_999  # of a template with slots: whoever works has a lower one
START_S = 120.0
"""For making it, beside what its template gives it to connect."""
_LEAVE_S = 10.0
"""For removing what was made; what is left then is swept."""
_LINES = 200
_SAID = "agent-broker lacks: "
PROBE = f"""\
for tool in sh nohup; do
  found=; IFS=:
  for folder in $PATH; do
    at=$folder/$tool
    test "$folder" = {runtime.TOOLS} || ! test -x "$at" || found=${{found:-$at}}
  done
  test "$found" || echo "{_SAID}$tool"
done
test -z "$found" || "$found" "$0" -c : > /dev/null 2>&1 ||
  echo "{_SAID}a nohup that works ($found fails, and hides any other)"
test -w /tmp || echo "{_SAID}a /tmp that it may write"
test -w "${{HOME:-/}}" || echo "{_SAID}a HOME that it may write"
test -d /usr/lib/locale/C.utf8 || test -d /usr/lib/locale/C.UTF-8 ||
  test -s /usr/lib/locale/locale-archive || test -e /lib/ld-musl-x86_64.so.1 ||
  test -e /lib/ld-musl-aarch64.so.1 || echo "{_SAID}a locale for names beyond ASCII"
exit 0
"""


class _Unwell(Exception):  # noqa: N818 -- a result, not an error of ours
    """It did not come online; the text says why."""


class Fleet(Protocol):
    """What a broker at work is told of an agent that is tried."""

    def hold(self, name: model.NodeName, *, backend: model.BackendName, within_s: float) -> None:
        """Decide nothing about an agent, so long at most."""

    def let_go(self, name: model.NodeName) -> None:
        """Expect that it is gone in a moment; decide about it as ever if it is not."""


class _Nobody:
    """No broker is at work."""

    def hold(self, name: model.NodeName, *, backend: model.BackendName, within_s: float) -> None:
        """Tell nobody."""

    def let_go(self, name: model.NodeName) -> None:
        """Tell nobody."""


@frozen(kw_only=True)
class Pass:
    """A phase that an agent came to, in seconds since the try began."""

    phase: str
    after_s: float


@define(kw_only=True)
class Trier:
    """Tries agents on backends; ``leads`` is asked before each call that changes something."""

    owner: str
    nodes: execute.Nodes
    backends: Mapping[model.BackendName, backends_api.Backend]
    order: Callable[[model.LaunchAgent], execute.Order]
    now: Callable[[], float]
    fleet: Fleet = field(factory=_Nobody)
    is_marked: bool = False  # as the agent of a broker at work, which sweeps it
    leads: Callable[[], bool] = lambda: True
    passed: Callable[[Pass], None] = lambda _: None

    async def findings(
        self, template: model.Template, backend: model.BackendName
    ) -> AsyncIterator[finding.Finding]:
        """Yield how an agent of a template fares on a backend; everything made is removed."""
        check = f"try {template.name}"
        try:
            yield await self._agent(template, backend, check)
        except (backends_api.BackendError, jnlp_errors.JenkinsError) as error:
            yield _refused(check, backend, error)
            return
        if template.launch.image is not None:
            yield await self._image(template, backend)

    def _action(self, template: model.Template, backend: model.BackendName) -> model.LaunchAgent:
        return model.LaunchAgent(
            name=model.NodeName(f"{self.owner}-try-{secrets.token_hex(3)}"),
            template=template.name,
            backend=backend,
            reason="it is tried",
            slot=_SLOT if template.numbered else None,
        )

    async def _agent(
        self, template: model.Template, backend_name: model.BackendName, check: str
    ) -> finding.Finding:
        """Start one, wait until it is online, and remove it."""
        action = self._action(template, backend_name)
        order, backend = self.order(action), self.backends[backend_name]
        begun, phases = self.now(), list[str]()

        def passed(phase: str) -> None:
            after_s = self.now() - begun
            phases.append(f"{phase} {after_s:.1f} s")
            self.passed(Pass(phase=phase, after_s=after_s))

        async with self._held(action, template):
            try:
                await self._backend(backend_name).reserve(self._spec(order.reservation()))
                await self._changes.create(self._definition(order))
                secret = await self.nodes.secret(action.name)
                passed("node")
                await self._backend(backend_name).launch(self._spec(order.spec_with(secret)))
                passed("launched")
                async with waits.timeout(template.connect_deadline_s):
                    await self._online(backend, action.name, passed)
                return finding.ok(check, f"online on {backend_name}: {', '.join(phases)}")
            except (_Unwell, TimeoutError) as error:
                reason = str(error) or f"not online within {template.connect_deadline_s:.0f} s"
                said = await _last_words(backend, action.name)
                words = f"{reason} on {backend_name} ({', '.join(phases)})"
                return finding.fail(check, words, f"its last words: {said}" if said else "")

    async def _online(
        self, backend: backends_api.Backend, name: str, passed: Callable[[str], None]
    ) -> None:
        """Wait until it is online. Raises _Unwell when its instance has ended."""
        runs = seen = False
        while True:
            instance = await _instance(backend, name)
            if instance is None and not seen:  # a listing may lag behind what is created
                await asyncio.sleep(_LOOK_S)
                continue
            seen = True
            if instance is None or instance.state is backends_api.InstanceState.EXITED:
                told = instance.exit if instance is not None else None
                words = f"{told.slug}: {told.message}" if told is not None else "it is gone"
                raise _Unwell(f"it ended before it was online: {words}")
            if not runs and instance.state is backends_api.InstanceState.RUNNING:
                runs = True
                passed("running")
            if not (await self.nodes.read(name)).offline:
                passed("online")
                return
            await asyncio.sleep(_LOOK_S)

    async def _image(
        self, template: model.Template, backend_name: model.BackendName
    ) -> finding.Finding:
        """Say what the image has not, by a shell in it; the agent is not started."""
        action = self._action(template, backend_name)
        check, backend = f"image of {template.name}", self.backends[backend_name]
        shell = f"{runtime.TOOLS}/sh" if template.launch.inject is not None else "/bin/sh"
        spec = attrs.evolve(
            self._spec(self.order(action).reservation()),
            argv=(shell, "-c", PROBE),
            use_entry_point=False,
            secret_files={},
            files=(),
        )
        async with self._held(action, template, with_node=False):
            try:
                await self._backend(backend_name).launch(spec)
                async with waits.timeout(template.connect_deadline_s):
                    instance = await _ended(backend, action.name)
                if instance is None or instance.exit is None or instance.exit.code != 0:
                    words = instance.exit.message if instance is not None and instance.exit else ""
                    none = f"no {shell} that runs: {words}"
                    return finding.warn(check, none, "inject: true brings one")
                said = await backend.logs(action.name, tail=_LINES)
            except backends_api.BackendError as error:
                return finding.warn(check, f"no {shell} that runs: {error.reason}", "inject: true")
            except TimeoutError:
                return finding.warn(check, "what it lacks could not be seen in time")
        return _judged(template, check, lacking(said))

    # --- what is made, and removed ---

    def _definition(self, order: execute.Order) -> jnlp_node.NodeDefinition:
        """Return a node that takes no build."""
        read = marks.from_description(order.definition.description)
        words = "agent-broker doctor --try; removed at once"
        if self.is_marked and read is not None:
            words = f"{words}. {attrs.evolve(read, template=marks.TRIED).description()}"
        return attrs.evolve(order.definition, labels=(), exclusive=True, description=words)

    def _spec(self, spec: backends_api.InstanceSpec) -> backends_api.InstanceSpec:
        if not self.is_marked:
            return spec
        read = marks.from_metadata(spec.metadata)
        assert read is not None  # noqa: S101 -- we have just made them
        told = attrs.evolve(read, template=marks.TRIED).metadata(spec.name)
        return attrs.evolve(spec, metadata={**spec.metadata, **told})

    @contextlib.asynccontextmanager
    async def _held(
        self, action: model.LaunchAgent, template: model.Template, *, with_node: bool = True
    ) -> AsyncIterator[None]:
        """Keep an agent out of all decisions; in the end it is removed, whatever happened."""
        within_s = template.connect_deadline_s + START_S + _LEAVE_S
        self.fleet.hold(action.name, backend=action.backend, within_s=within_s)
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):  # the rest is swept
                async with waits.timeout(_LEAVE_S):
                    with contextlib.suppress(backends_api.BackendError):
                        await self._backend(action.backend).terminate(action.name, grace_s=0.0)
                    with contextlib.suppress(jnlp_errors.JenkinsError):
                        if with_node and self.leads():
                            await self.nodes.delete(action.name)
            self.fleet.let_go(action.name)

    @property
    def _changes(self) -> execute.Nodes:
        self._check_leads()
        return self.nodes

    def _backend(self, name: model.BackendName) -> backends_api.Backend:
        self._check_leads()
        return self.backends[name]

    def _check_leads(self) -> None:
        if not self.leads():
            raise backends_api.Unavailable("another broker leads by now")


def _judged(template: model.Template, check: str, lacks: list[str]) -> finding.Finding:
    if not lacks:
        return finding.ok(check, "it has sh, nohup, /tmp, HOME and a locale")
    supplied = (
        " (inject supplies a missing sh, nohup and locale)" if template.launch.inject else ""
    )
    return finding.warn(check, f"it lacks {', '.join(lacks)}{supplied}")


def lacking(said: str) -> list[str]:
    """Return what the shell in an image did not find, of what it wrote."""
    lines = (line.partition(_SAID) for line in text.last_lines(said, _LINES))
    return [what.strip() for _, found, what in lines if found]


async def _ended(backend: backends_api.Backend, name: str) -> backends_api.Instance | None:
    """Wait for the end of an instance; None when it is gone."""
    seen = False
    while True:
        instance = await _instance(backend, name)
        if instance is None and seen:
            return None
        seen = seen or instance is not None
        if instance is not None and instance.state is backends_api.InstanceState.EXITED:
            return instance
        await asyncio.sleep(_LOOK_S)


async def _instance(backend: backends_api.Backend, name: str) -> backends_api.Instance | None:
    return next((one for one in await backend.list() if one.name == name), None)


async def _last_words(backend: backends_api.Backend, name: str) -> str:
    with contextlib.suppress(backends_api.BackendError):
        return " / ".join(text.last_lines(await backend.logs(name, tail=_LINES), 3))
    return ""


def _refused(check: str, backend: model.BackendName, error: Exception) -> finding.Finding:
    words = getattr(error, "reason", None) or getattr(error, "text", "") or str(error)
    fault = str(getattr(error, "fault", ""))
    return finding.fail(check, f"not started on {backend}: {words}", fault=fault)
