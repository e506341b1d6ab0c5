"""The HTTP session against a loopback server: recorded answers first, faults after."""

import asyncio
import base64
import contextlib
import gzip
import json
import resource
import ssl
import subprocess
import traceback

import attrs
import pytest
import recorded
from aiohttp import web

from jnlp import errors, http
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings
from outside import secrets
from tests import bombs, patience, programs

QUEUE = recorded.exchange("controller/01-restart", "queue before the restart")
OTHER_SESSION = recorded.exchange("controller/01-restart", "queue right after the restart")
AUTH = "auth/01-crumb-token-errors"
CRUMB = recorded.exchange(AUTH, "crumb with user and password")
REFUSED = recorded.exchange(AUTH, "user and password, no crumb")
CREATED = recorded.exchange(AUTH, "user and password, crumb, its session cookie")


def everything_shown(error: BaseException) -> str:
    """What a log could show of an exception: message, repr, traceback, the chain's reprs."""
    shown = [str(error), repr(error), *traceback.format_exception(error)]
    seen: BaseException | None = error
    while seen is not None:
        shown.append(repr(seen))
        seen = seen.__cause__ or seen.__context__
    return "\n".join(shown)


async def send(session, exchange):
    """Make the recorded request again, by the method that belongs to it."""
    path = exchange["request"]["path"].lstrip("/").partition("?")[0]
    if exchange["request"]["method"] == "POST":
        return await session.post(path, form={"name": "a"})
    return await session.get_json(path)


async def test_a_token_is_enough_and_asks_narrowly():
    """With an API token: Basic, English, gzip, the query as given, no crumb and no cookies."""
    async with recorded.replaying(QUEUE, CREATED) as (session, controller):
        answer = await session.get_json("queue/api/json", {"tree": "items[id,task[name]]"})
        await session.post("computer/doCreateItem", form={"name": "a"})
    first, second = controller.seen
    login = base64.b64decode(first.headers["authorization"].removeprefix("Basic ")).decode()
    assert login == f"admin:{recorded.TOKEN}"
    assert first.headers["accept-language"] == "en"
    assert first.headers["accept-encoding"] == "gzip"
    assert first.query == {"tree": "items[id,task[name]]"}
    assert second.form == {"name": "a"}
    assert "cookie" not in second.headers
    assert answer.json == QUEUE["response"]["json"]
    assert (answer.version, answer.session) == ("2.263.4", "b8f6453d")
    assert (session.version, session.session) == ("2.263.4", "b8f6453d")
    assert answer.date is not None


async def test_a_path_prefix_is_kept():
    """A controller below a prefix is asked below it, with or without a slash at the end."""
    controller = recorded.Controller(exchanges=[QUEUE], prefix="/ci/jenkins")
    async with recorded.serving(controller.handle) as url:
        for base in (url + "ci/jenkins", url + "ci/jenkins/"):
            async with http.ControllerSession(recorded.settings(base)) as session:
                assert session.url.endswith("/ci/jenkins/")
                await session.get_json("queue/api/json")
    assert controller.paths() == ["GET /ci/jenkins/queue/api/json"] * 2


async def test_gzip_is_unpacked():
    """A packed answer is read as its content."""

    async def handler(request: web.Request) -> web.Response:
        packed = gzip.compress(b'{"items": []}')
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json;charset=utf-8"}
        return web.Response(body=packed, headers=headers)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        assert (await session.get_json("queue/api/json")).json == {"items": []}


# --- passwords and crumbs ------------------------------------------------------------------------


async def test_a_password_sends_the_crumb_with_its_cookie():
    """A POST carries the crumb and the cookie of the session that the crumb was made in."""
    async with recorded.replaying(CRUMB, CREATED, credentials=recorded.password()) as (
        session,
        controller,
    ):
        await session.post("computer/doCreateItem", form={"name": "a"})
        await session.post("computer/doCreateItem", form={"name": "b"})
    assert controller.paths() == [
        "GET /crumbIssuer/api/json",
        "POST /computer/doCreateItem",
        "POST /computer/doCreateItem",
    ]
    cookie = CRUMB["response"]["headers"]["Set-Cookie"].partition(";")[0].split("=", 1)
    for post in controller.seen[1:]:
        assert post.headers["jenkins-crumb"] == CRUMB["response"]["json"]["crumb"]
        assert cookie[0] in post.headers["cookie"]
        assert cookie[1] in post.headers["cookie"]


