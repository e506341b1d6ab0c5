"""The doctor against the simulated controller: what is missing is named, nothing stays behind."""

import asyncio
import contextlib
import json
import pathlib
import re
import time
import tomllib

import aiohttp
import pytest
from aiohttp import test_utils, web

import broker
from backends import api
from backends.kit import finding
from broker import assembly, clock, store
from broker.cli import doctor as doctors
from broker.cli import main as cli
from broker.config import kinds, loading
from broker.core.fleet import marks
from broker.simulator import access as accesses
from broker.simulator import controller, simulation
from jnlp import tunnel
from tests.cli.test_cli import ran
from tests.kubernetes import fake

BROKER = accesses.ALL - {"Overall/Administer"}
TOKEN = "11token-of-the-doctor"
CONFIG = """\
owner: o
controller: {{url: "{url}", user: u, token: "env:DOCTOR_TOKEN"}}
state_dir: {folder}/state
listen: "off"
templates:
  t: {{labels: x, {more}}}
"""


@contextlib.asynccontextmanager
async def surgery(tmp_path, *, permissions=BROKER, more="command: [/bin/sh]", **sim):
    """A controller that says yes to ``permissions``, and a configuration for it."""
    simulated = simulation.Simulation(**sim)
    access = accesses.Accounts(user="u", token=TOKEN, permissions=frozenset(permissions))
    async with controller.SimulatedController(simulated, now=time.time, access=access) as server:
        path = tmp_path / "broker.yaml"
        path.write_text(CONFIG.format(url=server.url, folder=tmp_path, more=more))
        yield server, path


async def doctor(path, *, token=TOKEN, probe="o-doctor-1"):
    """What the command asks and finds, by check."""
    settings = loading.load(path, kinds.classes(), environ={"DOCTOR_TOKEN": token})
    watch = clock.Clock()
    backends = assembly.make_backends(settings, store.FileStore(settings.state_dir), watch=watch)
    try:
        found = [f async for f in doctors.examine(settings, backends, now=watch.now, probe=probe)]
    finally:
        for backend in backends.values():
            await backend.aclose()
    assert token not in repr(found)
    return any(f.verdict is finding.Grade.FAIL for f in found), {f.check: f for f in found}


async def test_all_is_well(tmp_path):
    """Every check is there; python-jenkins agrees; the node that was tried is gone."""
    async with surgery(tmp_path) as (server, path):
        bad, found = await doctor(path)
        assert server.sim.nodes == {}
    assert not bad
    assert {name: row.verdict.value for name, row in found.items()} == {
        **dict.fromkeys(
            (
                "controller",
                "version",
                "clock",
                "credentials",
                "Agent/Create",
                "Agent/Connect",
                "Agent/Disconnect",
                "Agent/Configure",
                "Agent/Delete",
                "nodes and JCasC",
                "second opinion",
                "agents",
                "backend local",
                "local: /bin/sh",
            ),
            "ok",
        ),
        "Job/Read": "warn",
    }
    assert "no job is visible" in found["Job/Read"].text


@pytest.mark.parametrize(
    ("waits", "granted", "verdict"),
    [(True, True, "ok"), (True, False, "FAIL"), (False, True, "warn")],
)
async def test_job_cancel_is_asked_for_where_items_are_given_up(tmp_path, waits, granted, verdict):
    """The queue's own page tells, while something waits; nothing is cancelled for it."""
    rights = BROKER if granted else BROKER - {"Job/Cancel"}
    more = "command: [/bin/sh], give_up: 30m"
    async with surgery(tmp_path, permissions=rights, more=more) as (server, path):
        if waits:
            server.sim.submit(time.time(), label="nobody")
        _, found = await doctor(path)
        assert len(server.sim.wanted) == waits
    assert verdict == found["Job/Cancel"].verdict.value
    if verdict != "ok":
        assert "Job/Cancel" in found["Job/Cancel"].hint


async def test_where_nothing_is_given_up_nobody_needs_to_cancel(tmp_path):
    async with surgery(tmp_path) as (_, path):
        _, found = await doctor(path)
    assert "Job/Cancel" not in found


