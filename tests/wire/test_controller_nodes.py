"""The node client against a loopback server that replays what a real controller answered."""

import asyncio
import contextlib
import json
import re

import pytest
import recorded
from aiohttp import web

from jnlp import client, environment, errors, http, node, tunnel

OPERATIONS = "nodes/06-operations"
JNLP = "agent/01-jnlp-files"
ERRORS = "nodes/02-create-errors"


def op(note, nth=0):
    return recorded.exchange(OPERATIONS, note, nth)


def definition(**changes):
    values = {
        "name": "agent-1",
        "description": "made over REST",
        "remote_fs": "/home/jenkins/agent",
        "labels": ("docker", "linux"),
        "connection": tunnel.connection(tunnel="localhost:50443"),
    }
    return node.NodeDefinition(**{**values, **changes})


# --- create --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "changes"),
    [
        ("inbound agent, TCP, tunnel set, environment variables", {}),
        (
            "inbound agent over WebSocket",
            {"name": "agent-ws", "connection": tunnel.connection(tunnel.Transport.WEBSOCKET)},
        ),
    ],
)
async def test_create_sends_the_form_that_was_accepted(note, changes):
    """Field by field what the real controller answered 302 to.

    Environment variables aside, and an empty tunnel: a later version takes it for one. One more
    property is for those that know it; a controller without its plugin passes it over.
    """
    exchange = recorded.exchange("nodes/01-create", note)
    async with recorded.replaying(exchange) as (session, controller):
        await client.NodeClient(session).create(definition(**changes))
    form = dict(controller.seen[0].form)
    accepted = exchange["request"]["form"]
    accepted["json"]["nodeProperties"].pop("hudson-slaves-EnvironmentVariablesNodeProperty", None)
    if not accepted["json"]["launcher"]["tunnel"]:
        del accepted["json"]["launcher"]["tunnel"]
    sent = json.loads(form["json"])
    assert sent["nodeProperties"].pop("io-jenkins-plugins-casc-core-CascKeepNode") == {}
    assert {**form, "json": sent} == accepted


async def test_create_sends_nothing_that_breaks_later():
    """What the controller would take silently is refused before any request."""
    async with recorded.replaying() as (session, controller):
        with pytest.raises(errors.BadRequest, match="executors 0") as raised:
            await client.NodeClient(session).create(definition(executors=0))
    assert raised.value.fault == "us"
    assert controller.seen == []


@pytest.mark.parametrize(
    ("recording", "note"),
    [(ERRORS, "duplicate name"), ("nodes/08-zero-executors", "create it again")],
)
async def test_create_a_name_that_is_taken(recording, note):
    """400 with "already exists": the name is taken, also by a node without a computer."""
    async with recorded.replaying(recorded.exchange(recording, note)) as (session, _):
        with pytest.raises(errors.NodeExists):
            await client.NodeClient(session).create(definition())


@pytest.mark.parametrize(
    ("exists", "kind"), [(True, errors.NodeExists), (False, errors.BadRequest)]
)
async def test_create_on_a_controller_that_speaks_another_language(exists, kind):
    """A 400 whose words we cannot read is settled by looking whether the node is there."""
    there = recorded.exchange("nodes/01-create", "its api")

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.Response(status=400, headers={"X-Error": "Agent agent-1 existiert bereits"})
        if request.path == "/computer/api/json":
            return web.json_response({"computer": []}, headers={"X-Jenkins": "2.528.3"})
        return recorded.answer(there) if exists else web.Response(status=404)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        with pytest.raises(errors.JenkinsError) as raised:
            await client.NodeClient(session).create(definition())
    assert type(raised.value) is kind


@pytest.mark.parametrize("note", ["300 characters", "unknown type", "broken json"])
async def test_create_what_the_controller_cannot_bind(note):
    """500 at creation is our fault, not a broken controller."""
    async with recorded.replaying(recorded.exchange(ERRORS, note)) as (session, _):
        with pytest.raises(errors.BadRequest):
            await client.NodeClient(session).create(definition())


# --- secret --------------------------------------------------------------------------------------


