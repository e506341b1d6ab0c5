"""What no engine sends, sent: redirects, wrong types, bodies without end, drips, lying frames."""

import asyncio
import gzip
import json
import time
import tracemalloc

import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import container
from backends.docker.engine import client, wire
from tests import bombs, echo, patience
from tests.docker import scripted_engine

SECRET = "5eab3a1cf0" * 6 + "beef"  # an agent's, as a controller makes them
IMAGE = "registry.example:5000/builds/maven:1"
WITHIN_S = 20.0  # for what takes parts of a second


def plan(**changes: object) -> container.ContainerPlan:
    spec = api.InstanceSpec(
        name="a1", metadata={}, image=IMAGE, secret_files={"agent-secret": SECRET}
    )
    return container.plan(spec, owner="ours")


def events(one: client.Engine) -> list[object]:
    return list(one.events({"x": "y"}, 1, lambda _: None))


((_, ARCHIVE),) = container.archives(plan(), {}, secrets=True, folders=False)
JSON_VERBS = {
    "list": lambda one: one.list({"x": "y"}),
    "inspect": lambda one: one.inspect("a1"),
    "create": lambda one: one.create(plan()),
    "info": lambda one: one.remaps_files(),
    "volumes": lambda one: one.volumes({"x": "y"}),
    "helper": lambda one: one.run_helper("a1-tidy", {}, {}),
}
BYTES_VERBS = {
    "put": lambda one: one.put("a1", "/", ARCHIVE),
    "get": lambda one: one.get("a1", "/agent-broker/secrets"),
    "owner": lambda one: one.owner_of("a1", "/home/jenkins"),
    "start": lambda one: one.start("a1", plan()),
    "stop": lambda one: one.stop("a1", 0),
    "remove": lambda one: one.remove("a1"),
    "remove volume": lambda one: one.remove_volume("v"),
    "logs": lambda one: one.logs("a1", 5, has_terminal=False),
    "pull": lambda one: one.pull(IMAGE, None, lambda _: None),
    "events": events,
}
VERBS = {**JSON_VERBS, **BYTES_VERBS}


def made(url: str, **changes: object) -> client.Engine:
    told = {"timeout_s": 5.0, "pull_timeout_s": 5.0, "docker_config": "/nonexistent", **changes}
    return client.Engine(settings.Host(url=url), settings.DockerSettings(**told))


async def said(url: str, verb: str, **changes: object) -> BaseException | None:
    """Return what a verb raises, in a thread as always; it must come to an end."""
    one = made(url, **changes)
    try:
        async with patience.limit(WITHIN_S):
            return await asyncio.to_thread(_caught, VERBS[verb], one)
    finally:
        await asyncio.to_thread(one.close)


def _caught(verb, one) -> BaseException | None:
    try:
        verb(one)
    except client.StartError as failed:
        return failed.error
    except Exception as error:
        return error
    return None


# --- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_by_any_verb(status, monkeypatch):
    """Neither the registry's password nor the agent's secret goes anywhere else."""
    monkeypatch.setenv("REGISTRY", "the-password")
    login = settings.Registry(user="u", password_env="REGISTRY")
    with echo.serving("json 200") as elsewhere, scripted_engine.engine() as engine:
        for method in ("GET", "POST", "PUT", "DELETE"):
            head = f"HTTP/1.1 {status} Go\r\nLocation: {elsewhere.url}x\r\n"
            engine.answer(method, "", head.encode() + b"Content-Length: 0\r\n\r\n")
        engine.answer("GET", "/version", scripted_engine.VERSION)
        engine.answers = dict(reversed(engine.answers.items()))
        for verb in VERBS:
            error = await said(
                engine.url, verb, registries={"registry.example:5000": login}, timeout_s=5.0
            )
            assert isinstance(error, api.Unavailable), (verb, error)
            assert "redirects us" in error.reason, verb
        assert [] == elsewhere.requests
        assert any("X-Registry-Auth" in asked.head for asked in engine.requests)
        assert any(SECRET.encode() in asked.body for asked in engine.requests)


async def test_not_even_when_it_is_asked_for_its_version():
    """The first of all requests."""
    with echo.serving("json 200") as elsewhere, scripted_engine.engine() as engine:
        head = f"HTTP/1.1 307 Go\r\nLocation: {elsewhere.url}version\r\n"
        engine.answer("GET", "/version", head.encode() + b"Content-Length: 0\r\n\r\n")
        error = await said(engine.url, "list")
        assert "redirects us" in error.reason
        assert [] == elsewhere.requests


