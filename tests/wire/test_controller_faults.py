"""Our own client against a controller that goes wrong: faults, restarts, lost sessions, proxies.

The simulated controller stays right underneath, so what a call did before it failed can be seen.
"""

import contextlib
import json
import re
import time
import tracemalloc

import aiohttp
import pytest
import recorded
from aiohttp import web
from attrs import define

from backends import api, memory
from broker.controller import reading
from broker.core import model
from broker.core.decide import judge
from broker.core.demand import wishes as demand
from broker.loop import execute, observe
from broker.simulator import access, simulation
from broker.simulator import controller as controllers
from jnlp import client, entries, errors, http, node, version
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings
from tests.core import worlds

TOKEN, PASSWORD = "a-token-of-eleven", "a-password"
TEMPLATE = worlds.template("t", "linux")


@define
class Clock:
    now: float = worlds.NOW

    def read(self):
        return self.now


@define
class Stage:
    clock: Clock
    sim: simulation.Simulation
    server: controllers.SimulatedController
    session: http.ControllerSession

    @property
    def reader(self):
        return reading.Reader(self.session)

    @property
    def nodes(self):
        return client.NodeClient(self.session)

    async def read(self):
        return await self.reader.read(self.clock.read)

    def posts(self):
        return [path for method, path in self.server.requests if method == "POST"]


@contextlib.asynccontextmanager
async def staged(*, password=False, of_version="2.263.4", through=None, timeout_s=5.0):
    """A controller with a queue, and our session to it; ``through`` gives a proxy's address."""
    clock = Clock()
    sim = simulation.Simulation(version=of_version)
    may = access.Accounts(user="u", token=TOKEN, password=PASSWORD)
    server = controllers.SimulatedController(sim, now=clock.read, access=may, prefix="/jenkins")
    async with contextlib.AsyncExitStack() as stack:
        url = (await stack.enter_async_context(server)).url
        proxy = await stack.enter_async_context(through()) if through else None
        settings = jnlp_settings.ControllerAccess(
            url=url,
            credentials=jnlp_settings.Credentials(
                user="u",
                secret=jnlp_secret.Secret(PASSWORD if password else TOKEN),
                is_password=password,
            ),
            timeout_s=timeout_s,
            proxy=proxy,
        )
        session = await stack.enter_async_context(http.ControllerSession(settings))
        yield Stage(clock, sim, server, session)


def definition(name="n"):
    return node.NodeDefinition(name=name, remote_fs="/srv", labels=("linux",))


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["queue/api/json", "computer/api/json"])
@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("timeout", errors.Unreachable, "no answer within 0.2 s"),
        ("slow", errors.Unreachable, "no answer within 0.2 s"),
        ("500", errors.Unexpected, "500"),
        ("502", errors.Unreachable, "502"),
        ("503", errors.Starting, "503"),
        ("cut", errors.Unreachable, "cut off|closed|disconnected"),
        ("reset", errors.Unreachable, "disconnected|reset|closed"),
    ],
)
async def test_a_read_that_goes_wrong_is_no_empty_queue(path, kind, error, text):
    """Not synced, with the reason; the next look is whole again."""
    async with staged(timeout_s=0.2) as stage:
        stage.sim.submit(worlds.NOW, label="linux")
        times = 2 if kind == "reset" else 1  # a lost connection is tried anew at once
        stage.server.fail_next(path, kind, times=times)
        with pytest.raises(error, match=text):
            await stage.read()
        stage.server.fail_next(path, kind, times=times)
        view = await observe.read_controller(stage.reader, now=stage.clock.read)
        assert (view.synced, view.items, view.error.partition(":")[0]) == (False, (), error.slug)
        assert len((await stage.read()).items) == 1


async def test_a_slow_answer_within_the_limit():
    """Is an answer."""
    async with staged() as stage:
        stage.sim.submit(worlds.NOW, label="linux")
        stage.server.fail_next("queue/api/json", "slow")
        assert len((await stage.read()).items) == 1


async def test_a_stale_read_is_told_by_nothing():
    """It looks like any other: hence the second look before every removal."""
    async with staged() as stage:
        await stage.read()
        stage.sim.submit(worlds.NOW, label="linux")
        stage.server.fail_next("queue/api/json", "stale")
        assert (await stage.read()).items == ()
        assert len((await stage.read()).items) == 1


async def test_a_controller_that_starts():
    """503 on every path, also for a POST; then another session."""
    async with staged() as stage:
        before = (await stage.read()).session
        stage.server.restart(down_s=5.0)
        with pytest.raises(errors.Starting):
            await stage.read()
        with pytest.raises(errors.Starting):
            await stage.nodes.create(definition())
        stage.clock.now += 5.0
        assert (await stage.read()).session != before
        assert stage.sim.nodes == {}


@pytest.mark.parametrize("kind", ["timeout", "reset", "500"])
async def test_a_create_whose_answer_is_lost(kind):
    """Whoever tries again is told that it is there; a 500 is ours by the recordings."""
    async with staged(timeout_s=0.2) as stage:
        stage.server.fail_next("computer/doCreateItem", kind)
        with pytest.raises(errors.JenkinsError):
            await stage.nodes.create(definition())
        await stage.nodes.create(definition())
        with pytest.raises(errors.NodeExists):
            await stage.nodes.create(definition())


