"""Whether the program and the files that an agent needs can be had, asked just as a launch asks.

The files into an empty directory of its own, so that no copy of an earlier day answers in the
server's place. A Java is asked for its version, and the jar for the one that it needs. Refuses to
keep anything, and to start an agent.
"""

import asyncio
import contextlib
import io
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping

from backends import api
from backends.kit import finding
from backends.process import fetch, settings
from outside import counts, text

_JAR = b"PK"
_PROGRAM_HINT = (
    "install it (agents need Java), or say where it is: `java` or `command` of the template, "
    "`path` of the backend"
)
_OLD_HINT = (
    "install a newer one on this machine, or say where it is: `java` of the template, `path` of "
    "the backend"
)
_HINT = (
    "controller.agent_url, ca_file and proxy, or the backend's own ca_file; "
    "no login page in front of it"
)
_LAUNCHER = "hudson/remoting/Launcher.class"
"""The first class of agent.jar that a Java loads."""
_FIRST_FORMAT = 44
"""A class file's format is that of the Java it was made for, and this."""
_VERSION = re.compile(r'version "(?:1\.)?([0-9]{1,4})')
_VERSION_S = 20.0
_VERSION_BYTES = 4096


async def examine(
    configured: settings.ProcessSettings,
    *,
    owner: str,  # noqa: ARG001 -- the shape of all examiners
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],  # noqa: ARG001 -- likewise
) -> AsyncIterator[finding.Finding]:
    """Yield one finding for each program and each file; ``orders`` by template."""
    called = {name: _called(configured, order) for name, order in orders.items()}
    for program, path in dict.fromkeys(called.values()):
        if _is_told(program, path):
            yield _program(program, path)
    needed: dict[api.RemoteFile, int | None] = {}
    wanted = dict.fromkeys(file for order in orders.values() for file in order.files)
    with tempfile.TemporaryDirectory(prefix="agent-broker-doctor-") as folder:
        cache = fetch.FileCache(pathlib.Path(folder), configured)
        try:
            for file in wanted:
                yield await _fetched(cache, file, needed)
        finally:
            await cache.aclose()
    javas: dict[tuple[str, str], int] = {}
    for name, order in orders.items():
        if order.files and _is_told(*called[name]):  # who brings no jar brings what it needs
            least = max(needed.get(file) or 0 for file in order.files)
            javas[called[name]] = max(least, javas.get(called[name], 0))
    for (program, path), least in javas.items():
        found = shutil.which(program, path=path)
        if found is not None:
            yield await _java(found, path, least)


def _called(told: settings.ProcessSettings, order: api.InstanceSpec) -> tuple[str, str]:
    """Return what is executed, and the PATH by which the supervisor finds it."""
    path = os.environ.get("PATH", os.defpath) if told.path is None else told.path
    return (order.argv[0] if order.argv else "", order.env.get("PATH", path))


def _is_told(program: str, path: str) -> bool:
    """Tell whether it can be looked for before there is an instance with a directory."""
    relative = os.sep in program and not program.startswith(os.sep)
    return bool(program) and not relative and "${" not in program + path


def _program(program: str, path: str) -> finding.Finding:
    found = shutil.which(program, path=path)
    if found is not None:
        return finding.ok(program, "is there" if found == program else f"found at {found}")
    where = "" if os.sep in program else f" in PATH {path}"
    return finding.fail(program, f"no such program{where}", _PROGRAM_HINT, fault="configuration")


async def _java(found: str, path: str, least: int) -> finding.Finding:
    """Say whether a Java is new enough for the jar; ``least`` 0: what that needs is not known."""
    try:
        said = await asyncio.to_thread(_said_by, found, path)
    except TimeoutError:
        return finding.warn("java", f"{found} does not tell its version in {_VERSION_S:.0f} s")
    except OSError as error:
        return finding.fail(
            "java",
            f"{found} cannot be started: {error.strerror}",
            _OLD_HINT,
            fault="configuration",
        )
    version = _VERSION.search(said)
    if version is None:
        words = text.clean(said, 128) or "nothing"
        return finding.warn(
            "java", f"{found} -version says no version of a Java, but: {words}", _PROGRAM_HINT
        )
    has = int(version[1])
    if has < least:
        return finding.fail(
            "java",
            f"{found} is Java {has}, the controller's agent.jar needs {least} or later",
            _OLD_HINT,
            fault="configuration",
        )
    return finding.ok("java", f"{found} is Java {has}" + (f", {least} is needed" if least else ""))


def _said_by(found: str, path: str) -> str:
    """Return what a Java says of itself, at most so much. Raises OSError, TimeoutError."""
    late = threading.Event()
    with subprocess.Popen(  # noqa: S603 -- what a launch would start, without a shell
        [found, "-version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": path, "LANG": "C.UTF-8"},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 -- a pipe was asked for; this is for mypy

        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        def give_up() -> None:
            late.set()
            end()

        timer = threading.Timer(_VERSION_S, give_up)
        timer.start()
        try:
            said = process.stdout.read(_VERSION_BYTES)
        finally:
            timer.cancel()
            end()
    if late.is_set():
        raise TimeoutError
    return said.decode("utf-8", "replace")


def _names_of(jar: bytes) -> frozenset[str] | None:
    """Return what is in a jar; None if it is not one that can be read to its end."""
    if not jar.startswith(_JAR):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(jar)) as packed:
            return frozenset(packed.namelist())
    except (ValueError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        return None


def _java_of(jar: bytes) -> int | None:
    """Return which Java a jar needs, by the format of its first class; None if it cannot tell."""
    try:
        with zipfile.ZipFile(io.BytesIO(jar)) as packed, packed.open(_LAUNCHER) as first:
            head = first.read(8)
    except (KeyError, ValueError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        return None
    if len(head) < 8 or not head.startswith(b"\xca\xfe\xba\xbe"):
        return None
    return int.from_bytes(head[6:8]) - _FIRST_FORMAT


async def _fetched(
    cache: fetch.FileCache, file: api.RemoteFile, needed: dict[api.RemoteFile, int | None]
) -> finding.Finding:
    try:
        path = await cache.get(file.url, file.route)
        data = path.read_bytes()
    except api.BackendError as error:
        return finding.fail(file.name, error.reason, _HINT, fault=error.fault)
    except OSError as error:
        return finding.fail(file.name, f"cannot be kept: {error.strerror}")
    names = _names_of(data)
    if names is None:
        words = f"what {file.url[:96]} sends is not a jar, or not all of one"
        return finding.fail(file.name, words, _HINT, fault="controller")
    if _LAUNCHER not in names:
        words = f"the jar that {file.url[:96]} sends has no {_LAUNCHER}: Java cannot start it"
        return finding.warn(file.name, words, _HINT, fault="controller")
    needed[file] = _java_of(data)
    return finding.ok(file.name, f"{counts.told(len(data), 'byte')} from {file.url[:96]}")
