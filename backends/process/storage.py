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
import json
import logging
import os
import pathlib
import re
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from backends import api
from backends.process import kernel, locks, output, proc
from outside import paths

_log = logging.getLogger(__name__)

_STAGING, _TRASH = ".staging", ".trash"
_SECRET_MIN = 8  # shorter secrets would blank out ordinary words
_HIDDEN = "****"


@frozen(kw_only=True)
class Record:
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

    def path(self, name: str) -> pathlib.Path:
        """Where an instance of that name lives."""
        return self.home / name

    # --- making ---

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[pathlib.Path]:
        """Give a new directory to fill; what was not published is removed."""
        # made early: a full disk must not be in the way of a removal
        (self.home / _TRASH).mkdir(mode=0o700, parents=True, exist_ok=True)
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
        try:
            return str(_read_json(self.path(name) / "instance.json").get("digest", ""))
        except FileNotFoundError:
            return None

    # --- reading ---

    def names(self) -> list[str]:
        """Names of all instances; what has no description of ours is somebody else's."""
        try:
            with os.scandir(self.home) as entries:
                found = sorted(e.name for e in entries if not e.name.startswith("."))
        except FileNotFoundError:
            return []
        return [name for name in found if os.path.lexists(self.path(name) / "instance.json")]

    def read_all(self) -> list[Record]:
        """All instances; those that vanish meanwhile are left out."""
        boot = kernel.boot_id()
        records = (self.read(name, boot=boot) for name in self.names())
        return [record for record in records if record is not None]

    def read(self, name: str, *, boot: str) -> Record | None:
        """One instance, or None when there is none. ``boot`` is ``kernel.boot_id()``."""
        path = self.path(name)
        if not paths.is_directory(path):
            return None
        about = _read_json(path / "instance.json", missing=None)
        if about is None:
            return None
        claim = _read_json(path / "supervisor", missing=None)
        if claim is None and self._is_late(about, boot):
            if not self._reading:
                self.give_up(name)
            claim = _read_json(path / "supervisor", missing={})
        process = _process(claim)
        running = process is not None and proc.alive(process)
        ending = _read_json(path / "exit", missing=None)  # after alive(): it is written before
        state, end = _judge(claim, ending, running=running, boot=boot)
        if state is not api.InstanceState.EXITED and paths.exists(path / "stop"):
            state = api.InstanceState.STOPPING
        if not paths.is_directory(path):
            return None
        return Record(
            instance=api.Instance(
                name=name,
                state=state,
                metadata=about.get("metadata", {}),
                created_at=about.get("created_at"),
                exit=end,
            ),
            token=about.get("token", ""),
            supervisor=process,
            files=about,
        )

    def _is_late(self, about: Mapping[str, Any], boot: str) -> bool:
        """True when the broker that made it surely does not start it any more."""
        age = proc.uptime_s() - float(about.get("uptime", 0.0))
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
            raise api.NotFound(f"no instance {name!r}")
        try:
            text = output.read(str(path)).decode("utf-8", "replace")
        except FileNotFoundError:
            raise api.NotFound(f"no instance {name!r}") from None
        for secret in sorted(_secret_texts(path / "secrets"), key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        return "\n".join(text.splitlines()[-tail:]) if tail > 0 else ""

    # --- ending ---

    def ask_to_end(self, name: str, *, grace_s: float) -> Record:
        """Tell the supervisor to end the agent; raises NotFound. Nobody can start it after."""
        with contextlib.suppress(OSError):  # disk full: a supervisor that comes now sees it go
            self.give_up(name)
        record = self.read(name, boot=kernel.boot_id())
        if record is None:
            raise api.NotFound(f"no instance {name!r}")
        if record.supervisor is not None:
            with contextlib.suppress(OSError):  # disk full: the supervisor has a grace of its own
                _write_json(self.path(name) / "stop", grace_s)
            proc.send(record.supervisor, signal.SIGTERM)
        return record

    def end_now(self, record: Record, *, within_s: float) -> list[int]:
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

    def remove(self, record: Record) -> None:
        """Remove all it left on the disk; raises NotFound when it is gone already.

        A successor under the same name is not touched: another broker may have been faster.
        """
        name = record.instance.name
        about = _read_json(self.path(name) / "instance.json", missing=None)
        if about is None or about.get("token", "") != record.token:
            raise api.NotFound(f"no instance {name!r}")
        if record.files.get("cgroup"):
            with contextlib.suppress(OSError):
                pathlib.Path(record.files["cgroup"]).rmdir()
        if record.files.get("work"):
            _discard(pathlib.Path(record.files["work"]))
        trash = self.home / _TRASH / f"{name}.{secrets.token_hex(4)}"
        try:
            self.path(name).rename(trash)
        except FileNotFoundError:
            raise api.NotFound(f"no instance {name!r}") from None
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
    running: bool,
    boot: str,
) -> tuple[api.InstanceState, api.Exit | None]:
    """Total table from what the files say to the contract's states."""
    if ending is not None:
        return api.InstanceState.EXITED, api.Exit(
            slug=str(ending.get("slug", "unknown")),
            code=ending.get("code"),
            message=str(ending.get("message", "its exit record is damaged")),
            at=ending.get("at"),
        )
    if claim is None:
        return api.InstanceState.STARTING, None
    if running:
        is_up = "agent" in claim
        return (api.InstanceState.RUNNING if is_up else api.InstanceState.STARTING), None
    if claim.get("boot", boot) != boot:
        message = "the machine was restarted"
    elif _process(claim) is None:
        message = "the broker ended before it could start the program"
    else:
        message = "its supervisor process was killed"
    return api.InstanceState.EXITED, api.Exit(slug="platform-lost", message=message)


def _process(claim: Mapping[str, Any] | None) -> proc.Process | None:
    """Return the supervisor a claim names; None: claimed for nobody, damaged, or no claim."""
    if claim is None or not {"pid", "start", "boot"} <= claim.keys():
        return None
    return proc.Process(pid=int(claim["pid"]), start=str(claim["start"]), boot=str(claim["boot"]))


_RAISE: Any = object()


def _read_json(path: pathlib.Path, *, missing: Any = _RAISE) -> Any:
    """Read an object; a damaged file (power loss) reads as an empty one."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        if missing is _RAISE:
            raise
        return missing
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(path: pathlib.Path, value: object) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value))
    new.replace(path)


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def _secret_texts(directory: pathlib.Path) -> set[str]:
    """Return what must not be shown: whole secrets and, of longer ones, every line."""
    found = set()
    for file in _entries(directory):
        text = file.read_text(errors="replace")
        found |= {part.strip() for part in (text, *text.splitlines())}
    return {text for text in found if len(text) >= _SECRET_MIN}


def _discard(path: pathlib.Path) -> None:
    """Remove what is no instance any more; trouble costs disk room only: told, not raised."""
    try:
        remove_tree(path)
    except OSError as error:
        _log.warning("leftover not removed", extra={"path": str(path), "error": str(error)})


def remove_tree(path: pathlib.Path) -> None:
    """Remove a directory, read-only parts of it too (module caches make such); raises OSError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if paths.exists(path):
            remove_tree(path)  # somebody else removes it at the same time
    except PermissionError:
        path.chmod(0o700)
        for folder, below, _ in os.walk(path):
            for name in below:
                if not (directory := pathlib.Path(folder, name)).is_symlink():
                    directory.chmod(0o700)
        shutil.rmtree(path)
