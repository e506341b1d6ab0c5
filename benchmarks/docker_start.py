"""How fast containers and their JVMs start, and what the broker costs with this backend.

Run: ``python benchmarks/docker_start.py [launch] [jvm] [memory] [growth]`` against the engine of
DOCKER_HOST. ``jvm`` packs the machine's own Java into a local image (no registry) and measures
from the launch of a container to the first byte of a small program; the figures are ratios to the
first row. docs/performance.md holds what was measured.
"""

import argparse
import asyncio
import io
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator

import attrs

from backends import api
from backends.docker import backend as engine
from backends.docker import settings
from backends.docker.engine import client
from backends.kit import names
from broker import clock
from broker.core.decide import spec as core_spec
from broker.demo import image
from broker.simulator import controller, simulation
from outside import waits

_ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
_RUNS = 7
_JAVA_IMAGE = "agent-broker-benchmark-java:local"
_MIB = 1 << 20

_PROGRAM = """\
import java.net.Socket;
public class Agent {
    public static void main(String[] a) throws Exception {
        var jar = new java.util.jar.JarFile(a[1]);
        var names = jar.stream().filter(e -> e.getName().endsWith(".class")).count();
        javax.net.ssl.SSLContext.getDefault();
        java.util.concurrent.CompletableFuture.supplyAsync(() -> names).get();
        java.util.logging.Logger.getLogger("agent").info("connecting");
        var used = ProcessHandle.current().info().totalCpuDuration().get().toMillis();
        var said = (used + "\\n").getBytes();
        new Socket("127.0.0.1", Integer.parseInt(a[0])).getOutputStream().write(said);
    }
}
"""


def _backend(**told: object) -> engine.DockerBackend:
    configured = settings.DockerSettings(hosts=(settings.Host(url=_ENGINE),), **told)  # type: ignore[arg-type]  # of this file
    return engine.DockerBackend(
        configured, owner=f"benchmark-{uuid.uuid4().hex[:6]}", now=clock.Clock().wall
    )


def _spec(name: str, argv: tuple[str, ...], **options: object) -> api.InstanceSpec:
    told = {"network": "none", "pull": "never", **options}
    return api.InstanceSpec(
        name=f"{name}-{uuid.uuid4().hex[:6]}",
        metadata={names.OWNER: "benchmark"},
        argv=argv,
        image=image.NAME,
        secret_files={"secret": "0" * 64},
        options=settings.DockerTemplate(**told),  # type: ignore[arg-type]  # of this file
    )


