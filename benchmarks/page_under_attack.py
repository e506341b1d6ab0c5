"""What strangers at the status page's port cost: memory, descriptors, log lines, a probe's time.

``python benchmarks/page_under_attack.py`` starts a simulated controller, and a broker as a program
whose page is on loopback; each attack comes from a program of its own, on loopback only, while
``/healthz`` is asked for. No attack opens more than 15,000 connections.
"""

# ruff: noqa: ASYNC110, ASYNC230, ASYNC240 -- it measures another process and may wait itself

import asyncio
import contextlib
import json
import pathlib
import random
import resource
import signal
import sys
import tempfile
import time
import urllib.parse

from broker import clock
from broker.simulator import controller, simulation
from outside import waits

_CONFIG = """\
owner: rest
controller: {{url: "{url}"}}
state_dir: {folder}
listen: 127.0.0.1:0
templates:
  linux: {{labels: linux}}
"""
_SECONDS = 12.0
_GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_HEAD, _MUCH = b"GET / HTTP/1.1\r\nX: ", b"a" * (8 << 20)
_METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _hold(port: int, number: int, data: bytes, *, again_s: float | None, read: bool) -> None:
    """Keep so many connections; a new one for each that is closed."""

    async def one(index: int) -> None:
        source = ("127.0.0.1", 0) if index % 2 else (f"127.0.{index % 7}.{index % 200 + 2}", 0)
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=source
                )
                try:
                    if not read:
                        writer.transport.pause_reading()
                    writer.write(data)
                    while again_s is not None:
                        await asyncio.sleep(again_s)
                        writer.write(b"X")
                        if reader.at_eof():
                            break
                    await reader.read()
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.2 + random.random())  # noqa: S311 -- spreads, hides nothing

    await asyncio.gather(*(one(index) for index in range(number)))


async def _throw(port: int, *, odd: bool) -> None:
    """Send what is no request, one after the other in eight streams."""
    dice = random.Random(11)  # noqa: S311 -- the same each time

    async def one() -> None:
        while True:
            data = dice.randbytes(2000) + b"\r\n\r\n"
            if odd:
                data = (
                    b"GET / HTTP/1.1\r\nHost: " + dice.randbytes(9).hex().encode() + b"[\r\n\r\n"
                )
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(data)
                await reader.read()
                writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(8)))


ATTACKS = {
    "nobody": lambda _: asyncio.sleep(3600),
    "1,100 silent": lambda port: _hold(port, 1100, b"", again_s=None, read=True),
    "15,000 silent": lambda port: _hold(port, 15_000, b"", again_s=None, read=True),
    "slowloris, 500": lambda port: _hold(port, 500, _HEAD, again_s=1, read=True),
    "unread, pipelined": lambda port: _hold(port, 200, _METRICS * 100, again_s=None, read=False),
    "endless head, 64": lambda port: _hold(port, 64, _HEAD + _MUCH, again_s=None, read=True),
    "random bytes": lambda port: _throw(port, odd=False),
    "bad Host": lambda port: _throw(port, odd=True),
}


def _status(pid: int, field: str) -> int:
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(field))


async def _probe(port: int, source: str) -> float | None:
    """Return how long it took; None: not answered within two seconds."""
    began = time.perf_counter()
    try:
        async with waits.timeout(2):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(source, 0)
            )
            writer.write(_GET)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return None
    return time.perf_counter() - began if b" 200 " in answer else None


async def _measure(
    name: str, port: int, process: asyncio.subprocess.Process, log: pathlib.Path
) -> None:
    attacker = await asyncio.create_subprocess_exec(sys.executable, __file__, name, str(port))
    lines = log.read_bytes().count(b"\n")
    times: dict[str, list[float | None]] = {"127.0.0.1": [], "127.9.9.9": []}
    memory = descriptors = 0
    end = time.perf_counter() + _SECONDS
    try:
        await asyncio.sleep(1.0)  # it has to start
        while time.perf_counter() < end:
            for source, found in times.items():
                found.append(await _probe(port, source))
            memory = max(memory, _status(process.pid, "VmRSS"))
            folder = pathlib.Path(f"/proc/{process.pid}/fd")
            descriptors = max(descriptors, len(list(folder.iterdir())))
            await asyncio.sleep(0.1)
    finally:
        attacker.kill()
        await attacker.wait()
    lines = log.read_bytes().count(b"\n") - lines
    same, other = (_words(found) for found in times.values())
    print(
        f"{name:18}  {same:32}  {other:32}  {memory / 1024:3.0f} MiB  {descriptors:3} descriptors"
        f"  {lines} lines",
        flush=True,
    )


def _words(times: list[float | None]) -> str:
    good = sorted(one for one in times if one is not None)
    if not good:
        return f"0 of {len(times)}"
    middle, last = 1000 * good[len(good) // 2], 1000 * good[-1]
    return f"{len(good)} of {len(times)}, {middle:.0f} ms, at most {last:.0f}"


async def _main() -> None:
    sim = simulation.Simulation()
    with tempfile.TemporaryDirectory() as folder:
        async with controller.SimulatedController(sim, now=clock.Clock().now) as server:
            clockwork = asyncio.ensure_future(server.run())  # noqa: TID251 -- no broker, no group
            config, log = pathlib.Path(folder, "broker.yaml"), pathlib.Path(folder, "log")
            config.write_text(_CONFIG.format(url=server.url, folder=folder))
            arguments = (sys.executable, "-m", "broker", "run", "--config", str(config))
            with log.open("wb") as said:
                process = await asyncio.create_subprocess_exec(*arguments, stderr=said)
            note = pathlib.Path(folder, "page")
            while not note.exists():
                await asyncio.sleep(0.05)
            port = urllib.parse.urlsplit(json.loads(note.read_text())["url"]).port or 0
            await asyncio.sleep(2.0)
            print(f"{'':18}  {'probe at their address':32}  probe at an address of its own")
            for name in ATTACKS:
                await _measure(name, port, process, log)
            process.send_signal(signal.SIGTERM)
            await process.wait()
            clockwork.cancel()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        asyncio.run(ATTACKS[sys.argv[1]](int(sys.argv[2])))
    elif len(sys.argv) == 1:
        # as a service manager gives it
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        asyncio.run(_main())
