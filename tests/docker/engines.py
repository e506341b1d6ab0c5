"""Real engines for tests: the one that is named in DOCKER_HOST, or one of our own to torment."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import NoReturn, Self

import docker
import pytest

from broker.demo import image
from tests import patience, programs

IMAGE = image.NAME
_OF_SWARMS = {"ingress", "docker_gwbridge"}
"""Made once, when an engine begins to manage a swarm for some other test."""


def address(told: str | None = None) -> str:
    """Return where a real engine listens; skip, or fail where one is required."""
    found = told or os.environ.get("DOCKER_HOST")
    if found:
        return found
    if shutil.which("dockerd") is None:
        absent(programs.want("dockerd"))
    absent("no Docker engine: set DOCKER_HOST or give --live docker=unix:///var/run/docker.sock")


def absent(reason: str) -> NoReturn:
    """Skip for what the machine does not have, or fail where it has to."""
    if os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"REQUIRE_DOCKER=1, and {reason}")
    pytest.skip(reason)


async def with_image(engine: str) -> str:
    """Return the engine's address once it has the image."""

    def there() -> bool:
        with contextlib.closing(connected(engine)) as client:
            return bool(client.images(name=IMAGE.partition(":")[0]))

    if not await asyncio.to_thread(there):
        if shutil.which("busybox") is None:
            absent(programs.want("busybox"))
        try:
            await image.build(engine)
        except image.ImageError as error:
            absent(str(error))
    return engine


def connected(engine: str) -> docker.APIClient:
    """Return the SDK's own client, to look at the engine without the backend."""
    client = docker.APIClient(engine, version="1.41", timeout=patience.seconds(60))
    client.trust_env = False
    return client


