"""The contract suite on a real Docker engine, by way of a proxy that can fail on demand.

There is no fake: ``DOCKER_HOST`` or ``--live docker=ADDRESS`` names an engine, else the cases are
skipped. Containers of one test are told from those of others by their names' prefix.
"""

import asyncio
import contextlib
import json
import pathlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import attrs
import pytest

from backends import api
from backends.docker import backend as engine
from backends.docker import settings
from backends.docker.containers import handover
from backends.kit import names
from tests.contract import harness
from tests.docker import engines

_FAULTS = {
    "launch": ("POST", "/containers/create"),
    "list": ("GET", "/containers/json"),
    "terminate": ("DELETE", "/containers/"),
    "logs": ("GET", "/logs"),
    "run": ("POST", "/exec"),
}
_ANSWERS = {
    "no-capacity": (500, "driver failed: Bind for 0.0.0.0:1 failed: port is already allocated"),
    "unauthorized": (403, "authorization denied by plugin"),
    "unavailable": (503, "the engine is starting"),
}


class DockerHarness:
    kind = "docker"
    within_s = 20.0
    burst = 15  # an engine starts a few a second
    lacks: Mapping[str, str] = {
        "list-part unavailable": "running containers are listed in one answer",
    }

    def __init__(self, proxy: engines.Proxy, real: str) -> None:
        self.prefix = f"t{secrets.token_hex(4)}-"
        self._proxy = proxy
        self._client = engines.connected(real)
        self._settings = settings.DockerSettings(
            hosts=(settings.Host(url=proxy.url),), name_prefix=self.prefix
        )

    def backend(self, *, owner: str = "ours") -> api.Backend:
        whose = f"{self.prefix}{owner}"  # other tests use the same engine
        return engine.create(
            self._settings, owner=whose, store=None, state_dir=pathlib.Path("/"), now=time.time
        )

    def spec(
        self, name: str, program: harness.Program = harness.FOR_EVER, **changes: object
    ) -> api.InstanceSpec:
        spec = api.InstanceSpec(
            name=name,
            metadata={names.OWNER: "ours"},
            argv=program.argv(),
            image=engines.IMAGE,
            options=settings.DockerTemplate(network="none", pull="never"),
        )
        return attrs.evolve(spec, **changes)

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        spec = self.spec(name)
        told = ":".join(map(str, (*fixed, 8080)))
        return attrs.evolve(spec, options=attrs.evolve(spec.options, ports=(told,), network=None))

    def command(self, program: harness.Program) -> Sequence[str]:
        return program.argv()

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        if flaw == "bad-image":
            return self.spec(name, image="no-such-image:0")
        return self.spec(name, argv=("/no/such/program", "x"))

    # --- the engine as others see it ---

    def _found(self) -> dict[str, dict[str, object]]:
        entries = self._client.containers(all=True)
        named = {entry["Names"][0].lstrip("/"): entry for entry in entries if entry["Names"]}
        return {
            name.removeprefix(self.prefix): entry
            for name, entry in named.items()
            if name.startswith(self.prefix)
        }

    async def plant(self, name: str) -> None:
        def plant() -> None:
            body = {"Image": engines.IMAGE, "Cmd": ["sleep", "86400"]}
            body["HostConfig"] = {"NetworkMode": "none", "Init": True}
            made = self._client.create_container_from_config(body, f"{self.prefix}{name}")
            self._client.start(made["Id"])

        await asyncio.to_thread(plant)

    async def intact(self, name: str) -> bool:
        entry = (await asyncio.to_thread(self._found)).get(name)
        return entry is not None and entry["State"] == "running" and not entry["Labels"]

    async def running(self) -> Sequence[str]:
        found = await asyncio.to_thread(self._found)
        return sorted(
            name
            for name, entry in found.items()
            if entry["State"] == "running" and entry["Labels"]
        )

    async def remains(self) -> Sequence[str]:
        found = await asyncio.to_thread(self._found)
        return [name for name, entry in found.items() if entry["Labels"]]

    async def exposed(self, name: str) -> str:
        def look() -> str:
            there = f"{self.prefix}{name}"
            told = self._client.inspect_container(there), self._client.top(there)
            assert "agent" in repr(told[1]), "the program is in the list of processes"
            return json.dumps(told)

        return await asyncio.to_thread(look)

    async def kill(self, name: str) -> None:
        await asyncio.to_thread(self._client.kill, f"{self.prefix}{name}", "SIGKILL")

    @contextlib.asynccontextmanager
    async def provoke(self, verb: str, slug: str) -> AsyncIterator[None]:
        self._proxy.faults[_FAULTS[verb]] = _ANSWERS[slug]
        yield
        self._proxy.faults.clear()

    def clear(self) -> None:
        for entry in self._found().values():
            with contextlib.suppress(engines.docker.errors.NotFound):
                self._client.remove_container(entry["Id"], force=True, v=True)
        self._client.close()


@contextlib.asynccontextmanager
async def open_harness(folder: pathlib.Path, address: str | None) -> AsyncIterator[DockerHarness]:
    real = await engines.with_image(engines.address(address))
    monkeypatch = pytest.MonkeyPatch()
    async with engines.proxied(real) as proxy:
        monkeypatch.setattr(handover, "MEMORY", folder)
        opened = DockerHarness(proxy, real)
        try:
            yield opened
        finally:
            monkeypatch.undo()
            await asyncio.to_thread(opened.clear)
