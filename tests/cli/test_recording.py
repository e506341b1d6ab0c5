"""Record what a controller shows, and decide on it anew without that controller."""

import json
import os
import signal

import pytest

from broker import recording
from broker.cli import main as cli
from tests import forked, patience
from tests.cli.test_cli import ran
from tests.e2e import stage as stages


async def recorder(folder, *arguments):
    """Start a recording; it is ended by a signal, which only a process of its own can be sent."""
    return await forked.talking(
        *("record", "--every", "0.1", *arguments),
        cwd=folder,
        env={**os.environ, "TOKEN": stages.TOKEN},
    )


async def test_what_was_recorded_is_planned_elsewhere(tmp_path, monkeypatch):
    """The same orders, with the controller gone and no configuration there; nothing was made."""
    monkeypatch.setenv("TOKEN", stages.TOKEN)
    record = tmp_path / "seen.jsonl"
    async with stages.Stage(tmp_path) as stage:
        stage.submit("pool")
        stage.submit("nobody")
        before = set(stage.sim.nodes)
        process = await recorder(
            tmp_path, str(record), "--config", str(stage.config), "--seconds", "0.3"
        )
        words = (await patience.wait_for(process.communicate(), 60))[1].decode()
        assert 0 == process.returncode, words
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
    for told in (live, replayed):  # each with an agent of its own, ordered for the item
        (served,) = (w for w in told["waits"] if w["agent"] is not None)
        (order,) = told["actions"]
        assert (order["name"], order["item"], order["job"]) == (
            served["agent"], served["item"], served["job"],
        )  # fmt: skip
    apart = ("text", "job", "agent")
    assert [{**w, **dict.fromkeys(apart)} for w in live["waits"]] == [
        {**w, **dict.fromkeys(apart)} for w in replayed["waits"]
    ]


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        ([], "", "x.jsonl:1: the file is empty"),
        ([], "nonsense", "x.jsonl:1: not JSON"),
        ([], '{"format": "agent-broker-record", "version": 1}', "holds no world"),
        ([], '{"format": "agent-broker-record", "version": 1}\n{"kind"', "holds no world"),
        ([], '{"format": "agent-broker-record", "version": 1}\n{"kind"\n', "2: not JSON at"),
        ([], None, "there is no such file"),
        (["--number", "3"], None, "there is no such file"),
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


async def test_a_controller_that_does_not_answer_is_recorded_as_such(tmp_path):
    """From the first look on; Ctrl-C is how it ends, and leaves a file that can be replayed."""
    record, config = tmp_path / "seen.jsonl", tmp_path / "broker.yaml"
    config.write_text(
        "owner: o\ncontroller: {url: 'http://127.0.0.1:1/', user: u, token: 'env:TOKEN'}\n"
        "listen: off\ntemplates: {t: {labels: t, command: [x]}}\n"
    )
    process = await recorder(tmp_path, str(record))
    said = b""
    while b"3 looks: unreachable: " not in said:
        line = await patience.wait_for(process.stderr.readline(), 60)
        assert line, said
        said += line
    assert said.startswith(f"recording to {record}; Ctrl-C ends it\n1 look: ".encode())
    process.send_signal(signal.SIGINT)
    *_, last = (await patience.wait_for(process.communicate(), 60))[1].splitlines()
    assert (0, f"{record} is complete".encode()) == (process.returncode, last)
    worlds = [
        o
        for o in recording.read(record.read_text().splitlines())
        if isinstance(o, recording.RecordedWorld)
    ]
    assert len(worlds) >= 3
    assert {(False, True)} == {
        (w.world.controller.synced, "cannot connect" in w.world.controller.error) for w in worlds
    }
    code, replayed, words = await ran("plan", "--world", str(record))
    assert (0, True) == (code, "nothing is decided" in replayed), words


@pytest.mark.parametrize("command", ["record", "init"])
def test_a_new_file_that_cannot_be_made(tmp_path, capsys, monkeypatch, command):
    """Nothing is written over; it is said which folder is not there; a wrong configuration makes none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broker.yaml").write_text(
        "owner: o\ncontroller: {url: 'http://127.0.0.1:1/'}\nlisten: off\n"
        "templates: {t: {labels: t, command: [x]}}\n"
    )
    code = cli.main([command, "nowhere/x"])
    words = "agent-broker: nowhere/x: there is no folder nowhere; hint: make it\n"
    assert (2, words) == (code, capsys.readouterr().err)
    (tmp_path / "there").write_text("kept")
    code = cli.main([command, "there"])
    words = "agent-broker: there exists; hint: name another file\n"
    assert (3, words) == (code, capsys.readouterr().err)
    assert "kept" == (tmp_path / "there").read_text()
    (tmp_path / "broker.yaml").write_text("owner: o\n")
    assert (2, False) == (cli.main(["record", "x"]), (tmp_path / "x").exists())
