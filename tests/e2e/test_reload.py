"""Another configuration for a broker at work: asked for or watched, good or bad, and said before."""

import json
import os
import signal

import aiohttp
import pytest

from broker import page_address, store
from tests import forked
from tests.e2e import stage

TEMPLATES = """\
  pool:
    labels: pool
    warm: {min_idle: 1}
    retention: {idle: 1h}
  long:
    labels: long
    retention: {idle: 1h}
"""


@pytest.fixture
async def made(tmp_path):
    """A stage whose broker has a page."""
    async with stage.Stage(tmp_path, templates=TEMPLATES) as found:
        found.listen = "127.0.0.1:0"
        found.write_config()
        yield found


def of(made, template):
    return {name for name in made.agents if f"-{template}-" in name}


async def until_idle(made, template):
    """Wait for one agent of a template that is online; return its name."""

    def online():
        return [n for n in of(made, template) if made.sim.nodes[n].online]

    await made.until(lambda: len(online()) == 1, f"one agent of {template}")
    return online()[0]


async def page(made, path):
    note = page_address.noted(store.ReadOnlyStore(made.state))
    async with aiohttp.ClientSession() as session, session.get(f"{note.url}{path}") as answer:
        return answer.status, await answer.text()


async def until_page(made, path, fits):
    """Ask until an answer fits; return it."""
    answers = [(0, "")]

    async def ask():
        answers.append(await page(made, path))
        return fits(answers[-1][1])

    patient = stage.patience.Patience(20.0)
    while not await ask():
        assert not patient.is_over(), (answers[-1], made.describe())
    return answers[-1]


async def diff(made):
    output = made.folder / "diff.json"
    with output.open("wb") as file:
        process = await forked.start(
            *("diff", "--json", "--config", str(made.config)), output=file, cwd=made.folder,
            env={**os.environ, "TOKEN": stage.TOKEN},
        )  # fmt: skip
        code = await process.wait()
    text = output.read_text()
    return code, json.loads(text[text.index("{") :]) if code == 0 else text


async def test_a_reload_replaces_idle_agents_and_lets_a_build_go_on(made):
    """``diff`` says it before; then the idle agent of the old definition goes, the busy one later."""
    broker = await made.start()
    idle = await until_idle(made, "pool")
    made.submit("long", duration_s=1e6)
    await made.until(
        lambda: any(item.started_at is not None for item in made.open), "the build runs"
    )
    (busy,) = of(made, "long")
    code, found = await diff(made)
    assert (0, False) == (code, found["differs"])

    made.write_config(
        templates=TEMPLATES.replace("labels: pool", "labels: pool other").replace(
            "labels: long", "labels: long other"
        )
    )
    code, found = await diff(made)
    assert 0 == code
    assert [
        {"name": name, "change": "changed", "settings": ["labels"], "retiring": 1}
        for name in ("pool", "long")
    ] == found["templates"]
    assert 2 == found["retiring"]
    assert ([], []) == (found["settings"], found["restart"])

    broker.send_signal(signal.SIGHUP)
    await made.until(lambda: idle not in made.agents, "the idle one is gone")
    assert busy in made.agents
    assert made.open
    node = made.sim.nodes[busy]
    (slot,) = node.slots
    made.sim._finish(slot.item, node, slot, made.watch.now())
    assert {"done": 1} == made.fates()
    await made.until(lambda: busy not in made.agents, "the other one goes after its build")
    await until_idle(made, "pool")
    assert 0 == (await made.stop(broker)).code


async def test_a_bad_configuration_is_said_everywhere_until_a_good_one_comes(made):
    """Probe, page, JSON, metric and log; the broker stays ready and serves by the old one."""
    broker = await made.start()
    agent = await until_idle(made, "pool")
    made.write_config(templates=TEMPLATES.replace("min_idle: 1", "min_idle: many"))
    assert 2 == (await diff(made))[0]
    broker.send_signal(signal.SIGHUP)
    status, words = await until_page(made, "readyz", lambda text: "refused" in text)
    assert (200, True) == (status, f"{made.config}:" in words), words
    assert "templates.pool.warm.min_idle: found 'many'" in words
    _, text = await until_page(made, "api/v1/plan", lambda text: "min_idle: found" in text)
    plan = json.loads(text)
    assert plan["ready"]
    assert plan["configuration_refused_at"] >= plan["configuration_at"]
    await until_page(made, "", lambda text: "one before it works" in text)
    await until_page(made, "metrics", lambda text: "configuration_refused 1.0" in text)
    assert "configuration not reloaded" in broker.said.read_text()
    assert {agent} == of(made, "pool")

    made.write_config(templates=TEMPLATES)
    broker.send_signal(signal.SIGHUP)
    status, words = await until_page(made, "readyz", lambda text: "refused" not in text)
    assert (200, "ok\n") == (status, words)
    await until_page(made, "metrics", lambda text: "configuration_refused 0.0" in text)
    assert {agent} == of(made, "pool"), "nothing has changed for it"
    assert 0 == (await made.stop(broker)).code


async def test_a_mounted_config_map_is_watched_where_it_is_asked_for(made):
    """A team's template comes with the swap of the links, without a signal."""
    folder = made.folder / "conf"
    folder.mkdir()
    made.config.write_text(f"watch_files: 1s\n{made.config.read_text()}")

    def mount(version, **texts):
        content = folder / f"..{version}"
        content.mkdir()
        for name, text in texts.items():
            (content / f"{name}.yaml").write_text(text)
            if not (folder / f"{name}.yaml").is_symlink():
                (folder / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
        (folder / "..tmp").symlink_to(content.name)
        os.replace(folder / "..tmp", folder / "..data")

    mount("1", broker=made.config.read_text(), team="templates: {}\n")
    broker = await made.start(config=folder)
    await until_idle(made, "pool")
    mount(
        "2",
        broker=made.config.read_text(),
        team="templates: {team-a: {labels: a, warm: {min_idle: 1}}}\n",
    )
    await until_idle(made, "team-a")
    assert 0 == (await made.stop(broker)).code
