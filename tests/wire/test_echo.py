"""No secret of the client reaches any output, whatever the controller sends back (K3).

A server echoes each request in every way that servers have; every call of the client is made
against it, and whatever a person could get to see afterwards is searched.
"""

import contextlib
import io
import json
import logging
import traceback

import pytest
import recorded

from broker import log
from broker.cli import main as cli
from broker.controller import reading
from broker.core.decide import plan as plans
from broker.loop import observe
from broker.status import documents, page, terminal
from jnlp import client, errors, http, node
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings
from tests import echo
from tests.core import worlds
from tests.status import status_source

TOKEN = '11a0b1c2d3e4f5a6-the-broker\'s-own "tökên" & more'
CRUMB = "c0ffee-crumb-that-nobody-may-see-0123456789"
COOKIE = "node01abcdefgh-session-cookie-0123456789"
PROXY = "pr0xy-pässword<of>ours"
USER = "broker"
AGENT_SECRET = "7f45d1d620ae1fc699c4402a1108217e131a48de65c7587ee1e2328e58593de6"
DEFINITION = node.NodeDefinition(name="ci-t-a1", remote_fs="/w")


def calls(session):
    """Everything that the client does."""
    reader, nodes = reading.Reader(session), client.NodeClient(session)
    return {
        "read": lambda: reader.read(lambda: worlds.NOW),
        "peek": reader.peek,
        "outcome": lambda: reader.item_outcome(7),
        "at work": reader.at_work,
        "takes work": lambda: reader.takes_work(["ci-t-a1"]),
        "create": lambda: nodes.create(DEFINITION),
        "secret": lambda: nodes.secret("ci-t-a1"),
        "state": lambda: nodes.read("ci-t-a1"),
        "names": nodes.node_names,
        "cordon": lambda: nodes.cordon("ci-t-a1", "words"),
        "uncordon": lambda: nodes.uncordon("ci-t-a1"),
        "seal": lambda: nodes.seal("ci-t-a1", "x", busy=True),
        "unseal": lambda: nodes.unseal("ci-t-a1"),
        "delete": lambda: nodes.delete("ci-t-a1"),
        "disconnect": lambda: nodes.disconnect("ci-t-a1"),
    }


def crumbs(request):
    """Let a client with a password get past the crumb."""
    if "crumbIssuer" not in request.target:
        return None
    return echo.reply(
        {"crumbRequestField": "Jenkins-Crumb", "crumb": CRUMB},
        f"Set-Cookie: JSESSIONID={COOKIE}; Path=/; HttpOnly",
    )


@contextlib.contextmanager
def whatever_is_logged():
    """Gather the log as JSON and as it stands on a terminal."""
    forms = {"json": io.StringIO(), "console": io.StringIO()}
    root = logging.getLogger()
    log.configure(form="json", level="debug", stream=forms["json"])
    (first,) = root.handlers
    log.configure(form="console", level="debug", stream=forms["console"])
    root.addHandler(first)
    yield forms


def shown(view):
    """Return the page, the documents, the metrics' labels and the terminal for a view."""
    scene = worlds.Scene(worlds.template("t", "x"))
    world = scene.world()
    world = worlds.evolve(world, controller=view)
    source = status_source.FixedSource(world=world, plan=plans.plan(world, scene.policy))
    told = {
        name: getattr(documents, name)(source) for name in ("plan", "queue", "agents", "templates")
    }
    source.is_ready = (False, view.error or view.odd)
    return [page.render(source), json.dumps(told), terminal.render(told), *source.ready()[1:]]


async def everything(session, way):
    """Make every call, as the broker does, and return all that can be seen of it."""
    out = []
    logger = logging.getLogger("broker.test")
    for name, call in calls(session).items():
        try:
            out.append(repr(await call()) if name != "secret" else str(await call()))
        except errors.JenkinsError as error:
            seen: BaseException | None = error
            while seen is not None:
                out += [str(seen), repr(seen), getattr(seen, "permission", "")]
                seen = seen.__cause__ or seen.__context__
            out += traceback.format_exception(error)
            logger.warning("failed", extra={"reason": error.text})
            logger.exception("%s failed by a bug: %s", name, error)
    view = await observe.read_controller(reading.Reader(session), now=lambda: worlds.NOW)
    out += [repr(view), *shown(view), session.version, session.session, repr(session)]
    return "\n".join(out)