async def launch(count: int = 20) -> None:
    """Print the launch rate of the backend, and that of the engine without it."""
    await image.build(_ENGINE)
    backend = _backend()
    bare = client.Engine(settings.Host(url=_ENGINE), settings.DockerSettings())
    await backend.list()
    body = {
        "Image": image.NAME,
        "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": "none", "Init": True},
    }

    def plain() -> str:
        session = bare._connect()  # noqa: SLF001 -- the engine alone, without what we add
        made = session.create_container_from_config(body)["Id"]  # type: ignore[no-untyped-call]
        session.start(made)
        return str(made)

    def volume() -> settings.Volume:
        return settings.Volume(target="/cache", writable_by_user=True)

    rows: dict[str, Callable[[], api.InstanceSpec]] = {
        "backend": lambda: _spec("launch", ("sleep", "600")),
        "backend, archive put in": lambda: _spec("launch", ("sleep", "600"), volumes=(volume(),)),
    }
    rates: dict[str, list[float]] = {"engine alone": [], **{name: [] for name in rows}}
    for _ in range(_RUNS):
        began = time.perf_counter()
        made = await asyncio.gather(*(bare.call(client.Lane.START, plain) for _ in range(count)))
        rates["engine alone"].append(count / (time.perf_counter() - began))
        for one in made:
            await bare.call(client.Lane.END, bare.remove, one)
        for name, make in rows.items():
            specs = [make() for _ in range(count)]
            began = time.perf_counter()
            await asyncio.gather(*(backend.launch(spec) for spec in specs))
            rates[name].append(count / (time.perf_counter() - began))
            await asyncio.gather(*(backend.terminate(spec.name, grace_s=0) for spec in specs))
    for name, seen in rates.items():
        ratios = [mine / its for mine, its in zip(seen, rates["engine alone"], strict=True)]
        print(
            f"{name:24} {max(seen):5.2f} containers per second, {count} at once; of the engine's "
            f"own rate {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    await backend.aclose()
    await asyncio.to_thread(bare.close)


async def growth(count: int = 1000) -> None:
    """Launch and terminate many, and print what the process grew by."""
    await image.build(_ENGINE)
    backend = _backend()
    await backend.list()
    for number in range(count // 20):
        specs = [_spec("growth", ("sleep", "600")) for _ in range(20)]
        await asyncio.gather(*(backend.launch(spec) for spec in specs))
        assert len(await backend.list()) == 20  # noqa: S101 -- a benchmark
        await asyncio.gather(*(backend.terminate(spec.name, grace_s=0) for spec in specs))
        if number % 10 == 9 or number in {0, 4}:
            print(
                f"{20 * (number + 1):5} agents  {_rss_mib():6.1f} MiB  {_open_files()} open files"
            )
    print(f"left over: {len(await backend.list())}")
    await backend.aclose()


async def memory() -> None:
    """Print the memory of a broker at rest, with another backend and with this one."""
    access = controller.Accounts(user="u", token="t")  # noqa: S106 -- of the simulated controller
    watch = clock.Clock()
    for kind, section in (("process", ""), ("docker", f', hosts: [{{url: "{_ENGINE}"}}]')):
        with tempfile.TemporaryDirectory() as folder:
            sim = simulation.Simulation()
            async with controller.SimulatedController(sim, now=watch.now, access=access) as server:
                file = f"{folder}/broker.yaml"
                text = _CONFIG.format(url=server.url, folder=folder, kind=kind, section=section)
                await asyncio.to_thread(pathlib.Path(file).write_text, text)
                broker = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "broker", "run", "--config", file,
                    env={**os.environ, "TOKEN": "t"}, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                await asyncio.sleep(_REST_S)
                print(f"{kind:8} {await asyncio.to_thread(_rss_mib, broker.pid):5.1f} MiB")
                broker.terminate()
                await broker.wait()


_REST_S = 10.0
_CONFIG = """\
owner: rest
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
state_dir: {folder}/state
listen: "127.0.0.1:0"
backends: {{here: {{kind: {kind}{section}}}}}
templates: {{x: {{labels: x, image: y, command: [z]}}}}
"""


def _rss_mib(pid: int | str = "self") -> float:
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def _open_files() -> int:
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def _java_home() -> pathlib.Path:
    return pathlib.Path(str(shutil.which("java"))).resolve().parents[1]


# --- the JVM -------------------------------------------------------------------------------------


async def jvm() -> None:
    """Print how long a container takes to the first byte of its Java program, by options."""
    with tempfile.TemporaryDirectory() as folder:
        await asyncio.to_thread(_pack, _java_home(), pathlib.Path(folder))
    fast = (core_spec._FIRST_COMPILER, core_spec._SERIAL)  # noqa: SLF001 -- what is measured
    archive = "/opt/agent.jsa"
    rows: dict[str, tuple[str, ...]] = {
        "no class-data archive": ("-Xshare:off",),
        "the JDK's defaults": (),
        "+ C1, SerialGC (our default)": fast,
        "+ an archive of the program's classes": (*fast, f"-XX:SharedArchiveFile={archive}"),
    }
    backend = _backend()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in range(_RUNS):
        for name, options in rows.items():
            seen[name].append(await _first_byte(backend, options))
    first: tuple[float, float] | None = None
    for name, runs in seen.items():
        took, used = min(one for one, _ in runs), min(one for _, one in runs)  # noise only adds
        first = first or (took, used)
        print(
            f"{name:40} {took / first[0]:5.2f}  ({took * 1000:.0f} ms)"
            f"   processor {used / first[1]:5.2f}  ({used:.0f} ms)"
        )
    await backend.aclose()


async def _first_byte(
    backend: engine.DockerBackend, options: tuple[str, ...]
) -> tuple[float, float]:
    """Launch one; return seconds to its first byte, and its processor time until then in ms."""
    arrived: asyncio.Future[tuple[float, bytes]] = asyncio.get_running_loop().create_future()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result((time.perf_counter(), await reader.readline()))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    command = ("/jre/bin/java", *options, "-cp", "/opt/agent.jar", "Agent", port)
    spec = _spec("jvm", (*command, "/opt/agent.jar"), network="host")
    spec = attrs.evolve(spec, image=_JAVA_IMAGE)
    before = time.perf_counter()
    await backend.launch(spec)
    async with waits.timeout(30):
        at, said = await arrived
    server.close()
    await backend.terminate(spec.name, grace_s=0)
    return at - before, float(said)


def _pack(java: pathlib.Path, folder: pathlib.Path) -> None:
    """Make an image of the machine's libraries, its Java, the program and its archive."""

    def run(*words: object) -> None:
        subprocess.run([str(word) for word in words], check=True, cwd=folder, capture_output=True)  # noqa: S603 -- our own words

    (folder / "Agent.java").write_text(_PROGRAM)
    run(java / "bin/javac", "Agent.java")
    run(java / "bin/jar", "cf", "agent.jar", "Agent.class")
    run(java / "bin/jlink", "--add-modules", "java.base,java.logging,java.management,java.xml",
        "--output", "jre", "--no-header-files", "--no-man-pages", "--strip-debug")  # fmt: skip
    run("jre/bin/java", "-Xshare:dump")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder / "jre", "jre")
        tar.add(folder / "agent.jar", "opt/agent.jar")
        for library in _libraries(folder / "jre/bin/java", folder / "jre/lib/server/libjvm.so"):
            tar.add(library.resolve(), str(library).lstrip("/"))
        opt = tarfile.TarInfo("tmp")
        opt.type, opt.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(opt)
    tool = ["docker", "-H", _ENGINE]
    subprocess.run([*tool, "import", "-", _JAVA_IMAGE], input=buffer.getvalue(), check=True)  # noqa: S603 -- as above
    dump = ("/jre/bin/java", "-XX:ArchiveClassesAtExit=/opt/agent.jsa", "-XX:+UseSerialGC",
            "-cp", "/opt/agent.jar", "Agent", "1", "/opt/agent.jar")  # fmt: skip
    made = f"benchmark-{uuid.uuid4().hex[:6]}"
    # it cannot connect, ends with an exception, and writes the archive of what it loaded
    subprocess.run(  # noqa: S603 -- as above
        [*tool, "run", "--network=none", "--name", made, _JAVA_IMAGE, *dump], check=False
    )
    subprocess.run([*tool, "commit", made, _JAVA_IMAGE], check=True)  # noqa: S603 -- as above
    subprocess.run([*tool, "rm", made], check=True)  # noqa: S603 -- as above


def _libraries(*programs: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield what the dynamic linker would load."""
    seen: set[str] = set()
    for program in programs:
        told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)  # noqa: S603, S607 -- as above
        for line in told.stdout.splitlines():
            for word in line.split():
                if word.startswith("/") and "jre" not in word and word not in seen:
                    seen.add(word)
                    yield pathlib.Path(word)


_PARTS: dict[str, Callable[[], object]] = {
    "launch": lambda: asyncio.run(launch()),
    "jvm": lambda: asyncio.run(jvm()),
    "memory": lambda: asyncio.run(memory()),
    "growth": lambda: asyncio.run(growth()),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], default=[*_PARTS])
    for part in parser.parse_args().parts:
        print(f"--- {part}")
        _PARTS[part]()