@pytest.mark.parametrize("missing", ["Agent/Create", "Agent/Disconnect", "Agent/Delete"])
async def test_a_missing_permission_is_named(tmp_path, missing):
    """One line FAILs, says which permission to give, and the exit code is 1."""
    async with surgery(tmp_path, permissions=BROKER - {missing}) as (server, path):
        bad, found = await doctor(path)
    assert bad
    assert found[missing].verdict.value == "FAIL"
    assert f"give the user {missing}" in found[missing].hint
    left = [name for name in server.sim.nodes if missing != "Agent/Delete"]
    assert left == []


async def test_without_the_right_to_delete_what_stays_is_named_and_left_as_it_was_made(tmp_path):
    """Nothing else tells on a controller that has no node of ours; nothing more is tried on it."""
    async with surgery(tmp_path, permissions=BROKER - {"Agent/Delete"}) as (server, path):
        bad, found = await doctor(path)
        (left,) = server.sim.nodes.values()
    assert bad
    assert f"remove node {left.name} by hand" in found["Agent/Delete"].hint
    assert left.offline_message is None
    assert "Agent/Disconnect" not in found


async def test_without_the_right_to_delete_the_placeholder_says_so_and_nothing_is_made(tmp_path):
    """Once a broker has run there is a node of ours to ask."""
    async with surgery(tmp_path, permissions=BROKER - {"Agent/Delete"}) as (server, path):
        server.sim.nodes["o-placeholder"] = simulation.Node(
            name="o-placeholder", labels=frozenset(), slots=[simulation.Slot()]
        )
        _, found = await doctor(path)
        assert ("POST", "computer/doCreateItem") not in server.requests
    assert found["Agent/Delete"].verdict.value == "FAIL"


async def test_a_right_by_the_names_of_nodes_is_asked_of_a_node_of_ours(tmp_path):
    """The owner's placeholder tells; the controller's own computer is not asked then."""
    async with surgery(tmp_path) as (server, path):
        server.sim.nodes["o-placeholder"] = simulation.Node(
            name="o-placeholder", labels=frozenset(), slots=[simulation.Slot()]
        )
        server.fail_next("computer/(master)/contextMenu", "500")
        bad, found = await doctor(path)
        assert set(server.sim.nodes) == {"o-placeholder"}
    assert (bad, found["Agent/Delete"].verdict.value) == (False, "ok")


async def test_another_owner_on_the_controller_is_named(tmp_path):
    """By the marks on its agents; our own are none."""
    async with surgery(tmp_path) as (server, path):
        for owner in ("o", "neighbour"):
            owned = marks.Marks(
                owner=owner, template="t", backend="b", revision="r", created_at=1.0
            )
            server.sim.nodes[f"{owner}-t-1"] = simulation.Node(
                name=f"{owner}-t-1",
                labels=frozenset(),
                description=owned.description(),
                slots=[simulation.Slot()],
            )
        bad, found = await doctor(path)
    told = {name: row for name, row in found.items() if name.startswith("owner ")}
    assert (bad, list(told), told["owner neighbour"].verdict.value) == (
        False,
        ["owner neighbour"],
        "warn",
    )
    assert "neighbour orders first and o a look later" in told["owner neighbour"].hint


async def test_where_the_controller_does_not_tell_no_node_is_made(tmp_path):
    """A proxy that keeps the page back: nothing is made that might stay."""
    async with surgery(tmp_path) as (server, path):
        server.fail_next("computer/*/contextMenu", "500", times=9)
        bad, found = await doctor(path)
        assert ("POST", "computer/doCreateItem") not in server.requests
    assert (bad, found["Agent/Delete"].verdict.value) == (False, "warn")
    assert "Agent/Create" not in found


async def test_agent_configure_is_needed_by_old_controllers_only(tmp_path):
    """It is a warning where the other way to retire is safe."""
    lacking = BROKER - {"Agent/Configure"}
    async with surgery(tmp_path, permissions=lacking) as (_, path):
        bad, found = await doctor(path)
    assert (bad, found["Agent/Configure"].verdict.value) == (False, "warn")
    async with surgery(tmp_path, permissions=lacking, version="2.263.4") as (_, path):
        bad, found = await doctor(path)
    assert (bad, found["Agent/Configure"].verdict.value) == (True, "FAIL")


