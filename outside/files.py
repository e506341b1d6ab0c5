"""Files that somebody else may have put there: opened safely, read to a limit.

A FIFO or a device holds up or never ends; a file that is too large is refused, because half a
secret or half a configuration is worse than none. Refuses to know what is in a file.
"""

import contextlib
import errno
import os
import pathlib
import secrets
import stat
import unicodedata
from collections.abc import Collection, Iterator
from typing import BinaryIO

from outside import counts, paths

_UNSEEN = frozenset({"Cc", "Cf"})


def read(
    path: str | os.PathLike[str], *, limit: int, owners: Collection[int] | None = None
) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; links are followed.

    ``owners``: users whose file it has to be. Raises OSError, whose ``strerror`` is fit for
    people: also for what is not a regular file, and for one that is larger or somebody else's.
    """
    with _opened(path) as file:
        if owners is not None:
            check_owner(os.fstat(file.fileno()), owners, path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _too_large(path, limit)
    return data


@contextlib.contextmanager
def replaced(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Give a new file to write to, which is put in the place of ``path`` in the end, or removed.

    Nobody can know its name before and have put something else there; what ``path`` is, a link
    too, is replaced and never written to. Its mode is what the umask leaves. Raises OSError.
    """
    part = path.with_name(f".{path.name[:128]}.{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(part, flags, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def lines(path: str | os.PathLike[str], *, limit: int) -> Iterator[bytes]:
    """Yield the lines of a regular file of at most ``limit`` bytes as they are asked for.

    Each with its end, if it has one. Raises OSError as ``read`` does.
    """
    left = limit
    with _opened(path) as file:
        while line := file.readline(left + 1):
            left -= len(line)
            if left < 0:
                raise _too_large(path, limit)
            yield line


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    _check(pathlib.Path(path).stat(), path)  # opening a device may do something
    # without O_NONBLOCK a FIFO that was put there in between would hold us up
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    file = os.fdopen(handle, "rb")
    try:
        _check(os.fstat(handle), path)
    except OSError:
        file.close()
        raise
    return file


def _too_large(path: str | os.PathLike[str], limit: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {counts.told(limit, 'byte')}", os.fspath(path))


def secret(path: str | os.PathLike[str], *, limit: int = 16_384) -> str:
    """Return the text of a file that holds a secret and nothing else, without blanks around it.

    A mark of the byte order, as some editors put it before a text, is not part of it. Raises
    OSError as ``read`` does, also for what is no UTF-8 text, is empty, or holds what ``unseen``
    finds. Lines are the caller's business.
    """
    try:
        text = read(path, limit=limit).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8 text", os.fspath(path)) from None
    if not text:
        raise OSError(errno.ENODATA, "empty", os.fspath(path))
    if found := unseen(text):
        raise OSError(errno.EILSEQ, f"holds {found}", os.fspath(path))
    return text


def unseen(secret: str) -> str:
    """Name the first character of a secret that nobody sees; empty: there is none.

    It came along with a copy, or is half a binary file: whoever is shown such a secret only ever
    says "401". Ends of lines are not meant.
    """
    for character in secret:
        if unicodedata.category(character) in _UNSEEN and character not in "\r\n":
            return f"the character U+{ord(character):04X}, which nobody sees"
    return ""


def is_open_to_others(path: str | os.PathLike[str]) -> bool:
    """Return whether users other than its owner and group may read a file. Raises OSError."""
    return bool(stat.S_IMODE(pathlib.Path(path).stat().st_mode) & stat.S_IROTH)


def make_private(path: pathlib.Path) -> None:
    """Make a directory and the missing ones above it, each for its owner alone.

    The umask has no say. What is there already stays as it is. Raises OSError.
    """
    missing = []
    while not paths.is_directory(path):
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            continue
        directory.chmod(0o700)


def make_own(path: pathlib.Path) -> None:
    """Make a directory as ``make_private`` does; one that is there has to be ours, too.

    Raises OSError.
    """
    make_private(path)
    check_owner(path.stat(), owners(path), path)


def owners(directory: str | os.PathLike[str]) -> frozenset[int]:
    """Return the users whose files in a directory are believed: root, and we.

    Root may work for whoever owns the directory. Raises OSError.
    """
    ours = os.geteuid()
    others = () if ours else (pathlib.Path(directory).stat().st_uid,)
    return frozenset({0, ours, *others})


def check_owner(
    found: os.stat_result, allowed: Collection[int], path: str | os.PathLike[str]
) -> None:
    """Raise OSError for what belongs to somebody else, who may say there what he likes."""
    if found.st_uid not in allowed:
        raise OSError(errno.EPERM, f"belongs to user {found.st_uid}", os.fspath(path))


def _check(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
        raise OSError(errno.EINVAL, f"{what}, not a regular file", os.fspath(path))
