"""The directories of the instances: made in one step, read truthfully, removed in one step.

Blocking file work only; refuses to know asyncio and HTTP. Errors are OSError, but for
``NotFound`` and ``AlreadyExists`` of the contract.

Theory of operation. An instance is ``owners/OWNER/NAME``. It is filled under ``.staging`` and
renamed into place, so it is there completely or not at all; it goes by a rename into ``.trash``.
What it is doing follows from few files, so no crash can leave a lie: ``instance.json`` (made with
it), ``supervisor`` (the claim, see supervisor.py), ``stop`` (the broker wants it to end), ``exit``
(how it ended). An instance that nobody claimed in time is claimed by the reader before it is
called lost: a late supervisor finds the claim and leaves.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import re
import secrets
import shutil
import signal
import stat
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from backends import api
from backends.kit import names
from backends.process import kernel, locks, output, proc, records
from outside import files, paths, quotes, text, typed

_log = logging.getLogger(__name__)

_STAGING, _TRASH = ".staging", ".trash"
_SECRET_MIN = 8  # shorter secrets would blank out ordinary words
_SECRET_MAX = 65_536
_SECRETS_MAX = 16
_HIDDEN = "****"
_OUTPUT_MAX = 1 << 20  # bytes of each part of the output that are looked at
_LINE_MAX = 4096
_DEEP = 200  # directories within each other that a recursive removal surely bears


@frozen(kw_only=True)
class InstanceRecord:
    """One instance as its directory shows it."""

    instance: api.Instance
    token: str = ""
    supervisor: proc.Process | None = None  # None: never started, or given up
    files: Mapping[str, Any] = Factory(dict)  # ``instance.json``


class Storage:
    """All instances of one owner."""

    def __init__(
        self, root: pathlib.Path, *, owner: str, start_timeout_s: float, reading: bool = False
    ) -> None:
        """``reading``: what nobody claimed in time is called lost, and left unclaimed."""
        self._owner = owner
        self._start_timeout_s = start_timeout_s
        self._reading = reading
        digest = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        self.slug = re.sub(r"[^A-Za-z0-9-]+", "-", owner)[:40] + "-" + digest
        self.home = root / "owners" / self.slug
        # as they were last read; a build may put something else there
        self._known: dict[str, dict[str, Any]] = {}  # descriptions
        self._claims: dict[str, dict[str, Any]] = {}

    def path(self, name: str) -> pathlib.Path:
        """Where an instance of that name lives."""
        return self.home / name

    # --- making ---

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[pathlib.Path]:
        """Give a new directory to fill; what was not published is removed."""
        # made early: a full disk must not be in the way of a removal
        owners = self.home.parent
        for path in (owners.parent, owners, self.home, self.home / _TRASH):
            files.make_own(path)
        with locks.working_in(self.home / _STAGING):
            path = self.home / _STAGING / f"{name}.{secrets.token_hex(4)}"
            path.mkdir(mode=0o700)
            try:
                yield path
            finally:
                remove_tree(path)

    def publish(self, staged: pathlib.Path, name: str) -> bool:
        """Move a filled directory into place; False when the name exists already."""
        try:
            staged.rename(self.path(name))
        except OSError:
            if paths.exists(self.path(name)):
                return False
            raise
        return True

    def digest(self, name: str) -> str | None:
        """Digest of the specification an existing instance was made from; None: no instance."""
        about = self._about(name)
        return None if about is None else str(about["digest"])

    # --- reading ---

    def names(self) -> list[str]:
        """Names of all instances; what has no description of ours is somebody else's.

        So is what belongs to another user: it could name whatever we may remove.
        """
        try:
            ours = files.owners(self.home)
            with os.scandir(self.home) as entries:
                listed = sorted(e.name for e in entries if not e.name.startswith("."))
        except FileNotFoundError:
            return []
        return [
            name
            for name in listed
            if names.name_problem(name) is None
            and os.path.lexists(self.path(name) / "instance.json")
            and self._is_one_of(name, ours)
        ]

    def _is_one_of(self, name: str, users: Collection[int]) -> bool:
        try:
            return self.path(name).lstat().st_uid in users
        except FileNotFoundError:  # removed meanwhile
            return False

    def read_all(self) -> tuple[list[InstanceRecord], typed.Odd]:
        """All instances, and what could not be read; those that vanish meanwhile are left out."""
        boot = kernel.boot_id()
        there = self.names()
        for name in {*self._known, *self._claims} - {*there}:
            self._known.pop(name, None)
            self._claims.pop(name, None)
        failed: list[OSError] = []

        def read(name: str) -> InstanceRecord | None:
            try:
                return self.read(name, boot=boot)
            except OSError as error:  # the machine's: then nothing is known of the others either
                failed.append(error)
                return None

        found, odd = typed.each(there, read)
        if failed:
            raise failed[0]
        return [record for record in found if record is not None], odd

    def _about(self, name: str, *, ends: bool = False) -> dict[str, Any] | None:
        """Return the description of an instance; None: there is none. Raises OddFileError.

        One that was read before is believed when something odd lies there now. One that ``ends``
        need not have any.
        """
        try:
            about = records.about(self.path(name) / "instance.json", name)
        except records.OddFileError:
            if name not in self._known and not ends:
                raise
            known: dict[str, Any] = self._known.get(name) or records.nothing(name)
            return known
        if about is not None and about["token"]:
            self._known[name] = about
        return about

    def _claim(self, name: str, *, ends: bool) -> dict[str, Any] | None:
        """Return who has an instance; None: nobody yet. What was read before is believed."""
        try:
            claim = records.read(self.path(name) / "supervisor")
        except records.OddFileError:
            if name not in self._claims and not ends:
                raise
            return self._claims.get(name, {})
        if records.supervisor(claim) is not None and claim is not None:
            self._claims[name] = claim
        return claim

    def read(self, name: str, *, boot: str, ends: bool = False) -> InstanceRecord | None:
        """One instance, or None when there is none. ``boot`` is ``kernel.boot_id()``.

        Raises OddFileError unless it ``ends``.
        """
        path = self.path(name)
        if not paths.is_directory(path) or not self._is_one_of(name, files.owners(self.home)):
            return None
        about = self._about(name, ends=ends)
        if about is None:
            return None
        claim = self._claim(name, ends=ends)
        if claim is None and self._is_late(about, boot):
            if not self._reading:
                self.give_up(name)
            claim = self._claim(name, ends=ends) or {}
        process = records.supervisor(claim)
        running = process is not None and proc.alive(process)
        try:
            ending = records.read(path / "exit")  # after alive(): it is written before
        except records.OddFileError:
            ending = None if running else {}
        state, end = _judge(claim, ending, process=process, running=running, boot=boot)
        if state is not api.InstanceState.EXITED and os.path.lexists(path / "stop"):
            state = api.InstanceState.STOPPING
        if not paths.is_directory(path):
            return None
        return InstanceRecord(
            instance=api.Instance(
                name=name,
                state=state,
                metadata=about["metadata"],
                created_at=about["created_at"],
                exit=end,
            ),
            token=about["token"],
            supervisor=process,
            files=about,
        )

    def memory_limit(self, name: str) -> int | None:
        """Return what the supervisor of an instance watches over; None if nothing, or not told."""
        try:
            plan = records.read(self.path(name) / "plan.json") or {}
        except (records.OddFileError, OSError):
            return None
        return typed.integer(plan.get("memory_bytes"), 1, 1 << 62)

    def _is_late(self, about: Mapping[str, Any], boot: str) -> bool:
        """True when the broker that made it surely does not start it any more."""
        age = proc.uptime_s() - float(about["uptime"])
        return about.get("boot") != boot or age > self._start_timeout_s

    def give_up(self, name: str) -> bool:
        """Take the claim for nobody; False: a supervisor has it, or the instance is gone."""
        path = self.path(name)
        try:
            os.link(path / "instance.json", path / "supervisor")
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def logs(self, name: str, *, tail: int) -> str:
        """Last lines of the kept output, secrets blanked out. Raises NotFound."""
        path = self.path(name)
        if not paths.is_directory(path):
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        try:
            said = output.read(str(path), limit=_OUTPUT_MAX).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            raise api.NotFound(f"no instance {quotes.shown(name)}") from None
        for secret in sorted(_secret_texts(path / "secrets"), key=len, reverse=True):
            said = said.replace(secret, _HIDDEN)
        return "\n".join(text.last_lines(said, tail, _LINE_MAX)) if tail > 0 else ""

    def secrets(self, name: str) -> frozenset[str]:
        """Return what of an instance's secrets must not be shown."""
        return frozenset(_secret_texts(self.path(name) / "secrets"))

    # --- ending ---

    def ask_to_end(self, name: str, *, grace_s: float) -> InstanceRecord:
        """Tell the supervisor to end the agent; raises NotFound. Nobody can start it after."""
        with contextlib.suppress(OSError):  # disk full: a supervisor that comes now sees it go
            self.give_up(name)
        record = self.read(name, boot=kernel.boot_id(), ends=True)
        if record is None:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        if record.supervisor is not None:
            with contextlib.suppress(OSError):  # disk full: the supervisor has a grace of its own
                records.write(self.path(name) / "stop", grace_s)
            proc.send(record.supervisor, signal.SIGTERM)
        return record

    def end_now(self, record: InstanceRecord, *, within_s: float) -> list[int]:
        """Kill whatever is left of it; return the processes that do not die."""
        supervisor = record.supervisor
        if supervisor is not None:
            if proc.alive(supervisor):
                below = kernel.descendants(supervisor.pid)
                proc.send(supervisor, signal.SIGKILL)
                proc.kill(below)
            if not proc.gone(supervisor, within_s=within_s):
                return [supervisor.pid]
            proc.reap(supervisor.pid)
        return proc.kill_marked(record.token, within_s=within_s) if record.token else []

    def remove(self, record: InstanceRecord) -> None:
        """Remove all it left on the disk; raises NotFound when it is gone already.

        A successor under the same name is not touched: another broker may have been faster.
        """
        name = record.instance.name
        about = self._about(name, ends=True)
        if about is None or about["token"] != record.token:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        if record.files.get("cgroup"):
            with contextlib.suppress(OSError):
                pathlib.Path(record.files["cgroup"]).rmdir()
        if record.files.get("work"):
            _discard(pathlib.Path(record.files["work"]))
        trash = self.home / _TRASH / f"{name}.{secrets.token_hex(4)}"
        try:
            self.path(name).rename(trash)
        except FileNotFoundError:
            raise api.NotFound(f"no instance {quotes.shown(name)}") from None
        _discard(trash)

    def clean(self) -> bool:
        """Remove what a killed broker left half made or half removed; False: not now."""
        for path in _entries(self.home / _TRASH):
            _discard(path)
        try:
            with locks.alone_in(self.home / _STAGING) as alone:
                for path in _entries(self.home / _STAGING) if alone else ():
                    _discard(path)
                return alone
        except FileNotFoundError:
            return True


