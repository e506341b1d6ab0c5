"""The small JSON files of an instance's directory, read as what anybody may have put there.

Agents run as the broker's user, so a build can write whatever it likes into its own directory: a
pipe, a device, a link, a gigabyte, another type. None of it holds anything up, and what cannot be
read costs that instance only. Refuses to know what an instance is doing.
"""

import errno
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from backends import api
from backends.kit import names
from backends.process import proc
from outside import files, text, typed

_LIMIT = 1 << 20
_TOKEN = re.compile(r"[0-9A-Za-z]{0,64}")
_ODD = frozenset(
    {errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.ENODEV}
)
"""What reading a file says when somebody put something else there, or took the right away."""


class OddFileError(ValueError):
    """A file says what no broker wrote; the text is for people."""


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """Return an object; None when there is no such file; empty when it is damaged (power loss).

    Raises OddFileError for what is no file of ours, and OSError for what is the machine's.
    """
    try:
        value = json.loads(files.read(path, limit=_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in _ODD:
            raise
        raise OddFileError(f"{path.name}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def about(path: pathlib.Path, name: str) -> dict[str, Any] | None:
    """Return what ``instance.json`` says, each part of its type; None when there is none.

    Raises OddFileError. A damaged one (power loss) has all parts, but they say nothing.
    """
    record = read(path)
    if record is None:
        return None
    metadata, token = record.get("metadata", {}), record.get("token", "")
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise OddFileError("instance.json: its metadata is not a section of texts")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise OddFileError("instance.json: its token is not a token")
    return {
        "name": name,
        "metadata": metadata,
        "created_at": typed.number(record.get("created_at"), 0.0, 1e11),
        "uptime": typed.number(record.get("uptime"), -1e11, 1e11) or 0.0,
        "boot": typed.words(record.get("boot"), 64),
        "token": token,
        "digest": typed.words(record.get("digest"), 128),
        "work": _own_path(record.get("work"), name),
        "cgroup": _own_path(record.get("cgroup"), name),
    }


def nothing(name: str) -> dict[str, Any]:
    """Return the description of an instance of which nothing can be read any more."""
    return {
        "name": name,
        "metadata": {},
        "created_at": None,
        "uptime": 0.0,
        "boot": "",
        "token": "",
        "digest": "",
        "work": None,
        "cgroup": None,
    }


def supervisor(claim: Mapping[str, Any] | None) -> proc.Process | None:
    """Return the process a claim names; None: claimed for nobody, damaged, or no claim.

    Never ourselves, and not the first process: a build may write what it likes.
    """
    if claim is None:
        return None
    pid = typed.integer(claim.get("pid"), 0, 1 << 31)
    start, boot = str(claim.get("start", ""))[:32], typed.words(claim.get("boot"), 64)
    if pid is None or pid <= 1 or pid == os.getpid() or not start.isdecimal() or not boot:
        return None
    return proc.Process(pid=pid, start=start, boot=boot)


def end(told: Mapping[str, Any]) -> api.Exit:
    """Return the certificate in ``exit``, whatever it says."""
    return api.Exit(
        slug=api.exit_slug(told.get("slug")),
        code=typed.integer(told.get("code"), -(1 << 31), 1 << 31),
        message=text.clean(str(told.get("message", "its exit record is damaged"))[:1024]),
        at=typed.number(told.get("at"), 0.0, 1e11),
    )


def write(path: pathlib.Path, value: object) -> None:
    """Write JSON so that readers see the old or the new content; raises OSError.

    A new file: what lies at its temporary name (a pipe would hold us up) is removed.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, 0o600), "w") as file:
        json.dump(value, file)
    new.replace(path)


def _own_path(told: Any, name: str) -> str | None:
    """Return a path outside that is the instance's own: with its name, or it is left alone."""
    if not isinstance(told, str) or names.name_problem(name) is not None:
        return None
    path = pathlib.PurePath(told)
    plain = path.is_absolute() and ".." not in path.parts and "\0" not in told
    return told if plain and name in path.name else None