class OwnEngine:
    """A dockerd of our own that may be killed and restarted."""

    def __init__(self, *arguments: str, live_restore: bool = False, machine: str = "") -> None:
        """``machine``: a network namespace and the engine's host name; empty: this machine."""
        self._arguments = arguments
        self._machine = machine
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dk-"))
        self.url = f"unix://{self.folder}/docker.sock"
        self._live_restore = live_restore
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers; its network is left alone, there may be another."""
        for name in ("pid", "exec/containerd/containerd.pid"):  # of one that was killed
            (self.folder / name).unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._elsewhere(),
                    "dockerd", "--data-root", self.folder / "data", "--exec-root",
                    self.folder / "exec", "--pidfile", self.folder / "pid", "-H", self.url,
                    "--iptables=false", "--ip6tables=false",
                    *([] if self._machine else [f"--bridge={self._bridge()}"]),
                    f"--live-restore={str(self._live_restore).lower()}", *self._arguments,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        patient = patience.Patience(30)
        while True:
            with contextlib.suppress(Exception), contextlib.closing(connected(self.url)) as client:
                if client.ping():
                    return
            assert not patient.is_over(), (self.folder / "log").read_text()[-2000:]
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def _elsewhere(self) -> list[str]:
        """Return what to start it with; `ip netns exec` would hide the control groups."""
        if not self._machine:
            return []
        words = 'hostname "$0" && exec nsenter "--net=/var/run/netns/$0" "$@"'
        return ["unshare", "--uts", "sh", "-c", words, self._machine]

    def _bridge(self) -> str:
        """Have a bridge that is not docker0: an engine without one deletes that of others."""
        name = f"dk{os.getpid() % 10**6}"
        if not pathlib.Path(f"/sys/class/net/{name}").exists():
            net = os.getpid() % 250
            for words in (
                ["link", "add", name, "type", "bridge"],
                ["addr", "add", f"172.31.{net}.1/24", "dev", name],
                ["link", "set", name, "up"],
            ):
                subprocess.run(["ip", *words], check=True)
        return name

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait; SIGKILL leaves its containerd and containers alone."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=patience.seconds(60))
            self._process = None
        if how is signal.SIGKILL:
            self._end_containerd()

    def _end_containerd(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / "exec/containerd/containerd.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            while pathlib.Path(f"/proc/{pid}").exists() and not _is_zombie(pid):
                time.sleep(0.02)

    def close(self) -> None:
        """End it with everything in it."""
        if self._process is None:
            self.start()
        with contextlib.closing(connected(self.url)) as client:
            for entry in client.containers(all=True):
                with contextlib.suppress(docker.errors.APIError):  # it was ending
                    client.remove_container(entry["Id"], force=True, v=True)
        self.end()
        if not self._machine:
            subprocess.run(["ip", "link", "del", self._bridge()], check=False)
        mounts = pathlib.Path("/proc/mounts").read_text().splitlines()
        for place in reversed([line.split()[1] for line in mounts]):
            if place.startswith(f"{self.folder}/"):  # a killed engine leaves its own
                subprocess.run(["umount", place], check=False)
        shutil.rmtree(self.folder)


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@contextlib.contextmanager
def own_engine(*arguments: str, live_restore: bool = False) -> Iterator[OwnEngine]:
    """Give an engine of our own, or skip where none can be started."""
    if os.geteuid() != 0:
        absent("no engine of one's own can be started: only root can")
    for name in ("dockerd", "iptables", "ip", "busybox"):
        if shutil.which(name) is None:
            absent(programs.want(name))
    engine = OwnEngine(*arguments, live_restore=live_restore)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


class Proxy:
    """Stands before an engine and can fail, delay or cut what passes; one request each."""

    def __init__(self, engine: str) -> None:
        self._engine = engine.removeprefix("unix://")
        self._folder = tempfile.mkdtemp(prefix="dkp-")
        self.url = f"unix://{self._folder}/s"
        self.faults: dict[tuple[str, str], tuple[int, str]] = {}  # method, word in path
        self.replies: dict[tuple[str, str], bytes] = {}  # in place of the engine's
        self.asked: list[str] = []  # paths
        self.delay_s = 0.0
        self.held: dict[str, str] = {}  # word in path to "asked" or "answered": who goes on waits
        self._is_held = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.url[7:])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def holding(self) -> bool:
        """Tell whether a request is held."""
        return self._is_held

    async def _hold(self) -> None:
        self._is_held = True
        await asyncio.get_running_loop().create_future()

    def cut(self) -> None:
        """Cut every connection, and hold nothing more."""
        self.held.clear()
        self._is_held = False
        for task in self._tasks:
            task.cancel()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        self.asked.append(path)
        length = next((int(x[15:]) for x in lines if x.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        await asyncio.sleep(self.delay_s)
        held = next((when for word, when in self.held.items() if word in path), "")
        if held == "asked":
            await self._hold()
        fault = next((f for (m, w), f in self.faults.items() if m == method and w in path), None)
        status, words = (
            200,
            next(
                (body for (m, w), body in self.replies.items() if m == method and w in path), None
            ),
        )
        if fault is not None:
            status, words = fault[0], f'{{"message": "{fault[1]}"}}'.encode()
        if words is not None:
            head = (
                f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Content-Length: {len(words)}\r\n\r\n"
            )
            writer.write(head.encode() + words)
            return
        lines = [line for line in lines if not line.lower().startswith("connection:")]
        there, back = await asyncio.open_unix_connection(self._engine)
        try:
            back.write("\r\n".join([first, *lines, "Connection: close", "", ""]).encode() + body)
            while part := await there.read(65536):
                if held == "answered":
                    await self._hold()
                writer.write(part)
                await writer.drain()
        finally:
            back.close()


@contextlib.asynccontextmanager
async def proxied(engine: str) -> AsyncIterator[Proxy]:
    """Give a proxy before the engine."""
    async with Proxy(engine) as proxy:
        yield proxy


def left_behind(engine: str, before: Mapping[str, set[str]] | None = None) -> dict[str, set[str]]:
    """Return containers, volumes and networks of an engine, without those of ``before``."""
    with contextlib.closing(connected(engine)) as client:
        found = {
            "containers": {entry["Id"] for entry in client.containers(all=True)},
            "volumes": {entry["Name"] for entry in client.volumes()["Volumes"] or ()},
            "networks": {entry["Name"] for entry in client.networks()} - _OF_SWARMS,
        }
    return {kind: there - (before or {}).get(kind, set()) for kind, there in found.items()}