async def test_a_wrong_token_is_told_from_a_closed_door(tmp_path):
    """401 names the token, 403 the permission; nothing more is asked of such a controller."""
    async with surgery(tmp_path) as (_, path):
        bad, found = await doctor(path, token="wrong-token")
        assert bad
        assert "API token" in found["controller"].hint
        assert "Agent/Create" not in found
    async with surgery(tmp_path, permissions=()) as (_, path):
        _, found = await doctor(path)
        assert found["controller"].hint == "give the user Overall/Read"


@pytest.mark.parametrize(
    ("casc", "verdict", "words"),
    [
        ("", "ok", "not installed"),
        ("new", "ok", "keeps the broker's nodes"),
        ("old", "warn", "deletes the broker's nodes"),
    ],
)
async def test_what_a_reload_of_the_controllers_configuration_does_is_said(
    tmp_path, casc, verdict, words
):
    async with surgery(tmp_path, casc=casc) as (_, path):
        bad, found = await doctor(path)
    row = found["nodes and JCasC"]
    assert (bad, row.verdict.value) == (False, verdict)
    assert words in row.text


@pytest.mark.parametrize("mode", ["tcp", "websocket"])
async def test_a_wrong_path_is_called_so_for_agents_too(tmp_path, mode):
    """Not a closed agent port: there is no controller at all."""
    async with surgery(tmp_path, more=f"connect: {{mode: {mode}}}") as (_, path):
        text = path.read_text()
        url = text.partition('url: "')[2].partition('"')[0]
        path.write_text(text.replace("user: u", f'agent_url: "{url}wrong/", user: u'))
        bad, found = await doctor(path, probe=None)
    assert (bad, found["agents"].verdict.value) == (True, "FAIL")
    assert "agent_url" in found["agents"].hint
    assert "port" not in found["agents"].text


async def test_read_only_makes_no_node(tmp_path):
    """And says what was not tried."""
    async with surgery(tmp_path, permissions=BROKER - {"Agent/Create"}) as (_, path):
        bad, found = await doctor(path, probe=None)
    assert (bad, found["permissions"].verdict.value) == (False, "warn")


async def test_an_agent_port_that_is_closed_and_a_websocket_that_is_open(tmp_path):
    """Tried as the templates say; an agent may stand elsewhere, so the hint says from where."""
    async with surgery(tmp_path, more="connect: {tunnel: '127.0.0.1:1'}") as (_, path):
        bad, found = await doctor(path, probe=None)
    assert (bad, found["agents"].verdict.value) == (True, "FAIL")
    assert "tunnel" in found["agents"].hint
    async with surgery(tmp_path, more="command: [/bin/sh], connect: {mode: websocket}") as (
        _,
        path,
    ):
        bad, found = await doctor(path, probe=None)
    assert (bad, found["agents"].verdict.value) == (False, "ok")


@pytest.mark.parametrize("announced", [None, "127.0.0.1"])
async def test_an_agent_goes_where_the_controller_says(announced):
    """Its agent port may be announced with a host of its own; agents believe that, not the URL."""
    port = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    number = port.sockets[0].getsockname()[1]

    async def listener(_: web.Request) -> web.Response:
        headers = {"X-Jenkins-JNLP-Port": str(number), "X-Instance-Identity": "MIIB"}
        return web.Response(
            headers=headers | ({"X-Jenkins-JNLP-Host": announced} if announced else {})
        )

    app = web.Application()
    app.router.add_get("/tcpSlaveAgentListener/", listener)
    async with (
        test_utils.TestServer(app, host="127.0.0.1") as server,
        port,
        aiohttp.ClientSession() as client,
    ):
        url = f"http://localhost:{server.port}/"
        found = await doctors._way_in(client, url, tunnel.Connection())
    assert f"{announced or 'localhost'}:{number} takes connections" in found.text


