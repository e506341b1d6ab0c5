"""A person orders something of a broker at work: by the command, over a restart, and taken back."""

import json
import os

import pytest

from broker.simulator.inventory import Fate
from tests import forked
from tests.e2e import stage
from tests.e2e.test_try import TOKEN, ready


@pytest.fixture
async def made(tmp_path):
    """A stage whose broker has a page, and takes orders; its agents stay."""
    async with stage.Stage(tmp_path, templates=TEMPLATES) as found:
        found.listen = "127.0.0.1:0"
        found.write_config()
        tokens = tmp_path / "tokens"
        tokens.write_text(f"alice operate {TOKEN}\n")
        tokens.chmod(0o600)
        text = found.config.read_text()
        found.config.write_text(f"{text}control: {{tokens_file: {tokens}}}\n")
        yield found


TEMPLATES = """\
  pool:
    labels: pool
    retention: {idle: 1h}
"""


def is_done(made, number):
    return made.sim.items[number].fate is Fate.DONE


async def command(made, *arguments, token=None):
    """Run a command; return its exit code, and what it printed."""
    output = made.folder / "said.txt"
    env = {**os.environ, "TOKEN": stage.TOKEN}
    if token is not None:
        env["AGENT_BROKER_TOKEN"] = token
    with output.open("wb") as file:
        process = await forked.start(
            *arguments, "--config", str(made.config), output=file, cwd=made.folder, env=env
        )
        code = await process.wait()
    return code, output.read_text()


async def stands(made):
    _, text = await command(made, "orders", "--json")
    return [row["text"] for row in json.loads(text)["orders"]]


async def test_a_pause_holds_builds_up_over_a_restart_and_is_taken_back(made):
    """Its note stands at the build that it holds up; nothing is killed."""
    process = await ready(made)
    first = made.submit("pool", 3.0)
    await made.until(lambda: made.agents, "an agent at work")
    code, text = await command(
        made, "pause", "--template", "pool", "--note", "new kernel", "--for", "1h"
    )
    assert (code, text.strip()) == (
        0, "template pool is paused by alice for another 60 min: new kernel",
    )  # fmt: skip
    await made.until(lambda: is_done(made, first), "the end of the build that was running")
    ended = await made.stop(process)
    assert "ordered" in ended.said
    assert TOKEN not in ended.said
    process = await ready(made)
    assert await stands(made) == ["template pool is paused by alice: new kernel"]
    for name in list(made.agents):
        assert (await command(made, "retire", name))[0] == 0
    await made.until(lambda: not made.agents, "that the agents are gone")
    waiting = made.submit("pool")
    while "new kernel" not in (text := (await command(made, "status"))[1]):
        assert "Traceback" not in text
    assert not is_done(made, waiting)
    code, text = await command(made, "resume", "--template", "pool")
    assert (code, text.strip()) == (0, "template pool works again")
    await made.until(lambda: is_done(made, waiting), "its end")
    assert await stands(made) == []
    await made.stop(process)


async def test_what_is_refused_has_its_exit_code(made):
    """Not there: 3; no such token: 3; no sense: 2; no broker: 1."""
    assert (await command(made, "pause", "--note", "n"))[0] == 1
    process = await ready(made)
    code, text = await command(made, "pause", "--template", "other", "--note", "n")
    assert code == 3
    assert "there is no template 'other'" in text
    code, text = await command(made, "pause", "--note", "n", token="x" * 32)
    assert code == 3
    assert "nobody has this token" in text
    assert (await command(made, "pause"))[0] == 2
    code, text = await command(made, "prewarm", "pool", "many")
    assert code == 3
    assert "a number from 0 to 1000" in text
    assert (await command(made, "orders"))[1].strip() == "nothing stands"
    await made.stop(process)


@pytest.mark.parametrize("many", ["2"])
async def test_what_is_prewarmed_comes_without_a_build(made, many):
    """And goes again when it is taken back, by the rule for idle ones."""
    process = await ready(made)
    assert (await command(made, "prewarm", "pool", many, "--for", "1h"))[0] == 0
    await made.until(lambda: len(made.agents) == int(many), "warm agents")
    assert (await command(made, "drain", "--note", "over"))[0] == 0
    await made.until(lambda: not made.agents, "that all are gone")
    await made.stop(process)


async def test_a_reload_says_what_came_of_it(made):
    """In force, or a mistake that the command finds itself; there is nothing to try again."""
    process = await ready(made)
    assert (await command(made, "reload"))[1].strip() == "the configuration is in force"
    good = made.config.read_text()
    made.config.write_text(good.replace("idle: 1h}", "idle: soon}"))
    code, text = await command(made, "reload", "--note", "n")
    made.config.write_text(good)
    assert code == 2
    assert "idle" in text
    code, text = await command(made, "retry")
    assert code == 3
    assert "nothing of it is set aside" in text
    await made.stop(process)


async def test_a_held_agent_stays_until_it_is_let_back(made):
    """It is given no build meanwhile; who and why stand on its node."""
    process = await ready(made)
    first = made.submit("pool")
    await made.until(lambda: is_done(made, first), "a build")
    (name,) = made.agents
    code, text = await command(made, "hold", name, "--for", "1h", "--note", "a look")
    assert (code, text.strip()) == (
        0, f"agent {name} is held by alice for another 60 min: a look",
    )  # fmt: skip
    node = made.sim.nodes[name]
    await made.until(lambda: node.offline_message, "that it is out of service")
    assert node.offline_message.startswith("agent-broker holds it: for alice until ")
    second = made.submit("pool")
    await made.until(lambda: is_done(made, second), "a build elsewhere")
    assert len(made.agents) == 2
    assert (await command(made, "unhold", name))[0] == 0
    await made.until(lambda: node.offline_message is None, "that it is back")
    await made.stop(process)
