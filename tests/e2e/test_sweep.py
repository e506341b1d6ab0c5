"""``sweep --yes`` acts: only where no other broker of the owner does, wherever that one runs."""

import asyncio
import contextlib
import io
import re
import time

import attrs

from backends import lease as leases
from broker import assembly, clock, store
from broker.cli import main as cli
from broker.config import kinds, loading
from broker.core.fleet import marks
from broker.simulator import access, controller, simulation
from tests import patience
from tests.kubernetes import fake
from tests.mesos import master, wire

TOKEN = "a-token-of-eleven"
CONFIG = """\
owner: o
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: off
advanced: {{orphan_grace: 500ms, resume_grace: 500ms}}
templates:
  t: {{labels: t}}
{more}
"""
PLACE = marks.placeholder_name("o")
WITHIN_S = 60.0


@contextlib.asynccontextmanager
async def controlled():
    watch, sim = clock.Clock(), simulation.Simulation()
    told = access.Accounts(user="u", token=TOKEN)
    async with controller.SimulatedController(sim, now=watch.now, access=told) as server:
        yield sim, server, watch


async def swept(folder, server, monkeypatch, *arguments, state="other", more=""):
    """Run the command with a state directory; return its exit code and what it said."""
    path = folder / f"{state}.yaml"
    path.write_text(CONFIG.format(url=server.url, state=folder / state, more=more))
    monkeypatch.setenv("TOKEN", TOKEN)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        told = ["sweep", *arguments, "--config", str(path)]
        code = await patience.wait_for(asyncio.to_thread(cli.main, told), WITHIN_S)
    return code, out.getvalue(), err.getvalue()


def leave_a_node(sim, watch):
    """Leave a node of ours whose instance is gone, as a broker does that was killed."""
    name = marks.node_name("o", "t", "aaaaaa")
    about = marks.Marks(
        owner="o", template="t", backend="local", revision="r", created_at=watch.now() - 3600
    ).description()
    sim.create_node(
        watch.now(),
        simulation.Node(name=name, labels=frozenset({"t"}), description=about),
    )
    return name


async def test_where_a_broker_with_another_state_directory_works_nothing_is_removed(
    tmp_path, monkeypatch
):
    """Its agents may be where only it can see them; and it is left in peace."""
    async with controlled() as (sim, server, watch):
        text = CONFIG.format(url=server.url, state=tmp_path / "state", more="")
        settings = loading.parse(text, kinds.classes(), environ={"TOKEN": TOKEN}, base=tmp_path)
        made = assembly.build(settings, store.FileStore(settings.state_dir), watch=watch)
        working = asyncio.create_task(made.run())
        try:
            async with patience.limit(20):
                while not made.ready()[0]:
                    await asyncio.sleep(0.05)
            claimed = sim.nodes[PLACE].description
            for more in ((), ("--all",)):
                code, out, err = await swept(tmp_path, server, monkeypatch, "--yes", *more)
                assert (code, out) == (3, "")
                assert "another state_dir" in err
            assert sim.nodes[PLACE].description == claimed
            assert made.ready()[0]
        finally:
            made.stop()
            await working
        left = leave_a_node(sim, watch)
        code, out, err = await swept(
            tmp_path, server, monkeypatch, "--all", "--yes", state="state"
        )
        assert code == 0, err
        assert f"removed: {left}" in out
        assert set(sim.nodes) == set()