@pytest.mark.parametrize(
    ("url", "way", "verdict"),
    [
        ("http://c.example/", tunnel.Connection(), finding.Grade.WARN),
        ("http://c.example/", tunnel.Connection(tunnel=":1"), finding.Grade.WARN),
        ("http://c.example/", tunnel.Connection(tunnel="127.0.0.1:1"), finding.Grade.FAIL),
        ("http://localhost/", tunnel.Connection(), finding.Grade.FAIL),  # nobody listens there
    ],
)
async def test_a_controller_that_sends_agents_from_elsewhere_to_themselves(url, way, verdict):
    """It announces its own loopback address, as one that is bound to it may."""
    headers = {
        "X-Jenkins-JNLP-Port": "1",
        "X-Instance-Identity": "MIIB",
        "X-Jenkins-JNLP-Host": "127.0.0.1",
    }
    found = await doctors._agent_port(url, headers, way)
    assert verdict is found.verdict
    assert verdict is finding.Grade.FAIL or "connect.tunnel: c.example:1" in found.hint


async def test_without_an_instance_identity_no_agent_comes_by_tcp():
    """As a bare 2.541.3 answers (no plugin ``instance-identity``); by WebSocket agents do come."""

    async def listener(_: web.Request) -> web.Response:
        headers = {
            "X-Hudson-JNLP-Port": "19080",
            "X-Jenkins-JNLP-Port": "19080",
            "X-Jenkins-JNLP-Host": "127.0.0.1",
            "X-Jenkins-Agent-Protocols": "JNLP4-connect, Ping",
            "X-Remoting-Minimum-Version": "3107.v665000b_51092",
        }
        return web.Response(headers=headers)

    app = web.Application()
    app.router.add_get("/tcpSlaveAgentListener/", listener)
    async with (
        test_utils.TestServer(app, host="127.0.0.1") as server,
        aiohttp.ClientSession() as client,
    ):
        url = f"http://127.0.0.1:{server.port}/"
        found = await doctors._way_in(client, url, tunnel.Connection())
    assert found.verdict is finding.Grade.FAIL
    assert "no instance identity" in found.text
    assert "websocket" in found.hint


@pytest.mark.parametrize(
    ("headers", "text", "hint"),
    [
        ({}, "the controller announces no agent port", "TCP port for inbound agents"),
        (
            {"X-Jenkins-Agent-Protocols": "JNLP3-connect, Ping"},
            "speaks JNLP3-connect, Ping at its agent port, and agents need JNLP4-connect",
            "Agent protocols",
        ),
        (
            {"X-Jenkins-Agent-Protocols": "JNLP4-connect, Ping"},
            "agent port: no connection to 127.0.0.1:1 from here: ",
            "firewall",
        ),
    ],
)
async def test_no_way_to_the_agent_port_is_the_operators_fault(headers, text, hint):
    """None is open, it speaks what nobody speaks any more, or no packet gets there."""
    known = {"X-Jenkins-JNLP-Port": "1", "X-Instance-Identity": "MIIB"} if headers else {}

    async def listener(_: web.Request) -> web.Response:
        return web.Response(headers=headers | known)

    app = web.Application()
    app.router.add_get("/tcpSlaveAgentListener/", listener)
    async with (
        test_utils.TestServer(app, host="127.0.0.1") as server,
        aiohttp.ClientSession() as client,
    ):
        url = f"http://127.0.0.1:{server.port}/"
        found = await doctors._way_in(client, url, tunnel.Connection())
    assert (finding.Grade.FAIL, "operator") == (found.verdict, found.fault)
    assert text in found.text
    assert hint in found.hint


