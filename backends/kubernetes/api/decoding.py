"""JSON as an API server sends it, read so that an odd value costs no more than itself.

An integer of thousands of digits, a nesting of thousands of levels and a byte that is no UTF-8 are
errors of the whole document to Python's reader, and a document here is a page of hundreds of pods.
Pure. Refuses to know what a document means.
"""

import json
import math
import re
from typing import Any

_DEEPEST = 64  # levels that are kept; a pod has about 12
_DIGITS = 20
_BRACKETS = 400_000  # a page of pods has 150,000; more would hold up the loop
# up to the next bracket, and with it; over texts; possessive, so that it is linear
_STEP = re.compile(r'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+(?:([\[{])|([\]}]))', re.DOTALL)


def loads(raw: bytes) -> Any:
    """Return what a document says. Raises ValueError, and nothing else.

    Integers too long for anything come as infinite floats, what is nested too deeply as None.
    """
    document = raw.decode("utf-8", "replace")
    try:
        return json.loads(document)
    except RecursionError:
        document = _flattened(document)
    except ValueError:
        if not re.search(rf"\d{{{_DIGITS + 1}}}", document):
            raise
    try:
        return json.loads(document, parse_int=_integer)
    except RecursionError as error:  # who called us is deep in the stack
        raise ValueError("nested too deeply") from error


def _integer(digits: str) -> float:
    if len(digits) <= _DIGITS:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf


def _flattened(document: str) -> str:
    """Put null in the place of what is nested too deeply. Raises ValueError for too much."""
    kept: list[str] = []
    depth = at = start = count = 0
    while (step := _STEP.match(document, at)) is not None:
        at, count = step.end(), count + 1
        if count > _BRACKETS:
            raise ValueError("nested too deeply, and too often")
        if step[1]:
            depth += 1
            if depth == _DEEPEST + 1:
                kept += [document[start : at - 1], "null"]
        elif step[2]:
            depth -= 1
            if depth == _DEEPEST:
                start = at
    return "".join([*kept, document[start:] if depth <= _DEEPEST else ""])
