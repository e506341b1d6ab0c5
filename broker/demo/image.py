"""An image for the demo's agents, built without a registry: busybox and the stand-in agent.

The engine is told over its API with what the broker has anyway; it refuses to know any SDK. A
static busybox comes from the machine (Debian: ``busybox-static``, Alpine: ``busybox-static``).
"""

import asyncio
import io
import pathlib
import shutil
import tarfile
import urllib.parse

import aiohttp

NAME = "agent-broker-demo:local"
AGENT = "/agent.sh"
_HINT = "hint: apt-get install busybox-static"
_TIMEOUT_S = 60.0
_PASSWD = "root:x:0:0:root:/root:/bin/sh\njenkins:x:1000:1000:agent:/home/jenkins:/bin/sh\n"  # noqa: S105 -- no password


class ImageError(Exception):
    """The image cannot be built; the text says why and what helps."""


async def build(engine: str, *, name: str = NAME) -> None:
    """Put the image into an engine (``unix:///PATH`` or ``tcp://HOST:PORT``)."""
    content = io.BytesIO(await asyncio.to_thread(root_file_system, await _applets()))
    parts = urllib.parse.urlsplit(engine)
    connector, base = None, f"http://{parts.netloc}"
    if parts.scheme == "unix":
        connector, base = aiohttp.UnixConnector(parts.path), "http://engine"
    repository, _, tag = name.rpartition(":")
    query = {"fromSrc": "-", "repo": repository, "tag": tag}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(f"{base}/images/create", params=query, data=content) as answer,
        ):
            words = await answer.text()
            if answer.status != 200 or '"error"' in words:
                raise ImageError(f"the engine did not take the image: {words[:256]}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ImageError(f"no Docker engine answers at {engine}: {error}") from error


def root_file_system(applets: list[str]) -> bytes:
    """Return a tar file: busybox under all its names, a user, the agent."""
    busybox = pathlib.Path(_busybox()).read_bytes()
    agent = pathlib.Path(__file__).with_name("agent.sh").read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(path: str, content: bytes | None, mode: int = 0o755, owner: int = 0) -> None:
            member = tarfile.TarInfo(path)
            member.mode, member.uid, member.gid = mode, owner, owner
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))

        for path in ("bin", "etc", "home", "root"):
            add(path, None)
        add("tmp", None, mode=0o1777)
        for path in ("home/jenkins", "home/jenkins/agent"):  # as in the official agent images
            add(path, None, owner=1000)
        add("bin/busybox", busybox)
        add("etc/passwd", _PASSWD.encode(), mode=0o644)
        add(AGENT.lstrip("/"), agent)
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


def _busybox() -> str:
    found = shutil.which("busybox")
    if found is None:
        raise ImageError(f"no busybox on this machine to build the image from; {_HINT}")
    return found


async def _applets() -> list[str]:
    """Ask busybox what it can be; a dynamic one would not run in an empty image."""
    busybox = _busybox()
    head = await asyncio.to_thread(pathlib.Path(busybox).read_bytes)
    if b"/ld-linux" in head[:4096] or b"/ld-musl" in head[:4096]:
        raise ImageError(f"{busybox} is not static; {_HINT}")
    process = await asyncio.create_subprocess_exec(
        busybox, "--list", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return [name for name in said.decode().split() if name != "busybox"]