async def test_the_secret_is_asked_once_per_name():
    """Every download makes newer controllers write a warning."""
    jnlp = recorded.exchange(JNLP, "tcp-1: slave-agent.jnlp")
    other = recorded.exchange(JNLP, "ws-1: slave-agent.jnlp")
    async with recorded.replaying(jnlp, other) as (session, controller):
        nodes = client.NodeClient(session)
        secrets = [await nodes.secret(name) for name in ("tcp-1", "ws-1", "tcp-1")]
    assert controller.paths() == [
        "GET /computer/tcp-1/agent-secret",  # not asked again where it is not there
        "GET /computer/tcp-1/slave-agent.jnlp",
        "GET /computer/ws-1/slave-agent.jnlp",
    ]
    assert secrets[0].reveal() in jnlp["response"]["body"]
    assert secrets[0] == secrets[2] != secrets[1]


async def test_the_secret_is_asked_again_after_a_restart():
    """Another controller may answer under the same URL, with another key."""
    jnlp = recorded.exchange(JNLP, "tcp-1: slave-agent.jnlp")
    before = recorded.exchange("controller/01-restart", "queue before the restart")
    after = recorded.exchange("controller/01-restart", "queue right after the restart")
    async with recorded.replaying(jnlp, before, after) as (session, controller):
        nodes = client.NodeClient(session)
        for _ in range(2):
            await session.get_json("queue/api/json")
            await nodes.secret("tcp-1")
            await nodes.secret("tcp-1")
    assert controller.paths().count("GET /computer/tcp-1/slave-agent.jnlp") == 2


async def test_a_controller_that_knows_only_the_new_name_of_the_file():
    """``jenkins-agent.jnlp`` is asked when ``slave-agent.jnlp`` is not there."""
    jnlp = recorded.exchange(JNLP, "tcp-1: slave-agent.jnlp")
    jnlp["request"]["path"] = "/computer/tcp-1/jenkins-agent.jnlp"
    async with recorded.replaying(jnlp) as (session, controller):
        await client.NodeClient(session).secret("tcp-1")
    assert len(controller.seen) == 3


async def test_a_controller_that_tells_secrets_plainly():
    """``agent-secret`` is asked first, and the JNLP file, which it warns of, not at all."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path.endswith("agent-secret") and "gone" not in request.path:
            return web.Response(text="ab" * 32 + "\n")
        return web.Response(status=404)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        nodes = client.NodeClient(session)
        with pytest.raises(errors.NotFound):
            await nodes.secret("gone-1")  # says nothing of what the controller can do
        found = [await nodes.secret(name) for name in ("n-1", "n-1", "n-2")]
    assert {secret.reveal() for secret in found} == {"ab" * 32}
    assert asked[-2:] == ["/computer/n-1/agent-secret", "/computer/n-2/agent-secret"]


async def test_the_secret_of_a_node_that_is_not_there():
    """NotFound, after both names were tried."""
    async with recorded.replaying(recorded.exchange(JNLP, "no such node")) as (session, _):
        with pytest.raises(errors.NotFound):
            await client.NodeClient(session).secret("no-such-node")


async def test_an_encrypted_or_foreign_file_is_refused_unquoted():
    """What is no secret is an error that does not show the file."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="<jnlp><argument>hush-hush</argument></jnlp>")

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        with pytest.raises(errors.Unexpected, match="9 characters") as raised:
            await client.NodeClient(session).secret("a")
    assert "hush" not in str(raised.value)


# --- read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("idle-1", {"idle": True, "offline": False, "temporarily_offline": False}),
        ("busy-1", {"idle": False, "offline": False}),
        ("gone-1", {"idle": True, "offline": True, "temporarily_offline": False}),
        (
            "marked-1",
            {"temporarily_offline": True, "offline_cause": "drain: replaced by new image"},
        ),
        ("never connected", {"idle": True, "offline": True, "offline_cause": ""}),
        ("built-in node", {"built_in": True, "name": "master"}),
    ],
)
async def test_read_every_recorded_computer(name, expected):
    """The state of a computer as the controller showed it."""
    exchange = recorded.exchange("nodes/05-computers", name)
    wanted = exchange["request"]["path"].split("/")[2]
    async with recorded.replaying(exchange) as (session, controller):
        seen = await client.NodeClient(session).read(wanted)
    assert seen.exists
    assert {key: getattr(seen, key) for key in expected} == expected
    assert len(seen.offline_cause) <= 256
    assert controller.seen[0].query["tree"].startswith("displayName,")


