"""Files that instances need, fetched over HTTP into a cache that all instances share.

Why: agent.jar comes from the controller and changes with it only, so it is asked for with its
``Last-Modified`` (a controller sends that and 304, but no ETag; recordings of 2.263.4) and linked,
not copied. Refuses to know instances; sends no credentials and follows no redirect, because a
redirect is mostly a login page, and its HTML would be started as a program.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import stat
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import IO

import aiohttp
from attrs import define, field

from backends import api
from backends.kit import connection
from backends.process import locks, records, settings
from outside import connect_errors, counts, files, secrets, text, waits

_CHUNK = 1 << 18
_DIRECTLY = api.Route()
_ABOUT_MAX = 65_536
_PAUSE_DIGITS = 4  # of a time to wait in seconds
_NEW = "new."  # begins the name of everything that is not complete yet
_AGAIN_LATER = (408, 425, 429)


@define
class _CachedUrl:
    """One URL: its lock, and when it was last known to be current (loop time)."""

    lock: asyncio.Lock = field(factory=asyncio.Lock)
    checked_at: float | None = None


class FileCache:
    """The shared cache directory. One process needs one object; several may share a directory."""

    def __init__(self, directory: pathlib.Path, configured: settings.ProcessSettings) -> None:
        self._directory = directory
        self._settings = configured
        self._entries: dict[str, _CachedUrl] = {}
        self._sessions: dict[api.Route, aiohttp.ClientSession] = {}

    async def get(self, url: str, way: api.Route = _DIRECTLY) -> pathlib.Path:
        """Return the path of a current copy, read-only, for linking.

        Raises Rejected (the server says no), Unavailable (network, time-out, 5xx) and OSError.
        """
        entry = self._entries.setdefault(url, _CachedUrl())
        path = self._directory / hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()
        async with entry.lock:
            now = asyncio.get_running_loop().time()
            fresh_s = self._settings.revalidate_after_s
            if (
                entry.checked_at is not None
                and now - entry.checked_at < fresh_s
                and _is_whole(path)
            ):
                return path
            try:
                async with waits.timeout(self._settings.download_timeout_s):
                    await self._update(url, path, way)
            except TimeoutError:
                limit = self._settings.download_timeout_s
                raise api.Unavailable(
                    f"{_short(url)} did not come within {limit:g} s", reach=api.Reach.TEMPLATE
                ) from None
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
                raise api.Rejected(f"{_short(url)} is not an HTTP URL") from error
            except aiohttp.ClientError as error:
                words = f"cannot fetch {_short(url)}: {connect_errors.words(error)}"
                raise api.Unavailable(words, reach=api.Reach.TEMPLATE) from error
            entry.checked_at = asyncio.get_running_loop().time()
            return path

    async def aclose(self) -> None:
        """Close the connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _client(self, way: api.Route) -> aiohttp.ClientSession:
        if way not in self._sessions:
            secrets.register(urllib.parse.urlsplit(way.proxy or "").password)
            context = connection.context(way, ca_file=self._settings.ca_file)
            self._sessions[way] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                timeout=aiohttp.ClientTimeout(),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a bomb would be unpacked before it is counted
            )
        return self._sessions[way]

    async def _update(self, url: str, path: pathlib.Path, way: api.Route) -> None:
        """Bring the copy up to date."""
        headers = {"Accept-Encoding": "identity"}
        if stamp := _known_stamp(path):
            headers["If-Modified-Since"] = stamp
        async with self._client(way).get(
            url, headers=headers, allow_redirects=False, proxy=way.proxy
        ) as response:
            if response.status == 304 and stamp:
                return
            if response.status != 200:
                raise _refusal(url, response.status, response.headers)
            packing = response.headers.get("Content-Encoding", "identity")
            if packing.strip().lower() not in {"", "identity"}:
                raise api.Rejected(
                    f"{_short(url)} comes packed as {_short(packing)}, which was not asked for; "
                    "hint: a proxy that packs what passes?"
                )
            with self._temporary() as (file, name):
                size = 0
                async for chunk in response.content.iter_chunked(_CHUNK):
                    size += len(chunk)
                    if size > self._settings.max_file_bytes:
                        raise api.Rejected(
                            f"{_short(url)} is larger than "
                            f"{counts.told(self._settings.max_file_bytes, 'byte')}; "
                            "hint: raise `max_file_bytes` of the backend"
                        )
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_install, file, name, path)
                about = {"last_modified": response.headers.get("Last-Modified"), "size": size}
                _note(path, about)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[IO[bytes], pathlib.Path]]:
        """Give a new file beside the copies; it is removed unless it was moved."""
        files.make_own(self._directory)
        self._sweep()
        with locks.working_in(self._directory):
            handle, name = tempfile.mkstemp(dir=self._directory, prefix=_NEW)
            path = pathlib.Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    yield file, path
            finally:
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed broker left half fetched, unless somebody fetches now."""
        with locks.alone_in(self._directory) as alone:
            for path in self._directory.glob(_NEW + "*") if alone else ():
                path.unlink(missing_ok=True)


def _install(file: IO[bytes], name: pathlib.Path, path: pathlib.Path) -> None:
    """Make a complete download the current copy; links to the old one keep the old content."""
    file.flush()
    os.fsync(file.fileno())
    name.chmod(0o444)
    name.replace(path)


def _about(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".json")


def _note(path: pathlib.Path, about: Mapping[str, object]) -> None:
    """Write what is known of a copy; done after the copy, so that a crash only costs a fetch."""
    records.write(_about(path), about)


def _known_stamp(path: pathlib.Path) -> str | None:
    """Return Last-Modified of a whole copy, or None."""
    try:
        about = json.loads(files.read(_about(path), limit=_ABOUT_MAX))
        stamp = about["last_modified"]
        whole = _is_whole(path) and path.stat().st_size == about["size"]
        return stamp if whole and isinstance(stamp, str) and stamp.isprintable() else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_whole(path: pathlib.Path) -> bool:
    """Tell whether there is a copy: a file, and nothing that an agent would wait for."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _refusal(url: str, status: int, headers: Mapping[str, str]) -> api.BackendError:
    """Map an answer that is no file to the contract's errors."""
    words = f"{_short(url)} answered {status}"
    if status >= 500 or status in _AGAIN_LATER:
        after = headers.get("Retry-After", "")
        pause = float(after) if after.isdecimal() and len(after) <= _PAUSE_DIGITS else None
        return api.Unavailable(words, retry_after=pause, reach=api.Reach.TEMPLATE)
    if 300 <= status < 400:
        # what follows is often what somebody was let in with
        place = headers.get("Location", "(nowhere)").partition("?")[0].partition("#")[0]
        words += f", a redirect to {_short(place)}"
        words += "; hint: give the final URL, or allow this path without a login"
    return api.Rejected(words)


def _short(told: str) -> str:
    """Quote a remote text."""
    return text.clean(told, 96)
