"""The command line: helps, exit codes, what is printed for people and for programs."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import pytest

from broker import cli
from broker.status import Server, documents, terminal
from tests import patience
from tests.unit import status_source

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "cli"
CONFIG = """\
owner: o
controller: {url: "http://127.0.0.1:1/"}
listen: "off"
templates:
  linux: {labels: linux shell}
  gpu: {labels: [linux, gpu], cap: 1}
  any: {labels: any, mode: normal, takes_unlabelled: true}
"""


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "broker.yaml"
    made.write_text(CONFIG + f"state_dir: {tmp_path}/state\n")
    return str(made)


def golden(name, text):
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert file.read_text() == text


def commands():
    (subs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return subs.choices


def test_the_helps_are_as_agreed(monkeypatch):
    """One file with all of them, as on a terminal of 80 columns with colours, on every Python."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    texts = [cli.parser().format_help(), *(made.format_help() for made in commands().values())]
    golden("help.txt", "\n".join(texts))


def test_whatever_lists_something_has_json():
    """``run``, ``init``, ``schema`` and ``render`` list nothing, or are for programs already."""
    without = {name for name, made in commands().items() if "--json" not in made.format_help()}
    assert without == {"run", "init", "schema", "render"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "COMMAND"),
        (["fly"], 2, "invalid choice"),
        (["run", "--config"], 2, "expected one argument"),
        (["--version"], 0, ""),
        (["plan", "--help"], 0, ""),
    ],
)
def test_arguments_that_cannot_be(capsys, arguments, code, words):
    """argparse ends with 2 and says what it wants."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert code == ended.value.code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check-config"], 0, ""),
        (["explain", "linux"], 0, ""),
        (["explain", "linux &&"], 2, "label 'linux &&'"),
        (["plan"], 1, "controller: unreachable"),
        (["sweep"], 1, "controller: unreachable"),
        (["status"], 2, "listen is off"),
        (["status", "--url", "http://127.0.0.1:1"], 1, "no broker answers at http://127.0.0.1:1"),
        (["status", "--url", "nonsense"], 1, "no broker answers"),
        (["doctor"], 1, "checks failed"),
    ],
)
def test_exit_codes(capsys, path, arguments, code, words):
    """0 done, 1 the outside did not play along, 2 the input is wrong; one line, no traceback."""
    assert code == cli.main([*arguments, "--config", path])
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == (code != 0)


def test_a_state_directory_that_cannot_be_is_wrong_input(tmp_path, capsys):
    """Said before anything is started."""
    (tmp_path / "file").write_text("")
    made = tmp_path / "broker.yaml"
    made.write_text(CONFIG + f"state_dir: {tmp_path}/file/state\n")
    assert cli.main(["run", "--config", str(made)]) == 2
    assert "state_dir" in capsys.readouterr().err.splitlines()[-1]


def test_explain_says_who_serves_and_what_the_others_lack(path, capsys):
    """In order of preference, for people and for programs."""
    assert cli.main(["explain", "linux && gpu", "--config", path]) == 0
    assert capsys.readouterr().out == (
        "template  serves  why\n"
        "linux     no      has linux, shell, does not have gpu\n"
        "gpu       yes     has gpu, linux\n"
        "any       no      has any, does not have gpu, linux\n"
    )
    assert cli.main(["explain", "", "--config", path, "--json"]) == 0
    assert [a["template"] for a in json.loads(capsys.readouterr().out) if a["serves"]] == ["any"]


def test_check_config_tells_programs_what_is_configured(path, capsys, monkeypatch):
    """Templates, kinds of backends and warnings."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["check-config", "--config", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["templates"] == ["linux", "gpu", "any"]
    assert told["backends"] == {"local": "process"}
    assert told["warnings"] == ["controller.user: missing: the broker works as anonymous"]


def test_the_schema_is_printed(capsys):
    """As JSON, for an editor."""
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["owner"]["type"] == "string"


def test_a_reader_that_goes_away_is_no_error():
    """``agent-broker schema | head -1``."""
    first = subprocess.run(
        f"{sys.executable} -m broker schema | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (first.returncode, first.stdout, first.stderr) == (0, "{\n", "")


# --- status ---


def told(source):
    return {
        name: getattr(documents, name)(source) for name in ("plan", "queue", "templates", "agents")
    }


def test_status_for_people():
    """What waits, what is held back, what died, which agents there are."""
    golden("status.txt", terminal.render(told(status_source.full())) + "\n")


def test_status_before_the_first_look():
    """Says that nothing is known, without failing."""
    text = terminal.render(
        told(status_source.FixedSource(is_ready=(False, "nothing was read yet")))
    )
    assert text.startswith("owner o, NOT READY: nothing was read yet, read ? ago")


def test_a_remote_text_cannot_steer_the_terminal():
    """No escape sequence, no line break, no change of direction."""
    text = terminal.render(told(status_source.full("\x1b[2J\x1b]0;x\x07\r\n\u202e\x9b31m")))
    assert not [c for c in text if c != "\n" and not c.isprintable()]
    assert len(text.splitlines()) == len(terminal.render(told(status_source.full())).splitlines())


async def test_status_asks_the_running_broker(path):
    """Over HTTP, as from anywhere; with --json all four documents."""
    source = status_source.full()
    server = Server(source, metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    import asyncio

    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "broker",
            "status",
            "--url",
            url,
            "--json",
            stdout=subprocess.PIPE,
        )
        out, _ = await patience.wait_for(process.communicate(), 30)
    finally:
        await server.aclose()
    assert process.returncode == 0
    assert json.loads(out) == json.loads(json.dumps(told(source)))