def _judge(
    claim: Mapping[str, Any] | None,
    ending: Mapping[str, Any] | None,
    *,
    process: proc.Process | None,
    running: bool,
    boot: str,
) -> tuple[api.InstanceState, api.Exit | None]:
    """Total table from what the files say to the contract's states."""
    if ending is not None:
        return api.InstanceState.EXITED, records.end(ending)
    if claim is None:
        return api.InstanceState.STARTING, None
    if running:
        is_up = "agent" in claim
        return (api.InstanceState.RUNNING if is_up else api.InstanceState.STARTING), None
    if claim.get("boot", boot) != boot:
        message = "the machine was restarted"
    elif process is None:
        message = "the broker ended before it could start the program"
    else:
        message = "its supervisor process was killed"
    # the kernel kills an agent whose supervisor has ended
    end = api.Exit(slug="platform-lost", message=message, witnessed=True)
    return api.InstanceState.EXITED, end


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _secret_texts(directory: pathlib.Path) -> set[str]:
    """Return what must not be shown: whole secrets and, of longer ones, every line."""
    found = set()
    for file in _entries(directory)[:_SECRETS_MAX]:
        with contextlib.suppress(OSError):  # a pipe in its place hides nothing
            told = files.read(file, limit=_SECRET_MAX).decode("utf-8", "replace")
            found |= {part.strip() for part in (told, *told.splitlines())}
    return {part for part in found if len(part) >= _SECRET_MIN}


