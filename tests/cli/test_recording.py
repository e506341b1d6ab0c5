"""Record what a controller shows, and decide on it anew without that controller."""

import json

import pytest

from broker import recording
from tests.cli.test_cli import ran
from tests.e2e import stage as stages


async def test_what_was_recorded_is_planned_elsewhere(tmp_path, monkeypatch):
    """The same orders, with the controller gone and no configuration there; nothing was made."""
    monkeypatch.setenv("TOKEN", stages.TOKEN)
    record = tmp_path / "seen.jsonl"
    async with stages.Stage(tmp_path) as stage:
        stage.submit("pool")
        stage.submit("nobody")
        before = set(stage.sim.nodes)
        code, _, words = await ran("record", str(record), "--config", str(stage.config), "--seconds", "0.3",
            "--every", "0.1",
        )  # fmt: skip
        assert code == 0, words
        code, live, words = await ran("plan", "--json", "--config", str(stage.config))
        assert code == 0, words
        assert before == set(stage.sim.nodes)
    assert record.stat().st_mode & 0o777 == 0o600
    text = record.read_text()
    assert not [word for word in (stages.TOKEN, "job-pool", "job-nobody") if word in text]
    kinds = [type(one) for one in recording.read(text.splitlines())]
    assert 2 == kinds.count(recording.Arrival)
    assert kinds.count(recording.RecordedWorld) >= 1
    code, replayed, words = await ran("plan", "--world", str(record), "--json")
    assert code == 0, words
    live, replayed = json.loads(live), json.loads(replayed)
    assert [a["verb"] for a in live["actions"]] == ["launch"]
    assert [(a["verb"], a["reason"]) for a in replayed["actions"]] == [
        (a["verb"], a["reason"]) for a in live["actions"]
    ]
    assert replayed["waits"] == [
        {**w, "text": r["text"]} for w, r in zip(live["waits"], replayed["waits"], strict=True)
    ]
    code, _, words = await ran("record", str(record), "--config", str(stage.config))
    assert (3, f"agent-broker: {record} exists; hint: name another file\n") == (code, words)


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        ([], "", "x.jsonl:1: the file is empty"),
        ([], "nonsense", "x.jsonl:1: not JSON"),
        ([], '{"format": "agent-broker-record", "version": 1}', "holds no world"),
        ([], None, "No such file"),
        (["--number", "3"], None, "No such file"),
    ],
)
async def test_what_cannot_be_replayed_is_wrong_input(tmp_path, arguments, text, words):
    """Code 2 and one line with file and line."""
    file = tmp_path / "x.jsonl"
    if text is not None:
        file.write_text(text)
    code, _, said = await ran("plan", "--world", str(file), *arguments)
    assert code == 2
    assert words in said
    assert 1 == len(said.splitlines())


async def test_a_number_needs_a_file(tmp_path):
    """It is of the file's worlds."""
    code, _, said = await ran("plan", "--number", "1")
    assert (2, True) == (code, "--world FILE" in said)
