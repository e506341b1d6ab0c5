"""The file cache over real HTTP: what a controller may answer, and what that costs it."""

import asyncio
import contextlib
import io
import os
import pathlib
import resource
import ssl
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from backends import api
from backends.kit import finding
from backends.process import doctor, fetch, settings
from tests import echo, patience
from tests.docker import certificates

_STAMP = "Tue, 24 Nov 2020 10:00:00 GMT"


class Server:
    """Serves one path; ``answer`` may be replaced; every request is kept."""

    def __init__(self) -> None:
        self.url = ""
        self.content = b"jar one"
        self.stamp: str | None = _STAMP
        self.requests: list[web.Request] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.file

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Answer as a controller does: Last-Modified and 304, no ETag."""
        if self.stamp is not None and request.headers.get("If-Modified-Since") == self.stamp:
            return web.Response(status=304)
        headers = {} if self.stamp is None else {"Last-Modified": self.stamp}
        return web.Response(body=self.content, headers=headers)

    def says(self, status: int, **headers: str) -> None:
        """Answer with a status from now on."""

        async def answer(_: web.Request) -> web.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(status=status, body=b"<html>login</html>", headers=named)

        self.answer = answer


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Serve on the loopback interface."""
    server = Server()
    app = web.Application()
    app.router.add_get("/jnlpJars/agent.jar", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jnlpJars/agent.jar"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """Give the server."""
    async with serving() as opened:
        yield opened


@pytest_asyncio.fixture
async def open_cache(tmp_path: pathlib.Path) -> AsyncIterator[Callable[..., fetch.FileCache]]:
    """Give a maker of caches on one directory; files are asked for again at once."""
    made = []

    def make(**changes: Any) -> fetch.FileCache:
        changes = {"revalidate_after_s": 0, **changes}
        made.append(fetch.FileCache(tmp_path / "cache", settings.ProcessSettings(**changes)))
        return made[-1]

    yield make
    for cache in made:
        await cache.aclose()
    left = [path.name for path in (tmp_path / "cache").glob("new.*")]
    assert [] == left, "whatever happened, nothing half fetched stays"


async def test_it_is_fetched_once_and_asked_for_by_its_date(server: Server, open_cache):
    """The second time the controller answers 304 and sends nothing."""
    cache = open_cache()
    first = await cache.get(server.url)
    second = await cache.get(server.url)
    assert (first, b"jar one") == (second, second.read_bytes())
    asked = [request.headers.get("If-Modified-Since") for request in server.requests]
    assert [None, _STAMP] == asked
    assert {"identity"} == {request.headers["Accept-Encoding"] for request in server.requests}
    assert not any("Authorization" in request.headers for request in server.requests)


async def test_another_broker_uses_the_same_copy(server: Server, open_cache):
    """The date is kept beside the copy, so a restart costs one 304."""
    await open_cache().get(server.url)
    await open_cache().get(server.url)
    assert _STAMP == server.requests[-1].headers["If-Modified-Since"]


async def test_a_new_version_replaces_the_copy_and_not_its_links(
    server: Server, open_cache, tmp_path
):
    """Instances that were started from the old one keep it."""
    cache = open_cache()
    path = await cache.get(server.url)
    (tmp_path / "linked").hardlink_to(path)
    server.content, server.stamp = b"jar two, longer", "Wed, 25 Nov 2020 10:00:00 GMT"
    assert b"jar two, longer" == (await cache.get(server.url)).read_bytes()
    assert b"jar one" == (tmp_path / "linked").read_bytes()


async def test_a_burst_asks_once(server: Server, open_cache):
    """Many launches at once and shortly after each other cost one request."""
    cache = open_cache(revalidate_after_s=60)
    paths = await asyncio.gather(*(cache.get(server.url) for _ in range(20)))
    await cache.get(server.url)
    assert 1 == len(set(paths)) == len(server.requests)


async def test_a_server_without_dates_is_asked_in_full(server: Server, open_cache):
    """No date, no 304: the whole file each time, and the new one is used."""
    server.stamp = None
    cache = open_cache()
    await cache.get(server.url)
    server.content = b"jar two"
    assert b"jar two" == (await cache.get(server.url)).read_bytes()
    assert "If-Modified-Since" not in server.requests[-1].headers


@pytest.mark.parametrize("damage", ["shorter", "removed", "note-lost", "note-damaged"])
async def test_a_damaged_copy_is_fetched_again(server: Server, open_cache, damage):
    """Its date is not trusted when the copy is not whole."""
    path = await open_cache().get(server.url)
    note = path.with_name(path.name + ".json")
    path.chmod(0o600)
    {
        "shorter": lambda: path.write_bytes(b"jar"),
        "removed": path.unlink,
        "note-lost": note.unlink,
        "note-damaged": lambda: note.write_text('{"size"'),
    }[damage]()
    assert b"jar one" == (await open_cache().get(server.url)).read_bytes()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_refusal_is_rejected(server: Server, open_cache, status):
    """The same request will fail again: somebody has to change something."""
    server.says(status)
    with pytest.raises(api.Rejected, match=f"agent.jar answered {status}"):
        await open_cache().get(server.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307])
async def test_a_redirect_is_not_followed(server: Server, open_cache, status):
    """It is mostly a login page; where it leads is said."""
    server.says(status, Location="http://127.0.0.1/login")
    with pytest.raises(api.Rejected, match=r"redirect to http://127.0.0.1/login; hint"):
        await open_cache().get(server.url)
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    ("status", "after", "wait"),
    [(500, "", None), (503, "17", 17.0), (429, "5", 5.0), (502, "Wed, 21 Oct", None)],
)
async def test_trouble_of_the_server_passes(server: Server, open_cache, status, after, wait):
    """Unavailable with the time to wait; the next try works."""
    cache = open_cache()
    server.says(status, Retry_After=after)
    with pytest.raises(api.Unavailable) as caught:
        await cache.get(server.url)
    assert wait == caught.value.retry_after
    server.answer = server.file
    assert b"jar one" == (await cache.get(server.url)).read_bytes()


async def test_a_file_that_is_too_large(server: Server, open_cache):
    """It is given up while it comes, with the name of the setting."""
    server.content = b"x" * 10_000
    with pytest.raises(api.Rejected, match="larger than 9999 bytes; hint: raise `max_file_bytes`"):
        await open_cache(max_file_bytes=9999).get(server.url)
    assert b"x" * 10_000 == (await open_cache(max_file_bytes=10_000).get(server.url)).read_bytes()


async def test_an_answer_that_is_cut(server: Server, open_cache):
    """Half a jar is no jar: Unavailable, and the old copy stays as it was."""
    cache = open_cache()
    path = await cache.get(server.url)

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half of it")
        request.transport.close()
        return response

    server.answer = cut
    with pytest.raises(api.Unavailable, match="cannot fetch"):
        await cache.get(server.url)
    assert b"jar one" == path.read_bytes()
    server.answer = server.file
    assert path == await cache.get(server.url)
    assert _STAMP == server.requests[-1].headers["If-Modified-Since"]


async def test_an_answer_that_does_not_end(server: Server, open_cache):
    """The time limit holds for the whole file, not for its parts."""
    stop = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not stop.is_set():
                await response.write(b".")
                await asyncio.sleep(0.05)
        return response

    server.answer = drip
    with pytest.raises(api.Unavailable, match=r"agent.jar did not come within 1 s"):
        await open_cache(download_timeout_s=1).get(server.url)
    stop.set()


async def test_nobody_listens(open_cache):
    """Unavailable, in the words that we have for it everywhere."""
    with pytest.raises(api.Unavailable) as caught:
        await open_cache().get("http://127.0.0.1:1/x")
    assert str(caught.value) == (
        "cannot fetch http://127.0.0.1:1/x: cannot connect to 127.0.0.1:1: Connection refused"
    )


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "agent.jar", "http://", "http://[::1/x"])
async def test_an_address_that_is_none(open_cache, url):
    """Rejected: it will never work."""
    with pytest.raises(api.Rejected, match="is not an HTTP URL"):
        await open_cache().get(url)


async def test_a_cancelled_download_lets_the_next_one_through(server: Server, open_cache):
    """Who waits for the same file is not cancelled with it."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        begun.set()
        await go.wait()
        return await server.file(request)

    server.answer = slow
    cache = open_cache()
    first = asyncio.ensure_future(cache.get(server.url))
    await begun.wait()
    second = asyncio.ensure_future(cache.get(server.url))
    await asyncio.sleep(0)
    first.cancel()
    go.set()
    assert b"jar one" == (await patience.wait_for(second, 5)).read_bytes()
    assert first.cancelled()


# --- a server with a certificate of a private authority ---


def a_jar() -> bytes:
    """Return the least that is taken for the agent's jar."""
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as made:
        made.writestr("hudson/remoting/Launcher.class", "")
    return jar.getvalue()


JAR = a_jar()


@contextlib.asynccontextmanager
async def serving_tls(pair: certificates.Pair) -> AsyncIterator[str]:
    """Serve a jar by HTTPS; gives its URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    app = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=JAR)

    app.router.add_get("/jnlpJars/agent.jar", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/jnlpJars/agent.jar"
    finally:
        await runner.cleanup()


async def test_the_controllers_authority_is_the_files_too(tmp_path, open_cache):
    """One setting: what is said of the controller comes with the file; the backend's own wins."""
    ours = certificates.Authority(tmp_path, "ours")
    theirs = certificates.Authority(tmp_path, "theirs")
    async with serving_tls(ours.signed("server", "IP:127.0.0.1")) as url:
        with pytest.raises(api.Unavailable, match="certificate"):
            await open_cache().get(url)
        for way in (api.Route(ca_file=ours.file), api.Route(verify=False)):
            assert (await open_cache().get(url, way)).read_bytes() == JAR
        with pytest.raises(api.Unavailable, match="certificate"):
            await open_cache().get(url, api.Route(ca_file=theirs.file))
        own = open_cache(ca_file=ours.file)
        assert (await own.get(url, api.Route(ca_file=theirs.file))).read_bytes() == JAR
        with pytest.raises(api.Rejected, match="CA file"):
            await open_cache().get(url, api.Route(ca_file=f"{tmp_path}/none.pem"))


async def test_the_controllers_proxy_is_the_files_too(server: Server, open_cache):
    """The proxy is asked for the whole URL, and the server not at all."""
    asked = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nPK jar")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        url = "http://controller.invalid/jnlpJars/agent.jar"
        path = await open_cache().get(url, api.Route(proxy=f"http://127.0.0.1:{port}"))
    assert path.read_bytes() == b"PK jar"
    assert asked == [f"GET {url} HTTP/1.1\r\n".encode()]
    assert server.requests == []


async def test_the_doctor_looks_for_the_program_as_a_supervisor_does(tmp_path):
    """By the PATH of the template, of the backend or our own; what depends on an instance is not."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)

    async def verdicts(*argv: str, path: str | None = None, **env: str) -> list[str]:
        order = api.InstanceSpec(name="x", metadata={}, argv=argv, env=env)
        told = settings.ProcessSettings(path=path)
        rows = doctor.examine(told, owner="o", orders={"t": order, "u": order}, now=time.time)
        found = [row async for row in rows]
        assert all("Java" in row.hint for row in found if row.verdict is finding.Grade.FAIL)
        return [row.verdict.value for row in found]

    assert await verdicts("java", "-jar", path=str(tmp_path)) == ["ok"]
    assert await verdicts("java", "-jar", path="/nowhere", PATH=str(tmp_path)) == ["ok"]
    assert await verdicts("java", "-jar", path=str(tmp_path), PATH="/nowhere") == ["FAIL"]
    assert await verdicts("sh", path=None) == ["ok"]
    assert await verdicts(str(java), path="/nowhere") == ["ok"]
    assert await verdicts(str(tmp_path / "none")) == ["FAIL"]
    java.chmod(0o644)
    assert await verdicts("java", path=str(tmp_path)) == ["FAIL"]
    for later in ("${work}/agent", "bin/agent"):
        assert await verdicts(later, path="/nowhere") == []


async def test_the_doctor_asks_for_the_jar_as_a_launch_does(server: Server, tmp_path):
    """With what comes with the file, and by what the backend itself is told."""

    async def found(file: api.RemoteFile) -> finding.Finding:
        order = api.InstanceSpec(name="x", metadata={}, files=(file,))
        told = settings.ProcessSettings()
        rows = doctor.examine(told, owner="o", orders={"t": order, "u": order}, now=time.time)
        (row,) = [row async for row in rows]
        return row

    server.content = JAR
    assert (await found(api.RemoteFile(url=server.url, name="agent.jar"))).verdict.value == "ok"
    server.content = b"<html>"
    assert "not a jar" in (await found(api.RemoteFile(url=server.url, name="agent.jar"))).text
    server.says(302, Location="/login")
    assert "redirect" in (await found(api.RemoteFile(url=server.url, name="agent.jar"))).text
    ours = certificates.Authority(tmp_path, "ours")
    async with serving_tls(ours.signed("server", "IP:127.0.0.1")) as url:
        trusted = api.RemoteFile(url=url, name="agent.jar", route=api.Route(ca_file=ours.file))
        assert (await found(trusted)).verdict.value == "ok"
        assert (await found(api.RemoteFile(url=url, name="agent.jar"))).verdict.value == "FAIL"


# --- servers and directories that are not as they should be ------------------------------------

PASSWORD = "correct-horse-battery-staple-7"


@pytest.mark.parametrize("way", echo.WAYS)
async def test_what_a_proxy_is_told_comes_back_in_no_words(tmp_path: pathlib.Path, way: str):
    """Its password, in whatever form it is echoed; and whatever comes is an error of ours."""
    made = settings.ProcessSettings(revalidate_after_s=0, download_timeout_s=20)
    cache, told = fetch.FileCache(tmp_path / "cache", made), ""
    with echo.serving(way) as server:
        route = api.Route(proxy=f"http://user:{PASSWORD}@127.0.0.1:{server.port}")
        try:
            await cache.get("http://controller.invalid/jnlpJars/agent.jar", route)
        except api.BackendError as error:
            told = error.reason
        finally:
            await cache.aclose()
        assert server.was_sent(PASSWORD)
    assert echo.found(PASSWORD, told) == []


async def test_a_redirect_is_told_without_what_it_lets_in(server: Server, open_cache):
    """What follows the question mark is often somebody's ticket."""
    server.says(302, Location="https://login.example/?ticket=s3cr3t-ticket#s3cr3t")
    with pytest.raises(api.Rejected) as caught:
        await open_cache().get(server.url)
    assert "https://login.example/" in caught.value.reason
    assert "s3cr3t" not in caught.value.reason


async def test_a_packed_answer_is_not_unpacked(server: Server, open_cache):
    """Nobody asked for it, and a little of it may be gigabytes."""
    server.says(200, Content_Encoding="gzip")
    with pytest.raises(api.Rejected, match="packed as gzip"):
        await open_cache().get(server.url)


@pytest.mark.parametrize("after", ["9" * 400, "-1", "soon", "99999"])
async def test_a_pause_without_end_is_none(server: Server, open_cache, after: str):
    """A server may not put us to sleep."""
    server.says(503, Retry_After=after)
    with pytest.raises(api.Unavailable) as caught:
        await open_cache().get(server.url)
    assert caught.value.retry_after is None


async def test_a_pipe_in_the_place_of_a_copy_is_replaced(server: Server, tmp_path: pathlib.Path):
    """Agents share the cache's owner: what one puts there holds up nobody."""
    cache = fetch.FileCache(tmp_path / "cache", settings.ProcessSettings())
    path = await cache.get(server.url)
    for odd in (
        path,
        path.with_name(f"{path.name}.json"),
        path.with_name(f"{path.name}.json.new"),
    ):
        odd.unlink(missing_ok=True)
        os.mkfifo(odd)
    async with patience.limit(20):
        assert (await cache.get(server.url)).read_bytes() == server.content
    await cache.aclose()


async def test_a_pipe_in_the_place_of_an_authority_is_refused(tmp_path: pathlib.Path):
    """The library would wait for it, and the broker with it."""
    os.mkfifo(tmp_path / "ca.pem")
    cache = fetch.FileCache(tmp_path / "cache", settings.ProcessSettings())
    with pytest.raises(api.Rejected, match="not a regular file"):
        await cache.get("https://127.0.0.1:1/x", api.Route(ca_file=str(tmp_path / "ca.pem")))
    await cache.aclose()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WITHOUT_END = {
    "drip": (OK + b"Content-Length: 1000\r\n\r\n", b"x"),
    "drip of a header": (OK + b"X: ", b"x"),
    "body": (OK + b"\r\n", b"x" * 65536),
    "chunks": (CHUNKED, b"1\r\nx\r\n" * 1000),
    "a chunk's extension": (CHUNKED + b"5;", b"x" * 65536),
    "a chunk's size": (CHUNKED, b"f" * 65536),
    "headers": (OK, b"X-A: yyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000),
    "a header": (OK + b"X: ", b"y" * 65536),
    "a status": (b"HTTP/1.1 200 ", b"y" * 65536),
    "answers before the answer": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 1000),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X-T: yyyyyyyyyyyy\r\n" * 1000),
}


@pytest.mark.parametrize("way", WITHOUT_END)
async def test_whatever_goes_on_without_end_is_left_in_time(open_cache, way: str):
    """By the limit of size or of time, with little memory; the loop is not held up."""
    head, piece = WITHOUT_END[way]
    over, gone = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while not over.is_set():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02 if len(piece) == 1 else 0)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        gone.set()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/agent.jar"
        cache = open_cache(download_timeout_s=1, max_file_bytes=1 << 20)
        with pytest.raises((api.Rejected, api.Unavailable)) as told:
            await patience.wait_for(cache.get(url), 20)
        assert told.value.reason.isprintable()
        assert len(told.value.reason) < 400
    finally:
        over.set()
        await patience.wait_for(gone.wait(), 20)
        listening.close()
        await listening.wait_closed()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB
