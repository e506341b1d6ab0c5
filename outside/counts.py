"""Numbers of things in messages: "1 agent", "2 agents", and the verb that goes with them.

Pure. Refuses to know what is counted, and other languages.
"""


def told(count: float, one: str, many: str = "") -> str:
    """Return the number with its noun; ``many`` where an "s" at the end of ``one`` is not enough.

    ``one`` may be more than a noun: ``told(n, "needs help", "need help")``.
    """
    return f"{count:g} {one}" if count == 1 else f"{count} {many or one + 's'}"
