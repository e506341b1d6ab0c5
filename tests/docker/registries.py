"""A real registry on loopback, and a line before it that can be slow. Debian: docker-registry."""

import asyncio
import contextlib
import io
import pathlib
import random
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator

import attrs

from broker.demo import image
from tests import patience, programs
from tests.docker import engines

PROGRAM = "docker-registry"
USER, PASSWORD = "agent", "let-me-in"
_HASH = "$2y$05$P1u0s.IZhImvUHROAd9.MOmaeQ/80FsyQSj80.RTk97aZAe7ShKTm"  # of the password
_CONFIG = """\
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: "{folder}/data"}}, delete: {{enabled: true}}}}
http: {{addr: "{host}:0"}}
{auth}"""
_AUTH = 'auth: {{htpasswd: {{realm: builds, path: "{folder}/htpasswd"}}}}\n'
KNOWN: set[str] = set()
"""Every address of this process: images of others are not ours to remove."""
_LISTENING = re.compile(r"listening on (\d+\.\d+\.\d+\.\d+:\d+)")


@attrs.frozen
class Registry:
    """Where it listens, and whether it asks who we are."""

    address: str
    asks: bool

    def push(self, engine: str, name: str, *, size: int = 1 << 16, filler: bytes = b"") -> str:
        """Put an image of its own into the registry, and leave none in the engine."""
        login = {"username": USER, "password": PASSWORD} if self.asks else {"username": "x"}
        repository = f"{self.address}/{name}"
        with contextlib.closing(engines.connected(engine)) as client:
            told = client.import_image_from_data(_content(size, filler), repository, tag="1")
            assert "error" not in told, told
            for line in client.push(repository, "1", stream=True, decode=True, auth_config=login):
                assert "error" not in line, line
            client.remove_image(f"{repository}:1", force=True)
        return f"{repository}:1"


@attrs.frozen
class Line:
    """Where it begins, and its connections."""

    address: str
    tasks: set[asyncio.Task[None]]


def _content(size: int, filler: bytes) -> bytes:
    """Return the test's image with a file that no other image has."""
    base = asyncio.run(_base())
    buffer = io.BytesIO(base)
    unique = filler or time.monotonic_ns().to_bytes(8)
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        member = tarfile.TarInfo("filler")
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(unique).randbytes(size)))
    return buffer.getvalue()


async def _base() -> bytes:
    return image.root_file_system(await image._applets())


@contextlib.contextmanager
def registry(
    folder: pathlib.Path, *, asks: bool = False, host: str = "127.0.0.1"
) -> Iterator[Registry]:
    """Give a registry; skip where there is none to start."""
    if shutil.which(PROGRAM) is None:
        engines.absent(programs.want(PROGRAM))
    folder.mkdir()
    config, log = folder / "config.yml", folder / "log"
    auth = _AUTH.format(folder=folder) if asks else ""
    config.write_text(_CONFIG.format(folder=folder, auth=auth, host=host))
    (folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
    with log.open("wb") as out:
        process = subprocess.Popen([PROGRAM, "serve", config], stdout=out, stderr=out)
    try:
        patient = patience.Patience(20)
        while (found := _LISTENING.search(log.read_text())) is None:
            assert not patient.is_over(), log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        KNOWN.add(found[1])
        yield Registry(found[1], asks)
    finally:
        process.terminate()
        process.wait(20)


@contextlib.asynccontextmanager
async def slow_line(address: str, *, bytes_per_s: int) -> AsyncIterator["Line"]:
    """Give another address of the registry, behind a slow line; 0: nothing passes."""
    host, _, port = address.partition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        there, back = await asyncio.open_connection(host, int(port))

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while part := await source.read(8192):
                    if bytes_per_s == 0:
                        continue
                    sink.write(part)
                    await sink.drain()
                    await asyncio.sleep(len(part) / bytes_per_s)
            sink.close()

        try:
            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        line = Line(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", tasks)
        KNOWN.add(line.address)
        yield line
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