# --- types ---------------------------------------------------------------------------------------

NO_OBJECT = [b"[]", b"null", b'"x"', b"1", b"true", b"[{}]", b"", b"<html>", b"{", b"\xff\xfe"]
NO_LIST = [b"{}", b'{"message": "x"}', *NO_OBJECT[1:5], *NO_OBJECT[6:]]
ODD = {
    "list": NO_LIST,
    "inspect": [*NO_OBJECT, b"{}", b'{"Id": "a", "State": null, "Config": {}}',
                b'{"Id": "a", "State": {"Status": 5}, "Config": {}}',
                b'{"Id": "../x", "State": {"Status": "running"}, "Config": {}}'],
    "create": [*NO_OBJECT, b"{}", b'{"Id": null}', b'{"Id": 7}', b'{"Id": "a/../b"}'],
    "info": [*NO_OBJECT, b'{"SecurityOptions": {}}', b'{"SecurityOptions": [5]}'],
    "volumes": [*NO_OBJECT, b'{"Volumes": {}}', b'{"Volumes": "x"}'],
    "version": [*NO_OBJECT, b"{}", b'{"ApiVersion": 1.41}', b'{"ApiVersion": "x"}'],
}  # fmt: skip
DEEP = b"[" * 100_000 + b"]" * 100_000
WHERE = {
    "list": ("GET", "/containers/json"), "inspect": ("GET", "/a1/json"),
    "create": ("POST", "/create"), "info": ("GET", "/info"), "volumes": ("GET", "/volumes"),
    "version": ("GET", "/version"),
}  # fmt: skip


@pytest.mark.parametrize("verb", ODD)
async def test_a_wrong_type_is_an_error(verb):
    """Never an empty listing, a container that is gone or a bug."""
    with scripted_engine.engine() as engine:
        for body in (*ODD[verb], DEEP, b'{"a":' * 100_000):
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            engine.answer(*WHERE[verb], scripted_engine.HEAD + length + body)
            error = await said(engine.url, "list" if verb == "version" else verb)
            assert isinstance(error, api.Unavailable), (body[:40], error)
            assert not isinstance(error, api.Partial)


@pytest.mark.parametrize("line", [b"[]", b"1", b"null", b"<html>", b"{", DEEP])
async def test_progress_that_is_none_is_an_error(line):
    """A pull whose words cannot be read has not gone well."""
    with scripted_engine.engine() as engine:
        engine.answer("POST", "/images/create", scripted_engine.lines({"status": "x"}, line))
        assert isinstance(await said(engine.url, "pull"), api.Unavailable)


@pytest.mark.parametrize(
    "told", [{"error": {"a": 1}}, {"error": None, "errorDetail": {"message": "denied"}},
             {"errorDetail": 5}],
)  # fmt: skip
async def test_an_odd_error_of_a_pull_is_an_error(told):
    """Whatever it holds."""
    with scripted_engine.engine() as engine:
        engine.answer("POST", "/images/create", scripted_engine.lines(told))
        assert isinstance(await said(engine.url, "pull"), api.BackendError)


@pytest.mark.parametrize(
    "archive",
    [b"", b"x" * 100, b"x" * 5000, gzip.compress(b"\0" * 10240, mtime=0), b"PK\3\4" + bytes(508)],
    ids=["nothing", "short", "long", "packed", "another kind"],
)
async def test_an_archive_that_is_none(archive):
    """Packed ones are not unpacked: nobody asked for it."""
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/archive", scripted_engine.TO_THE_END + archive)
        for verb in ("get", "owner"):
            error = await said(engine.url, verb)
            assert error is None or isinstance(error, api.Unavailable), error


async def test_a_sparse_file_in_an_archive_fills_no_memory():
    """A kilobyte that says it is a terabyte of zeros."""
    head = b"secrets/x".ljust(100, b"\0") + b"0000400\0" + b"0000000\0" * 2
    head += b"00000001000\0" + b"00000000000\0" + b"        " + b"S" + bytes(100)
    head += b"ustar  \0" + bytes(32 + 32 + 16) + bytes(41)
    sparse = b"00000000000\0" + b"00000001000\0"
    head = head[:386] + sparse + bytes(72) + b"\0" + b"00000000000\0"
    head = bytearray(head[:483].ljust(483, b"\0") + b"\x80" + (1 << 40).to_bytes(11, "big"))
    head = head.ljust(512, b"\0")
    head[148:156] = b"%06o\0 " % sum(head[:148] + b"        " + head[156:])
    with scripted_engine.engine() as engine:
        engine.answer(
            "GET", "/archive", scripted_engine.TO_THE_END + bytes(head) + bytes(512 + 1024)
        )
        tracemalloc.start()
        try:
            error = await said(engine.url, "get")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert error is None or isinstance(error, api.Unavailable)
        assert peak < 20 << 20


