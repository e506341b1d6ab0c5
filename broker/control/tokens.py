"""Who may order what: tokens of people with a role, in a file that is read when it changes.

A line of the file is ``NAME ROLE TOKEN``; empty lines and those that begin with ``#`` say nothing.
Of a token only its digest is kept. Refuses to know HTTP, and what is ordered.
"""

import enum
import hashlib
import hmac
import os
import pathlib
import re
import stat
from collections.abc import Sequence

from attrs import define, field, frozen

from outside import files, secrets

LIMIT = 64 << 10
"""Bytes of the file."""
MOST = 64
"""Tokens in it: each is looked for in all that is shown."""
_SHORTEST = 20
_WHO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_TOKEN = re.compile(r"[!-~]+")


class Role(enum.Enum):
    """What somebody may."""

    VIEW = "view"
    OPERATE = "operate"

    def may(self, wanted: "Role") -> bool:
        """Whether whoever has this role may do what ``wanted`` may."""
        return self is wanted or self is Role.OPERATE


@frozen(kw_only=True)
class Holder:
    """Somebody who has a token."""

    who: str
    role: Role
    digest: bytes = field(repr=False)


class TokensError(Exception):
    """The file cannot be used; the text says why, and where, and shows no token."""


def parsed(content: str) -> tuple[Holder, ...]:
    """Return who is in a file. Raises TokensError for any line that is wrong."""
    holders: list[Holder] = []
    for number, words in enumerate(_lines(content), 1):
        if words:
            holders.append(_holder(number, words))
    if len(holders) > MOST:
        raise TokensError(f"found {len(holders)} tokens; allowed: {MOST}")
    if len({holder.digest for holder in holders}) < len(holders):
        raise TokensError("the same token stands there twice: nobody knows whose it is")
    return tuple(holders)


def operator(content: str) -> str | None:
    """Return the first token of a file that may operate; None without one. Raises TokensError."""
    lines = filter(None, _lines(content))
    for holder, words in zip(parsed(content), lines, strict=True):
        if holder.role is Role.OPERATE:
            return words[2]
    return None


def holder_of(token: str, holders: Sequence[Holder]) -> Holder | None:
    """Return whose token it is. It takes as long for a wrong one, however much of it is right."""
    digest, found = _digest(token), None
    for holder in holders:
        if hmac.compare_digest(holder.digest, digest):
            found = holder
    return found


@define
class TokenFile:
    """The file, read again when it has changed; one that is wrong lets nobody in."""

    path: pathlib.Path
    _state: tuple[int, ...] = ()
    _holders: tuple[Holder, ...] = field(default=(), repr=False)

    def holders(self) -> tuple[Holder, ...]:
        """Return who has a token. Raises TokensError."""
        try:
            there = self.path.stat()
            state = (there.st_dev, there.st_ino, there.st_mtime_ns, there.st_size, there.st_mode)
            if state != self._state:
                self._state, self._holders = (), ()
                self._holders = parsed(read(self.path))
                self._state = state
        except OSError as error:
            self._state, self._holders = (), ()
            raise TokensError(f"{self.path}: {error.strerror or error}") from error
        return self._holders


def read(path: pathlib.Path) -> str:
    """Return the content of a file of tokens, none of which is shown from now on.

    It is ours or root's, and nobody else writes to it. Raises TokensError and OSError.
    """
    if path.stat().st_mode & stat.S_IWOTH:
        raise TokensError(f"{path}: every user may write to it; hint: chmod o-w")
    content = files.read(path, limit=LIMIT, owners={0, os.geteuid()})
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise TokensError(f"{path}: it is not text in UTF-8") from None
    secrets.register(*(words[-1] for words in _lines(text) if words), pool="control", kept=MOST)
    return text


def _lines(content: str) -> list[list[str]]:
    """Return the words of each line; none of a comment."""
    lines = content.splitlines()
    return [[] if line.lstrip().startswith("#") else line.split() for line in lines]


def _holder(number: int, words: Sequence[str]) -> Holder:
    roles = {role.value: role for role in Role}
    if len(words) != 3 or not _WHO.fullmatch(words[0]):
        raise TokensError(f"line {number}: allowed: NAME ROLE TOKEN")
    if words[1] not in roles:
        raise TokensError(f"line {number}: allowed as role: {', '.join(roles)}")
    if len(words[2]) < _SHORTEST or not _TOKEN.fullmatch(words[2]):
        raise TokensError(
            f"line {number}: a token has at least {_SHORTEST} characters; hint: openssl rand -hex "
            "32"
        )
    return Holder(who=words[0], role=roles[words[1]], digest=_digest(words[2]))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
