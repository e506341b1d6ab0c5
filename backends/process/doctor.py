"""Whether the program and the files that an agent needs can be had, asked just as a launch asks.

The files into an empty directory of its own, so that no copy of an earlier day answers in the
server's place. Refuses to keep anything, and to start anything.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping

from backends import api
from backends.kit import finding
from backends.process import fetch, settings
from outside import counts

_JAR = b"PK"
_PROGRAM_HINT = (
    "install it (agents need Java), or say where it is: `java` or `command` of the template, "
    "`path` of the backend"
)
_HINT = (
    "controller.agent_url, ca_file and proxy, or the backend's own ca_file; "
    "no login page in front of it"
)


async def examine(
    configured: settings.ProcessSettings,
    *,
    owner: str,  # noqa: ARG001 -- the shape of all examiners
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],  # noqa: ARG001 -- likewise
) -> AsyncIterator[finding.Finding]:
    """Yield one finding for each program and each file; ``orders`` by template."""
    for program, path in dict.fromkeys(_called(configured, order) for order in orders.values()):
        if _is_told(program, path):
            yield _program(program, path)
    wanted = dict.fromkeys(file for order in orders.values() for file in order.files)
    with tempfile.TemporaryDirectory(prefix="agent-broker-doctor-") as folder:
        cache = fetch.FileCache(pathlib.Path(folder), configured)
        try:
            for file in wanted:
                yield await _fetched(cache, file)
        finally:
            await cache.aclose()


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
    return finding.fail(program, f"no such program{where}", _PROGRAM_HINT)


async def _fetched(cache: fetch.FileCache, file: api.RemoteFile) -> finding.Finding:
    try:
        path = await cache.get(file.url, file.route)
        data = path.read_bytes()
    except api.BackendError as error:
        return finding.fail(file.name, error.reason, _HINT)
    except OSError as error:
        return finding.fail(file.name, f"cannot be kept: {error.strerror}")
    if not data.startswith(_JAR):
        return finding.fail(file.name, f"what {file.url[:96]} sends is not a jar", _HINT)
    return finding.ok(file.name, f"{counts.told(len(data), 'byte')} from {file.url[:96]}")
