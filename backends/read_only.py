"""A backend of which only questions may be asked: what commands that read are given.

Why: who looks at a cluster beside the broker at work must leave everything as it is. Each kind
makes its ``list``, ``capacity`` and ``logs`` plain questions when it is made for reading (no
session that ends another's, no lock, no directory, no clearing away); this wrapper keeps the verbs
that change something away from it. Refuses to know kinds.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NoReturn, Protocol

from backends import api


class Questions(Protocol):
    """What a kind gives that was made for reading; the contract of each is that of ``Backend``."""

    kind: str

    async def list(self) -> Sequence[api.Instance]:
        """All instances with our owner mark, complete, or an error."""

    async def capacity(self) -> api.Capacity | None:
        """Free room, or None where the platform cannot tell."""

    async def logs(self, name: str, *, tail: int) -> str:
        """Last ``tail`` lines of output."""

    def work_dir(self, name: str) -> str | None:
        """Return the absolute path that ``WORK`` would stand for."""

    async def aclose(self) -> None:
        """Let go of connections and threads."""


class Reading:
    """The whole contract, of which the verbs that change anything refuse."""

    def __init__(self, inner: Questions) -> None:
        self._inner = inner
        self.kind = inner.kind

    async def reserve(self, spec: api.InstanceSpec) -> None:
        """Refuse. Raises Rejected."""
        _refuse(f"reserve {spec.name}")

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Refuse. Raises Rejected."""
        _refuse(f"launch {spec.name}")

    async def list(self) -> Sequence[api.Instance]:
        """As the other one."""
        return await self._inner.list()

    async def watch(self) -> AsyncIterator[None]:
        """End at once: who looks once waits for nothing."""
        nothing: tuple[None, ...] = ()
        for never in nothing:
            yield never

    async def terminate(self, name: str, *, grace_s: float) -> None:  # noqa: ARG002 -- the contract's
        """Refuse. Raises Rejected."""
        _refuse(f"terminate {name}")

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:  # noqa: ARG002 -- the contract's
        """Refuse. Raises Rejected."""
        _refuse(f"run a command in {name}")

    async def capacity(self) -> api.Capacity | None:
        """As the other one."""
        return await self._inner.capacity()

    async def logs(self, name: str, *, tail: int) -> str:
        """As the other one."""
        return await self._inner.logs(name, tail=tail)

    def work_dir(self, name: str) -> str | None:
        """As the other one."""
        return self._inner.work_dir(name)

    async def aclose(self) -> None:
        """Close the other one."""
        await self._inner.aclose()


def _refuse(what: str) -> NoReturn:
    raise api.Rejected(f"this backend was made for reading only, and was told to {what[:80]}")
