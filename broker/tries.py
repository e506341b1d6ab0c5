"""The one try that a broker at work is at, ordered by a person: what, since when, how it fared.

One at a time, each with an end; a stop of the broker ends it, and what it made is removed then.
Refuses to know who may order it (``control``), and how an agent is tried (``trying``).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import attrs
from attrs import define, field

from backends.kit import finding
from broker import trying
from broker.core import model
from broker.core.fleet import standing
from broker.status import TryRefused
from outside import waits

_LOG = logging.getLogger("broker.tries")
_TIMES = 2  # an agent, then its image


@define(kw_only=True)
class Try:
    """One, under way or ended; times in POSIX seconds on the broker's clock."""

    number: int
    template: model.TemplateName
    backends: tuple[model.BackendName, ...]
    began_at: float
    backend: model.BackendName | None = None  # that is tried now
    ended_at: float | None = None
    passes: list[tuple[str, trying.Pass]] = field(factory=list)
    findings: list[tuple[str, finding.Finding]] = field(factory=list)


@define(kw_only=True)
class Tries:
    """Takes orders, and carries them out as long as ``run`` runs."""

    trier: trying.Trier
    policy: Callable[[], model.Policy]
    obstacle: Callable[[], str]  # why nothing may be tried at this moment; empty: it may
    full: Callable[[model.BackendName], str]  # why there is no room on one; empty: there is
    owner: str
    now: Callable[[], float]
    last: Try | None = None
    _ordered: asyncio.Event = field(factory=asyncio.Event)
    _task: asyncio.Task[Any] | None = None

    def begin(self, template: str, backend: str | None) -> None:
        """Have a template tried on each of its backends, or one. Raises TryRefused."""
        if self._task is None or (words := self.obstacle()):
            raise TryRefused(words if self._task is not None else "this broker is stopping")
        if self.last is not None and self.last.ended_at is None:
            raise TryRefused(f"template {self.last.template} is being tried: one at a time")
        found = self.policy().template(model.TemplateName(template))
        if found is None:
            raise TryRefused("there is no such template in the configuration in force")
        if found.paused:
            raise TryRefused(f"template {found.name} is paused")
        stops = standing.stopping(self.policy().standing, template=found.name, now=self.now())
        if stops is not None:
            raise TryRefused(standing.words(stops, now=self.now()))
        wanted = tuple(name for name in found.backends if backend in {None, name})
        if not wanted:
            raise TryRefused(f"template {found.name} may not go to that backend")
        number = self.last.number + 1 if self.last is not None else 1
        self.last = Try(number=number, template=found.name, backends=wanted, began_at=self.now())
        self._ordered.set()

    async def run(self) -> None:
        """Try what is ordered, until this is cancelled; what is being tried is removed then."""
        self._task = asyncio.current_task()
        try:
            while True:
                await self._ordered.wait()
                self._ordered.clear()
                if self.last is not None:
                    await self._whole(self.last)
        finally:
            self._task = None

    def stop(self) -> None:
        """Begin nothing more, and remove what was made; idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _whole(self, one: Try) -> None:
        try:
            for backend in one.backends:
                one.backend = backend
                await self._on(one, backend)
        finally:
            one.backend, one.ended_at = None, self.now()

    async def _on(self, one: Try, backend: model.BackendName) -> None:
        template = self.policy().template(one.template)
        check = f"try {one.template}"
        if template is None or backend not in template.backends:
            gone = finding.warn(check, f"not tried on {backend}: the configuration has changed")
            one.findings.append((backend, gone))
            return
        if words := self.full(backend):
            one.findings.append((backend, finding.warn(check, f"not tried on {backend}: {words}")))
            return
        self.trier.passed = lambda told: one.passes.append((backend, told))
        limit_s = _TIMES * (template.connect_deadline_s + trying.START_S)
        try:
            async with waits.timeout(limit_s):
                async for found in self.trier.findings(template, backend):
                    one.findings.append((backend, found))
        except TimeoutError:
            late = finding.fail(check, f"not tried to its end on {backend} within {limit_s:.0f} s")
            one.findings.append((backend, late))
        except Exception as error:  # noqa: BLE001 -- it costs the try, not the broker
            _LOG.exception("a try failed by a bug")
            words = f"a bug of the broker's ({type(error).__name__}); its log says where"
            one.findings.append((backend, finding.fail(check, words, fault="us")))

    def document(self) -> dict[str, Any]:
        """Return what is tried, or was tried last, as ``/api/v1/try`` shows it."""
        one = self.last
        if one is None:
            return {"owner": self.owner, "state": "none"}
        end = one.ended_at if one.ended_at is not None else self.now()
        return {
            "owner": self.owner,
            "state": "running" if one.ended_at is None else "ended",
            "number": one.number,
            "template": one.template,
            "backends": list(one.backends),
            "backend": one.backend,
            "seconds": round(end - one.began_at, 1),
            "phases": [
                {"backend": where, "phase": told.phase, "after_s": round(told.after_s, 2)}
                for where, told in one.passes
            ],
            "findings": [
                {"backend": where, **attrs.asdict(found), "verdict": found.verdict.value}
                for where, found in one.findings
            ],
        }
