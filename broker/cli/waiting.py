"""``why``: what an item of the queue, or each of a job, waits for, and waited for so far.

Asks the running broker. Refuses to word reasons and to keep anything.
"""

import argparse
import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from broker import exits
from broker.cli import inspection, shared
from broker.core import model
from broker.status import documents, terminal

_LAST = 5
"""Waits of a job that are over, shown on a terminal."""
_INDENT = 2
_MOST = 20
"""Items of a job that wait, shown there."""
_WORDS: Mapping[str, model.SpellWords] = {
    spell.value: words for spell, words in model.SPELLS.items()
}
_ENDS = {
    "started": "started on {agent}",
    "cancelled": "was cancelled",
    "given-up": "was given up and cancelled",
    "elsewhere": "was given to an agent of others",
    "left": "left the queue",
}


def why(options: argparse.Namespace) -> None:
    """Print what waits of an item or a job, and the last waits of it that are over."""
    shown, url = asyncio.run(inspection.asked(options, ("queue", "history")))
    try:
        document = _document(options.what, shown, url)
        text = _text(options.what, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise exits.Failed(f"the broker at {url} is not of this version: {words}") from error
    if options.json:
        shared.print_json(document)
    elif document["waiting"] or document["over"]:
        print(text)
    if not document["waiting"] and not document["over"]:
        raise exits.Failed(
            f"nothing of {terminal.plain(options.what)} waits, or was among the last "
            f"{document['kept']} that did; hint: an item's number, or the name of a job with its "
            "folders, as agent-broker status shows them"
        )


def _document(what: str, shown: Mapping[str, documents.Document], url: str) -> dict[str, Any]:
    rows, last = shown["queue"]["items"], shown["history"]["items"]
    return {
        "asked": url,
        "observed_at": shown["queue"]["observed_at"],
        "observed_age_s": shown["queue"]["observed_age_s"],
        "waiting": [row for row in rows if _fits(what, row)],
        "over": [row for row in last if _fits(what, row)],
        "kept": len(last),
    }


def _fits(what: str, row: documents.Document) -> bool:
    """Return whether an item is meant: by its number, or as a build of the job, however given.

    A name of digits alone may be a job, too.
    """
    if str(row["id"]) == what:
        return True
    job = str(row["job"])
    name = what.strip("/")
    return bool(name) and (job == name or job.partition(" #")[0] == name or row["url"] == what)


def _text(what: str, document: Mapping[str, Any]) -> str:
    waiting, over = document["waiting"], document["over"]
    parts = [_waiting(row) for row in waiting[:_MOST]]
    if len(waiting) > _MOST:
        parts.append(f"and {len(waiting) - _MOST} more, see --json")
    if over and what == str(over[0]["id"]):
        parts.append(_over(over[0]))
    elif over:
        parts.append(_list(over))
    return "\n\n".join(parts)


def _waiting(row: documents.Document) -> str:
    reason = row["reason"] or row["stage"]
    lines = [f"item {row['id']} of {row['job']} has waited {_seconds(row)}"]
    lines.append(f"now: {reason}: {row['text'] or row['controller_text'] or 'no words for it'}")
    if place := terminal.place_words(row):
        lines.append(f"place: {place}")
    words = _WORDS.get(str(row["spell"] or row["reason"]))
    if words is not None:
        lines.append(f"goes on when {words.ends}")
    return "\n".join([*_folded(lines), *_table(row["so_far_s"])])


def _seconds(row: documents.Document) -> str:
    return terminal.seconds(sum(row["so_far_s"].values()) or row["waiting_age_s"])


def _over(row: documents.Document) -> str:
    ago, waited = terminal.seconds(row["left_age_s"]), terminal.seconds(row["waited_s"])
    lines = [f"item {row['id']} of {row['job']} {_end(row)} {ago} ago; it had waited {waited}"]
    if row["end"] != "started" and row["text"]:
        lines.append(f"at last: {row['text']}")
    return "\n".join([*_folded(lines), *_table(row["spent_s"])])


def _end(row: documents.Document) -> str:
    words = _ENDS.get(row["end"], "left the queue")
    return words.format(agent=row["agent"] or "an agent")


def _table(spent: Mapping[str, float]) -> list[str]:
    rows = [
        (slug, f"{seconds:.1f} s", _WORDS[slug].what if slug in _WORDS else "")
        for slug, seconds in spent.items()
    ]
    return [_indented(rows)] if rows else []


def _indented(rows: Sequence[Sequence[object]]) -> str:
    width = shared.width()
    table = terminal.table(rows, width=width - _INDENT if width is not None else None)
    return "\n".join(f"{' ' * _INDENT}{line}" for line in table.splitlines())


def _list(over: list[documents.Document]) -> str:
    """Return the last ones that are over, each in a line."""
    head = f"over, the last {_LAST} of {len(over)}:" if len(over) > _LAST else "over:"
    rows = [
        (
            row["id"],
            terminal.moment(row["left_at"]),
            terminal.seconds(row["waited_s"]),
            f"{_end(row)}: {terminal.spent_words(row['spent_s'])}",
        )
        for row in over[:_LAST]
    ]
    return "\n".join([head, _indented(rows)])


def _folded(lines: Iterable[str]) -> list[str]:
    width = shared.width()
    plain = [terminal.plain(line) for line in lines]
    if width is None:
        return plain
    return ["\n    ".join(terminal.folded(line, width - 4)) for line in plain]
