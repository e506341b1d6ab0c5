"""How single values are written: durations, sizes, references to secrets.

Pure but for ``resolve``, the one place that opens a secret's file or asks the environment. Refuses
to know which setting a value belongs to: whoever asked adds the path.
"""

import errno
import itertools
import math
import pathlib
import re
from collections.abc import Mapping

from jnlp import secret as jnlp_secret
from outside import counts, files, quotes

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
NAME_WORDS = "lower-case letters, digits and '-', a letter or digit at both ends"
_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+)ms)?"
)
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMGT]i?)?B?")
_UNITS: Mapping[str, int] = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("KMGT", 1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGT", 1)},
}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^}]*)?\}")
_REFERENCE = re.compile(r"file:\S.*|env:[A-Za-z_][A-Za-z0-9_.-]*")
_SECRET_BYTES = 16_384
_ELSEWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES})
_LONGEST_S = 100 * 365.25 * 86_400
_LARGEST = 1 << 63
_MOST_PORT = 65_535
_SHOWN = 80  # characters of a value in a message
_DEEPEST = 3  # sections and lists within each other that are written
_MOST_WRITTEN = 64  # characters of a duration or size, more are none


class Bad(ValueError):  # noqa: N818 -- what it is
    """A value that cannot be used: what was found, what is allowed, a hint."""

    def __init__(self, found: str, allowed: str, hint: str = "") -> None:
        """``found`` is quoted to 80 characters at most; never a secret."""
        super().__init__(f"found {found}; allowed: {allowed}")
        self.found = found
        self.allowed = allowed
        self.hint = hint


def shown(value: object) -> str:
    """Return a value as it may be quoted in a message, in the way in which YAML writes it."""
    text = _written(value, deep=_DEEPEST)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _written(value: object, *, deep: int) -> str:  # noqa: PLR0911 -- one kind, one return
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return quotes.shown(value, _SHOWN)
        case list() | tuple() if deep:
            inner = (_written(one, deep=deep - 1) for one in value[:_SHOWN])
            return f"[{', '.join(inner)}]"
        case Mapping() if deep:
            pairs = itertools.islice(value.items(), _SHOWN)
            inner = (f"{_key(name)}: {_written(one, deep=deep - 1)}" for name, one in pairs)
            return f"{{{', '.join(inner)}}}"
        case list() | tuple() | Mapping():
            return "…"
        case bytes():
            return f"binary data of {counts.told(len(value), 'byte')}"
        case int() | float():
            return repr(value)
        case _:
            return str(value)


def _key(name: object) -> str:
    return quotes.visible(name) if isinstance(name, str) else _written(name, deep=0)


class Absent(Bad):
    """A secret that is not there, or that we may not read: perhaps it is elsewhere."""


def shown_url(text: str) -> str:
    """Return an address as it may be quoted: what stands before an '@' may be a password."""
    before, at, after = text.rpartition("@")
    scheme = before.partition("://")[0] + "://" if "://" in before else ""
    return shown(f"{scheme}(hidden)@{after}" if at else text)


def address(text: str) -> tuple[str, int] | None:
    """Read ``HOST:PORT``; None for anything else. An IPv6 host stands in brackets."""
    host, colon, port = text.rpartition(":")
    is_number = port.isascii() and port.isdecimal() and len(port) <= 5
    if not (colon and host and is_number) or int(port) > _MOST_PORT:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def duration(value: object) -> float:
    """Read ``90s``, ``10m``, ``1h30m``, ``250ms`` or ``2d`` as seconds."""
    text = value.strip() if isinstance(value, str) and len(value) <= _MOST_WRITTEN else ""
    parts = _DURATION.fullmatch(text)
    if not text or parts is None:
        hint = f"write {value}s" if isinstance(value, int | float) and value is not True else ""
        raise Bad(shown(value), "a duration like 30s, 10m, 1h30m or 250ms", hint)
    seconds = math.fsum(
        float(number) * _SECONDS[unit]
        for unit, number in parts.groupdict().items()
        if number is not None
    )
    if seconds > _LONGEST_S:
        raise Bad(shown(value), "a duration of at most 100 years")
    return seconds


def size(value: object) -> int:
    """Read ``512Mi``, ``2Gi``, ``500M`` or a plain number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    is_text = isinstance(value, str) and len(value) <= _MOST_WRITTEN
    found = _SIZE.fullmatch(str(value).strip()) if is_text else None
    if found is None:
        raise Bad(shown(value), "a size like 512Mi, 2Gi or 500M")
    amount = float(found["number"]) * _UNITS[found["unit"] or ""]
    if amount > _LARGEST:
        raise Bad(shown(value), "a size of at most 8 EiB")
    return int(amount)


def reference(value: object) -> str:
    """Check that a secret is only referred to, by ``file:PATH`` or ``env:NAME``."""
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        return value
    allowed = "file:PATH or env:NAME"
    if isinstance(value, str) and value.startswith("env:"):
        raise Bad(
            "env: with something that is not the name of a variable (not shown)",
            allowed,
            "the name of the variable stands here, not what it holds",
        )
    if isinstance(value, str) and (variable := _VARIABLE.fullmatch(value)):
        raise Bad(f"the variable {variable[1]}", allowed, f"env:{variable[1]}")
    raise Bad(
        "a value that is not shown here",
        allowed,
        "secrets do not belong in the configuration: put it into a file and name the file",
    )


def resolve(
    reference: str, *, base: pathlib.Path, environ: Mapping[str, str]
) -> jnlp_secret.Secret:
    """Fetch a secret; a relative path starts at ``base``.

    Raises ``Bad``, without its content, and ``Absent`` where it is out of our reach.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        text = environ.get(name)
        if not text:
            raise Absent(
                f"{reference}, but the environment variable is "
                f"{'empty' if text == '' else 'not set'}",
                "a variable that holds the secret",
                f"export {name}=…",
            )
    else:
        try:
            text = files.secret(base / name, limit=_SECRET_BYTES)
        except OSError as error:
            if error.errno == errno.ENODATA:
                raise Bad(f"{reference}, which is empty", "one line: the secret") from error
            words = error.strerror or str(error)
            bad = Absent if error.errno in _ELSEWHERE else Bad
            raise bad(f"{reference}: {words}", "a file that the broker may read") from error
    text = text.removeprefix("\ufeff").strip()
    if not text or len(text.splitlines()) > 1:
        what = "holds several lines" if text else "is empty"
        raise Bad(f"{reference}, which {what}", "one line: the secret")
    if found := files.unseen(text):
        raise Bad(
            f"{reference}, which holds {found}", "the secret alone", "write it anew, by hand"
        )
    return jnlp_secret.Secret(text)
