"""As much of curl as ``in-container`` asks for, in its manner and with its exit codes.

For machines without the real one: 6 and 7 not reached, 18 and 56 broken off, 22 refused
(``--fail``), 23 nobody reads the output, 28 too late, 60 an authority that is not ours.
"""

import http.client
import os
import signal
import ssl
import sys
import time
import urllib.parse
from collections.abc import Iterator

PIECE = 1 << 16
TRANSIENT = {408, 429, 500, 502, 503, 504}
FLAGS = {"silent", "no-buffer", "globoff", "fail", "retry-connrefused"}
VALUES = {
    *("connect-timeout", "cacert", "data-binary", "header", "max-time", "noproxy"),
    *("request", "retry", "upload-file"),
}


class Told:
    """The options of one call."""

    def __init__(self, words: list[str]) -> None:
        self.flags: set[str] = set()
        self.values: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.url = ""
        words = words[1:] if words[:1] == ["-q"] else words
        while words:
            word = words.pop(0)
            if not word.startswith("--"):
                self.url = word
            elif word == "--config":
                with open(words.pop(0), encoding="utf-8") as file:
                    for line in file.read().splitlines():
                        name, _, value = line.partition(" = ")
                        self.take(name, lambda value=value: value.strip('"'))
            else:
                self.take(word.removeprefix("--"), lambda: words.pop(0))

    def take(self, name: str, value) -> None:
        if name in FLAGS:
            self.flags.add(name)
        elif name == "header":
            header, _, text = value().partition(":")
            if text:  # without one it is not sent at all
                self.headers[header] = text.strip()
        elif name in VALUES:
            self.values[name] = value()
        else:
            sys.exit(2)


def connected(told: Told) -> tuple[http.client.HTTPConnection, str]:
    parts = urllib.parse.urlsplit(told.url)
    within_s = float(told.values["connect-timeout"])
    if parts.scheme == "https":
        trust = ssl.create_default_context(cafile=told.values.get("cacert"))
        made = http.client.HTTPSConnection(parts.netloc, timeout=within_s, context=trust)
    else:
        made = http.client.HTTPConnection(parts.netloc, timeout=within_s)
    made.connect()
    made.sock.settimeout(None)
    return made, parts.path + (f"?{parts.query}" if parts.query else "")


def pieces() -> Iterator[bytes]:
    while piece := os.read(0, PIECE):
        yield piece


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def once(told: Told, data: bytes | None, *, last: bool) -> tuple[int, bool]:
    """Ask once; return the exit code, and whether another try is worth it."""
    try:
        connection, path = connected(told)
    except ssl.SSLCertVerificationError:
        return 60, False
    except ConnectionRefusedError:
        return 7, "retry-connrefused" in told.flags
    except OSError:
        return 7, False
    body, method = data, "GET" if data is None else "POST"
    if "upload-file" in told.values:
        body, method = pieces(), "PUT"
    try:
        chunked = not isinstance(body, bytes) and body is not None
        headers = {**told.headers, "Accept": "*/*"}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        connection.request(
            told.values.get("request", method), path, body, headers, encode_chunked=chunked
        )
        answer = connection.getresponse()
        if answer.status >= 400 and "fail" in told.flags:
            return 22, answer.status in TRANSIENT
        if answer.status in TRANSIENT and not last:
            return 0, True
        while piece := answer.read1(PIECE):
            try:
                write(piece)
            except BrokenPipeError:
                return 23, False
    except http.client.IncompleteRead:
        return 18, False
    except (http.client.HTTPException, OSError):
        return 56, False
    return 0, False


def main(words: list[str]) -> int:
    told = Told(words)
    if "max-time" in told.values:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(28))
        signal.alarm(int(told.values["max-time"]))
    data = b"".join(pieces()) if told.values.get("data-binary") == "@-" else None
    pause_s = 1
    for left in range(int(told.values.get("retry", 0)), -1, -1):
        code, again = once(told, data, last=left == 0)
        if not again or left == 0:
            return code
        time.sleep(pause_s)
        pause_s *= 2
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
