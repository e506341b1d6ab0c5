"""What the master was asked about and has not answered: when to ask again, and what is known.

A master that has just taken over says nothing about the tasks of agents it still waits for, and
answers in order. So after each SUBSCRIBED everything is asked, by name too, and at last one name
that no task has: it is answered only when no agent is missing any more, and then all is known.
Pure; refuses to know calls and what a task is.
"""

from collections.abc import Iterable

SENTINEL = "reconciled."
"""The name that nobody has: an instance name ends with a letter or digit."""

_FIRST_S, _MAX_S, _AT_REST_S = 1.0, 60.0, 900.0


class OpenQuestions:
    """Names whose state is asked for, and the time of the next question."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.next_at = 0.0
        self.synced = False  # everything has been known at least once
        self._pause_s = _FIRST_S

    def begin(self, names: Iterable[str]) -> None:
        """Everything is to be asked anew; ``names``: what should exist."""
        self.open = {*names, SENTINEL}
        self._pause_s = _FIRST_S

    def add(self, names: Iterable[str], now: float) -> None:
        """Something new was asked about just now."""
        self.open |= {*names}
        self._pause_s = _FIRST_S
        self.next_at = min(self.next_at, now + _FIRST_S)

    def ask(self, names: Iterable[str], now: float) -> set[str]:
        """Return what is to be asked now, of ``names``, which exist; the pause grows."""
        self.open &= {*names, SENTINEL}
        self.next_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _MAX_S)
        return self.open

    def answered(self, name: str, now: float) -> None:
        """The master has said something about it."""
        self.synced = self.synced or name == SENTINEL
        if name in self.open:
            self.open.discard(name)
            if not self.open:
                self.next_at = now + _AT_REST_S