def _discard(path: pathlib.Path) -> None:
    """Remove what is no instance any more; trouble costs disk room only: told, not raised."""
    try:
        remove_tree(path)
    except OSError as error:
        _log.warning("leftover not removed", extra={"path": str(path), "error": str(error)})


def remove_tree(path: pathlib.Path) -> None:
    """Remove a directory, or what lies in its place; raises OSError.

    Read-only parts of it too (module caches make such), and however deep it is.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        shutil.rmtree(path)
    except FileNotFoundError:
        if os.path.lexists(path):
            remove_tree(path)  # somebody else removes it at the same time
    except PermissionError:
        path.chmod(0o700)
        for folder, below, _ in os.walk(path):
            for name in below:
                if not (directory := pathlib.Path(folder, name)).is_symlink():
                    directory.chmod(0o700)
        shutil.rmtree(path)
    except RecursionError:
        _make_flatter(path)
        remove_tree(path)


def _make_flatter(path: pathlib.Path) -> None:
    """Move what is very deep in a directory to its top; raises OSError."""
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while (deep := _deep(top)) is not None:
            above, name = deep
            try:
                os.rename(name, secrets.token_hex(8), src_dir_fd=above, dst_dir_fd=top)
            finally:
                os.close(above)
    finally:
        os.close(top)


def _deep(top: int) -> tuple[int, str] | None:
    """Return an open directory and the name of one in it that is too deep; None: there is none."""
    todo = [(os.dup(top), 0)]
    try:
        while todo:
            folder, depth = todo.pop()
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, folder)
                with os.scandir(folder) as entries:
                    below = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
                for name in below:
                    if depth >= _DEEP:
                        return os.dup(folder), name
                    todo.append((_opened(name, folder), depth + 1))
    finally:
        for folder, _ in todo:
            os.close(folder)
    return None


def _opened(name: str, above: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=above)
