"""Names that every backend shares: instance names, metadata keys, metadata as platform labels.

Why: platforms differ in what a label may hold (Kubernetes: 63 characters of ``[A-Za-z0-9._-]``,
alphanumeric at both ends), the broker's metadata does not. This module turns any text into such
labels and back without loss. Pure; refuses to know any platform or what the metadata means.

Also the one place that knows how an instance's name is put into what a template says (``TOKEN``).

Rules of the encoding: a value that already is a legal label stays as it is, so that people can
read it and platforms can select by it. Any other value is written as UTF-8 with every foreign byte
(and ``_``) as ``_HH``, cut into pieces, the last wrapped as ``x--PIECEx``, those before it as
``x-.PIECEx``; piece 2 and up live under ``KEY.2``, ``KEY.3`` and so on. A legal label that itself
begins like one of these is wrapped as well.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import attrs

from outside import counts, quotes

_T = TypeVar("_T")

TOKEN = "{name}"  # noqa: S105 -- no password
"""In working directories, volumes and the environment of a template: the instance's name.

``${name}`` is somebody else's and stays.
"""

OWNER = "owner"
"""Whose instance it is; nothing without our own owner is ever touched."""
TEMPLATE = "template"
BACKEND = "backend"
REVISION = "revision"
"""Of the template's definition at launch."""
NODE = "node"
CREATED = "created"
"""POSIX seconds of the order, on the broker's clock."""
KEYS = (OWNER, TEMPLATE, BACKEND, REVISION, NODE, CREATED)

NAME_MAX = 63
LABEL_MAX = 63

SLOT = "{slot}"
"""As ``TOKEN``: a small number that no two living agents of a template have at the same time.

A place with it in its name outlives its agent and is the next one's: a cache with one writer.
"""

_TOKEN = re.compile(r"(?<!\$)\{name\}")
_SLOT = re.compile(r"(?<!\$)\{slot\}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_KEY = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_LABEL = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9._-]{{0,{LABEL_MAX - 2}}}[A-Za-z0-9])?")
_MORE, _LAST, _TAIL = "x-.", "x--", "x"
_PIECE = LABEL_MAX - len(_LAST) - len(_TAIL)
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-")


def name_problem(name: str) -> str | None:
    """Say what is wrong with an instance name, or None.

    A name goes unchanged into URLs, labels, paths and shells: 1 to 63 characters of
    ``[A-Za-z0-9._-]``, a letter or digit at both ends.
    """
    if not name:
        return "the instance name is empty; hint: 1 to 63 letters, digits, '-', '_' or '.'"
    if len(name) > NAME_MAX:
        return (
            f"the instance name {quotes.shown(name)} has {counts.told(len(name), 'character')}, "
            f"{NAME_MAX} are allowed"
        )
    if not _NAME.fullmatch(name):
        return (
            f"the instance name {quotes.shown(name)} is not safe in a URL, a label or a shell; "
            "hint: letters, digits, '-', '_' and '.', a letter or digit at both ends"
        )
    return None


