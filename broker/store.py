"""The few facts that cannot be observed again, in files of the state directory.

Written atomically and durably before the call that they describe: a new file, synced, renamed over
the old one. One broker at a time holds the directory. Secrets are never given to it. Refuses to
cache, and to know what the values mean beyond the count of builds, which no controller tells.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from broker.core import model
from outside import files, quotes, text

_KEY = re.compile(r"[a-z][a-z0-9._-]{0,79}")
_LOCK = "lock"
_DAMAGED = (
    *(ValueError, ArithmeticError, LookupError),
    *(TypeError, AttributeError, RecursionError),
)
_LARGEST = 64 << 20  # of a value; a thousand agents take a few hundred kilobytes
_BUILDS = "builds.json"


class StateDirTaken(Exception):  # noqa: N818 -- what it is
    """Another process holds the state directory."""


class FileStore:
    """``backends.api.Store`` in a directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Create the directory if need be. Raises OSError, also for that of another user."""
        files.make_own(directory)
        self.directory = directory

    def check(self) -> frozenset[int]:
        """Return whose files are believed. Raises OSError for a directory of another user."""
        ours = files.owners(self.directory)
        files.check_owner(self.directory.stat(), ours, self.directory)
        return ours

    def load(self, key: str) -> str | None:
        """Return the value last saved, or None. Raises OSError, also for what we never wrote.

        What a power loss left of a file is for the reader to judge: it never fails to decode.
        """
        path = self._path(key)
        try:
            ours = self.check()
            return files.read(path, limit=_LARGEST, owners=ours).decode("utf-8", "replace")
        except FileNotFoundError:
            return None

    def save(self, key: str, value: str) -> None:
        """Write durably before returning; the old value stays if that fails. Raises OSError."""
        path = self._path(key)
        handle, name = tempfile.mkstemp(dir=self.directory, prefix=f".{key}.")
        try:
            os.fchmod(handle, 0o600)  # whatever the umask says
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            pathlib.Path(name).replace(path)
        except BaseException:
            pathlib.Path(name).unlink(missing_ok=True)
            raise
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; the kernel lets go of it when the process ends, however it ends.

        Raises ``StateDirTaken`` and OSError.
        """
        # nothing that somebody put there holds us up, or is written to in its place
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.directory / _LOCK, flags, 0o600), "rb") as file:
            # of another user's file nobody knows who holds it
            ours = files.owners(self.directory)
            files.check_owner(os.fstat(file.fileno()), ours, self.directory / _LOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateDirTaken(
                    f"another broker is running with the state directory {self.directory}; "
                    "hint: give every broker a state_dir of its own, or stop the other one"
                ) from None
            yield

    def _path(self, key: str) -> pathlib.Path:
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"store key {quotes.shown(key)}: lower-case letters, digits, '.', '_', '-'"
            )
        return self.directory / key


class ReadOnlyStore(FileStore):
    """The same directory for a command that leaves everything as it is: nothing is written."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Touch nothing; a directory that is not there holds nothing."""
        self.directory = directory

    def load(self, key: str) -> str | None:
        """Return the value last saved, or None. Raises OSError."""
        try:
            return super().load(key)
        except NotADirectoryError:
            return None

    def save(self, key: str, value: str) -> None:  # noqa: ARG002 -- the store's
        """Refuse. Raises OSError."""
        raise OSError(errno.EROFS, f"{key[:80]} is not written by a command that reads")

    def locked(self) -> NoReturn:
        """Refuse. Raises OSError."""
        raise OSError(errno.EROFS, "the directory is not held by a command that reads")


class Builds:
    """How many builds each agent has had, and since when this controller runs.

    The controller tells neither. The first decides ends; the second, whether pipelines may still
    ask for nodes that they ran on before its start.
    """

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._written = ""

    def restore(self) -> model.Ledger:
        """Return a ledger that knows the builds of earlier lives; a damaged file counts as none.

        What ran while nobody watched is unknown, so no agent is called witnessed. Raises OSError.
        """
        text = self._store.load(_BUILDS)
        if text is None:
            return model.Ledger()
        try:
            read = json.loads(text)
            agents = read["agents"].items()
            memories = {model.NodeName(name): _memory(told) for name, told in agents}
            session = str(read["session"])
            # without a name a later session could not be told from this one
            since = float(read["since"]) if session else None
            trials = dict(_trial(told) for told in read.get("trials", ()))
            backoffs = dict(_avoided(told) for told in read.get("avoided", ()))
        except (
            ValueError,
            ArithmeticError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            return model.Ledger()
        self._written = text
        return model.Ledger(
            session=session,
            session_at=since,
            memories=memories,
            trials=trials,
            backoffs=backoffs,
        )

    def keep(self, ledger: model.Ledger) -> None:
        """Write what changed since the last call. Raises OSError."""
        agents = {
            name: _told(memory)
            for name, memory in sorted(ledger.memories.items())
            if memory.online_at is not None
        }
        told = {
            "session": ledger.session,
            "since": ledger.session_at,
            "agents": agents,
            "trials": [
                [pair.template, pair.backend, trial.revision, trial.online]
                for pair, trial in ledger.trials.items()
            ],
            "avoided": [
                _left_alone(key, backoff)
                for key, backoff in ledger.backoffs.items()
                if backoff.cause is model.Cause.BLACK_HOLE
            ],
        }
        text = json.dumps(told, separators=(",", ":"))
        if text != self._written:
            self._store.save(_BUILDS, text)
            self._written = text


def _told(memory: model.Memory) -> Mapping[str, Any]:
    return {
        "seen": memory.first_seen_at,
        "online": memory.online_at,
        "builds": memory.builds,
        "urls": memory.executable_urls,
        "session": memory.busy_session,
    }


def _trial(told: Sequence[Any]) -> tuple[model.BackoffKey, model.Trial]:
    template, backend, revision, online = told
    pair = model.BackoffKey(
        scope=model.Scope.TEMPLATE,
        backend=model.BackendName(str(backend)),
        template=model.TemplateName(str(template)),
    )
    return pair, model.Trial(revision=str(revision), online=max(0, int(online)))


def _left_alone(key: model.BackoffKey, backoff: model.Backoff) -> Sequence[str | float]:
    blame = backoff.blame or model.Blame.AGENTS
    return [key.backend, key.place, backoff.until_at, backoff.reason, blame.value]


def _avoided(told: Sequence[Any]) -> tuple[model.BackoffKey, model.Backoff]:
    backend, place, until, reason, *blame = told  # an older broker kept none
    if not math.isfinite(float(until)):
        raise ValueError(f"{until} is not a time")
    key = model.BackoffKey(
        scope=model.Scope.PLACE,
        backend=model.BackendName(str(backend)),
        place=text.clean(str(place)),
    )
    return key, model.Backoff(
        failures=1,
        until_at=float(until),
        reason=text.clean(str(reason), 1024),
        cause=model.Cause.BLACK_HOLE,
        blame=model.Blame(blame[0]) if blame else model.Blame.AGENTS,
    )


def _memory(told: Mapping[str, Any]) -> model.Memory:
    return model.Memory(
        first_seen_at=float(told["seen"]),
        online_at=float(told["online"]),
        whole=True,
        builds=int(told["builds"]),
        executable_urls=tuple(str(url) for url in told["urls"]),
        busy_session=str(told["session"]),
    )