async def test_read_a_node_that_is_not_there():
    """404 is a fact, not an error, if the list says so as well."""
    missing = recorded.exchange("nodes/05-computers", "no such node")
    async with recorded.replaying(missing, op("nodes after the rename")) as (session, _):
        seen = await client.NodeClient(session).read("none-1")
    assert (seen.exists, seen.name) == (False, "none-1")


@pytest.mark.parametrize("listed", [True, False])
async def test_a_404_of_a_proxy_is_no_word_that_a_node_is_gone(listed):
    """Instances are ended on it: a node that is listed is there, and no list is no proof."""
    there = op("nodes after the rename")

    async def handler(request: web.Request) -> web.Response:
        if listed and request.path == "/computer/api/json":
            return recorded.answer(there)
        return web.Response(status=404, text="default backend - 404")

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        with pytest.raises(errors.Unexpected):
            await client.NodeClient(session).read("idle-9")
        with pytest.raises(errors.Unexpected):
            await client.NodeClient(session).uncordon("idle-9")


async def test_node_names():
    """All nodes with a computer; the controller's own is left out."""
    async with recorded.replaying(op("nodes after the rename")) as (session, _):
        names = await client.NodeClient(session).node_names()
    assert names == ("busy-1", "gone-1", "idle-9", "marked-1", "never-1")


async def test_an_entry_that_is_no_computer_costs_no_other_its_name():
    """Nor is it a mistake of ours: ``null`` in the place of a computer, one without a name."""
    listed = [None, 7, {"idle": True}, {"displayName": None}, {"displayName": "one"}]

    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"computer": listed})

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        assert await client.NodeClient(session).node_names() == ("one",)


async def test_names_are_quoted():
    """A name never changes the path that is asked, whatever is in it."""
    async with recorded.replaying() as (session, controller):
        with pytest.raises(errors.NotFound):
            await client.NodeClient(session).delete("../job/x?a=b c")
    assert controller.seen[0].path == "/computer/../job/x?a=b c/doDelete"
    assert controller.seen[0].query == {}


# --- cordon and uncordon -------------------------------------------------------------------------


async def test_cordon_sets_and_never_toggles():
    """Repeating it is harmless: it changes the message of a node that is out already."""
    async with recorded.replaying(op("change the message")) as (session, controller):
        for _ in range(2):
            await client.NodeClient(session).cordon("idle-1", "agent-broker: retire ünïcode")
    assert controller.paths() == ["POST /computer/idle-1/changeOfflineCause"] * 2
    assert controller.seen[0].form["offlineMessage"] == "agent-broker: retire ünïcode"


def full(exchange, **changes):
    """The recorded state, with the fields that a whole computer has."""
    idle = recorded.exchange("nodes/05-computers", "idle-1")["response"]["json"]
    document = {**idle, **exchange["response"]["json"], "displayName": "idle-1", **changes}
    return {**exchange, "response": {**exchange["response"], "json": document}}


OUT, BACK = full(op("state", 1)), full(op("state", 2))


async def test_uncordon_toggles_a_node_that_is_out_and_looks_again():
    """Read, toggle, read."""
    async with recorded.replaying(OUT, op("toggle again: online"), BACK) as (session, controller):
        await client.NodeClient(session).uncordon("idle-1")
    assert controller.paths() == [
        "GET /computer/idle-1/api/json",
        "POST /computer/idle-1/toggleOffline",
        "GET /computer/idle-1/api/json",
    ]


async def test_uncordon_leaves_a_node_that_is_in():
    """A blind toggle would take it out."""
    async with recorded.replaying(BACK) as (session, controller):
        await client.NodeClient(session).uncordon("idle-1")
    assert controller.paths() == ["GET /computer/idle-1/api/json"]


