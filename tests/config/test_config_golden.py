"""Every class of mistake in a configuration has a file, and beside it what is said about it.

``UPDATE_GOLDEN=1 pytest tests/config/test_config_golden.py`` writes the messages anew, to be read.
"""

import json
import os
import pathlib

import pytest

from broker import config
from broker.cli import main as cli
from broker.config import kinds, loading
from tests.each import each

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "config"
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
ENVIRON = {"TOKEN": "11secret-of-the-test", "EMPTY": ""}


def two_kinds():
    """The two kinds that are always there, so that a new kind leaves the messages alone."""
    return {name: kinds.classes()[name] for name in ("memory", "process")}


def said(name: str) -> str:
    text = (FOLDER / f"{name}.yaml").read_text()
    with pytest.raises(config.ConfigError) as caught:
        loading.parse(text, two_kinds(), environ=ENVIRON, base=pathlib.Path("/nowhere"))
    return f"{caught.value}\n"


@each("name", CASES)
def test_the_mistake_is_told_as_agreed(name):
    """File, line, path, what was found, what is allowed, and a hint where there is one."""
    golden = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(said(name))
    assert golden.read_text() == said(name)


def test_there_are_enough_classes_of_mistakes():
    """A lost folder does not pass as success."""
    assert len(CASES) >= 30


@each("name", CASES)
def test_nothing_secret_is_quoted(name):
    """Neither what stands where a reference should be, nor a password in an address."""
    text = said(name)
    for secret in ("hunter2", "11aabbccddeeff", "12345678", ENVIRON["TOKEN"]):
        assert secret not in text


def test_the_command_ends_with_2_and_tells_programs_the_same(tmp_path, capsys):
    """check-config: text on standard error, with --json the problems on standard output."""
    path = tmp_path / "broker.yaml"
    path.write_text((FOLDER / "unknown-keys.yaml").read_text())
    assert cli.main(["check-config", "--config", str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["good"] is False
    lines = [
        f"agent-broker: {path}:{p['line']}: {p['setting']}: {p['text']}"
        + (f"; hint: {p['hint']}" * bool(p["hint"]))
        for p in told["problems"]
    ]
    assert err.splitlines() == lines