async def test_a_refused_crumb_is_renewed_once():
    """403 for the crumb means nothing was done: take a new one and send again."""
    async with recorded.replaying(CRUMB, REFUSED, CREATED, credentials=recorded.password()) as (
        session,
        controller,
    ):
        await session.post("computer/doCreateItem", form={"name": "a"})
    assert (
        controller.paths()
        == [
            "GET /crumbIssuer/api/json",
            "POST /computer/doCreateItem",
        ]
        * 2
    )


async def test_a_crumb_refused_twice_is_an_error():
    """The second refusal is reported, not tried for ever."""
    async with recorded.replaying(CRUMB, REFUSED, credentials=recorded.password()) as (
        session,
        controller,
    ):
        with pytest.raises(errors.Forbidden, match="No valid crumb") as raised:
            await session.post("computer/doCreateItem", form={"name": "a"})
    assert len(controller.seen) == 4
    assert CRUMB["response"]["json"]["crumb"] not in everything_shown(raised.value)


async def test_posts_at_the_same_time_share_one_renewal():
    """Many refused at once take one new crumb, and none throws away the crumb of another."""
    crumbs = 0
    good = 2

    async def handler(request: web.Request) -> web.Response:
        nonlocal crumbs
        if request.path == "/crumbIssuer/api/json":
            crumbs += 1
            headers = {"X-Jenkins-Session": "s", "Content-Type": "application/json"}
            text = json.dumps({"crumb": f"c{crumbs}", "crumbRequestField": "Jenkins-Crumb"})
            return web.Response(text=text, headers=headers)
        if request.headers["Jenkins-Crumb"] != f"c{good}":
            return recorded.answer(REFUSED)
        return web.Response()

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url, credentials=recorded.password())) as session,
    ):
        await asyncio.gather(*(session.post("x") for _ in range(12)))
    assert crumbs == 2


async def test_a_restarted_controller_is_asked_for_a_new_crumb_before_it_refuses():
    """A new X-Jenkins-Session ends the life of the crumb."""
    async with recorded.replaying(
        CRUMB, CREATED, QUEUE, OTHER_SESSION, credentials=recorded.password()
    ) as (session, controller):
        await session.post("computer/doCreateItem", form={"name": "a"})
        for _ in range(2):  # the second answer comes from another session
            await session.get_json("queue/api/json")
        await session.post("computer/doCreateItem", form={"name": "b"})
    assert controller.paths().count("GET /crumbIssuer/api/json") == 2
    assert controller.paths()[-2:] == ["GET /crumbIssuer/api/json", "POST /computer/doCreateItem"]


async def test_a_controller_without_crumbs_is_posted_to_without():
    """Crumb issuer 404: protection is off, a POST goes without a crumb."""
    async with recorded.replaying(CREATED, credentials=recorded.password()) as (
        session,
        controller,
    ):
        await session.post("computer/doCreateItem", form={"name": "a"})
    assert "jenkins-crumb" not in controller.seen[-1].headers


async def test_a_password_given_as_a_token_is_named_as_the_cause():
    """The refusal of a crumb with token credentials says what is likely wrong."""
    async with recorded.replaying(REFUSED) as (session, _):
        with pytest.raises(errors.Forbidden, match="password given as an API token"):
            await session.post("computer/doCreateItem", form={"name": "a"})


# --- refusals, as recorded -----------------------------------------------------------------------


@pytest.mark.parametrize("note", ["wrong API token", "unknown user", "whoAmI, wrong token"])
async def test_wrong_credentials(note):
    """401 on any path: the operator has to act; the token is not shown anywhere."""
    exchange = recorded.exchange(AUTH, note)
    async with recorded.replaying(exchange) as (session, _):
        with pytest.raises(errors.Unauthorized, match="Invalid password/token") as raised:
            await send(session, exchange)
    assert raised.value.status == 401
    assert recorded.TOKEN not in everything_shown(raised.value)


ANONYMOUS = ["anonymous crumb", "anonymous queue", "anonymous computer", "anonymous root"]


