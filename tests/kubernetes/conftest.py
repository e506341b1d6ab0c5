"""A cluster and backends on it."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from backends.kubernetes import backend, settings
from backends.kubernetes.api import reflector
from tests.kubernetes import fake


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[fake.Cluster]:
    async with fake.Cluster().serving() as serving:
        yield serving


@pytest_asyncio.fixture
async def make(
    cluster: fake.Cluster,
) -> AsyncIterator[Callable[..., backend.KubernetesBackend]]:
    """Give a maker of backends; settings by name."""
    async with contextlib.AsyncExitStack() as stack:

        def make(**told: object) -> backend.KubernetesBackend:
            configured = settings.KubernetesSettings(
                **{"namespace": cluster.namespace, "server": cluster.url, **told}
            )
            made = backend.KubernetesBackend(configured, owner="ours", now=time.time)
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that says nothing is opened again soon; the pause itself has a test."""
    monkeypatch.setattr(reflector, "_SHORT_S", 0.01)
