"""The protocol in which a Kubernetes API server runs a command in a container.

Pure. Messages of a WebSocket whose first byte names a channel; the last one on the channel of the
status says how the command ended. Version 5 can close the command's input, version 4 cannot
(source: ``apiserver/pkg/util/proxy/streamtranslator.go`` of Kubernetes 1.36; it translates 5
itself and hands 4 to the kubelet). Refuses to know sockets.
"""

import json
import re

from attrs import frozen

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS = range(4)
END_OF_INPUT = bytes((255, STDIN))
"""Version 5 alone: the command has read everything once it has read this far."""

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
        told = json.loads(raw)
        good, words = told["status"] == "Success", str(told.get("message") or "")
        causes = (told.get("details") or {}).get("causes") or ()
        codes = [int(c["message"]) for c in causes if c.get("reason") == "ExitCode"]
    except (ValueError, TypeError, KeyError, AttributeError):
        return Status(message="the API server's word on the end is not to be understood")
    if good:
        return Status(code=0)
    return Status(
        code=codes[0] if codes else None,
        is_missing=not codes and _NO_PROGRAM.search(words) is not None,
        message=words[:256],
    )