@pytest.mark.parametrize("note", ANONYMOUS)
async def test_nobody_may_read(note):
    """Without credentials the permission that is missing is named from the header."""
    exchange = recorded.exchange(AUTH, note)
    async with recorded.replaying(exchange, credentials=None) as (session, controller):
        with pytest.raises(errors.Forbidden, match="Authentication required") as raised:
            await session.get_json(exchange["request"]["path"].lstrip("/"))
    assert raised.value.permission == "Overall/Read"
    assert "authorization" not in controller.seen[0].headers


DENIED = [
    (number, exchange)
    for number, exchange in enumerate(
        recorded.load("permissions/01-minimum-per-operation")["exchanges"]
    )
    if exchange["response"]["status"] == 403
]


@pytest.mark.parametrize(("number", "exchange"), DENIED, ids=[str(n) for n, _ in DENIED])
async def test_every_recorded_denial_names_its_permission(number, exchange):
    """403: the permission is named as the controller's configuration page names it."""
    async with recorded.replaying(exchange) as (session, _):
        with pytest.raises(errors.Forbidden) as raised:
            await send(session, exchange)
    said = exchange["message"]
    if said is None:  # the log's page is the one that names nothing, nor does its header
        assert exchange["note"] == "log"
        assert raised.value.permission == ""
        return
    assert said in str(raised.value)
    assert f"is missing the {raised.value.permission} permission" in said


async def test_the_header_names_the_permission_where_the_page_does_not():
    """X-Required-Permission is translated into the words of the configuration page."""

    async def handler(request: web.Request) -> web.Response:
        headers = {"X-Required-Permission": "hudson.model.Computer.Configure"}
        return web.Response(status=403, text="no", headers=headers)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        with pytest.raises(errors.Forbidden) as raised:
            await session.get_text("computer/x/config.xml")
    assert raised.value.permission == "Agent/Configure"


STARTING = recorded.load("controller/02-starting-up")["exchanges"]


@pytest.mark.parametrize("number", range(len(STARTING)))
async def test_a_starting_controller(number):
    """503 on every path while it starts, in whatever language its page is."""
    exchange = STARTING[number]
    async with recorded.replaying(exchange) as (session, _):
        with pytest.raises(errors.Starting, match="503 Starting Jenkins") as raised:
            await send(session, exchange)
    assert raised.value.status == 503


@pytest.mark.parametrize(
    ("note", "kind", "text"),
    [
        ("duplicate name", errors.NodeExists, "agent-1"),
        ("slash in the name", errors.BadRequest, "is an unsafe character"),
        ("empty name", errors.BadRequest, "Query parameter 'name' is required"),
        ("dot dot", errors.BadRequest, "is not an allowed name"),
        ("300 characters", errors.Unexpected, "500"),
        ("unknown type", errors.Unexpected, "500"),
        ("no json", errors.BadRequest, "This page expects a form submission"),
        ("broken json", errors.Unexpected, "500"),
        ("json as the body instead of a form", errors.BadRequest, "expects a form submission"),
    ],
)
async def test_every_recorded_refusal_of_a_node(note, kind, text):
    """The error's class says what to do, its text is the controller's sentence."""
    exchange = recorded.exchange("nodes/02-create-errors", note)
    async with recorded.replaying(exchange) as (session, _):
        with pytest.raises(kind, match=text) as raised:
            await session.post("computer/doCreateItem", form={"name": "a"})
    assert type(raised.value) is kind
    assert len(str(raised.value)) <= 256


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, errors.NotFound),
        (405, errors.BadRequest),
        (407, errors.Unauthorized),
        (408, errors.Unreachable),
        (429, errors.Unexpected),
        (500, errors.Unexpected),
        (502, errors.Unreachable),
        (503, errors.Starting),
        (504, errors.Unreachable),
        (204, errors.Unexpected),
    ],
)
async def test_statuses_of_controllers_and_proxies(status, kind):
    """Each status has one class; Retry-After is kept where it matters."""

    later = {"Retry-After": "7"}
    async with recorded.canned("queue/api/json", status=status, headers=later) as session:
        with pytest.raises(errors.JenkinsError) as raised:
            await session.get_json("queue/api/json")
    assert type(raised.value) is kind
    assert raised.value.status == status
    if status in {429, 502, 503}:
        assert raised.value.retry_after == 7.0


