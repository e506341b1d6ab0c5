"""Where a text stops being JSON, for people: the library's words are made for programmers.

Refuses to know whose text it is, and what it should say.
"""

import json


def words(error: ValueError | RecursionError) -> str:
    """Return what is wrong, after ``json.loads`` raised: ``not JSON at character 7``."""
    if isinstance(error, RecursionError):
        return "not JSON that can be read: nested too deeply"
    if not isinstance(error, json.JSONDecodeError):  # bytes that are no text, endless digits
        return "not JSON"
    if not error.doc.strip():
        return "not JSON, but empty"
    line = f"line {error.lineno}, " if "\n" in error.doc.strip() else ""
    return f"not JSON at {line}character {error.colno}"