async def test_uncordon_that_has_no_effect_is_an_error():
    """Two tries, then it says so."""
    async with recorded.replaying(OUT, op("toggle again: online")) as (session, controller):
        with pytest.raises(errors.Unexpected, match="still temporarily offline"):
            await client.NodeClient(session).uncordon("idle-1")
    assert controller.paths().count("POST /computer/idle-1/toggleOffline") == 2


async def test_uncordon_an_unknown_node():
    """NotFound, and nothing is toggled."""
    async with recorded.replaying(op("nodes after the rename")) as (session, controller):
        with pytest.raises(errors.NotFound):
            await client.NodeClient(session).uncordon("idle-1")
    assert [seen.method for seen in controller.seen] == ["GET", "GET"]


# --- labels --------------------------------------------------------------------------------------


async def test_sealing_changes_nothing_else():
    """The file goes back as it came, but for label and schedule."""
    config = op("config.xml GET")
    async with recorded.replaying(config, op("config.xml POST: labels changed")) as (
        session,
        controller,
    ):
        await client.NodeClient(session).seal("idle-1", "agent-broker-retired", busy=True)
    sent = controller.seen[1]
    text = config["response"]["body"]
    assert sent.headers["content-type"] == "application/xml"
    old = text[text.index("<label>") : text.index("</label>")]
    expected = text.replace(old, "<label>agent-broker-retired")
    always = '<retentionStrategy class="hudson.slaves.RetentionStrategy$Always"/>'
    before, after = expected.split(always)
    body = sent.body.decode()
    assert body.startswith(before)
    assert body.endswith(after)
    never = body.removeprefix(before).removesuffix(after)
    assert "SimpleScheduledRetentionStrategy" in never
    assert "<startTimeSpec>0 0 31 2 *</startTimeSpec>" in never


async def test_unsealing_lets_a_node_take_items_again():
    """Sealed and unsealed twice: two writes, because every write is a risk for builds."""
    config = op("config.xml GET")["response"]["body"]
    held = [config]

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            held.append(await request.text())
        return web.Response(text=held[-1], content_type="application/xml")

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        nodes = client.NodeClient(session)
        for _ in range(2):
            await nodes.seal("idle-1", "out", busy=True)
        for _ in range(2):
            await nodes.unseal("idle-1")
    assert len(held) == 3
    assert [node.is_accepting(text) for text in held] == [True, False, True]
    assert node.labels_of(held[-1]) == ("out",)
    assert node.with_labels(held[-1], node.labels_of(config)) == config


async def test_unsealing_gives_a_node_its_labels_and_its_mode_back_where_they_are_told():
    """After a check; one that was not sealed is not written."""
    config = op("config.xml GET")["response"]["body"]
    labels = node.labels_of(config)
    exclusive = "<mode>EXCLUSIVE</mode>" in config
    held = [config]

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            held.append(await request.text())
        return web.Response(text=held[-1], content_type="application/xml")

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        nodes = client.NodeClient(session)
        await nodes.unseal("idle-1", *labels, exclusive=exclusive)
        await nodes.seal("idle-1", "out", busy=True)
        await nodes.unseal("idle-1", *labels, exclusive=exclusive)
    assert len(held) == 3
    assert held[-1] == config


async def test_other_languages_survive_a_swap():
    """A description with umlauts goes back as references, which no charset can spoil."""
    config = op("config.xml GET")["response"]["body"].replace("made over REST", "für Müller ☃")

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            bodies.append(await request.read())
        return web.Response(text=config, content_type="application/xml")

    bodies = []
    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        await client.NodeClient(session).seal("idle-1", "out", busy=True)
    assert b"f&#252;r M&#252;ller &#9731;" in bodies[0]


async def test_a_config_of_another_name_is_not_sent():
    """The name inside would rename the node (recorded), so a mismatch stops."""
    config = op("config.xml GET")
    config["request"]["path"] = "/computer/idle-2/config.xml"
    async with recorded.replaying(config) as (session, controller):
        with pytest.raises(errors.Unexpected, match="names the node 'idle-1'"):
            await client.NodeClient(session).seal("idle-2", "out", busy=True)
    assert [seen.method for seen in controller.seen] == ["GET"]


