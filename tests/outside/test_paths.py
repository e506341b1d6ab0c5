"""What lies at a path: there, surely not there, or not to be known."""

import ast
import os
import pathlib

import pytest

from outside import paths

ROOT = pathlib.Path(__file__).parents[2]
ODD = {"exists", "is_dir", "is_file", "is_fifo", "is_socket", "is_mount"}


def test_what_is_there_and_what_is_not(tmp_path):
    """A link that leads nowhere or in a circle is nothing, and what lies below a file neither."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    told = {
        name: (paths.exists(tmp_path / name), paths.is_directory(tmp_path / name),
               paths.is_regular(tmp_path / name), paths.is_missing(tmp_path / name))
        for name in ("file", "link", "circle", "nothing", "file/below")
    }  # fmt: skip
    assert told == {
        "file": (True, False, True, False),
        "link": (True, True, False, False),
        "circle": (False, False, False, True),
        "nothing": (False, False, False, True),
        "file/below": (False, False, False, True),
    }


def test_what_cannot_be_looked_at_is_not_taken_for_nothing(tmp_path, monkeypatch):
    """Else an instance in a folder that was closed would be taken for gone."""

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", refused)  # root may look everywhere
    for look in (paths.exists, paths.is_directory, paths.is_regular):
        with pytest.raises(PermissionError):
            look(tmp_path)
    assert not paths.is_missing(tmp_path)


def test_nobody_asks_in_the_way_that_differs():
    """From Python 3.14 on these say False for what they may not look at."""
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("backends", "broker", "jnlp", "outside")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ODD
        and not node.keywords  # what a scan of a folder has found is asked with one
        and ast.unparse(node.func.value) not in {"paths", "os.path"}  # alike everywhere
    }
    assert set() == found, "use outside/paths.py"
