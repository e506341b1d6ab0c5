"""What the tests on a real engine share."""

import asyncio
import gc
import pathlib
import secrets
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator

import attrs
import pytest
import pytest_asyncio

from backends import api
from backends.docker import backend as docker_engine
from backends.docker import settings
from backends.docker.containers import handover
from backends.kit import names
from tests.contract import checks, harness
from tests.docker import engines

WITHIN_S = 30.0


@pytest.fixture(autouse=True)
def _sdk_leaves_sockets() -> Iterator[None]:
    """Collect what the SDK leaves to the collector: a socket that could not connect.

    Here and now, or some innocent test would be failed for it.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """As above, for what reference counting finds while the test still runs."""
    for item in items:
        if "docker" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


@pytest.fixture(autouse=True)
def memory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Keep secrets in a folder of the test: it removes containers behind the backend's back."""
    monkeypatch.setattr(handover, "MEMORY", tmp_path)
    return tmp_path


@attrs.define
class Rig:
    """A backend of an owner that no other test has, on a real engine."""

    url: str
    make: Callable[..., api.Backend]
    backend: api.Backend = attrs.field(init=False)
    prefix: str = attrs.field(factory=lambda: f"t{secrets.token_hex(4)}-")

    def __attrs_post_init__(self) -> None:
        self.backend = self.make(self)

    def spec(
        self, name: str, commands: str = "", *, code: int | None = None, memory: int | None = None,
        image: str = engines.IMAGE, **options: object,
    ) -> api.InstanceSpec:  # fmt: skip
        program = harness.Program(commands=commands, exit_code=code)
        told = {"network": "none", "pull": "never", **options}
        return api.InstanceSpec(
            name=name,
            metadata={names.OWNER: "ours"},
            image=image,
            argv=program.argv(),
            resources=api.Resources(memory_bytes=memory),
            options=settings.DockerTemplate(**told),
        )

    def container(self, name: str) -> str:
        return f"{self.prefix}{name}"

    async def running(self, name: str) -> api.Instance:
        return await checks.running(self.backend, name, within_s=WITHIN_S)

    async def exited(self, name: str) -> api.Exit:
        return (await checks.exited(self.backend, name, within_s=WITHIN_S)).exit

    async def sdk(self, verb: str, *args: object, **kwargs: object) -> object:
        """Do something behind the backend's back."""

        def call() -> object:
            client = engines.connected(self.url)
            try:
                return getattr(client, verb)(*args, **kwargs)
            finally:
                client.close()

        return await asyncio.to_thread(call)


def backend_on(*hosts: settings.Host, **told: object) -> Callable[[Rig], api.Backend]:
    """Return what makes a rig's backend."""

    def make(rig: Rig) -> api.Backend:
        configured = settings.DockerSettings(
            **{
                "hosts": hosts or (settings.Host(url=rig.url),),
                "name_prefix": rig.prefix,
                **told,
            }
        )
        return docker_engine.create(
            configured, owner=f"{rig.prefix}ours", store=None, state_dir=None, now=time.time
        )

    return make


@pytest.fixture(scope="session")
def engine_url() -> str:
    """Return where an engine with our image listens."""
    return asyncio.run(engines.with_image(engines.address()))


@pytest_asyncio.fixture
async def rig(engine_url: str) -> AsyncIterator[Rig]:
    """Give a backend on the engine; everything of it is gone afterwards."""
    rig = Rig(engine_url, backend_on())
    async with cleaned(rig):
        yield rig


class cleaned:
    """Remove what a rig made, and close it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def __aenter__(self) -> Rig:
        return self._rig

    async def __aexit__(self, *_: object) -> None:
        await self._rig.backend.aclose()
        entries = await self._rig.sdk("containers", all=True)
        for entry in entries:
            if entry["Names"] and entry["Names"][0][1:].startswith(self._rig.prefix):
                await self._rig.sdk("remove_container", entry["Id"], force=True, v=True)
