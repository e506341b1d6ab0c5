"""What an operator gives an agent with ``--attributes`` and ``--resources``, as Mesos tells it.

Written once (``7``, ``[1-3,7-9]``, ``{a,b}``, ``r1``), told twice: typed in the v1 API, flat on the
pages, where numbers are JSON numbers and lists are texts with blanks. A reading of its own, after
Mesos' documentation of attributes and resources and what a real master showed: not the product's.
"""

from collections.abc import Iterable
from typing import Any

Value = float | list[tuple[int, int]] | list[str] | str


def read(written: str) -> tuple[str, Value]:
    """Return the type, and the value in it: a number, pairs, members or the text."""
    if written.startswith("["):
        pairs = [part.split("-") for part in written.strip("[]").split(",")]
        return "RANGES", joined((int(begin), int(end)) for begin, end in pairs)
    if written.startswith("{"):
        return "SET", [part.strip() for part in written.strip("{}").split(",")]
    try:
        return "SCALAR", float(written)
    except ValueError:
        return "TEXT", written


def joined(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(pairs):
        if found and begin <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def typed(name: str, written: str) -> dict[str, Any]:
    """Return an attribute or a resource as the v1 API has it."""
    kind, value = read(written)
    match kind:
        case "SCALAR":
            told: dict[str, Any] = {"scalar": {"value": value}}
        case "RANGES":
            told = {"ranges": {"range": [{"begin": begin, "end": end} for begin, end in value]}}
        case "SET":
            told = {"set": {"item": value}}
        case _:
            told = {"text": {"value": value}}
    return {"name": name, "type": kind, **told}


def flat(written: str) -> float | str:
    """Return the same as ``/slaves`` and the other pages have it."""
    kind, value = read(written)
    match kind:
        case "RANGES":
            return f"[{', '.join(f'{begin}-{end}' for begin, end in value)}]"
        case "SET":
            return f"{{{', '.join(value)}}}"
        case _:
            return value


def ports(numbers: Iterable[int]) -> str:
    """Return ports as an operator would write them."""
    pairs = joined((one, one) for one in numbers)
    return f"[{','.join(f'{begin}-{end}' for begin, end in pairs)}]"