# --- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "posted", "text"),
    [
        ("/login?from=%2Fqueue%2Fapi%2Fjson", False, "login page"),
        ("https://sso.example.com/oauth2/start", True, "login page"),
        ("/securityRealm/commenceLogin?from=%2F", True, "login page"),
        ("https://ci.example.com/queue/api/json", False, "redirected to https://ci"),
        ("https://ci.example.com/computer/doCreateItem", True, "written as its users see it"),
    ],
)
async def test_redirects_that_are_no_success(location, posted, text):
    """A login filter, or a proxy that wants https, is an error and is not followed."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": location})

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        with pytest.raises(errors.Unexpected, match=text):
            await send(session, CREATED if posted else QUEUE)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "location", ["http://other.example.com/computer/", "..", ".", "/computer/login/"]
)
async def test_redirects_that_end_a_form(location):
    """The controller's own URL may differ from ours, newer ones answer with relative paths."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        assert (await session.post("computer/a/doDelete")).status == 302


# --- answers that are none -----------------------------------------------------------------------


async def test_a_page_instead_of_json():
    """HTML with status 200 is not an empty queue; its title helps to see whose page it is."""
    page = recorded.exchange(AUTH, "login page headers")
    async with recorded.replaying(page) as (session, _):
        with pytest.raises(errors.Unexpected, match=r"text/html instead of JSON.*Sign in"):
            await session.get_json("login")


@pytest.mark.parametrize("body", [b'{"items": [', b"", b"\xff\xfe{"])
async def test_invalid_json(body):
    """What cannot be read is an error, never a guess."""
    async with recorded.canned("queue/api/json", body=body) as session:
        with pytest.raises(errors.Unexpected, match="not JSON"):
            await session.get_json("queue/api/json")


async def test_a_text_that_is_not_utf_8():
    """A text with broken characters would be sent back broken, so it is refused."""
    async with recorded.canned("computer/a/config.xml", body=b"<slave>\xe9</slave>") as session:
        with pytest.raises(errors.Unexpected, match="not UTF-8"):
            await session.get_text("computer/a/config.xml")


async def test_a_cut_answer():
    """A connection that breaks in the middle of an answer is unreachable, not a shorter list."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b'Content-Length: 500\r\n\r\n{"items": []}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with http.ControllerSession(
            recorded.settings(f"http://127.0.0.1:{port}")
        ) as session:
            with pytest.raises(errors.Unreachable, match="cut off"):
                await session.get_json("queue/api/json")


async def test_something_that_does_not_speak_http():
    """A wrong port is unreachable; the chain of causes does not show the login."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with http.ControllerSession(
            recorded.settings(f"http://127.0.0.1:{port}")
        ) as session:
            with pytest.raises(errors.Unreachable) as raised:
                await session.get_json("queue/api/json")
    shown = everything_shown(raised.value)
    assert recorded.TOKEN not in shown
    assert base64.b64encode(f"admin:{recorded.TOKEN}".encode()).decode() not in shown


async def test_nobody_listens(unused_tcp_port):
    """A refused connection is unreachable."""
    async with http.ControllerSession(
        recorded.settings(f"http://127.0.0.1:{unused_tcp_port}")
    ) as session:
        with pytest.raises(errors.Unreachable):
            await session.get_json("queue/api/json")


async def test_an_answer_that_does_not_come():
    """The time limit holds, and holds for the body as well."""
    release = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if request.path == "/body":
            await response.prepare(request)
            await response.write(b"{")
        await release.wait()
        return response

    async with recorded.serving(handler) as url:
        async with http.ControllerSession(recorded.settings(url, timeout_s=0.1)) as session:
            for path in ("headers", "body"):
                with pytest.raises(errors.Unreachable, match=r"no answer within 0\.1 s"):
                    await session.get_json(path)
        release.set()