def secrets_of(is_password):
    return [TOKEN, *([CRUMB, COOKIE] if is_password else [])]


@pytest.mark.parametrize(
    ("way", "is_password"),
    [
        pytest.param(way, is_password, marks=[pytest.mark.soak] * (number % 3 and not is_password))
        for number, way in enumerate(echo.WAYS)
        for is_password in (True, False)
    ],
)
async def test_no_secret_comes_back(way, is_password):
    """With a token, and with a password, crumb and cookie."""
    credentials = jnlp_settings.Credentials(
        user=USER, secret=jnlp_secret.Secret(TOKEN), is_password=is_password
    )
    with echo.serving(way, first=crumbs) as server, whatever_is_logged() as logged:
        settings = recorded.settings(server.url, credentials=credentials, timeout_s=30.0)
        async with http.ControllerSession(settings) as session:
            output = await everything(session, way)
        output += "".join(stream.getvalue() for stream in logged.values())
    for secret in secrets_of(is_password):
        assert server.was_sent(secret), "the test shows nothing"
        assert echo.found(secret, output) == []
    assert len(output) > 1000


async def test_a_proxy_that_echoes_is_told_nothing_that_is_shown():
    """Its password goes in a header of its own."""
    with echo.serving("page 500") as server, whatever_is_logged() as logged:
        from urllib.parse import quote

        proxy = f"http://someone:{quote(PROXY)}@127.0.0.1:{server.port}"
        settings = recorded.settings("http://controller.invalid/", proxy=proxy)
        async with http.ControllerSession(settings) as session:
            output = await everything(session, "proxy")
        output += "".join(stream.getvalue() for stream in logged.values())
    assert server.was_sent(PROXY)
    assert echo.found(PROXY, output) == []


async def test_secrets_of_agents_never_come_back():
    """What was once in a JNLP file may stand in any later error page."""

    def first(request):
        if "jnlp" in request.target or "agent-secret" in request.target:
            text = f"<jnlp><argument>{AGENT_SECRET}</argument></jnlp>"
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
        text = f"no: {AGENT_SECRET} {AGENT_SECRET.upper()}"
        return f"HTTP/1.1 500 X {text}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()

    with echo.serving(first) as server:
        async with http.ControllerSession(recorded.settings(server.url)) as session:
            output = await everything(session, "secrets")
    assert echo.found(AGENT_SECRET, output) == []
    assert echo.found(AGENT_SECRET.upper(), output) == []


CONFIG = """
owner: ci
controller: {{url: "{url}", user: broker, token: "file:{token}", timeout: 30s}}
state_dir: {state}
listen: off
backends: {{local: {{kind: process}}}}
templates: {{t: {{labels: x}}}}
"""


@pytest.mark.parametrize("way", ["page 500", "page 401", "json 200", "status line", "redirect"])
@pytest.mark.parametrize("command", [["plan"], ["plan", "--json"], ["doctor"], ["sweep"]])
def test_commands_print_no_secret(way, command, tmp_path, capfd):
    """On either stream, whatever the controller says."""
    (tmp_path / "token").write_text(TOKEN)
    with echo.serving(way) as server:
        text = CONFIG.format(url=server.url, token=tmp_path / "token", state=tmp_path / "state")
        (tmp_path / "broker.yaml").write_text(text)
        code = cli.main([*command, "--config", str(tmp_path / "broker.yaml")])
    output = "".join(capfd.readouterr())
    assert server.was_sent(TOKEN)
    assert code != 0
    assert "127.0.0.1" in output or "GET" in output
    assert echo.found(TOKEN, output) == []
