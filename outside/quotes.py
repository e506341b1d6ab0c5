"""The one way in which a message for people quotes a text: as it was written, between ' and '.

No backslash is doubled, as a programming language's own spelling would, so a path of Windows and a
label stay what they are; only what cannot be seen is spelled out. A text with a ' stands between "
and ". Pure. Refuses to know what it means, and to clean: what others wrote goes through
``outside.text`` before.
"""

LIMIT = 80
"""Characters of a text that is quoted."""


def shown(text: str, limit: int = LIMIT) -> str:
    """Return a text in quotes; of one that is longer than ``limit`` its beginning, and an …."""
    more = "…" * (len(text) > limit)
    mark = '"' if "'" in text and '"' not in text else "'"
    return f"{mark}{visible(text[:limit])}{mark}{more}"


def visible(text: str) -> str:
    r"""Return a text with what cannot be seen spelled out: ``\n``, ``\x1b``, ``\u200b``."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
