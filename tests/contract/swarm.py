"""The contract suite on a real swarm of one node, by way of a proxy that can fail on demand.

There is no fake: ``DOCKER_HOST`` or ``--live swarm=ADDRESS`` names an engine, else the cases are
skipped. One that is in no swarm becomes the manager of one, on the loopback, and stays it: other
cases use it too. Services of one test are told from those of others by their names' prefix.
"""

import asyncio
import contextlib
import json
import pathlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import attrs

from backends import api
from backends.docker.engine import bodies
from backends.docker.settings import Host
from backends.docker.swarm import backend as swarm
from backends.docker.swarm import service, settings
from backends.kit import names
from tests import patience
from tests.contract import harness
from tests.docker import engines

_FAULTS = {
    "launch": ("POST", "/services/create"),
    "list": ("GET", "/services"),
    "list-part": ("GET", "/tasks"),
    "terminate": ("DELETE", "/services/"),
    "logs": ("GET", "/logs"),
    "run": ("POST", "/exec"),
}
_ANSWERS = {
    "unauthorized": (403, "authorization denied by plugin"),
    "unavailable": (503, "the engine is starting"),
}
_KILLED_S = 10.0


class SwarmHarness:
    kind = "swarm"
    within_s = 30.0
    burst = 10  # a swarm starts a few a second, and ends them slower
    lacks: Mapping[str, str] = {
        "launch no-capacity": "a task that no node takes waits, and says why",
    }

    def __init__(self, proxy: engines.Proxy, real: str) -> None:
        self.prefix = f"t{secrets.token_hex(4)}-"
        self._proxy = proxy
        self._client = engines.connected(real)
        self._settings = settings.SwarmSettings(
            managers=(Host(url=proxy.url),), name_prefix=self.prefix, look_s=0.2
        )

    def backend(self, *, owner: str = "ours") -> api.Backend:
        whose = f"{self.prefix}{owner}"  # other tests use the same swarm
        return swarm.create(
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
            options=settings.SwarmTemplate(networks=("host",), resolve="id", grace_s=2),
        )
        return attrs.evolve(spec, **changes)

    def command(self, program: harness.Program) -> Sequence[str]:
        return program.argv()

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        spec = self.spec(name)
        told = ":".join(map(str, (*fixed, 8080)))
        return attrs.evolve(spec, options=attrs.evolve(spec.options, ports=(told,), networks=()))

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        if flaw == "bad-image":
            return self.spec(name, image="no-such-image:0")
        return self.spec(name, argv=("/no/such/program", "x"))

    # --- the swarm as others see it ---

    def _configs(self) -> list[dict[str, object]]:
        """Files of ours; agents share them, and they go some time after the last one."""
        (mark,) = service.owner_labels("ours")
        told = [(entry, entry["Spec"].get("Labels") or {}) for entry in self._client.configs()]
        return [entry for entry, labels in told if labels.get(mark, "").startswith(self.prefix)]

    def _called(self, name: str) -> str:
        return service.service_name(name, prefix=self.prefix)

    def _services(self) -> dict[str, dict[str, object]]:
        entries = self._client.services()
        named = {entry["Spec"]["Name"]: entry for entry in entries}
        return {name: entry for name, entry in named.items() if name.startswith(self.prefix)}

    def _containers(self) -> list[dict[str, object]]:
        mark = "com.docker.swarm.service.name"
        entries = self._client.containers()
        return [e for e in entries if e["Labels"].get(mark, "").startswith(self.prefix)]

    async def plant(self, name: str) -> None:
        def plant() -> None:
            inner = {"Image": engines.IMAGE, "Command": ["sleep", "86400"], "Init": True}
            template = {"ContainerSpec": inner, "Networks": [{"Target": "host"}]}
            self._client.create_service(template, name=self._called(name))

        await asyncio.to_thread(plant)

    async def intact(self, name: str) -> bool:
        entry = (await asyncio.to_thread(self._services)).get(self._called(name))
        return entry is not None and not entry["Spec"].get("Labels")

    async def running(self) -> Sequence[str]:
        found = await asyncio.to_thread(self._containers)
        told = [entry["Labels"].get(service.NAME) for entry in found]
        return sorted(name for name in told if name is not None)

    async def remains(self) -> Sequence[str]:
        def look() -> list[str]:
            left = [name for name, entry in self._services().items() if entry["Spec"]["Labels"]]
            left += [
                entry["Spec"]["Name"]
                for entry in self._client.secrets()
                if entry["Spec"]["Name"].startswith(self.prefix)
            ]
            running = [e["Labels"].get(service.NAME, "") for e in self._containers()]
            return left + [name for name in running if name]

        return await asyncio.to_thread(look)

    async def exposed(self, name: str) -> str:
        def look() -> str:
            (there,) = [e for e in self._containers() if e["Labels"][service.NAME] == name]
            processes = self._client.top(there["Id"])
            assert "agent" in repr(processes), "the program is in the list of processes"
            told = [
                self._client.inspect_container(there["Id"]),
                processes,
                self._client.inspect_service(self._called(name)),
                self._client.tasks({"service": self._called(name)}),
            ]
            return json.dumps(told)

        return await asyncio.to_thread(look)

    async def kill(self, name: str) -> None:
        def kill() -> None:
            (there,) = [e for e in self._containers() if e["Labels"][service.NAME] == name]
            self._client.kill(there["Id"], "SIGKILL")

        await asyncio.to_thread(kill)

    @contextlib.asynccontextmanager
    async def provoke(self, verb: str, slug: str) -> AsyncIterator[None]:
        self._proxy.faults[_FAULTS[verb]] = _ANSWERS[slug]
        yield
        self._proxy.faults.clear()

    def clear(self) -> None:
        for name in self._services():
            with contextlib.suppress(engines.docker.errors.NotFound):
                self._client.remove_service(name)
        for entry in self._client.secrets():
            if entry["Spec"]["Name"].startswith(self.prefix):
                self._client.remove_secret(entry["ID"])
        for entry in self._configs():
            with contextlib.suppress(engines.docker.errors.APIError):
                self._client.remove_config(entry["ID"])
        patient = patience.Patience(_KILLED_S)
        while self._containers() and not patient.is_over():
            time.sleep(0.05)
        self._client.close()


def managed(engine: str) -> None:
    """Let an engine manage a swarm of its own, if it is in none."""
    with contextlib.closing(engines.connected(engine)) as client:
        if bodies.section(client.info(), "Swarm").get("LocalNodeState") == "inactive":
            try:
                place = f"127.0.0.1:{_free_port()}"  # another engine may have the usual one
                client.init_swarm(advertise_addr=place, listen_addr=place)
            except engines.docker.errors.APIError as error:  # somebody else was faster
                if "already part of a swarm" not in str(error):
                    engines.absent(f"the engine cannot manage a swarm: {error}")
        patient = patience.Patience(30)
        while bodies.section(client.info(), "Swarm").get("LocalNodeState") == "pending":
            assert not patient.is_over(), "the engine does not become a manager"
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.asynccontextmanager
async def open_harness(folder: pathlib.Path, address: str | None) -> AsyncIterator[SwarmHarness]:
    real = await engines.with_image(engines.address(address))
    await asyncio.to_thread(managed, real)
    async with engines.proxied(real) as proxy:
        opened = SwarmHarness(proxy, real)
        try:
            yield opened
        finally:
            await asyncio.to_thread(opened.clear)
