"""What hangs, harms only itself: a broker as a program, beside whoever accepts and never answers."""

import asyncio
import contextlib
import signal

import pytest
import yaml

from tests.docker import scripted_engine
from tests.e2e import stage

THERE = "  there: {labels: there, backends: [there], image: any, command: [agent]%s}\n"
REUSED = "  pool: {labels: pool, backends: [local], retention: {idle: 1h}}\n"


@contextlib.asynccontextmanager
async def silent():
    """Serve nothing: every connection is accepted; give the port and who has come."""
    came = []

    async def accept(reader, writer):
        came.append(writer)
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        server.close()
        for writer in came:
            writer.transport.abort()


def beside(made, there, *, templates=REUSED, way=""):
    """Configure a second backend."""
    made.write_config(templates=templates + THERE % way)
    document = yaml.safe_load(made.config.read_text())
    document["backends"]["there"] = there
    made.config.write_text(yaml.safe_dump(document))


def backend(kind, port, folder):
    """Return the settings of a backend whose platform is at that port, and those of templates."""
    if kind == "docker":
        return {"kind": kind, "hosts": [{"url": f"tcp://127.0.0.1:{port}"}]}, ""
    if kind == "mesos":
        return {
            "kind": kind,
            "master": f"http://127.0.0.1:{port}",
        }, ", mesos: {secrets: environment}"
    token = folder / "token"
    token.write_text("of-an-account")
    where = {"server": f"http://127.0.0.1:{port}", "token_file": str(token)}
    return {"kind": kind, "namespace": "agents", **where}, ""


@pytest.mark.parametrize("kind", ["docker", "mesos", "kubernetes"])
async def test_a_platform_that_never_answers_holds_up_neither_builds_nor_the_end(kind, tmp_path):
    """Builds of another backend are served, a drain waits for it by its name, and ends in time."""
    async with stage.Stage(tmp_path) as made, silent() as (port, came):
        there, way = backend(kind, port, tmp_path)
        beside(made, there, way=way)
        broker = await made.start("--drain=1s")
        await made.until(lambda: came, "the platform is asked")
        made.submit("pool")
        await made.until_served()
        broker.send_signal(signal.SIGTERM)
        ended = await made.ended(broker)
        assert 1 == ended.code
        assert "source lost" in ended.said
        assert "draining waits" in ended.said
        assert "draining was given up after 1 s; left: backend there, unknown for" in ended.said


@pytest.mark.parametrize("arguments", [(), ("--drain",)])
async def test_a_controller_that_never_answers_does_not_hold_up_the_end(arguments, tmp_path):
    """Neither of a broker that goes, nor a drain: that names it, and ends with a second signal."""
    async with stage.Stage(tmp_path) as made, silent() as (port, came):
        document = yaml.safe_load(made.config.read_text())
        document["controller"] = {"url": f"http://127.0.0.1:{port}/", "timeout": "60s"}
        made.config.write_text(yaml.safe_dump(document))
        broker = await made.start(*arguments)
        await made.until(lambda: came, "the controller is asked")
        broker.send_signal(signal.SIGTERM)
        if arguments:
            said = "controller, unknown for"
            await made.until(lambda: said in broker.said.read_text(), "it says so")
            broker.send_signal(signal.SIGTERM)
        assert len(arguments) == (await made.ended(broker)).code


def hanging(engine):
    """Let an engine list, and never answer what is to be made."""

    def hang(_, sock):
        sock.closing.wait()

    engine.answer("POST", "/containers/create", hang)


def is_asked(engine):
    return any(request.target.partition("?")[0].endswith("/create") for request in engine.requests)


async def test_the_second_signal_ends_at_once_what_waits_for_an_engine(tmp_path):
    """A launch is under way on it, in a thread that nobody can end."""
    with scripted_engine.engine() as engine:
        hanging(engine)
        async with stage.Stage(tmp_path) as made:
            beside(made, {"kind": "docker", "hosts": [{"url": engine.url}]})
            broker = await made.start()
            made.submit("there")
            await made.until(lambda: is_asked(engine), "a container is to be made")
            broker.send_signal(signal.SIGTERM)
            await made.until(lambda: "stopping" in broker.said.read_text(), "it stops")
            assert None is broker.returncode
            broker.send_signal(signal.SIGTERM)
            ended = await made.ended(broker)
            assert 1 == ended.code
            assert "leaving at once" in ended.said


@pytest.mark.soak
async def test_a_launch_that_hangs_in_an_engine_is_left_to_the_next_start(tmp_path):
    """It is named in one line, and the end comes within its bound."""
    with scripted_engine.engine() as engine:
        hanging(engine)
        async with stage.Stage(tmp_path) as made:
            beside(made, {"kind": "docker", "hosts": [{"url": engine.url}]})
            broker = await made.start()
            made.submit("there")
            await made.until(lambda: is_asked(engine), "a container is to be made")
            broker.send_signal(signal.SIGTERM)
            ended = await made.ended(broker, within_s=40.0)
            (name,) = made.agents
            assert 0 == ended.code
            (line,) = (one for one in ended.said.splitlines() if "left to the next start" in one)
            assert f"launch {name} on there" in line
            assert "ended by force" not in ended.said


async def test_a_drain_that_takes_too_long_ends_with_what_is_left(tmp_path):
    """Its build goes on, and the next start finds the agent as it was."""
    async with stage.Stage(tmp_path, templates=REUSED.replace("backends: [local], ", "")) as made:
        broker = await made.start("--drain=1s")
        made.submit("pool", duration_s=600.0)
        await made.until(lambda: any(i.node for i in made.sim.items.values()), "it builds")
        broker.send_signal(signal.SIGTERM)
        ended = await made.ended(broker)
        (name,) = made.agents
        assert 1 == ended.code
        assert f"draining was given up after 1 s; left: {name} on local (busy)" in ended.said
        assert made.sim.nodes[name].connected
        assert {"open": 1} == made.fates()