def test_a_controller_that_is_not_there(tmp_path, monkeypatch, capsys):
    """Said in one line with what to check; the rest is still looked at."""
    monkeypatch.setenv("DOCTOR_TOKEN", TOKEN)
    path = tmp_path / "broker.yaml"
    path.write_text(
        CONFIG.format(url="http://127.0.0.1:1/", folder=tmp_path, more="command: [/bin/sh]")
    )
    assert cli.main(["doctor", "--config", str(path)]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert (
        lines[0].startswith("FAIL  controller          unreachable: ") or "127.0.0.1:1" in lines[0]
    )
    assert lines[1].strip() == "-> check controller.url, ca_file and proxy from this very machine"
    assert lines[-2].startswith("ok    backend local")
    assert err == "agent-broker: 1 of 4 checks failed\n"
    assert cli.main(["doctor", "--config", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [row.keys() for row in found] == [
        {"check": 0, "verdict": 0, "text": 0, "hint": 0, "fault": 0}.keys()
    ] * 4


async def lease_finding(cluster, *, probe="o-doctor-1"):
    """What the doctor says about a lease on a cluster."""
    from backends.kubernetes import settings
    from backends.kubernetes.api import lease

    it = lease.create(
        settings.ClusterSettings(namespace=cluster.namespace, server=cluster.url),
        name="agent-broker-o",
    )
    try:
        return await doctors._lease(it, tries=probe is not None)
    finally:
        await it.aclose()


async def test_the_rights_on_the_lease_are_tried_and_nobody_loses_it():
    """Not there: made, free for whoever comes. Held: neither holder nor times change."""
    async with fake.Cluster().serving() as cluster:
        found = await lease_finding(cluster)
        assert (finding.Grade.OK, True) == (found.verdict, "not there yet" in found.text)
        spec = cluster.leases["agent-broker-o"]["spec"]
        assert "holderIdentity" not in spec
        spec |= {"holderIdentity": "one_1", "renewTime": "2026-11-24T00:00:00.000000Z"}
        before = dict(spec)
        found = await lease_finding(cluster)
        assert "held by one_1" in found.text
        assert before == cluster.leases["agent-broker-o"]["spec"]


@pytest.mark.parametrize("verb", ["get", "create", "update"])
async def test_a_right_on_the_lease_that_is_missing_is_named(verb):
    """Whoever holds it, for each of the three."""
    async with fake.Cluster().serving() as cluster:
        await lease_finding(cluster)
        cluster.fail(f"{verb} leases", "error-403-rbac-list")
        found = await lease_finding(cluster)
    assert finding.Grade.FAIL is found.verdict
    assert found.hint.startswith(f"{verb} leases")


async def test_read_only_the_lease_is_only_read():
    """And the doctor says that the rest was not tried."""
    async with fake.Cluster().serving() as cluster:
        found = await lease_finding(cluster, probe=None)
        assert finding.Grade.WARN is found.verdict
        assert {} == cluster.leases
        assert ["get leases"] == cluster.verbs()


async def test_the_command_asks_about_the_lease(tmp_path, monkeypatch):
    """With the section, as one more line."""
    monkeypatch.setenv("DOCTOR_TOKEN", TOKEN)
    more = "command: [/bin/sh], paused: true"  # no agent is tried
    async with fake.Cluster().serving() as cluster, surgery(tmp_path, more=more) as (_, path):
        where = f'namespace: agents, server: "{cluster.url}"'
        path.write_text(
            path.read_text()
            + f"high_availability: {{{where}}}\nbackends: {{c: {{kind: kubernetes, {where}}}}}\n"
            + "defaults: {image: i}\n"
        )
        _, out, _ = await ran("doctor", "--try", "--json", "--config", str(path))
    rows = {row["check"]: row for row in json.loads(out)}
    assert "ok" == rows["lease"]["verdict"]


def test_whoever_is_at_fault_there_is_a_hint():
    """Of every error that a backend can raise."""
    kinds = [api.BackendError, *api.BackendError.__subclasses__()]
    assert len(kinds) > 5
    assert all(finding.whose(kind.fault) for kind in kinds)


def test_what_cannot_be_installed_by_that_name_is_not_named():
    """Nobody has to know how the broker was installed to follow a hint."""
    root = pathlib.Path(broker.__file__).parents[1]
    texts = [
        path.read_text() for room in ("broker", "backends") for path in (root / room).rglob("*.py")
    ]
    hints = {name for text in texts for name in re.findall(r"pip install ([\w'.\[\]-]+)", text)}
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    packages = {
        re.split(r"[<>=]", one)[0] for name in ("doctor", "kubernetes") for one in extras[name]
    }
    assert hints == packages