async def test_what_a_killed_broker_left_is_removed_at_once_by_its_own_state_directory(
    tmp_path, monkeypatch
):
    """No claim of a stranger stands, so nobody is waited for; without --yes nothing happens."""
    async with controlled() as (sim, server, watch):
        left = leave_a_node(sim, watch)
        before = [one for one in server.requests if one[0] != "GET"]
        code, out, _ = await swept(tmp_path, server, monkeypatch)
        assert (code, f"left over: {left}" in out) == (3, True), out
        code, out, _ = await swept(tmp_path, server, monkeypatch, "--all")
        assert (code, f"would go: {left}: " in out) == (3, True), out
        assert re.search(r"\nwould go at last: \S+, the node that the broker keeps", out)
        assert before == [one for one in server.requests if one[0] != "GET"]
        assert not (tmp_path / "other").exists()
        code, out, err = await swept(tmp_path, server, monkeypatch, "--yes")
        assert (code, f"removed: {left}" in out, "waiting" in err) == (0, True, False), (out, err)
        assert f"about to remove {left}\n" in err
        assert left not in sim.nodes


async def test_who_goes_for_good_is_forgotten_by_a_platform_that_remembers(tmp_path, monkeypatch):
    """A drained broker's framework is ended, and what is swept wholly; a stopped one's stays."""
    machine = master.Master(agents=1, wall=time.time())
    async with controlled() as (_, server, watch), wire.Wire(machine).serving() as cluster:
        more = (
            f"backends: {{m: {{kind: mesos, master: '{cluster.base}', user: u}}}}\n"
            "defaults: {mesos: {secrets: environment}}\n"
        )
        text = CONFIG.format(url=server.url, state=tmp_path / "state", more=more)
        settings = loading.parse(text, kinds.classes(), environ={"TOKEN": TOKEN}, base=tmp_path)

        async def lived(end):
            made = assembly.build(settings, store.FileStore(settings.state_dir), watch=watch)
            working = asyncio.create_task(made.run())
            async with patience.limit(WITHIN_S):
                while not made.ready()[0]:
                    await asyncio.sleep(0.05)
                getattr(made, end)()
                await working
            return len(machine.frameworks)

        assert (1, 0, 1) == (await lived("stop"), await lived("drain"), await lived("stop"))
        told = {"state": "state", "more": more}
        code, out, err = await swept(tmp_path, server, monkeypatch, "--yes", **told)
        assert (code, len(machine.frameworks)) == (0, 1), (out, err)
        code, out, err = await swept(tmp_path, server, monkeypatch, "--all", "--yes", **told)
        assert (code, len(machine.frameworks)) == (0, 0), (out, err)


def _stamp(number):
    return f"2026-11-29T00:00:00.{number:06d}Z"


async def test_replicas_that_lead_are_not_swept_beside(tmp_path, monkeypatch):
    """Their lease is renewed: whoever holds it sweeps by itself."""
    async with controlled() as (sim, server, _), fake.Cluster().serving() as cluster:
        where = f'namespace: agents, server: "{cluster.url}"'
        more = (
            f"backends: {{c: {{kind: kubernetes, {where}}}}}\n"
            f"defaults: {{image: i}}\n"
            f"high_availability: {{{where}, lease: 3s, renew_deadline: 1800ms, retry: 300ms}}\n"
        )
        text = CONFIG.format(url=server.url, state=tmp_path / "state", more=more)
        settings = loading.parse(text, kinds.classes(), environ={"TOKEN": TOKEN}, base=tmp_path)
        lease = assembly.make_lease(settings.high_availability)
        first = leases.Record(
            holder="one_1", lease_s=2, acquired=_stamp(0), renewed=_stamp(0), transitions=0
        )

        async def keep():
            seen = await lease.write(first, over=None)
            number = 0
            while True:
                number += 1
                await asyncio.sleep(0.2)
                seen = await lease.write(attrs.evolve(first, renewed=_stamp(number)), over=seen)

        keeping = asyncio.create_task(keep())
        try:
            async with patience.limit(20):
                while await lease.read() is None:
                    await asyncio.sleep(0.05)
            code, out, err = await swept(tmp_path, server, monkeypatch, "--yes", more=more)
            assert (code, out) == (3, "")
            assert "one_1 leads" in err
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
        code, _, err = await swept(tmp_path, server, monkeypatch, "--yes", more=more)
        assert code == 0, err
        await lease.aclose()
        assert sim.nodes == {}
