"""A real swarm of several machines, each an engine in a network namespace of its own.

A machine can be cut off, its engine killed and started again. Only root can, and each engine needs
a second or two.
"""

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import docker

from backends.docker.settings import Host
from tests import patience, programs
from tests.docker import engines

_PORT = 2375


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert not done.returncode, (words, done.stderr)


@attrs.define(eq=False)
class Machine:
    """A node of the swarm."""

    name: str
    address: str
    link: str  # its end of the cable, on our side
    engine: engines.OwnEngine

    @property
    def url(self) -> str:
        """Where its engine listens: over the cable."""
        return f"tcp://{self.address}:{_PORT}"

    @property
    def host(self) -> Host:
        """As a setting."""
        return Host(url=self.url)

    def ask(self, verb: str, *told: Any, **more: Any) -> Any:
        """Ask its engine by a way that is never cut off."""
        with contextlib.closing(engines.connected(self.engine.url)) as client:
            return getattr(client, verb)(*told, **more)

    def cut_off(self) -> None:
        """Pull its cable: nobody hears of it any more."""
        _run("ip", "link", "set", self.link, "down")

    def reconnect(self) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", self.link, "up")

    def kill(self) -> None:
        """End its engine with SIGKILL; its containers run on."""
        self.engine.end(signal.SIGKILL)

    def start(self) -> None:
        """Start its engine again."""
        self.engine.start()


class Swarm:
    """Managers ``m1`` and so on, workers ``w1`` and so on; ``address`` is our own on their net."""

    def __init__(self, managers: int, workers: int) -> None:
        self._tag = f"{os.getpid() % 100000:05d}"
        self._net = f"10.199.{os.getpid() % 250}"
        self.address = f"{self._net}.1"
        self._switch = f"sw{self._tag}"
        names = [f"m{n}" for n in range(1, managers + 1)]
        self._managers = tuple(names)
        names += [f"w{n}" for n in range(1, workers + 1)]
        self.machines: dict[str, Machine] = {}
        for number, name in enumerate(names, start=11):
            address = f"{self._net}.{number}"
            self.machines[name] = Machine(
                name,
                address,
                f"s{self._tag}{name}",
                engines.OwnEngine(
                    "-H", f"tcp://{address}:{_PORT}", "--tls=false",
                    "--insecure-registry", f"{self._net}.0/24",
                    machine=f"{name}-{self._tag}",
                ),
            )  # fmt: skip

    @property
    def managers(self) -> list[Machine]:
        """In order; the first is the leader at first."""
        return [self.machines[name] for name in self._managers]

    def start(self) -> None:
        """Make the machines, and a swarm of them that has our image everywhere."""
        _run("ip", "link", "add", self._switch, "type", "bridge")
        _run("ip", "addr", "add", f"{self.address}/24", "dev", self._switch)
        _run("ip", "link", "set", self._switch, "up")
        for machine in self.machines.values():
            self._plug(machine)
        self._all(lambda machine: machine.start())
        first = self.managers[0]
        first.ask("init_swarm", advertise_addr=first.address, listen_addr=first.address)
        tokens = first.ask("inspect_swarm")["JoinTokens"]
        for name, machine in self.machines.items():
            if machine is not first:
                machine.ask(
                    "join_swarm",
                    [first.address],
                    tokens["Manager" if name in self._managers else "Worker"],
                    advertise_addr=machine.address,
                    listen_addr=machine.address,
                )
        asyncio.run(engines.with_image(first.engine.url))
        with contextlib.closing(engines.connected(first.engine.url)) as client:
            image = b"".join(client.get_image(engines.IMAGE))
        self._all(lambda machine: machine is first or list(machine.ask("load_image", image)))
        self.until(lambda: len(self.ready()) == len(self.machines), "all nodes are ready")

    def _plug(self, machine: Machine) -> None:
        there, cable = f"{machine.name}-{self._tag}", f"t{self._tag}{machine.name}"
        _run("ip", "netns", "add", there)
        _run("ip", "link", "add", machine.link, "type", "veth", "peer", "name", cable)
        _run("ip", "link", "set", cable, "netns", there)
        _run("ip", "link", "set", machine.link, "master", self._switch, "up")
        inside = ("ip", "-n", there)
        _run(*inside, "link", "set", "lo", "up")
        _run(*inside, "addr", "add", f"{machine.address}/24", "dev", cable)
        _run(*inside, "link", "set", cable, "up")
        _run(*inside, "route", "add", "default", "via", self.address)

    def _all(self, work: Callable[[Machine], object]) -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(work, self.machines.values()))

    def ready(self) -> set[str]:
        """Names of nodes that are ready, as the first manager that answers tells."""
        for machine in self.managers:
            with contextlib.suppress(docker.errors.APIError, OSError):
                return {
                    node["Description"]["Hostname"].partition("-")[0]
                    for node in machine.ask("nodes")
                    if node["Status"]["State"] == "ready" and "Hostname" in node["Description"]
                }
        return set()

    def update(self, name: str, **spec: str) -> None:
        """Change a node: ``Role`` or ``Availability``."""
        lead = self.managers[0]
        wanted = f"{name}-{self._tag}"
        (node,) = [n for n in lead.ask("nodes") if n["Description"]["Hostname"] == wanted]
        lead.ask("update_node", node["ID"], node["Version"]["Index"], {**node["Spec"], **spec})

    def hostname(self, name: str) -> str:
        """As the swarm knows it."""
        return f"{name}-{self._tag}"

    @staticmethod
    def until(is_so: Callable[[], bool], what: str, *, within_s: float = 60) -> None:
        """Wait for it; blocking."""
        patient = patience.Patience(within_s)
        while not is_so():
            assert not patient.is_over(), what
            time.sleep(0.1)

    def close(self) -> None:
        """End everything."""
        for machine in self.machines.values():
            with contextlib.suppress(AssertionError):
                machine.reconnect()

        def close(machine: Machine) -> None:
            with contextlib.suppress(Exception):
                machine.ask("leave_swarm", force=True)
            machine.engine.close()

        self._all(close)
        for machine in self.machines.values():
            there = f"{machine.name}-{self._tag}"
            subprocess.run(["ip", "link", "del", machine.link], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", there], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._switch], check=False, capture_output=True)


@contextlib.contextmanager
def swarm(managers: int = 3, workers: int = 2) -> Iterator[Swarm]:
    """Give a swarm of our own, or skip where none can be made."""
    if os.geteuid() != 0:
        engines.absent("no swarm of one's own can be made: only root can")
    for name in ("dockerd", "iptables", "ip", "busybox"):
        if shutil.which(name) is None:
            engines.absent(programs.want(name))
    if not pathlib.Path("/proc/self/ns/net").exists():
        engines.absent("this system has no network namespaces")
    made = Swarm(managers, workers)
    try:
        made.start()
        yield made
    finally:
        made.close()
        with warnings.catch_warnings():  # what the SDK leaves to the collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
