"""What the cases share: waiting for a state, and a listing that is checked as it is read."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backends import api
from tests import patience
from tests.contract import harness

T = TypeVar("T")

_PAUSE_S = 0.01
_WORDS_MAX = 256


async def until(what: str, look: Callable[[], Awaitable[T]], *, within_s: float) -> T:
    """Look until it is true; fail with what was seen last."""
    patient = patience.Patience(within_s)
    while not (seen := await look()):
        assert not patient.is_over(), f"not in {within_s} s: {what}; {seen!r}"
        await asyncio.sleep(_PAUSE_S)
    return seen


async def listed(backend: api.Backend) -> dict[str, api.Instance]:
    """List, and check what every listing has to keep."""
    instances = await backend.list()
    found = {instance.name: instance for instance in instances}
    assert len(found) == len(instances), "a name is listed twice"
    for instance in instances:
        ends = {api.InstanceState.EXITED, api.InstanceState.STOPPING}
        assert instance.exit is not None or instance.state is not api.InstanceState.EXITED
        assert instance.exit is None or instance.state in ends
        assert not instance.spent or instance.state in ends
        assert len(instance.detail) <= _WORDS_MAX
        if instance.exit is not None:
            assert instance.exit.slug in harness.SLUGS
            assert len(instance.exit.message) <= _WORDS_MAX
    return found


async def in_state(
    backend: api.Backend, name: str, state: api.InstanceState, *, within_s: float
) -> api.Instance:
    """Wait until an instance is listed in a state."""
    seen: dict[str, api.Instance] = {}

    async def look() -> api.Instance | None:
        seen.clear()
        seen.update(await listed(backend))
        found = seen.get(name)
        return found if found is not None and found.state is state else None

    try:
        return await until(f"{name} is {state.value}", look, within_s=within_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; listed: {seen}") from None


async def running(backend: api.Backend, name: str, *, within_s: float) -> api.Instance:
    """Wait until an instance is listed as running."""
    return await in_state(backend, name, api.InstanceState.RUNNING, within_s=within_s)


async def exited(backend: api.Backend, name: str, *, within_s: float) -> api.Instance:
    """Wait until an instance is listed as ended."""
    return await in_state(backend, name, api.InstanceState.EXITED, within_s=within_s)