async def test_cancellation_is_not_swallowed():
    """A cancelled request ends as cancelled, not as an error of the controller."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response()

    async with recorded.serving(handler) as url:
        async with http.ControllerSession(recorded.settings(url)) as session:
            task = asyncio.create_task(session.get_json("queue/api/json"))
            async with patience.limit(5):
                await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        release.set()


@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_that_is_too_large(packed):
    """The limit counts what comes out of the packing, not what goes over the wire."""

    async def handler(request: web.Request) -> web.Response:
        body = b" " * 2_000_000
        headers = {"Content-Type": "application/json"}
        if packed:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url, max_bytes=1_000_000)) as session,
    ):
        with pytest.raises(errors.Unexpected, match="larger than 1000000 bytes"):
            await session.get_json("queue/api/json")


@pytest.mark.parametrize("is_password", [False, True])
async def test_a_secret_that_is_refused_is_read_again(is_password, tmp_path):
    """Tokens expire since 2.548; a new one in the file is taken at once, without a restart."""
    file, seen = tmp_path / "token", []
    file.write_text("old-secret\n")
    credentials = jnlp_settings.Credentials(
        user="admin",
        secret=jnlp_secret.Secret("old-secret"),
        is_password=is_password,
        secret_file=file,
    )

    async def handler(request: web.Request) -> web.Response:
        login = base64.b64decode(request.headers["Authorization"][6:]).decode()
        seen.append(login)
        if login != "admin:new-secret":
            return web.Response(status=401, text="Unauthorized")
        if "crumb" in request.path:
            return web.json_response({"crumbRequestField": "C", "crumb": "c" * 20})
        return web.json_response({"items": []})

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url, credentials=credentials)) as session,
    ):
        words = "token revoked or expired" if not is_password else "user and password right"
        with pytest.raises(errors.Unauthorized, match=words):
            await session.get_json("queue/api/json")
        assert len(seen) == 1  # the file says nothing new
        file.write_text("new-secret\n")
        assert (await session.get_json("queue/api/json")).json == {"items": []}
        await session.post("x", form={"a": "b"})
        file.unlink()
        await session.get_json("queue/api/json")
    assert seen[1:3] == ["admin:old-secret", "admin:new-secret"]
    assert set(seen[3:]) == {"admin:new-secret"}
    assert "new-secret" not in secrets.blanked("the new-secret of ours")


@pytest.mark.parametrize(
    ("crumb", "words"),
    [
        ({"crumbRequestField": "a\r\nb", "crumb": "c"}, "cannot be sent"),
        ({"crumbRequestField": "Host", "crumb": "c"}, "cannot be sent"),
        ({"crumbRequestField": "C", "crumb": "c\nd"}, "cannot be sent"),
        ({"crumbRequestField": "C", "crumb": "ü" * 5000}, "cannot be sent"),
        ({"crumbRequestField": 7, "crumb": "c"}, "no crumb"),
        ([], "no crumb"),
        ("x", "no crumb"),
    ],
)
async def test_a_crumb_that_nobody_could_send(crumb, words):
    """Only our own errors leave the client, whatever stands where a crumb is expected."""

    async def handler(request: web.Request) -> web.Response:
        return web.json_response(crumb)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url, credentials=recorded.password())) as session,
    ):
        with pytest.raises(errors.Unexpected, match=words):
            await session.post("x", form={})


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b'{"items": [' + b" " * 65536)
    return response


async def slow_drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)
    return response


async def bomb(request: web.Request) -> web.Response:
    body = bombs.packed(b" " * 1_000_000, 500)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    return web.Response(body=body, headers=headers)


@pytest.mark.parametrize(
    ("handler", "kind", "words"),
    [
        (endless, errors.Unexpected, "larger than"),
        (slow_drip, errors.Unreachable, "no answer within"),
        (bomb, errors.Unexpected, "larger than"),
    ],
)
async def test_an_answer_without_end(handler, kind, words):
    """One clear error, and no more memory than the limit: for each way of asking."""
    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url, timeout_s=30.0)) as session,
    ):
        if handler is slow_drip:
            session._settings = attrs.evolve(session._settings, timeout_s=1.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for ask in (
            lambda: session.get_json("a"),
            lambda: session.get_list("a", "items", {}),
            lambda: session.get_text("a"),
            lambda: session.post("a", form={}),
        ):
            with pytest.raises(kind, match=words):
                await ask()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kilobytes, with the server that lives in this process as well


async def test_a_huge_error_page_is_not_read_to_its_end():
    """The first part of an error page is enough, its status decides."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=503, body=b"<title>Starting Jenkins</title>" + b"x" * 3_000_000)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url, max_bytes=1_000_000)) as session,
    ):
        with pytest.raises(errors.Starting, match="Starting Jenkins"):
            await session.get_json("queue/api/json")


