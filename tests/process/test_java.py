"""The doctor and the Java of this machine: missing, old, new enough, or none at all."""

import io
import time
import zipfile

import pytest

from backends import api
from backends.kit import finding
from backends.process import doctor, settings
from tests.process.test_fetch import Server, server  # noqa: F401 -- a fixture

SAYS = {
    "8": 'openjdk version "1.8.0_392"',
    "11": 'openjdk version "11.0.25" 2024-10-15',
    "17": 'openjdk version "17.0.15" 2025-04-15',
    "21": 'java version "21" 2023-09-19 LTS',
    "26": 'openjdk version "26-ea" 2026-03-17',
}
"""As they answer on their standard error."""


def jar(java, *, name="hudson/remoting/Launcher.class"):
    """An agent.jar whose first class was made for a Java."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as one:
        one.writestr(name, b"\xca\xfe\xba\xbe\0\0" + (java + 44).to_bytes(2) + b"rest")
    return packed.getvalue()


def java(folder, script):
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


async def found(folder, url, content, srv):
    """What is said of the Java of a template that is brought the jar."""
    srv.content = content
    order = api.InstanceSpec(
        name="x", metadata={}, argv=("java", "-jar", "x"),
        files=(api.RemoteFile(url=url, name="agent.jar"),),
    )  # fmt: skip
    told = settings.ProcessSettings(path=f"{folder}:/usr/bin:/bin")
    orders = {"t": order, "u": order}
    rows = [
        row async for row in doctor.examine(told, owner="o", orders=orders, now=time.time)
    ]  # fmt: skip
    said = [row for row in rows if row.check == "java" and "-version" not in row.hint]
    return said[-1]


@pytest.mark.parametrize(
    ("has", "needs", "grade", "words"),
    [
        ("8", 17, "FAIL", "is Java 8, the controller's agent.jar needs 17 or later"),
        ("11", 17, "FAIL", "is Java 11, the controller's agent.jar needs 17 or later"),
        ("17", 21, "FAIL", "is Java 17, the controller's agent.jar needs 21 or later"),
        ("17", 17, "ok", "is Java 17, 17 is needed"),
        ("21", 17, "ok", "is Java 21, 17 is needed"),
        ("26", 21, "ok", "is Java 26, 21 is needed"),
        ("8", 8, "ok", "is Java 8, 8 is needed"),
    ],
)
async def test_a_java_is_old_if_the_jar_was_made_for_a_newer_one(
    tmp_path, server: Server, has, needs, grade, words  # noqa: F811 -- the fixture
):  # fmt: skip
    """By its own word, and by the format of the jar's first class: no table of versions."""
    java(tmp_path, f"echo '{SAYS[has]}' >&2")
    row = await found(tmp_path, server.url, jar(needs), server)
    assert (grade, f"{tmp_path}/java {words}") == (row.verdict.value, row.text)
    assert row.fault == ("configuration" if grade == "FAIL" else "")
    assert grade == "ok" or "newer" in row.hint


@pytest.mark.parametrize(
    "content", [b"PK jar", jar(17, name="other.class"), jar(17)[:-30], b"PK\3\4" + b"\0" * 90]
)
async def test_a_jar_that_does_not_tell_asks_for_nothing(tmp_path, server: Server, content):  # noqa: F811
    """Which Java there is is said all the same."""
    java(tmp_path, f"echo '{SAYS['11']}' >&2")
    row = await found(tmp_path, server.url, content, server)
    assert ("ok", f"{tmp_path}/java is Java 11") == (row.verdict.value, row.text)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo gcj 4; exit 3", "says no version of a Java, but: gcj 4"),
        ("true", "says no version of a Java, but: nothing"),
        ("yes xxxxxxxxxxxxxxxxxxxxx", "says no version of a Java, but: xxxx"),
        ("printf '\\033[2J\\0'", "says no version of a Java, but: \ufffd[2J"),
    ],
)
async def test_what_is_no_java_is_called_so(tmp_path, server: Server, script, words):  # noqa: F811
    """Whatever it writes; one without end is not read to the end."""
    java(tmp_path, script)
    row = await found(tmp_path, server.url, jar(17), server)
    assert row.verdict is finding.Grade.WARN
    assert words in row.text


async def test_one_that_never_answers_is_not_waited_for(tmp_path, server: Server, monkeypatch):  # noqa: F811
    """It is ended, and said."""
    monkeypatch.setattr(doctor, "_VERSION_S", 0.2)
    java(tmp_path, "exec sleep 1000")
    row = await found(tmp_path, server.url, jar(17), server)
    assert row.verdict is finding.Grade.WARN
    assert "does not tell its version" in row.text


async def test_one_that_cannot_be_started_is_said(tmp_path, server: Server):  # noqa: F811
    """A file for another machine, an interpreter that is not there."""
    program = tmp_path / "java"
    program.write_text("#!/nowhere/sh\n")
    program.chmod(0o755)
    row = await found(tmp_path, server.url, jar(17), server)
    assert row.verdict is finding.Grade.FAIL
    assert "cannot be started: No such file" in row.text


@pytest.mark.parametrize(
    ("content", "grade", "words"),
    [
        (b"PK" + bytes(20), "FAIL", "is not a jar, or not all of one"),
        (jar(17)[:-30], "FAIL", "is not a jar, or not all of one"),
        (b"<html>login", "FAIL", "is not a jar, or not all of one"),
        (jar(17, name="other.class"), "warn", "has no hudson/remoting/Launcher.class"),
        (jar(17), "ok", "bytes from"),
    ],
)
async def test_a_jar_that_cannot_be_started_is_said_to_be_so(
    tmp_path, server: Server, content, grade, words  # noqa: F811 -- the fixture
):  # fmt: skip
    """Its first two bytes say nothing of the rest."""
    server.content = content
    order = api.InstanceSpec(
        name="x", metadata={}, argv=("java", "-jar", "x"),
        files=(api.RemoteFile(url=server.url, name="agent.jar"),),
    )  # fmt: skip
    told = settings.ProcessSettings(path=str(tmp_path))
    rows = [r async for r in doctor.examine(told, owner="o", orders={"t": order}, now=time.time)]
    (row,) = (row for row in rows if row.check == "agent.jar")
    assert row.verdict.value == grade
    assert words in row.text
    assert bool(row.fault) == (grade != "ok")