async def test_a_refused_config_is_an_error():
    """400 with X-Error: the controller's sentence is in the message."""
    async with recorded.replaying(op("config.xml GET"), op("config.xml POST: broken xml")) as (
        session,
        _,
    ):
        with pytest.raises(errors.BadRequest, match="No name is specified"):
            await client.NodeClient(session).seal("idle-1", "out", busy=True)


# --- delete and disconnect -----------------------------------------------------------------------


async def test_delete_and_delete_again():
    """302, then 404: callers treat NotFound as done."""
    gone = op("delete it under its first name")
    gone["request"]["path"] = "/computer/idle-9/doDelete"
    async with recorded.replaying(op("delete an idle connected node"), gone) as (session, _):
        nodes = client.NodeClient(session)
        await nodes.delete("idle-9")
        with pytest.raises(errors.NotFound):
            await nodes.delete("idle-9")


async def test_a_deleted_name_has_no_secret_left():
    """The secret is forgotten with the node."""
    jnlp = recorded.exchange(JNLP, "tcp-1: slave-agent.jnlp")
    deleted = recorded.exchange(JNLP, "delete")
    async with recorded.replaying(jnlp, deleted) as (session, controller):
        nodes = client.NodeClient(session)
        await nodes.secret("tcp-1")
        await nodes.delete("tcp-1")
        await nodes.secret("tcp-1")
    assert controller.paths().count("GET /computer/tcp-1/slave-agent.jnlp") == 2


async def test_disconnect():
    """Also of a node that is not connected."""
    exchange = op("doDisconnect of a node that is not connected")
    async with recorded.replaying(exchange) as (session, controller):
        await client.NodeClient(session).disconnect("never-1")
    assert controller.paths() == ["POST /computer/never-1/doDisconnect"]


@contextlib.asynccontextmanager
async def held_config(config, *, keeps=True):
    """Serve a node's file, which a POST changes if the controller keeps what it is sent."""
    held = [config]

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST" and request.path.endswith("config.xml"):
            body = await request.text()
            held.append(body if keeps else held[-1])
        if request.method == "GET":
            await asyncio.sleep(0)  # somebody else comes in between
        return web.Response(text=held[-1], content_type="application/xml")

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        yield client.NodeClient(session), held


_TOLD = {"PORT_80": "31000", "HOST_ADDRESS": "node-1"}
_OURS = re.compile("PORT_.*|HOST_ADDRESS")


async def test_builds_are_told_what_differs():
    """Twice the same is one write; a seal keeps it."""
    async with held_config(op("config.xml GET")["response"]["body"]) as (nodes, held):
        for _ in range(2):
            await nodes.tell_builds("idle-1", _TOLD, ours=_OURS)
        await nodes.seal("idle-1", "out", busy=True)
    assert 3 == len(held)
    assert _TOLD == environment.of(held[1]) == environment.of(held[2])
    assert ("out",) == node.labels_of(held[2])


async def test_two_changes_at_once_undo_none():
    """A node's file is the whole node: each is made of what the other has left."""
    async with held_config(op("config.xml GET")["response"]["body"]) as (nodes, held):
        await asyncio.gather(
            nodes.tell_builds("idle-1", _TOLD, ours=_OURS),
            nodes.seal("idle-1", "out", busy=True),
            nodes.tell_builds("idle-1", {**_TOLD, "PORT_80": "31001"}, ours=_OURS),
        )
    assert ("out",) == node.labels_of(held[-1])
    assert not node.is_accepting(held[-1])
    assert {**_TOLD, "PORT_80": "31001"} == environment.of(held[-1])


async def test_a_controller_that_keeps_no_environment_is_told_of():
    """Rather a word than builds that wonder."""
    config = op("config.xml GET")["response"]["body"]
    async with held_config(config, keeps=False) as (nodes, _):
        with pytest.raises(
            errors.Unexpected, match="does not keep the environment of node idle-1"
        ):
            await nodes.tell_builds("idle-1", _TOLD, ours=_OURS)
