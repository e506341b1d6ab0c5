"""The contract suite on the memory backend."""

import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Sequence

import attrs

from backends import api, memory
from backends.kit import names
from tests.contract import harness

_NOBODY = "nobody"
_ERRORS = {cls.slug: cls for cls in (api.NoCapacity, api.Unauthorized, api.Unavailable)}


class MemoryHarness:
    kind = "memory"
    within_s = 3.0
    burst = 100
    lacks = {
        "ports": "nothing listens in memory",
        "shell": "nothing is executed in memory",
        "bad-command": "nothing is executed in memory",
        "bad-image": "there are no images in memory",
        "blank-secrets": "nothing can read a secret in memory",
        "list-part unavailable": "the listing is one step in memory",
    }

    def __init__(self) -> None:
        self._programs: dict[str, harness.Program] = {}
        self._planted: dict[str, api.Instance] = {}
        self._owners: set[str] = set()
        self._commands: list[harness.Program] = []
        settings = memory.MemorySettings(places=("here", "there"))
        self._platform = memory.Platform(settings, on_start=self._start, on_run=self._run)

    def _start(self, spec: api.InstanceSpec) -> None:
        for line in self._programs[spec.name].lines:
            self._platform.write(spec.name, line)

    def _run(self, name: str, argv: Sequence[str]) -> api.Ran:
        program = self._commands[int(argv[1])]
        return api.Ran(code=program.exit_code, output="\n".join(program.lines))

    def command(self, program: harness.Program) -> Sequence[str]:
        self._commands.append(program)
        return ("play", str(len(self._commands) - 1))

    def backend(self, *, owner: str = "ours") -> api.Backend:
        self._owners.add(owner)
        return memory.MemoryBackend(self._platform, owner=owner, now=time.time)

    def spec(
        self, name: str, program: harness.Program = harness.FOR_EVER, **changes: object
    ) -> api.InstanceSpec:
        self._programs[name] = program
        options = memory.MemoryTemplate()
        if program.exit_code is not None:
            options = memory.MemoryTemplate(lives_s=0, exit_code=program.exit_code)
        spec = api.InstanceSpec(name=name, metadata={names.OWNER: "ours"}, options=options)
        return attrs.evolve(spec, **changes)

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        raise NotImplementedError

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        raise NotImplementedError(flaw)

    def _seen(self, owner: str) -> list[api.Instance]:
        return self._platform.visible(owner=owner, now=time.time())

    async def plant(self, name: str) -> None:
        self._platform.start(self.spec(name), owner=_NOBODY, now=time.time())
        (self._planted[name],) = [found for found in self._seen(_NOBODY) if found.name == name]

    async def intact(self, name: str) -> bool:
        return self._planted[name] in self._seen(_NOBODY)

    async def running(self) -> Sequence[str]:
        return [
            instance.name
            for owner in self._owners
            for instance in self._seen(owner)
            if instance.state is api.InstanceState.RUNNING
        ]

    async def remains(self) -> Sequence[str]:
        return [repr(instance) for owner in self._owners for instance in self._seen(owner)]

    async def exposed(self, name: str) -> str:
        return repr([self._seen(owner) for owner in self._owners])

    async def kill(self, name: str) -> None:
        self._platform.kill(name, api.Exit(slug="killed", code=-9), now=time.time())

    @contextlib.asynccontextmanager
    async def provoke(self, verb: str, slug: str) -> AsyncIterator[None]:
        error = _ERRORS[slug]("the platform says: not now")
        self._platform.fail_next(error, verb=verb, times=100)  # type: ignore[arg-type]
        yield
        self._platform.clear_faults()


@contextlib.asynccontextmanager
async def open_harness(folder: pathlib.Path, address: str | None) -> AsyncIterator[MemoryHarness]:
    yield MemoryHarness()
