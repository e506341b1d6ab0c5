"""Whole commands, at a controller that sends the worst texts, or back what it got."""

import json

import pytest

from broker.cli import main as cli
from tests import echo
from tests.loop import test_hostile_controller as hostile

TOKEN = "11f3a9c27e5b8d604412ab90ce77d1f0e3"
CONFIG = """\
owner: o
controller: {{url: "{url}", user: someone, token: "env:TOKEN", timeout: 5s}}
state_dir: {folder}/state
listen: "off"
backends: {{local: {{kind: process, directory: {folder}/instances, cap: 5}}}}
templates: {{maven: {{labels: maven linux}}}}
"""
WORST = [*hostile.ODD, "x" * 1_000_000, "\u2066\u200b\ufeff", "\x9b31m" * 1000, "!" * 100_000]


def answers():
    """Every odd value at each place of an item and of an agent of ours, and all around them."""
    queue, computers = hostile.answers()
    item, agent = queue["items"][0], hostile.marked("o-maven-a")
    odd_items, odd_agents = [], []
    for number, odd in enumerate(WORST):
        shown = [{key: odd} for key in item] + [{"why": odd, "task": {"name": odd, "url": odd}}]
        for place, change in enumerate(shown):
            odd_items.append({**item, "id": 1000 * (number + 1) + place, **change})
        for key in agent:
            odd_agents.append({**agent, "displayName": f"o-maven-{number}-{key}", key: odd})
    # of a megabyte only a few: together they would be refused for their size
    queue["items"] += fitting(odd_items)
    computers["computer"] += fitting(odd_agents)
    return queue, computers


def fitting(entries):
    large = [one for one in entries if len(json.dumps(one)) > 50_000]
    return [one for one in entries if one not in large] + large[:2]


def first(queue, computers):
    def answer(request):
        path = request.target.partition("?")[0]
        for end, told in (("queue/api/json", queue), ("computer/api/json", computers)):
            if path.endswith(end):
                return echo.reply(told, "X-Jenkins: 2.541.3", "X-Jenkins-Session: s")
        return None

    return answer


def ran(folder, url, capsys, monkeypatch, *command):
    """Run a command; return its code, what it printed, and what it complained of."""
    monkeypatch.setenv("TOKEN", TOKEN)
    path = folder / "broker.yaml"
    path.write_text(CONFIG.format(url=url, folder=folder))
    code = cli.main([*command, "--config", str(path)])
    return code, *capsys.readouterr()


def is_clean(text):
    return all(line.isprintable() and len(line) < 5000 for line in text.split("\n"))


@pytest.mark.parametrize("command", ["plan", "plan --json", "doctor", "doctor --json"])
def test_the_worst_texts(tmp_path, capsys, monkeypatch, command):
    """Of each item and agent one clean line, and what is served is served."""
    with echo.serving("page 500", first=first(*answers())) as controller:
        code, told, said = ran(tmp_path, controller.url, capsys, monkeypatch, *command.split())
    assert code == (0 if "plan" in command else 1), said
    assert is_clean(told + said)
    assert "Traceback" not in told + said
    assert echo.found(TOKEN, told + said) == []
    assert controller.was_sent(TOKEN)
    if command.endswith("--json"):
        json.loads(told)
    if command == "plan":
        assert "o-maven-" in told


@pytest.mark.parametrize("command", ["plan", "sweep", "doctor"])
@pytest.mark.parametrize(
    "way",
    [
        "page 500",
        "x-error",
        "page 200",
        "no http",
    ],
)
def test_a_controller_that_sends_back_what_it_got(tmp_path, capsys, monkeypatch, way, command):
    """One line that says where it failed, the code for a failure, and no secret."""
    with echo.serving(way) as controller:
        code, told, said = ran(tmp_path, controller.url, capsys, monkeypatch, command)
    assert code == 1
    assert is_clean(told + said)
    assert echo.found(TOKEN, told + said) == []
    assert controller.was_sent(TOKEN)
    assert len(said.splitlines()) == 1
