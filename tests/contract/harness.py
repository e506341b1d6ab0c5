"""What the contract suite needs of a platform, and how another backend joins.

1. Write ``tests/contract/KIND.py`` with a class that has the attributes and methods of ``Harness``
   and ``open_harness(folder, address)``, an asynchronous context manager that yields one of it.
2. ``address`` is None for the wire fake that you start yourself in ``open_harness``; with
   ``pytest --live KIND=ADDRESS`` the suite runs on the real platform as well (``KIND[live]``).
   Where there is no fake, call ``pytest.skip`` with the reason when ``address`` is None.
3. Add the module to ``HARNESSES`` in ``tests/contract/conftest.py``. That is all.
4. Every ``backend(...)`` is a new object on the same platform: another broker, or one restarted.
5. ``spec(...)`` turns a ``Program`` into the platform's terms: ``Program.script()`` where a shell
   runs it; a fake that runs nothing reads ``lines`` and ``exit_code`` and plays them.
6. ``plant``, ``intact``, ``running``, ``remains`` and ``exposed`` look at the platform itself, never
   through the backend under test, or the suite would ask the suspect.
7. ``provoke`` makes the platform itself misbehave (wire fault, permissions), not the backend.
8. What your platform cannot do goes into ``lacks`` under a name of ``CAPABILITIES`` with the
   reason; those cases are skipped by that name. Lacking little is the point.
9. ``within_s`` is the deadline for everything that happens "eventually", on a slow machine.
"""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from backends import api

CAPABILITIES = {
    "shell": "programs are really run by /bin/sh",
    "bad-command": "a program that cannot be executed is noticed",
    "bad-image": "an image that does not exist is noticed",
    "any-name": "every legal instance name can be used as it is",
    "reused-name": "the name of an instance that is gone can be given to another one",
    "odd-owner": "the owner's name may hold any text",
    "blank-secrets": "a secret that a program writes to its output is blanked out in the logs",
    "exposure": "others can look at an instance without the backend",
    "outside-kill": "an instance can be killed behind the backend's back",
    "two-brokers": "two brokers of one owner may work at the same time",
    "run": "a command can be run inside an instance",
    "run unauthorized": "the platform can forbid a command",
    "run unavailable": "the platform can fail while it runs a command",
    "place": "instances run at places that have names",
    "ports": "a port of an instance can be published",
    "watch": "the end of an instance wakes the watch",
    "launch no-capacity": "the platform can be full",
    "launch unauthorized": "the platform can forbid a launch",
    "launch unavailable": "the platform can fail during a launch",
    "list unauthorized": "the platform can forbid to list",
    "list unavailable": "the platform can fail while listing",
    "list-part unavailable": "a part of the listing can fail, such as its second page",
    "terminate unauthorized": "the platform can forbid a removal",
    "terminate unavailable": "the platform can fail during a removal",
    "logs unauthorized": "the platform can forbid to read output",
    "logs unavailable": "the platform can fail while it reads output",
}
"""Everything a harness may lack, by name; ``VERB SLUG`` are the faults of ``provoke``."""


@frozen(kw_only=True)
class Program:
    """What an instance does: write ``lines``, then run ``commands``, then exit or run for ever."""

    lines: tuple[str, ...] = ()
    exit_code: int | None = None  # None: runs until it is told to end
    commands: str = ""  # more shell; only where "shell" is not lacking
    arguments: tuple[str, ...] = ()  # "$1" and so on of ``commands``

    def argv(self) -> tuple[str, ...]:
        """Return the command line for a platform that runs /bin/sh."""
        return ("/bin/sh", "-c", self.script(), "agent", *self.arguments)

    def script(self) -> str:
        """Return the shell script; it obeys SIGTERM also as process 1 of a container."""
        said = "".join(f"printf '%s\\n' {shlex.quote(line)}\n" for line in self.lines)
        if self.exit_code is not None:
            return f"{said}{self.commands}\nexit {self.exit_code}\n"
        wait = "sleep 86400 & wait $!"
        return f"trap 'exit 143' TERM\n{said}{self.commands}\n{wait}\n"


FOR_EVER = Program()


class Harness(Protocol):
    """One platform, prepared for one test."""

    kind: str
    lacks: Mapping[str, str]  # name of ``CAPABILITIES`` to the reason
    within_s: float
    burst: int  # concurrent launches that the platform has to bear, 100 where it is ours

    def backend(self, *, owner: str = "ours") -> api.Backend:
        """Return a new backend object of that owner; the suite closes it."""

    def spec(self, name: str, program: Program = FOR_EVER, **changes: object) -> api.InstanceSpec:
        """Return a specification that runs the program; ``changes`` are fields to replace."""

    def command(self, program: Program) -> Sequence[str]:
        """Return what ``api.run`` is given to do what a program does; only without a lack of "run"."""

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        """Return a specification that publishes its port 8080, at this one of the host if told."""

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        """Return a specification with a "bad-command" or a "bad-image"."""

    async def plant(self, name: str) -> None:
        """Put something of that name on the platform that is nobody's (no owner mark)."""

    async def intact(self, name: str) -> bool:
        """Tell whether what was planted is still there and untouched."""

    async def running(self) -> Sequence[str]:
        """Names of the broker-made instances that run, one entry for each."""

    async def remains(self) -> Sequence[str]:
        """Describe everything on the platform that backends of this harness made and left."""

    async def exposed(self, name: str) -> str:
        """Return all that others on the platform can see of an instance (argv, environment)."""

    async def kill(self, name: str) -> None:
        """End an instance with SIGKILL behind the backend's back."""

    def provoke(self, verb: str, slug: str) -> contextlib.AbstractAsyncContextManager[None]:
        """Let the platform fail so that ``verb`` has to raise the error of that slug."""


SLUGS = frozenset(
    (
        "exited", "killed", "out-of-memory", "image", "command", "network", "evicted",
        "platform-lost", "interrupted", "unknown",
    )
)  # fmt: skip
"""Of ``api.Exit``, as its docstring lists them."""
