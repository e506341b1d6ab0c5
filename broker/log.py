"""Set-up of the log: one line per decision, JSON or for a terminal, bound fields, no secrets.

Fields bound with ``bound`` (agent, cycle) appear on every line that is written inside it, also in
tasks started there. Known secrets and whatever looks like an agent's secret are blanked in the
finished line, so that no message, field or traceback can leak one. Refuses to hold messages.
"""

import contextlib
import contextvars
import logging
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from pythonjsonlogger import json as json_log

from outside import counts
from outside import secrets as outside_secrets
from outside import text as outside_text

_NOTHING: Mapping[str, Any] = types.MappingProxyType({})
_BOUND: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "bound", default=_NOTHING
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MESSAGE, _FIELD = 4096, 1024  # characters of a message and of a field; one event is one line
_TRACE = 100  # lines of a traceback, at either end
_NOISY = ("aiohttp.access", "asyncio", "docker", "urllib3")


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to every line that is written inside."""
    token = _BOUND.set({**_BOUND.get(), **fields})
    try:
        yield
    finally:
        _BOUND.reset(token)


def configure(
    *,
    form: str = "auto",
    level: str = "info",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send the log to ``stream`` (standard error).

    ``form`` is json, console, or auto: JSON unless it is a terminal.
    """
    stream = stream if stream is not None else sys.stderr
    console = form == "console" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Hiding(_Console() if console else _json(), secrets))
    handler.addFilter(_add_bound)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _add_bound(record: logging.LogRecord) -> bool:
    """Add what is bound; what is not known of an event has no field."""
    for key, value in _BOUND.get().items():
        if not hasattr(record, key):
            setattr(record, key, value)
    for key in [k for k, v in vars(record).items() if v is None and k not in _STANDARD]:
        delattr(record, key)
    return True


class _Hiding(logging.Formatter):
    """Blanks secrets in what another formatter made."""

    def __init__(self, inner: logging.Formatter, secrets: Iterable[str]) -> None:
        super().__init__()
        self._inner = inner
        outside_secrets.register(*secrets)

    def format(self, record: logging.LogRecord) -> str:
        return outside_secrets.blanked(self._inner.format(record))


class _Console(logging.Formatter):
    """``14:03:09 INFO  launch done  agent=... seconds=1.2``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        text = outside_text.clean(super().formatMessage(record), _MESSAGE)
        fields = " ".join(
            f"{key}={outside_text.clean(str(value), _FIELD)}"
            for key, value in vars(record).items()
            if key not in _STANDARD
        )
        return f"{text}  {fields}" if fields else text

    def formatException(self, ei: Any) -> str:  # noqa: N802 -- logging's name
        """Return a traceback of which no line can pass for one of the log."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 -- logging's name
        """Return a stack, as above."""
        return _indented(stack_info)


def _indented(text: str) -> str:
    lines = text.splitlines()
    if len(lines) > 2 * _TRACE:
        left_out = f"({counts.told(len(lines) - 2 * _TRACE, 'line')} left out)"
        lines = [*lines[:_TRACE], left_out, *lines[-_TRACE:]]
    return "\n".join(f"    | {_shift(line)}{outside_text.clean(line, _FIELD)}" for line in lines)


def _shift(line: str) -> str:
    return " " * min(len(line) - len(line.lstrip(" ")), 20)


def _json() -> logging.Formatter:
    formatter: logging.Formatter = json_log.JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
        json_default=str,
    )
    return formatter
