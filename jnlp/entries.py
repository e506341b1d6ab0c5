"""The list in a large JSON document, entry by entry: never parsed whole.

A parsed document takes up to 24 times the memory of its text (``[{},{},…``), so a list of any size
is held as bytes, and each entry is parsed when it is asked for, and forgotten. What cannot be
parsed, is too large or too deep costs the one entry that it is. Pure. Refuses to know what the
entries mean, and documents in any other form than the controller writes them (one object, the
list as a direct member).

Every byte is looked at once or twice, whatever they are: the patterns give nothing back that they
have taken (possessive), and what does not fit them is walked through piece by piece.
"""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, final

from outside import counts

MAX_ENTRY = 256 * 1024
"""Bytes of one entry; a computer with a thousand executors takes a third of it."""
MAX_ENTRIES = 20_000
_MAX_WALK = 512 * 1024  # bytes of an entry that is too deep
_LEAST_ENTRY = 16  # bytes of an entry on average; of those that mean anything 60
_MAX_MEMBERS = 64  # of the object that holds the list
_DEPTH = 8  # brackets inside each other; what we ask for has five

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BLANK = re.compile(rb"[ \t\r\n]*+")
# a string that does not end takes all that is left, or the search would begin anew in its midst
_PIECE = re.compile(_STRING[:-1] + rb'(?:"|\Z)|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"(?:" + _STRING + rb"|[-+.0-9A-Za-z]++)", re.DOTALL)


def _nested(depth: int) -> bytes:
    inner = rb'[^"\[\]{}]++|' + _STRING
    for _ in range(depth):
        inner = rb'[^"\[\]{}]++|' + _STRING + rb"|[\[{](?:" + inner + rb")*+[\]}]"
    return rb"[\[{](?:" + inner + rb")*+[\]}]"


_VALUE = re.compile(_nested(_DEPTH - 1), re.DOTALL)


class OddEntry(ValueError):  # noqa: N818 -- what it is
    """An entry that is not parsed; the message says why."""


@final
class Entries:
    """The entries of one list; iterate to get each as ``Entry``, as often as wanted."""

    __slots__ = ("_begin", "_body", "_key")

    def __init__(self, body: bytes, key: str) -> None:
        """Find the list; raises ``ValueError`` where there is none."""
        self._body = body
        self._key = key
        self._begin = _find(body, key)

    def __iter__(self) -> Iterator["Entry"]:
        """Give ``MAX_ENTRIES`` of them, and if there are more, one that says so.

        Raises ``ValueError`` for a list that does not end, or is none; and behind the last entry
        where the document is not over then, or has the list twice: each of the two lacks entries.
        """
        at = _skip(self._body, self._begin)
        if self._body[at : at + 1] == b"]":
            _check_rest(self._body, at + 1, self._key)
            return
        limit = min(MAX_ENTRIES, len(self._body) // _LEAST_ENTRY + 16)
        for number in itertools.count():
            if number == limit:
                yield Entry(
                    odd=f"there are more than {counts.told(limit, 'entry', 'entries')}, which "
                    "are read"
                )
                return
            end, is_deep = _end(self._body, at)
            if is_deep:
                yield Entry(odd=f"brackets more than {_DEPTH} deep inside each other")
            elif end - at > MAX_ENTRY:
                yield Entry(
                    odd=f"an entry of {counts.told(end - at, 'byte')}, {MAX_ENTRY} are read"
                )
            else:
                yield Entry(self._body[at:end])
            at = _skip(self._body, end)
            if self._body[at : at + 1] == b"]":
                _check_rest(self._body, at + 1, self._key)
                return
            if self._body[at : at + 1] != b",":
                raise ValueError("invalid JSON: neither a comma nor the end after an entry")
            at = _skip(self._body, at + 1)


@final
class Entry:
    """One entry, not yet parsed."""

    __slots__ = ("_odd", "_text")

    def __init__(self, text: bytes = b"", *, odd: str = "") -> None:
        self._text, self._odd = text, odd

    @property
    def text(self) -> bytes | None:
        """Its bytes, which mean the same whenever they are read; None of one that is odd."""
        return None if self._odd else self._text

    def parse(self) -> Any:
        """Return its value. Raises ``OddEntry``."""
        if self._odd:
            raise OddEntry(self._odd)
        try:
            return json.loads(self._text)
        except (ValueError, RecursionError):
            raise OddEntry("an entry that is not JSON") from None


def _skip(body: bytes, at: int) -> int:
    found = _BLANK.match(body, at)
    return found.end() if found is not None else at


def _end(body: bytes, at: int) -> tuple[int, bool]:
    """Return where a value ends, and whether it is too deep.

    Raises ``ValueError`` where it does not end.
    """
    if body[at : at + 1] not in {b"{", b"["}:
        match_ = _SCALAR.match(body, at)
        if match_ is None:
            raise ValueError("invalid JSON: no value where one is expected")
        return match_.end(), False
    match_ = _VALUE.match(body, at)
    if match_ is not None:
        return match_.end(), False
    depth = 0
    for piece in _PIECE.finditer(body, at, at + _MAX_WALK):
        if piece[0] in {b"{", b"["}:
            depth += 1
        elif piece[0] in {b"}", b"]"}:
            depth -= 1
            if depth == 0:
                return piece.end(), True
    raise ValueError("an entry in the JSON does not end, or not within reason")


def _find(body: bytes, key: str) -> int:
    """Return where the list under a key of the outermost object begins, behind its bracket."""
    wanted = json.dumps(key).encode()
    at = _skip(body, 0)
    if body[at : at + 1] != b"{":
        raise ValueError(f"no list of {key} in the answer")
    at = _skip(body, at + 1)
    for _ in range(_MAX_MEMBERS):
        if body[at : at + 1] != b'"':
            break
        end = _end(body, at)[0]
        name = body[at:end]
        at = _skip(body, end)
        if body[at : at + 1] != b":":
            break
        at = _skip(body, at + 1)
        if name == wanted:
            if body[at : at + 1] == b"[":
                return at + 1
            break
        at = _skip(body, _end(body, at)[0])
        if body[at : at + 1] != b",":
            break
        at = _skip(body, at + 1)
    raise ValueError(f"no list of {key} in the answer")


def _check_rest(body: bytes, at: int, key: str) -> None:
    """Walk to the end of the object; raises ``ValueError`` where it is not that of the body."""
    wanted = json.dumps(key).encode()
    for _ in range(_MAX_MEMBERS):
        at = _skip(body, at)
        if body[at : at + 1] == b"}":
            if _skip(body, at + 1) < len(body):
                raise ValueError("invalid JSON: something stands behind the end")
            return
        name = _skip(body, at + 1)
        if body[at : at + 1] != b"," or body[name : name + 1] != b'"':
            break
        end = _end(body, name)[0]
        if body[name:end] == wanted:
            raise ValueError(f"the list of {key} is there twice")
        at = _skip(body, end)
        if body[at : at + 1] != b":":
            break
        at = _end(body, _skip(body, at + 1))[0]
    raise ValueError("invalid JSON: the object does not end behind its list")


NONE = Entries(b'{"none": []}', "none")