def named(value: Any, name: str) -> Any:
    """Return the same with the instance's name in it; texts, mappings' values and lists."""
    if isinstance(value, str):
        return _TOKEN.sub(name, value)
    if isinstance(value, Mapping):
        return {key: named(part, name) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [named(part, name) for part in value]
    return value


def in_slot(value: _T, slot: int | None) -> _T:
    """Return the same with the number of a slot in it, of whatever settings are made of.

    None: the template has none, and nothing is changed.
    """
    if slot is None:
        return value
    return cast("_T", _walked(value, lambda told: _SLOT.sub(str(slot), told)))


def slotted(value: Any) -> frozenset[str]:
    """Return the texts in settings, at whatever depth, that name a slot."""
    found: set[str] = set()

    def look(told: str) -> str:
        if _SLOT.search(told) is not None:
            found.add(told)
        return told

    _walked(value, look)
    return frozenset(found)


def has_slot(value: Any) -> bool:
    """Tell whether settings, at whatever depth, name a slot."""
    return bool(slotted(value))


def _walked(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if attrs.has(type(value)):
        fields = {one.name: getattr(value, one.name) for one in attrs.fields(type(value))}
        changed = {name: _walked(part, change) for name, part in fields.items()}
        different = {name: part for name, part in changed.items() if part != fields[name]}
        return attrs.evolve(value, **different) if different else value
    if isinstance(value, Mapping):
        return {key: _walked(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [_walked(part, change) for part in value]
    if isinstance(value, tuple):
        return tuple(_walked(part, change) for part in value)
    return value


def is_own(path: str) -> bool:
    """Tell whether a path, or the name of a volume, is another one for each instance."""
    return _TOKEN.search(posixpath.normpath(path)) is not None


def encode_metadata(metadata: Mapping[str, str], *, prefix: str = "") -> dict[str, str]:
    """Turn metadata into labels; ``decode_metadata`` with the same prefix gives it back.

    Keys are ours (``[a-z][a-z0-9-]*``, 40 characters at most); others raise ValueError.
    """
    labels: dict[str, str] = {}
    for key, value in metadata.items():
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"metadata key {quotes.shown(key)} is not allowed; hint: lower-case letters, "
                "digits and '-', a letter first, 40 characters at most"
            )
        for number, text in enumerate(_encode(value), 1):
            labels[f"{prefix}{key}" if number == 1 else f"{prefix}{key}.{number}"] = text
    return labels


def decode_metadata(labels: Mapping[str, str], *, prefix: str = "") -> dict[str, str]:
    """Read metadata back; labels that are not ours are left out.

    Raises ValueError when one of ours was damaged (a piece is missing or not in our encoding):
    half a value must not pass for a whole one.
    """
    pieces: dict[str, dict[int, str]] = {}
    for label, text in labels.items():
        if not label.startswith(prefix):
            continue
        key, dot, number = label[len(prefix) :].partition(".")
        if _KEY.fullmatch(key) and (not dot or re.fullmatch("[2-9]|[1-9][0-9]{1,5}", number)):
            pieces.setdefault(key, {})[int(number) if dot else 1] = text
    return {key: _decode(key, found) for key, found in pieces.items()}


def _encode(value: str) -> list[str]:
    """Return the labels of one value, at least one."""
    if not value or (_LABEL.fullmatch(value) and not value.startswith((_MORE, _LAST))):
        return [value]
    body = "".join(
        chr(byte) if byte in _PLAIN else f"_{byte:02X}"
        for byte in value.encode("utf-8", "surrogatepass")
    )
    pieces = [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)]
    heads = [_MORE] * (len(pieces) - 1) + [_LAST]
    return [f"{head}{piece}{_TAIL}" for head, piece in zip(heads, pieces, strict=True)]


def _decode(key: str, pieces: Mapping[int, str]) -> str:
    """Join the pieces of one value."""
    texts = [pieces.get(number, "") for number in range(1, len(pieces) + 1)]
    if len(texts) == 1 and not texts[0].startswith((_MORE, _LAST)):
        return texts[0]
    heads = [_MORE] * (len(texts) - 1) + [_LAST]
    if not all(
        text.startswith(head) and text.endswith(_TAIL)
        for head, text in zip(heads, texts, strict=True)
    ):
        raise ValueError(
            f"the label {quotes.shown(key)} is damaged: a piece of it is missing or changed"
        )
    body = "".join(text[len(_LAST) : -len(_TAIL)] for text in texts)
    try:
        raw = re.sub(
            rb"_(..)", lambda m: bytes.fromhex(m.group(1).decode()), body.encode(), flags=re.DOTALL
        )
        return raw.decode("utf-8", "surrogatepass")
    except ValueError as error:
        raise ValueError(f"the label {quotes.shown(key)} is damaged: {error}") from error
