"""What a controller can do, told from its version (header ``X-Jenkins``).

Pure. Knows the table "version switchboard" (section 0.1 of the REST reference); refuses to ask
anybody. Whatever it cannot read gets the careful answer.

Forms: weekly ``2.517`` (two parts), LTS ``2.528.1`` (three), vendor builds ``2.462.1.3`` (four
and more), local builds ``2.528-SNAPSHOT (private-...)``.
"""

import re

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)+)(\S*)")
_LTS_PARTS = 3


def parse(version: str) -> tuple[int, ...] | None:
    """Return the numeric parts, or None if the text does not begin with a version."""
    number = _NUMBER.match(version)
    if number is None:
        return None
    try:
        return tuple(int(part) for part in number[1].split("."))
    except ValueError:  # more digits than int() takes: not a version
        return None


def at_least(version: str, weekly: tuple[int, int], lts: tuple[int, int, int]) -> bool:
    """True when the version has a change that came with ``weekly`` and with LTS ``lts``.

    Unknown versions have nothing. A snapshot of exactly ``weekly`` may be older than the change,
    so it has it not.
    """
    parts = parse(version)
    if parts is None:
        return False
    if len(parts) >= _LTS_PARTS:
        return parts[:_LTS_PARTS] >= lts
    if parts == weekly and "SNAPSHOT" in version:
        return False
    return parts >= weekly


def safe_to_retire_by_offline(version: str) -> bool:
    """True when an item that loses its node in the last moment returns to the queue.

    Weekly 2.517, LTS 2.528.1. Before, taking an idle node offline or deleting it can lose a build
    without a trace (measured: 25 of 250 in the worst window), so the careful answer is False.
    """
    return at_least(version, (2, 517), (2, 528, 1))


def joins_arrows(version: str) -> bool:
    """True when ``a->b`` is an expression, and a label in one may begin with a dash.

    Weekly 2.313, LTS 2.303.3 (jenkinsci/jenkins 5722). Before, a dash belongs to the label before
    it whatever follows, and begins none.
    """
    return at_least(version, (2, 313), (2, 303, 3))


def reads_all_letters(version: str) -> bool:
    """True when an expression may have letters beyond ASCII.

    Weekly 2.376, LTS 2.387.1 (jenkinsci/jenkins 7293). Before, a text with one is no expression.
    """
    return at_least(version, (2, 376), (2, 387, 1))


def schedule_only_refuses(version: str) -> bool:
    """True when a schedule out of its hours just keeps an inbound agent from taking items.

    Weekly 2.440 at the latest, LTS 2.440.1 (jenkinsci/jenkins 8717). Before, the controller closes
    the connection of an idle agent, and only tells a busy one to take nothing more.
    """
    return at_least(version, (2, 440), (2, 440, 1))
