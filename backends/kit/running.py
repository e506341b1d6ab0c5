"""What every backend does with the output of a command in an instance: keep its end, clean it.

Why: a check that floods must cost nobody anything, and what it says goes into logs and onto pages.
Refuses to know how a command is run.
"""

from collections.abc import Iterable

from backends import api
from outside import secrets, text

OUTPUT_MAX = 4096
"""Bytes of a command's output that are told: the last."""
MARK = "AGENT_BROKER_COMMAND"
"""In the environment of a command where nothing but that tells it, and what it starts, apart."""
# No program but the shell's own words, which read what ends with NUL as one line, or several.
# Who forks meanwhile is met in the next round; who cannot be read belongs to another user.
_END = """
round=0
while [ $round -lt 20 ]; do
  round=$((round + 1)); found=
  for place in /proc/[0-9]*; do
    while read -r line || [ -n "$line" ]; do
      case $line in *"$1"*) kill -9 "${place#/proc/}" && found=1; break ;; esac
    done < "$place/environ"
  done 2>/dev/null
  [ "$found" ] || exit 0
done
exit 1
"""
ENDING = ("/bin/sh", "-c", _END, "sh")
"""With ``MARK=VALUE`` as the last word: kills, from inside, all that has it in its environment."""
_KEPT = 4 * OUTPUT_MAX  # what is cut off at its beginning may be the half of a secret
_LINES = 200
_LINE_MAX = 512
_ONE_LONG_LINE = b"(a line that is too long to be told)"


class LastOutput:
    """The end of what a command writes; costs no more than a few times that, whatever comes."""

    def __init__(self) -> None:
        self._data = b""
        self._cut = False

    def take(self, data: bytes) -> None:
        """Add a piece of either stream, in the order in which it came."""
        self._data += data[-_KEPT:]
        self._cut |= len(data) > _KEPT
        if len(self._data) > 2 * _KEPT:
            self._data = self._data[-_KEPT:]
            self._cut = True

    def output(self, *, hide: Iterable[str] = ()) -> str:
        """Return it as lines fit to be shown; ``hide``: secrets of this instance."""
        whole = self._data
        if self._cut or len(whole) > _KEPT:
            _, end, whole = whole[-_KEPT:].partition(b"\n")
            whole = whole if end else _ONE_LONG_LINE
        told = secrets.without(whole.decode("utf-8", "replace"), *hide)
        kept: list[str] = []
        room = OUTPUT_MAX
        for line in reversed(text.last_lines(told, _LINES, _LINE_MAX)):
            room -= len(line.encode()) + 1
            if room < 0:
                break
            kept.insert(0, line)
        return "\n".join(kept)


def ran(code: int | None, tail: LastOutput, *, hide: Iterable[str] = ()) -> api.Ran:
    """Return what came of a command, of which this is the output."""
    return api.Ran(code=code, output=tail.output(hide=hide))
