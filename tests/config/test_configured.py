"""The configuration is read in a process of its own: what comes back is the same."""

import os
import pathlib
import pickle
import subprocess
import sys

import pytest

from backends import registry
from backends.kit import interpreter
from broker import config, configured
from jnlp import secret

WHOLE = """\
owner: o
controller: {url: "https://c.example/", user: u, token: "file:token", proxy: "env:PROXY"}
state_dir: state
backends:
  a: {kind: process}
  b: {kind: docker, hosts: [{url: "unix:///engine.sock"}]}
  c: {kind: kubernetes, namespace: agents, server: "https://k.example"}
  d: {kind: mesos, master: "http://m.example:5050", handover: {listen: ":1", url: "https://b"}}
  e: {kind: memory}
templates:
  t:
    labels: [x, y]
    image: i
    command: [c]
    warm: {min_idle: 1, schedule: {zone: Europe/Berlin, windows: [{days: mon-fri, from: "07:00", to: "19:00", min_idle: 3}]}}
    docker: {network: none}
    kubernetes: {pod: {spec: {nodeSelector: {disk: ssd}}}}
    mesos: {user: nobody, raw: {labels: {}}}
"""


@pytest.fixture
def whole(tmp_path, monkeypatch):
    path = tmp_path / "broker.yaml"
    path.write_text(WHOLE)
    (tmp_path / "token").write_text("of-the-file\n")
    monkeypatch.setenv("PROXY", "http://p:of-the-environment@proxy.example:3128")
    return path


def test_a_child_brings_back_what_is_read_here(whole):
    """Every kind of backend, with paths, schedules, raw sections and secrets."""
    here, apart = configured.load(whole), configured.load_apart(whole)

    assert {kind.name for kind in registry.KINDS.values()} == {
        entry.kind for entry in apart.backends.values()
    }
    assert here == apart
    assert ("of-the-file", "of-the-environment") == apart.secrets()


def test_a_child_whose_parent_has_ended_says_nothing(whole):
    """Its errors go where the broker logs, a JSON document on each line."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        done = subprocess.run(
            interpreter.command(configured._CHILD, str(whole)),
            stdout=nobody,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert (0, b"") == (done.returncode, done.stderr)


def test_a_child_brings_back_every_problem(whole):
    """For people and for programs, as if it were read here."""
    whole.write_text(WHOLE.replace("kind: mesos", "kind: mesoz").replace("owner: o", "owner: O"))
    with pytest.raises(config.ConfigError) as here:
        configured.load(whole)
    with pytest.raises(config.ConfigError) as apart:
        configured.load_apart(whole)

    assert len(here.value.documents()) >= 2
    assert here.value.documents() == apart.value.documents()
    assert str(here.value) == str(apart.value)


def test_a_file_that_is_not_there(tmp_path):
    """As for every other command."""
    with pytest.raises(config.ConfigError, match="no such file"):
        configured.load_apart(tmp_path / "absent")


def test_a_relative_path_starts_where_we_are(whole, monkeypatch):
    """The child works in the same directory."""
    monkeypatch.chdir(whole.parent)
    assert configured.load_apart(pathlib.Path(whole.name)) == configured.load(whole)


def test_a_child_that_dies_is_an_error_of_the_configuration(whole, tmp_path, monkeypatch):
    """Nobody who reads again while agents work sees another kind of error."""
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nkill -9 $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    with pytest.raises(config.ConfigError, match="ended with code -9"):
        configured.load_apart(whole)


def test_no_interpreter_to_read_it_with(whole, monkeypatch):
    """As above: said, not raised through."""
    monkeypatch.setattr(sys, "executable", "/absent/python")
    with pytest.raises(config.ConfigError, match="/absent/python"):
        configured.load_apart(whole)


def test_modules_of_the_working_directory_are_not_run(whole, monkeypatch):
    """The child looks for modules where we do, nowhere else."""
    (whole.parent / "yaml.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(whole.parent)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert configured.load_apart(whole).owner == "o"


def test_a_secret_is_still_written_nowhere_else():
    """Only the way to our parent takes it."""
    with pytest.raises(TypeError):
        pickle.dumps(secret.Secret("x"))
