"""A way to an engine by ssh: the program stands between a socket of ours and the engine's.

As Docker's own client has it: ``ssh HOST docker system dial-stdio``, with the operator's keys,
hosts and settings in ``~/.ssh``. Why not the SDK's way: it needs another ssh in Python, and reads
for as long as nothing comes. Nobody is asked for anything: a password or a host that is not known
yet is a refusal. Refuses to know what is said to the engine.
"""

import contextlib
import os
import socket
import subprocess
import threading
import urllib.parse

_WORDS_MAX = 4096  # of what ssh complains of, the end
_PIECE = 1024
_LAST_WORD_S = 2.0  # for the program to end, whose end of the socket is closed
_OPTIONS = (
    "-T",
    "-oBatchMode=yes",
    "-oConnectTimeout=5",
    "-oServerAliveInterval=15",
    "-oServerAliveCountMax=3",
)


def command(url: str) -> tuple[str, ...]:
    """Return what is run for ``ssh://[USER@]HOST[:PORT][/PATH OF THE SOCKET]``."""
    parts = urllib.parse.urlsplit(url)
    user = ("-l", urllib.parse.unquote(parts.username)) if parts.username else ()
    port = ("-p", str(parts.port)) if parts.port is not None else ()
    socket_there = () if parts.path in {"", "/"} else (f"--host=unix://{parts.path}",)
    there = ("docker", *socket_there, "system", "dial-stdio")
    return ("ssh", *user, *port, *_OPTIONS, "--", parts.hostname or "", *there)


class Program:
    """One ssh, and our end of the socket on which it speaks to the engine."""

    def __init__(self, url: str) -> None:
        """Start it; raises ``OSError`` with the name of the program."""
        ours, its = socket.socketpair()
        with its:
            try:
                self._process = subprocess.Popen(  # noqa: S603 -- no shell here
                    command(url),
                    stdin=its.fileno(),
                    stdout=its.fileno(),
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,  # a ^C is for us
                )
            except BaseException:
                ours.close()
                raise
        self.fileno = ours.detach()
        self._complaints = bytearray()
        self._reader = threading.Thread(target=self._listen, name="docker-ssh", daemon=True)
        self._reader.start()

    def end(self) -> None:
        """End it, whatever it is at."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def complaint(self) -> str:
        """Return the last line that it said of itself; of one that has closed its end."""
        self._reader.join(_LAST_WORD_S)
        lines = self._complaints.decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _listen(self) -> None:
        """Take what it complains of, until its end: a full pipe would hold it up."""
        assert self._process.stderr is not None  # noqa: S101 -- for mypy
        with self._process.stderr as said:
            while piece := os.read(said.fileno(), _PIECE):
                self._complaints += piece
                del self._complaints[:-_WORDS_MAX]
        self._process.wait()
