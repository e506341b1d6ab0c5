"""The protocol in which a Kubernetes API server runs a command in a container.

Pure. Messages of a WebSocket whose first byte names a channel; the last one on the channel of the
status says how the command ended. Versions 5 and 4 differ in what is not used here: how the input
is closed (source: ``apiserver/pkg/util/proxy/streamtranslator.go`` of Kubernetes 1.36; it
translates 5 itself and hands 4 to the kubelet). Refuses to know sockets.
"""

import re
from collections.abc import Mapping

from attrs import frozen

from backends.kubernetes.api import decoding
from outside import text, typed

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS = range(4)

_STATUS_BYTES = 1 << 16
_DIGITS, _MOST = 9, 255
_NO_PROGRAM = re.compile(r"executable file not found|no such file or directory", re.IGNORECASE)


@frozen(kw_only=True)
class Status:
    """How a command ended; ``code`` is None when it was not run.

    ``is_missing``: because the container has no such program.
    """

    code: int | None = None
    is_missing: bool = False
    message: str = ""


def frame(channel: int, data: bytes) -> bytes:
    """Return a message."""
    return bytes((channel,)) + data


def status(raw: bytes) -> Status:
    """Read the message on the channel of the status."""
    try:
        document = decoding.loads(raw[:_STATUS_BYTES])
    except ValueError:
        document = None
    if not isinstance(document, Mapping) or not isinstance(document.get("status"), str):
        return Status(message="what the API server says of its end cannot be understood")
    if document["status"] == "Success":
        return Status(code=0)
    codes = [_code(cause) for cause in _causes(document)]
    exit_codes = [code for code in codes if code is not None]
    words = typed.words(document.get("message"), _STATUS_BYTES)
    return Status(
        code=exit_codes[0] if exit_codes else None,
        is_missing=not exit_codes and _NO_PROGRAM.search(words) is not None,
        message=text.clean(words),
    )


def _causes(told: Mapping[str, object]) -> list[object]:
    details = told.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return causes if isinstance(causes, list) else []


def _code(cause: object) -> int | None:
    """Return the exit code that a cause tells, if it does."""
    if not isinstance(cause, Mapping) or cause.get("reason") != "ExitCode":
        return None
    said = typed.words(cause.get("message"), _DIGITS)
    return min(int(said), _MOST) if said.isascii() and said.isdecimal() else None
