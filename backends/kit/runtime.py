"""The Java that is brought into images that have none: where its files are, and whose they are.

Why: an unmodified image becomes an agent when one tree appears in it at a fixed path, with a Java
that brings its own C library. Pure, but for ``read``, which looks at the head of an archive.
Refuses to know how such a tree is made (``broker.runtime``), and how a platform brings it in.

Theory of operation: a tree is told from others by its ``digest``, so one digest is one content,
made once for each place. The manifest is the first file of its archive, ``COMPLETE`` the last:
where that file is, everything else is.
"""

import json
import os
import pathlib
import re
import stat
import tarfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from attrs import frozen

from backends import api
from outside import quotes

ROOT = "/opt/agent"
"""Where the tree appears: its programs and its archive of classes work nowhere else."""
JAVA = f"{ROOT}/jre/bin/java"
JAR = f"{ROOT}/agent.jar"
CLASSES = f"{ROOT}/agent.jsa"
"""Classes of agent.jar, loaded and checked before; a Java that it does not fit passes it over."""
LIBRARIES = f"{ROOT}/lib"
LOCALES = f"{ROOT}/loc"
TOOLS = f"{ROOT}/bin"
"""``sh`` and ``nohup``, for images that have none: Pipeline's ``sh`` needs both."""
MANIFEST = f"{ROOT}/runtime.json"
COMPLETE = f"{ROOT}/.complete"

USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for in an image that does not say it."""
DEFAULT = "default"
"""The runtime that ``inject: true`` means."""

JVM_OPTIONS = (f"-XX:SharedArchiveFile={CLASSES}", "-Xshare:auto")
ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C.UTF-8"}
"""Without it names of files may hold nothing but ASCII."""

_Told = TypeVar("_Told")

_BUSYBOX = f"{TOOLS}/busybox"
_CHECK = '[ -e "$0/.complete" ] || { echo "the tree has not come whole"; exit 1; }'
_COPY = f'cd {ROOT} && {_BUSYBOX} tar -c * .complete | {_BUSYBOX} tar -xoC "$0" && {_CHECK}'
_HAS = '"$0"/*'
_CLEAR = f'{_BUSYBOX} rm -f "$0/.complete" && {_BUSYBOX} rm -rf {_HAS}'
_FORMAT = 1
_MANIFEST_MAX = 64 << 10
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+/-]{0,79}")


class Delivery(Protocol):
    """The way to one place that a runtime can be brought to before any agent wants it; blocking.

    ``tell`` is called with the bytes that were sent so far, and all of them. What is raised are
    the contract's errors.
    """

    where: str

    def check(self, platform: str) -> None:
        """Ask whether it is there, and runs programs of a platform."""

    def fill(self, tar: str, *, now: float, tell: Callable[[int, int], None]) -> str:
        """Fill the volume of an archive unless it is full; return the volume's name.

        What others began long before ``now`` (POSIX seconds) and never ended is removed.
        """

    def load(self, archive: pathlib.Path, name: str, *, tell: Callable[[int, int], None]) -> None:
        """Load an image of that name. Raises OSError for the file."""

    def close(self) -> None:
        """Let go of every connection."""


def find(name: str, runtimes: Mapping[str, _Told]) -> _Told:
    """Return what a backend's configuration tells of a runtime. Raises Rejected."""
    if name not in runtimes:
        raise api.Rejected(
            f"no runtime {quotes.shown(name)} here; hint: `runtimes` of the backend"
        )
    return runtimes[name]


@frozen(kw_only=True)
class Manifest:
    """What a tree says of itself."""

    digest: str  # sha256 in hexadecimal: the same content has the same
    platform: str  # like linux/amd64
    java: str  # its version
    remoting: str  # that of agent.jar

    @property
    def short(self) -> str:
        """Enough of the digest for a name."""
        return self.digest[:16]

    def text(self) -> str:
        """Return it as the file has it."""
        told = {
            "format": _FORMAT,
            "digest": self.digest,
            "platform": self.platform,
            "java": self.java,
            "remoting": self.remoting,
        }
        return json.dumps(told, indent=2, sort_keys=True) + "\n"


def parsed(content: bytes) -> Manifest:
    """Return a manifest. Raises ValueError that says what is wrong with it."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("its manifest is not JSON") from None
    if not isinstance(told, dict) or told.get("format") != _FORMAT:
        raise ValueError(f"its manifest is not of format {_FORMAT}")
    return Manifest(
        digest=_told(told, "digest", _DIGEST),
        platform=_told(told, "platform", _WORD),
        java=_told(told, "java", _WORD),
        remoting=_told(told, "remoting", _WORD),
    )


def read(path: str | os.PathLike[str]) -> Manifest:
    """Return the manifest of an archive, which is its first file.

    Raises ValueError that says what is wrong, and OSError.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 -- of whatever kind of path
        raise ValueError("not a regular file")
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                file = tar.extractfile(member) if f"/{member.name}" == MANIFEST else None
                if file is None or member.size > _MANIFEST_MAX:
                    break
                return parsed(file.read(_MANIFEST_MAX))
    except tarfile.TarError as error:
        raise ValueError(f"not a tar archive: {error}") from None
    raise ValueError(
        "its first file is not a manifest; hint: agent-broker runtime build makes one"
    )


def search_path(path: str) -> str:
    """Return where programs are looked for: where ``path`` says, then in the tree."""
    folders = [folder for folder in path.split(":") if folder]
    return ":".join([*folders, *([] if TOOLS in folders else [TOOLS])])


def started(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command that finds the tools, too, where only the image knows its search path."""
    path = f'export PATH="${{PATH:-{USUAL_PATH}}}:{TOOLS}"'
    return (f"{TOOLS}/sh", "-c", f'{path}; exec "$0" "$@"', *argv)


def copied(folder: str) -> tuple[str, ...]:
    """Return a command that copies the tree into a folder.

    Its times too: the archive of classes is passed over where agent.jar has another one. Whoever
    runs it owns the copy. It fails unless the mark of the end has come, too: of two programs that
    are joined a shell tells the end of the second alone.
    """
    return (f"{TOOLS}/sh", "-c", _COPY, folder)


def filled(folder: str) -> tuple[str, ...]:
    """Return a command that copies the tree into a folder, unless it is there as a whole."""
    copy = f"{{ {_BUSYBOX} rm -rf {_HAS}; {_COPY}; }}"
    return (f"{TOOLS}/sh", "-c", f'[ -e "$0/.complete" ] || {copy}', folder)


def emptied(folder: str) -> tuple[str, ...]:
    """Return a command that removes the tree from a folder; what is left is no whole one."""
    return (f"{TOOLS}/sh", "-c", _CLEAR, folder)


def _told(told: Mapping[str, Any], key: str, like: re.Pattern[str]) -> str:
    value = told.get(key)
    if not isinstance(value, str) or not like.fullmatch(value):
        raise ValueError(f"its manifest has no {key} that could be one")
    return value
