"""What a command shows again and again, until Ctrl-C, or until nobody reads on.

On a terminal it is drawn anew in its place, elsewhere it is appended. Refuses to know what is
shown, and to ask anybody.
"""

import os
import shutil
import sys
from collections.abc import Callable

from attrs import define

from broker import exits, output
from broker.status import terminal
from outside import counts

_HOME, _LINE, _REST, _ALL = "\x1b[H", "\x1b[2K", "\x1b[J", "\x1b[2J"
"""To the first place; clear this line, the rest of the screen, all of it."""


def again(show: Callable[[], bool], *, every_s: float) -> None:
    """Call ``show`` so often, until it returns False. Ctrl-C is a good end.

    Raises ``output.ReaderGone``, and whatever ``show`` raises.
    """
    try:
        while show():
            output.pause(every_s)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # behind the ^C of the terminal


@define
class Screen:
    """Where one text after the other is shown."""

    last: str = ""

    def show(self, text: str, head: str) -> None:
        """Show a text; ``head`` is a line of this moment."""
        if _is_drawn_on():
            self._draw(text, head)
        else:
            print(f"{chr(10) if self.last else ''}{head}\n{text}", flush=True)
        self.last = text

    def fail(self, words: str) -> None:
        """Say why there is nothing new; on a terminal above what was shown last.

        Raises Failed if nothing was ever shown.
        """
        if not self.last:
            raise exits.Failed(words)
        if _is_drawn_on():
            self._draw(self.last, words)
        else:
            print(f"\n{words}", flush=True)

    def _draw(self, text: str, head: str) -> None:
        width, height = shutil.get_terminal_size()
        lines = [*terminal.folded(terminal.plain(head), width), *text.split("\n")]
        room = max(height - 1, 1)  # the last line stays free for the cursor
        if len(lines) > room:
            left = len(lines) - room + 1
            lines = [*lines[: room - 1], f"... and {counts.told(left, 'line')} more"]
        fit = [terminal.cut(line, width) for line in lines]
        clear = "" if self.last else _ALL
        # a line is cleared before it is written: behind its last column there is no "behind"
        body = "".join(f"{_LINE}{line}\n" for line in fit)
        print(f"{clear}{_HOME}{body}{_REST}", end="", flush=True)


def _is_drawn_on() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