# --- sizes ---------------------------------------------------------------------------------------

MANY = b"x" * (64 << 10)
LIMITS = {
    "list": ("GET", "/containers/json", wire.JSON_MAX),
    "inspect": ("GET", "/a1/json", 4 << 20),
    "create": ("POST", "/create", wire.JSON_MAX),
    "info": ("GET", "/info", 4 << 20),
    "start": ("POST", "/start", 1 << 20),
    "remove": ("DELETE", "/a1", 1 << 20),
    "put": ("PUT", "/archive", 1 << 20),
    "get": ("GET", "/archive", 1 << 20),
    "owner": ("GET", "/archive", 1 << 20),
}


@pytest.mark.parametrize("verb", LIMITS)
@pytest.mark.parametrize("status", ["200 OK", "500 Bad"])
async def test_a_body_without_end_is_left_at_its_limit(verb, status):
    """No more is read than could be used."""
    method, end, limit = LIMITS[verb]
    with scripted_engine.engine() as engine:
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode()
        engine.answer(method, end, engine.pieces(head, MANY))
        error = await said(engine.url, verb)
        assert isinstance(error, api.Unavailable) or verb == "owner", error
    most = limit if status == "200 OK" else 64 << 10
    assert engine.sent < most + (8 << 20), "buffers of the sockets included"


