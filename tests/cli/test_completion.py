"""Completion in real shells: what the parser takes is offered, where it belongs."""

import argparse
import pathlib
import stat
import subprocess
import sys

import pytest

from broker.cli import completion
from broker.cli import main as cli
from tests import patience, programs

NAMES = "o-linux-aaaaaa\no-maven-bbbbbb\n"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The script of each shell, and a program of that name that knows two agents."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in completion.NAMES:
        (folder / shell).write_text(completion.script(shell, cli.parser()))
    program = folder / "agent-broker"
    program.write_text(
        f"#!/bin/sh\n[ \"$1 $2\" = 'status --names' ] && printf '{NAMES}'\nexit 0\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "broker.yaml").write_text("")
    (folder / "two words.yaml").write_text("")
    return folder


def run(folder, shell, *arguments):
    ended = subprocess.run(
        [shell, *arguments], capture_output=True, text=True, check=False, cwd=folder,
        timeout=patience.seconds(30),
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert "" == ended.stderr
    return ended.stdout.splitlines()


def in_bash(folder, *words):
    program = programs.need("bash")
    line = " ".join(f"'{word}'" for word in words)
    ask = (
        f"source ./bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        "_agent_broker; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return run(folder, program, "--norc", "-c", ask)


def commands():
    (subs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return list(subs.choices)


def test_bash_offers_every_command(scripts):
    """And the options of all."""
    offered = in_bash(scripts, "agent-broker", "")
    assert [*commands(), "-h", "--help", "--version"] == offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("rec",), ["record"]),
        (("demo", "--b"), ["--backend"]),
        (("demo", "--backend", ""), ["process", "docker"]),
        (("demo", "--backend", "=", "d"), ["docker"]),
        (("demo", "--backend", "docker", "--st"), ["--stay"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("hook", ""), ["print", "install", "remove"]),
        (("hook", "print", "--w"), ["--with-key"]),
        (("hook", "install", "--config", "broker"), ["broker.yaml"]),
        (("check-config", "--config", "broker"), ["broker.yaml"]),
        (("check-config", "-c", "two"), ["two words.yaml"]),
        (("-c", "x"), []),
        (("import", "br"), ["broker.yaml"]),
        (("import", "broker.yaml", "br"), []),
        (("describe", ""), NAMES.split()),
        (("logs", "-f", "o-m"), ["o-maven-bbbbbb"]),
        (("logs", "--tail", ""), []),
        (("logs", "--tail", "5", "o-l"), ["o-linux-aaaaaa"]),
        (("run", "--drain", "--con"), ["--config"]),
        (("nonsense", ""), []),
    ],
)
def test_bash_offers_what_can_stand_there(scripts, words, offered):
    """Values of the option before it, positionals by their number, options of this command."""
    given = [one for one in in_bash(scripts, "agent-broker", *words) if one]
    assert offered == given


def test_fish_offers_the_same(scripts):
    """By its own door for tests."""
    program = programs.need("fish")

    def offers(line):
        asked = run(scripts, program, "-N", "-c", f"source ./fish; complete -C '{line}'")
        return [one.partition("\t")[0] for one in asked]

    assert set(commands()) == set(offers("agent-broker "))
    assert {"process", "docker"} == set(offers("agent-broker demo --backend "))
    assert NAMES.split() == offers("agent-broker describe ")
    assert ["bash", "fish", "zsh"] == sorted(offers("agent-broker completion "))
    assert "broker.yaml" in offers("agent-broker check-config --config br")
    assert "--stay" in offers("agent-broker demo --")
    assert "--stay" not in offers("agent-broker run --")


ZSH = """
import os, pty, select, sys
pid, handle = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], ["zsh", "-f", "-i"])
seen = b""
def until(words):
    global seen
    while words not in seen:
        ready, _, _ = select.select([handle], [], [], 20)
        assert ready, seen
        seen += os.read(handle, 65536)
    seen = seen.partition(words)[2]
os.write(handle, b"PS1='rea''dy> '; unsetopt zle_bracketed_paste prompt_sp; LISTMAX=999\\n")
until(b"ready> ")
os.write(handle, b"autoload -Uz compinit; compinit -u -D; source ./zsh; echo lo''aded\\n")
until(b"loaded")
until(b"ready> ")
os.write(handle, sys.argv[2].encode() + b"\\t")
until(sys.argv[3].encode())
os.kill(pid, 9)
"""


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("agent-broker check-c", "onfig"),
        ("agent-broker demo --backend do", "cker"),
        ("agent-broker describe o-m", "aven-bbbbbb"),
        ("agent-broker check-config --config bro", "ker.yaml"),
    ],
)
def test_zsh_offers_the_same(scripts, line, becomes):
    """As a person meets it: a key pressed in a terminal."""
    program = programs.need("zsh")
    assert [] == run(scripts, sys.executable, "-c", ZSH, program, line, becomes)


@pytest.mark.parametrize("shell", completion.NAMES)
def test_the_command_prints_the_script(shell, capsys):
    """Of this very version, as a shell reads it."""
    assert 0 == cli.main(["completion", shell])
    text = capsys.readouterr().out
    assert text == completion.script(shell, cli.parser())
    assert all(name in text for name in commands())


def test_an_option_of_every_kind_is_known():
    """No flag of the parser is missing in any script."""
    flags = {
        flag
        for parser in (cli.parser(), *_parsers())
        for action in parser._actions
        for flag in action.option_strings
    }
    for shell in completion.NAMES:
        text = completion.script(shell, cli.parser())
        for flag in flags:
            name = flag.lstrip("-") if shell == "fish" else flag
            assert name in text, (shell, flag)


def _parsers():
    (subs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return subs.choices.values()


def test_the_metavars_that_mean_a_file_do():
    """What takes a path is completed by files, and nothing else is."""
    for parser in _parsers():
        for action in parser._actions:
            if action.nargs == 0 or not isinstance(action.metavar, str):
                continue
            is_path = action.type is pathlib.Path
            assert is_path == (action.metavar in {"FILE", "PATH"}), action