# --- who we are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["expiry", "restart"])
async def test_a_session_that_is_lost(how):
    """A password's crumb is fetched anew, and the call is made once."""
    async with staged(password=True) as stage:
        await stage.nodes.create(definition("a"))
        if how == "expiry":
            stage.server.access.forget_sessions()
        else:
            stage.server.restart(down_s=0.0)
        await stage.nodes.create(definition("b"))
        assert set(stage.sim.nodes) == {"a", "b"}
        assert stage.posts().count("computer/doCreateItem") == 3  # one was refused for its crumb


async def test_a_token_asks_for_no_crumb():
    """One request for one call."""
    async with staged() as stage:
        await stage.nodes.create(definition())
        assert stage.server.requests == [("POST", "computer/doCreateItem")]


@contextlib.asynccontextmanager
async def forwarding():
    """A small proxy on loopback that passes everything on, and counts."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as way:

        async def pass_on(request):
            headers = {k: v for k, v in request.headers.items() if k != "Proxy-Authorization"}
            body = await request.read()
            async with way.request(
                request.method, request.url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                kept = {"Content-Type", "Location", "Set-Cookie", "X-Jenkins", "X-Jenkins-Session"}
                told = {k: v for k, v in answer.headers.items() if k in kept}
                return web.Response(status=answer.status, body=await answer.read(), headers=told)

        async with recorded.serving(pass_on) as url:
            yield url.rstrip("/")


@pytest.mark.parametrize("password", [True, False])
async def test_a_proxy_on_the_way(password):
    """Password, cookie and crumb get through, and so does the end of a form."""
    async with staged(password=password, through=forwarding) as stage:
        await stage.nodes.create(definition())
        assert (await stage.nodes.read("n")).exists
        await stage.nodes.cordon("n", "away")
        await stage.nodes.delete("n")
        assert stage.sim.nodes == {}


# --- not a Jenkins -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"text": "<title>Welcome to nginx!</title>", "content_type": "text/html"}, "Welcome to nginx!.*is the URL"),
        ({"text": '{"status": "ok"}', "content_type": "application/json"}, "no list of items.*is the URL"),
        ({"text": "[]", "content_type": "application/json"}, "no list of items.*is the URL"),
        ({"status": 301, "headers": {"Location": "https://ci.example/queue/api/json"}}, "redirected to https://ci.example/.*URL"),
        ({"status": 302, "headers": {"Location": "/securityRealm/commenceLogin?from=%2F"}}, "login page"),
        ({"status": 404, "text": "no such site"}, "404 no such site"),
    ],
)  # fmt: skip
async def test_a_url_that_is_no_jenkins(answer, text):
    """The message says what came instead and where to look."""

    async def handler(request):
        if "computer" in request.path:
            return web.json_response({"computer": []})
        return web.Response(**answer)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        view = await observe.read_controller(reading.Reader(session), now=lambda: 0.0)
    assert not view.synced
    assert re.search(text, view.error), view.error


# --- a restart in the midst ----------------------------------------------------------------------


def executor_on(stage, platform):
    backend = memory.MemoryBackend(platform, owner="o", now=stage.clock.read)

    async def look():
        view = await observe.read_controller(stage.reader, now=stage.clock.read)
        ledger = model.Ledger(session=view.session, session_at=stage.clock.now - 3600)
        world = model.World(now=stage.clock.now, controller=view, backends={}, ledger=ledger)
        return judge.prepare(world, worlds.policy(TEMPLATE))

    async def before_end(_action):
        pass

    def order(action):
        def spec(secret):
            files = {"agent-secret": secret.reveal()}
            return api.InstanceSpec(
                name=action.name, metadata={"owner": "o"}, argv=("agent",), secret_files=files
            )

        return execute.Order(definition=definition(action.name), spec_with=spec)

    return execute.Executor(
        nodes=stage.nodes,
        backends={worlds.B: backend},
        order=order,
        look=look,
        retires_by_offline=lambda: version.safe_to_retire_by_offline(stage.session.version),
        now=stage.clock.read,
        before_end=before_end,
    )


class RestartAfter:
    """Lets the controller restart in place of its answer to a later request."""

    def __init__(self, stage, requests):
        self.stage, self.left, self.faults = stage, requests, stage.server._faults

    def __getattr__(self, name):
        return getattr(self.faults, name)

    async def strike(self, request, path, headers):
        self.left -= 1
        if self.left == -1:
            self.stage.server.restart(down_s=1.0)
            return web.Response(status=503)
        return await self.faults.strike(request, path, headers)


def seen(platform, stage):
    return {i.name for i in platform.visible(owner="o", now=stage.clock.now)}


@pytest.mark.parametrize("requests", [0, 1, 2, 3, 4])
async def test_a_restart_in_the_midst_of_a_launch(requests):
    """No instance without a node; the failure says that the controller starts."""
    async with staged() as stage:
        platform = memory.Platform()
        executor = executor_on(stage, platform)
        stage.server._faults = RestartAfter(stage, requests)
        launch = model.LaunchAgent(
            name=model.NodeName("o-t-1"), template=TEMPLATE.name, backend=worlds.B, reason="x"
        )
        outcome = await executor.perform(launch)
        done = requests >= 3  # it asks for the node, the secret plainly, and the page with it
        assert outcome.failure is (None if done else model.Failure.STARTING)
        assert seen(platform, stage) == ({"o-t-1"} if done else set())
        assert ("o-t-1" in stage.sim.nodes) == (requests >= 1)


@pytest.mark.parametrize("of_version", ["2.263.4", "2.528.3"])
async def test_a_restart_in_every_gap_of_a_retirement(of_version):
    """Done again afterwards it comes to its end, and the item that waits is not lost."""
    for requests in range(9):
        async with staged(of_version=of_version) as stage:
            await stage.read()
            platform = memory.Platform()
            executor = executor_on(stage, platform)
            agent = simulation.Node(name="o-t-1", labels=TEMPLATE.labels, connected=True)
            stage.sim.create_node(stage.clock.now, agent)
            spec = api.InstanceSpec(name="o-t-1", metadata={"owner": "o"}, argv=("agent",))
            await executor.backends[worlds.B].launch(spec)
            stage.server._faults = RestartAfter(stage, requests)
            retire = model.RetireAgent(
                name=agent.name, backend=worlds.B, reason="x", cause=model.Cause("idle")
            )
            first = await executor.perform(retire)
            assert first.failure in {None, model.Failure.STARTING} or first.withdrawn
            item = stage.sim.submit(stage.clock.now, label="linux")
            stage.clock.now += 2.0
            if first.failure or first.withdrawn:
                again = await executor.perform(
                    model.RetireAgent(
                        name=agent.name,
                        backend=worlds.B,
                        reason="x",
                        cause=model.Cause("idle"),
                        cordoned=True,
                    )
                )
                assert (again.failure, again.withdrawn) == (None, False)
            assert "o-t-1" not in stage.sim.nodes
            assert seen(platform, stage) == set()
            assert stage.sim.items[item].fate is simulation.Fate.OPEN


# --- much ------------------------------------------------------------------------------------------


async def test_a_queue_of_five_thousand():
    """Fetched, read and understood in about a second and within thirty megabytes."""
    async with staged() as stage:
        stage.sim.create_node(0.0, simulation.Node(name="z", labels=frozenset()))
        for number in range(50):
            stage.sim.submit(worlds.NOW, job=f"job-{number}", label=f"label-{number}")
        tree = {"tree": reading.QUEUE_TREE}
        few = (await stage.session.get_json("queue/api/json", tree)).json["items"]
        many = [{**item, "id": 100 * item["id"] + n} for item in few for n in range(100)]
        text = json.dumps({"_class": "hudson.model.Queue", "items": many})

    async def handler(request):
        answer = web.json_response(text=text)
        if "computer" in request.path:
            answer = web.json_response({"computer": []})
        answer.enable_compression()
        return answer

    templates = tuple(worlds.template(f"t{n}", f"label-{n}") for n in range(50))
    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        began = time.process_time()
        view = await reading.Reader(session).read(lambda: worlds.NOW)
        wishes, _ = demand.wishes(view, templates, model.Ledger(), {})
        spent = time.process_time() - began
    assert len(wishes) == 5000
    assert all(len(wish.templates) == 1 for wish in wishes)
    assert spent < 4.0  # a quarter of it on a machine that has nothing else to do
    tracemalloc.start()
    items, _ = reading.parse_queue(entries.Entries(text.encode(), "items"), 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(items) == 5000
    assert peak < 30_000_000


async def test_a_controller_that_speaks_another_language_whatever_is_asked():
    """A plug-in forces German: jobs tell their label themselves, pipelines cannot be read."""
    async with staged() as stage:
        stage.server._language = lambda _request: "de"
        stage.sim.create_node(0.0, simulation.Node(name="z", labels=frozenset()))
        stage.sim.submit(worlds.NOW, label="linux")
        stage.sim.submit(worlds.NOW, label="linux", kind=simulation.TaskKind.PIPELINE)
        view = await stage.read()
        wishes, _ = demand.wishes(view, (TEMPLATE,), model.Ledger(), {})
        assert [bool(wish.templates) for wish in wishes] == [False, True]
        (told,) = (wish.unmet for wish in wishes if wish.unmet)
        assert told.reason is model.WaitReason.LABEL_UNREADABLE
        assert "Es gibt keine Knoten mit dem Label" in told.text
        assert "texts are English" in told.text


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
async def test_a_controller_whose_clock_is_wrong(ahead):
    """Items are as old as they are by our clock."""
    async with staged() as stage:
        stage.clock.now += ahead
        stage.sim.submit(stage.clock.now - 30.0, label="linux")
        (item,) = (await stage.reader.read(lambda: stage.clock.now - ahead)).items
        assert stage.clock.now - ahead - item.in_queue_since_at == pytest.approx(30.0, abs=1.0)