@pytest.mark.parametrize("verb", ["list", "inspect", "create", "info", "get", "start"])
@pytest.mark.parametrize("status", ["200 OK", "500 Bad"])
async def test_a_bomb_is_not_unpacked(verb, status):
    """A gigabyte in a megabyte."""
    method, end, limit = LIMITS[verb]
    bomb = bombs.packed(bytes(1 << 20), 1024)
    with scripted_engine.engine() as engine:
        head = f"HTTP/1.1 {status}\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
        engine.answer(method, end, head.encode() + bomb)
        tracemalloc.start()
        try:
            error = await said(engine.url, verb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert isinstance(error, api.Unavailable), error
        assert peak < 3 * limit + (8 << 20)


@pytest.mark.parametrize("verb", ["pull", "events", "logs", "owner"])
async def test_a_stream_that_is_packed_is_none(verb):
    """It was asked for as it is."""
    with scripted_engine.engine() as engine:
        for method, end in (("POST", "/create"), ("GET", "/events"), ("GET", "/logs"),
                            ("GET", "/archive")):  # fmt: skip
            engine.answer(
                method, end, scripted_engine.GZIP + gzip.compress(b'{"status": "x"}\n' * 100)
            )
        assert isinstance(await said(engine.url, verb), api.Unavailable)


async def test_an_answer_that_is_packed_in_a_way_that_we_know():
    """Proxies do that."""
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/containers/json", scripted_engine.GZIP + gzip.compress(b"[]"))
        assert await said(engine.url, "list") is None
        engine.answer("GET", "/containers/json", scripted_engine.GZIP + b"[]")
        assert isinstance(await said(engine.url, "list"), api.Unavailable)


@pytest.mark.parametrize("verb", ["pull", "events"])
async def test_a_line_without_end_is_not_kept(verb):
    """Of progress it is an error, of events the connection is tried again."""
    with scripted_engine.engine() as engine:
        for method, end in (("POST", "/images/create"), ("GET", "/events")):
            engine.answer(
                method, end, engine.pieces(scripted_engine.CHUNKED, scripted_engine.chunk(MANY))
            )
        tracemalloc.start()
        try:
            error = await said(engine.url, verb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert isinstance(error, api.Unavailable), error
        assert peak < 16 << 20


async def test_a_long_line_costs_itself():
    """The next event is heard."""
    good = {"Action": "die", "Actor": {"ID": "c1"}, "timeNano": 10**18}
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/events", scripted_engine.lines({"x": "y" * (2 << 20)}, good))
        one = made(engine.url)
        told = await asyncio.to_thread(events, one)
        await asyncio.to_thread(one.close)
    assert [None, "die"] == [told[0], told[1].action]


# --- time ----------------------------------------------------------------------------------------

DRIPS = {
    "status line": (b"HTTP/1.1 200 ", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x"),
    "more headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "not yet": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (scripted_engine.TO_THE_END, b" "),
    "length": (scripted_engine.HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (scripted_engine.CHUNKED, scripted_engine.chunk(b" ")),
    "size of a chunk": (scripted_engine.CHUNKED, b"0"),
    "words about a chunk": (scripted_engine.CHUNKED + b"1;", b"x"),
    "trailer": (scripted_engine.CHUNKED + b"0\r\n", b"X: y\r\n"),
    "refusal": (b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", b" "),
}


@pytest.mark.parametrize("where", DRIPS)
async def test_an_answer_that_drips_for_ever_ends_in_time(where):
    """By the time limit of the call; the thread is free then."""
    with scripted_engine.engine() as engine:
        for method in ("GET", "POST", "PUT", "DELETE"):
            engine.answer(method, "", scripted_engine.drip(*DRIPS[where]))
        engine.answers = {
            ("GET", "/version"): echo.reply(scripted_engine.VERSION),
            **engine.answers,
        }
        began = time.monotonic()
        errors = await asyncio.gather(
            *(
                said(engine.url, verb, timeout_s=0.5, pull_timeout_s=1.0)
                for verb in ("list", "create", "put", "get", "owner", "logs", "remove", "pull")
            )
        )
        assert time.monotonic() - began < WITHIN_S
    for error in errors:
        assert error is None or isinstance(error, api.Unavailable), error
    if where not in {"more headers", "refusal"}:  # one hundred are too many
        assert any("timed out" in str(error) for error in errors), errors


async def test_the_version_that_drips():
    """It holds the lock of all who want to connect."""
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/version", scripted_engine.drip(scripted_engine.TO_THE_END, b" "))
        error = await said(engine.url, "list", timeout_s=0.5)
        assert isinstance(error, api.Unavailable)


async def test_an_engine_that_reads_nothing(tmp_path):
    """Sending has an end, too."""
    held = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    server = await asyncio.start_unix_server(accept, tmp_path / "s", limit=1024)
    one = made(f"unix://{tmp_path}/s", timeout_s=0.5, api_version="1.41")
    try:
        async with patience.limit(WITHIN_S):
            with pytest.raises(api.Unavailable, match="timed out"):
                await asyncio.to_thread(one.put, "a1", "/", bytes(64 << 20))
    finally:
        held.set()
        await asyncio.to_thread(one.close)
        server.close()


async def test_a_line_that_drips_ends_the_stream_of_events(monkeypatch):
    """Something always comes, so no silence is noticed; no event does."""
    monkeypatch.setattr(wire, "_LINE_S", 0.3)
    with scripted_engine.engine() as engine:
        engine.answer(
            "GET",
            "/events",
            scripted_engine.drip(scripted_engine.CHUNKED, scripted_engine.chunk(b" ")),
        )
        error = await said(engine.url, "events")
        assert isinstance(error, api.Unavailable)
        assert "has no end" in error.reason


# --- output --------------------------------------------------------------------------------------


def frame(kind: int, data: bytes, size: int | None = None) -> bytes:
    length = len(data) if size is None else size
    return bytes([kind, 0, 0, 0]) + length.to_bytes(4, "big") + data


async def output(body: bytes, *, has_terminal: bool = False) -> str | BaseException:
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/logs", scripted_engine.TO_THE_END + body)
        one = made(engine.url)
        try:
            return await asyncio.to_thread(one.logs, "a1", 5, has_terminal=has_terminal)
        except api.BackendError as error:
            return error
        finally:
            await asyncio.to_thread(one.close)


async def test_output_is_taken_out_of_its_frames():
    """However it is cut on its way; a terminal has none."""
    body = frame(1, b"one\n") + frame(2, b"two\n") + frame(1, b"") + frame(0, b"three")
    assert "one\ntwo\nthree" == await output(body)
    assert body.decode() == await output(body, has_terminal=True)
    assert "" == await output(b"")
    frames = wire._Frames()
    assert b"one\ntwo\nthree" == b"".join(
        part for byte in body for part in frames.contents(bytes([byte]))
    )
    assert frames.complete


@pytest.mark.parametrize(
    "body",
    [frame(1, b"x", size=(1 << 32) - 1), frame(1, b"x", size=2), frame(1, b"")[:5],
     frame(3, b"error from daemon"), frame(9, b"x"), b"plain text, no frames",
     b"\x01\x01\x00\x00" + bytes(4), frame(1, b"ok") + b"\x01"],
    ids=["4 GB", "one too few", "half a head", "an error", "unknown", "none", "no zeros", "rest"],
)  # fmt: skip
async def test_frames_that_lie(body):
    """Nothing is believed of them, and nobody waits."""
    assert isinstance(await output(body), api.Unavailable)


async def test_of_much_output_the_end_is_kept():
    """In little memory; the line that is cut is left out."""
    part = b"".join(b"line %d\n" % number for number in range(2_000_000))
    body = b"".join(frame(1, part[at : at + 9000]) for at in range(0, len(part), 9000))
    tracemalloc.start()
    try:
        said_ = await output(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "line 1999999\n" == said_[-13:]
    assert said_.startswith("line ")
    assert len(said_) <= 64 << 10
    assert peak < len(body) + (8 << 20)  # of which the test's own engine has the body


async def test_output_without_end():
    """An error, in time and memory."""
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/logs", engine.pieces(scripted_engine.TO_THE_END, frame(1, MANY)))
        assert "larger than" in str(await said(engine.url, "logs"))
        assert engine.sent < 48 << 20


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [("1.52", "1.44", "1.52"), ("1.41", "1.12", "1.41"), ("1.40", None, "1.40"),
     ("1.70", "1.24", "1.52"), ("1.70", "1.60", "1.60"), ("2.3", "2.0", "2.0")],
)  # fmt: skip
async def test_a_version_that_both_know(newest, oldest, spoken):
    """Also of an engine that has forgotten all old ones, as Docker 29 has."""

    def strict(request: echo.Request, sock) -> None:
        version = request.target.partition("/v")[2].partition("/")[0]
        told = scripted_engine.refusal(400, f"client version {version} is too old")
        sock.sendall(echo.reply([]) if version == spoken else told)

    with scripted_engine.engine() as engine:
        told = {"ApiVersion": newest} | ({"MinAPIVersion": oldest} if oldest else {})
        engine.answer("GET", "/version", told)
        engine.answer("GET", "/containers/json", strict)
        assert await said(engine.url, "list") is None
        assert "/version" == engine.requests[0].target, "asked without a version"


async def test_an_engine_that_is_too_old_or_refuses_our_version():
    """A person has to act, whatever the template."""
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/version", {"ApiVersion": "1.39"})
        error = await said(engine.url, "create")
        assert isinstance(error, api.Unauthorized)
        words = "client version 1.41 is too old. Minimum supported API version is 1.44"
        engine.answer("POST", "/create", scripted_engine.refusal(400, words))
        error = await said(engine.url, "create", api_version="1.41")
        assert isinstance(error, api.Unauthorized)
        assert "hint: `api_version`" in error.reason


async def test_an_engine_that_was_replaced_is_asked_again_what_it_speaks():
    """By one that does not know the version any more."""
    with scripted_engine.engine() as engine:
        one = made(engine.url)
        assert ([], False) == _plain(await asyncio.to_thread(one.list, {}))
        engine.answer("GET", "/version", {"ApiVersion": "1.52", "MinAPIVersion": "1.51"})
        engine.answer("GET", "/v1.50/containers/json",
                      scripted_engine.refusal(400, "client version 1.50 is too old."))  # fmt: skip
        with pytest.raises(api.Unauthorized):
            await asyncio.to_thread(one.list, {})
        assert ([], False) == _plain(await asyncio.to_thread(one.list, {}))
        await asyncio.to_thread(one.close)


def _plain(told) -> tuple[list[object], bool]:
    found, odd = told
    return found, bool(odd)


# --- refusals that are no engine's ---------------------------------------------------------------


async def test_a_404_of_a_proxy_is_no_container_that_is_gone():
    """What is not there is removed from the controller: it has to be said by an engine."""
    page = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n<html>nginx</html>"
    with scripted_engine.engine() as engine:
        for method in ("GET", "POST", "PUT", "DELETE"):
            engine.answer(method, "", page)
        engine.answers = {
            ("GET", "/version"): echo.reply(scripted_engine.VERSION),
            **{key: value for key, value in engine.answers.items() if not key[1]},
        }
        for verb in VERBS:
            error = await said(engine.url, verb)
            expected = api.Rejected if verb == "pull" else api.Unavailable
            assert isinstance(error, expected), (verb, error)


async def test_connections_are_used_again():
    """A broker does not open one for each of its calls."""
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = json.dumps(scripted_engine.VERSION if b"/version" in head else []).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one = made(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for _ in range(5):
        await asyncio.to_thread(one.list, {})
    await asyncio.to_thread(one.close)
    server.close()
    assert 1 == opened
