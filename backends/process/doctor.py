"""Whether the files that an agent needs can be had, asked just as a launch asks.

Into an empty directory of its own, so that no copy of an earlier day answers in the server's
place. Refuses to keep anything, and to start anything.
"""

import pathlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping

from backends import api, finding
from backends.process import fetch, settings

_JAR = b"PK"
_HINT = "controller.agent_url, ca_file and proxy, or the backend's own ca_file; no login before it"


async def examine(
    told: settings.ProcessSettings,
    *,
    owner: str,  # noqa: ARG001 -- the shape of all examiners
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],  # noqa: ARG001 -- likewise
) -> AsyncIterator[finding.Finding]:
    """Yield one finding for each file; ``orders`` by template, as given to ``launch``."""
    wanted = dict.fromkeys(file for order in orders.values() for file in order.files)
    with tempfile.TemporaryDirectory(prefix="agent-broker-doctor-") as folder:
        cache = fetch.FileCache(pathlib.Path(folder), told)
        try:
            for file in wanted:
                yield await _fetched(cache, file)
        finally:
            await cache.aclose()


async def _fetched(cache: fetch.FileCache, file: api.RemoteFile) -> finding.Finding:
    try:
        path = await cache.get(file.url, file.reach)
        data = path.read_bytes()
    except api.BackendError as error:
        return finding.fail(file.name, error.reason, _HINT)
    except OSError as error:
        return finding.fail(file.name, f"cannot be kept: {error.strerror}")
    if not data.startswith(_JAR):
        return finding.fail(file.name, f"what {file.url[:96]} sends is no jar", _HINT)
    return finding.ok(file.name, f"{len(data)} bytes from {file.url[:96]}")