async def test_a_page_that_quotes_secrets_is_not_quoted():
    """Secrets of agents, our own token and crumbs in a remote text never reach a message."""
    secret = "7f45d1d620ae1fc699c4402a1108217e131a48de65c7587ee1e2328e58593de6"

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=500, text=f"-secret {secret} for admin:{recorded.TOKEN}")

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        with pytest.raises(errors.Unexpected, match="hidden") as raised:
            await session.get_text("computer/a/")
    assert secret not in everything_shown(raised.value)
    assert recorded.TOKEN not in everything_shown(raised.value)


# --- the way there -------------------------------------------------------------------------------


async def test_a_proxy_is_used_and_its_password_is_not_shown():
    """Requests go to the proxy with the whole URL in them."""
    controller = recorded.Controller(exchanges=[QUEUE])
    async with recorded.serving(controller.handle) as url:
        proxy = url.replace("http://", "http://me:proxy-pass@").rstrip("/")
        changed = recorded.settings("http://controller.invalid/", proxy=proxy)
        assert "proxy-pass" not in repr(changed)
        async with http.ControllerSession(changed) as session:
            await session.get_json("queue/api/json")
    assert controller.seen[0].headers["host"] == "controller.invalid"
    assert "proxy-authorization" in controller.seen[0].headers


async def test_a_proxy_that_is_down(unused_tcp_port):
    """A proxy that cannot be reached is unreachable, without its password in the message."""
    proxy = f"http://me:proxy-pass@127.0.0.1:{unused_tcp_port}"
    changed = recorded.settings("http://controller.invalid/", proxy=proxy)
    async with http.ControllerSession(changed) as session:
        with pytest.raises(errors.Unreachable) as raised:
            await session.get_json("queue/api/json")
    assert "proxy-pass" not in everything_shown(raised.value)


@pytest.fixture
def certificate(tmp_path):
    """A fresh certificate for 127.0.0.1 that no authority knows."""
    program = programs.need("openssl")
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        f"{program} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 "
        "-keyout key.pem -out cert.pem -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1",
        shell=True,
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    return key, pem


async def test_certificates(certificate):
    """An unknown authority is refused, a CA file makes it known, ``verify`` off takes all."""
    key, pem = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    controller = recorded.Controller(exchanges=[QUEUE])
    async with recorded.serving(controller.handle, scheme="https", ssl=context) as url:
        async with http.ControllerSession(recorded.settings(url)) as session:
            with pytest.raises(errors.Unreachable, match=r"(?i)certificate"):
                await session.get_json("queue/api/json")
        for changes in ({"ca_file": str(pem)}, {"verify": False}):
            async with http.ControllerSession(recorded.settings(url, **changes)) as session:
                await session.get_json("queue/api/json")
    assert len(controller.seen) == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"url": "ftp://x/"}, "http://HOST/"),
        ({"url": "jenkins:8080"}, "http://HOST/"),
        ({"url": "http://me:secret-word@x/"}, "belong into the credentials"),
        ({"url": "http://x/?a=b"}, "no query"),
        ({"url": "http://x/", "ca_file": "/nowhere/ca.pem"}, "CA file '/nowhere/ca.pem'"),
    ],
)
def test_settings_that_cannot_work(changes, text):
    """They are refused when the session is made, and no password is quoted."""
    with pytest.raises(ValueError, match=text) as raised:
        http.ControllerSession(recorded.settings(**changes))
    assert "secret-word" not in str(raised.value)


def test_nothing_secret_in_representations():
    """Credentials, settings, answers and sessions may be logged."""
    changed = recorded.settings("http://x/")
    answer = http.ControllerAnswer(status=200, text="11a0-body", json={"crumb": "11a0-crumb"})
    shown = f"{changed!r} {changed.credentials} {http.ControllerSession(changed)!r} {answer!r} {answer}"
    assert recorded.TOKEN not in shown
    assert "11a0" not in shown.replace(recorded.TOKEN, "")
    assert repr(jnlp_secret.Secret("x")) == str(jnlp_secret.Secret("y")) == "Secret(...)"


async def test_closing_twice_is_fine():
    """``aclose`` may be called by whoever comes last."""
    async with recorded.replaying(QUEUE) as (session, _):
        await session.get_json("queue/api/json")
        await session.aclose()
        await session.aclose()
