"""``--version``: the commit where somebody wrote it down, and nothing where nobody did."""

import os
import pathlib
import subprocess
import sys

import pytest

import broker
from broker.cli import main as cli
from broker.cli import version

ROOT = pathlib.Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git(*words, cwd):
    made = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=cwd, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return made.stdout.strip()


@pytest.mark.parametrize(
    ("text", "commit"),
    [(f"{COMMIT}\n", COMMIT), ("", ""), ("unknown", ""), ("ABC\n", ""), ("é", "")],
)
def test_what_the_build_wrote_counts(tmp_path, text, commit):
    """Only if it looks like a commit."""
    (tmp_path / "COMMIT").write_text(text)
    assert commit == version.of_build(tmp_path)


def test_a_checkout_is_asked_only_at_its_top(tmp_path):
    """A repository around the environment that we are installed in is somebody else's."""
    git("init", "-q", cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "m", cwd=tmp_path)
    assert "" == version.of_checkout(tmp_path), "no project of Python"
    (tmp_path / "pyproject.toml").touch()
    assert git("rev-parse", "HEAD", cwd=tmp_path) == version.of_checkout(tmp_path)
    inside = tmp_path / ".venv" / "lib"
    inside.mkdir(parents=True)
    (inside / "pyproject.toml").touch()
    assert "" == version.of_checkout(inside)


def test_the_command_says_it_in_one_line(monkeypatch, capsys):
    """Version and commit; the version alone without one."""
    monkeypatch.setattr(version, "of_build", lambda _: COMMIT)
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert 0 == ended.value.code
    assert f"agent-broker {broker.__version__} (0123456789ab)\n" == capsys.readouterr().out
    for name in ("of_build", "of_checkout"):
        monkeypatch.setattr(version, name, lambda _: "")
    monkeypatch.setattr(version, "of_install", lambda: "")
    assert broker.__version__ == version.words()


@pytest.mark.parametrize(
    ("told", "commit"),
    [(COMMIT, COMMIT), ("; rm -r /", None), ("", None)],
    ids=["told", "odd", "none"],
)
def test_a_build_writes_what_it_knows(tmp_path, told, commit):
    """Without a repository by the variable; nothing where nobody knows."""
    sources = tmp_path / "sources"
    (sources / "broker").mkdir(parents=True)
    (sources / "broker" / "__init__.py").write_text('__version__ = "0"\n')
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (sources / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "built")],
        cwd=sources, check=True, capture_output=True, text=True,
        env={**os.environ, "AGENT_BROKER_COMMIT": told},
    )  # fmt: skip
    written = tmp_path / "built" / "broker" / "COMMIT"
    assert commit == (written.read_text().strip() if written.exists() else None)
