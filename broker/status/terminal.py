"""The status for a terminal, from the same documents as the page; tables, durations.

Remote text goes to a terminal here, so what could steer it is made harmless. Refuses to word
reasons and to ask anybody.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from broker.core import model
from outside import text as texts

_CELL = 4096
_GAP, _INDENT = 2, 4
_BRIEF_S = 0.05
"""What took less of a wait is not worth a word."""
_NARROW = 24
"""A last column of fewer columns than this is hard to read: it stands under its row."""
_Row = Mapping[str, Any]


def seconds(value: float | None) -> str:
    """Return a duration as people say it: 0.4 s, 12 s, 3 min, 2 h."""
    if value is None:
        return "?"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 11th."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in {11, 12, 13} else ends.get(number % 10, 'th')}"


def place_words(row: _Row) -> str:
    """Return which one an item is of those that wait for its template; empty: of none."""
    if row["place"] is None:
        return ""
    return f"{ordinal(row['place'])} of {row['place_of']} that wait for {row['template']}"


def spent_words(spent: Mapping[str, float], *, most: int = 4) -> str:
    """Return what a wait was spent on, in a line: the longest spells, in their order."""
    worth = {slug: took for slug, took in spent.items() if took >= _BRIEF_S} or dict(spent)
    longest = sorted(worth, key=lambda slug: -worth[slug])[:most]
    told = [f"{slug} {seconds(took)}" for slug, took in worth.items() if slug in longest]
    return ", ".join(told) + (", ..." if len(worth) > most else "")


def moment(at: str | None) -> str:
    """Return a time of a document as people read it, in UTC: 2026-11-30 02:16:21."""
    return f"{at[:10]} {at[11:19]}" if at is not None else "?"


def table(rows: Sequence[Sequence[object]], *, width: int | None = None) -> str:
    """Return columns as wide as their widest cell, but the last as long as it is.

    ``width`` is that of a terminal: then the last column is folded under itself, or where little
    is left for it under its row.
    """
    texts = [[plain(cell) for cell in row] for row in rows]
    widths = [max(columns(cell) for cell in column) for column in zip(*texts, strict=True)]
    lines = [
        "  ".join(
            cell + " " * (to - columns(cell)) for cell, to in zip(row, widths, strict=True)
        ).rstrip()
        for row in texts
    ]
    if width is None or all(columns(line) <= width for line in lines):
        return "\n".join(lines)
    before = sum(widths[:-1]) + _GAP * (len(widths) - 1)
    if width - before >= min(_NARROW, widths[-1]):
        return "\n".join(
            line
            for row, whole in zip(texts, lines, strict=True)
            for line in _hanging(whole, row[-1], before, width)
        )
    return "\n".join(
        line
        for row, whole in zip(texts, lines, strict=True)
        for line in _stacked(whole[: len(whole) - len(row[-1])].rstrip(), row[-1], width)
    )


def _hanging(whole: str, last: str, before: int, width: int) -> list[str]:
    """Return a row whose last cell goes on under itself."""
    if columns(whole) <= width:
        return [whole]
    first, *more = folded(last, width - before)
    head = whole[: len(whole) - len(last)]
    return [head + first, *(" " * before + line for line in more)]


def _stacked(head: str, last: str, width: int) -> list[str]:
    """Return a row whose last cell stands under it."""
    room = max(width - _INDENT, 1)
    first, *more = [head] if columns(head) <= width else folded(head, room)
    more += folded(last, room) if last else []
    return [first, *(" " * _INDENT + line for line in more)]


def folded(text: str, width: int) -> list[str]:
    """Return a line as lines of at most ``width`` columns, between words where there are any."""
    lines = [""]
    for word in text.split(" "):
        line = f"{lines[-1]} {word}" if lines[-1] else word
        if columns(line) <= width:
            lines[-1] = line
            continue
        if lines[-1]:
            lines.append("")
        while columns(word) > width:
            part = cut(word, width)
            lines[-1] = part
            lines.append("")
            word = word[len(part) :]  # noqa: PLW2901 -- what is left of it
        lines[-1] = word
    return [line for line in lines if line] or [""]


def cut(text: str, width: int) -> str:
    """Return the beginning of a line that fits into so many columns; one character at least."""
    if text.isascii():
        return text[: max(width, 1)]
    taken = 0
    for place, character in enumerate(text):
        taken += _columns_of(character)
        if taken > width and place:
            return text[:place]
    return text


def columns(text: str) -> int:
    """Return how many columns of a terminal a line takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def plain(cell: object) -> str:
    """Return a text as one line, without what could steer a terminal, and without secrets."""
    return "" if cell is None else texts.clean(str(cell), _CELL)


def cleaned(value: object) -> object:
    """Return a document whose texts are all plain: JSON, too, is read in terminals."""
    match value:
        case str():
            return plain(value)
        case Mapping():
            return {plain(key): cleaned(part) for key, part in value.items()}
        case list() | tuple():
            return [cleaned(part) for part in value]
        case _:
            return value


def is_bad_end(dead: _Row) -> bool:
    """Whether an agent ended by accident; a cause that only a newer broker knows is shown."""
    cause = model.Cause.find(str(dead["slug"]))
    return cause is None or cause.accident


def as_of(head: _Row) -> str:
    """Return of when a document is, while the controller does not answer; else nothing."""
    if head.get("unknown_since") is None:
        return ""
    since = f"unknown for {seconds(head['unknown_age_s'])}"
    return f"as of {head['as_of'][11:19]} UTC, {since}" if head["as_of"] else since


def configuration_words(plan: _Row) -> list[tuple[str, str]]:
    """Return what is odd about what is in force, each as ``bad`` or ``wait``."""
    words = []
    if refusal := plan.get("configuration_refusal"):
        ago = seconds(plan["configuration_refused_age_s"])
        words.append(("bad", f"configuration refused {ago} ago, one before it works: {refusal}"))
    if waits := plan.get("configuration_waits"):
        words.append(("wait", f"a restart is needed for {', '.join(waits)}"))
    hook = plan.get("hook")
    if hook and hook["silent"]:
        why = f" ({hook['trouble']})" if hook["trouble"] else ""
        ago = seconds(hook["silent_age_s"])
        words.append(("wait", f"the push hook is silent for {ago}{why}: the queue is polled"))
    return words


def render(told: Mapping[str, _Row], *, width: int | None = None) -> str:
    """Return what the person on call wants to know first, from all four documents.

    ``width``: of the terminal that it is for.
    """
    plan, items = told["plan"], told["queue"]["items"]
    agents, ends = told["agents"]["agents"], told["agents"]["deaths"]
    phases = Counter(row["phase"] for row in agents)
    state = "ready" if plan["ready"] else f"NOT READY: {plan['ready_text']}"
    if not plan["leading"]:
        state += f", STANDBY ({plan['standby_text']})"
    elif plan["leader"]:
        state += f", leads as {plan['leader']}"
    of = as_of(told["queue"])
    of = f" ({of})" if of else ""

    def line(text: str) -> str:
        return "\n".join(folded(plain(text), width)) if width is not None else plain(text)

    def part(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
        return f"{title}:\n{table([head, *rows], width=width)}" if rows else f"{title}: none"

    parts = [
        line(
            f"owner {plan['owner']}, {state}, read {seconds(plan['observed_age_s'])} ago, "
            f"overshoot {plan['overshoot']}"
        ),
        *(line(words) for _, words in configuration_words(plan)),
        *(line(f"{row['text']}, until {order_end(row)}") for row in plan.get("orders", ())),
        part(
            f"waiting{of}",
            ("job", "item", "label", "waits", "reason", "why"),
            [
                (
                    item_name(i),
                    i["id"],
                    i["label"],
                    seconds(i["waiting_age_s"]),
                    i["reason"] or i["stage"],
                    i["text"] or i["controller_text"],
                )
                for i in items
            ],
        ),
        part(
            "held back",
            ("what", "for", "why"),
            [
                *(
                    (
                        held_words(b),
                        seconds(b["until_in_s"]),
                        b["text"],
                    )
                    for b in plan["backoffs"]
                ),
                *((r["subject"], "", r["text"]) for r in plan["refusals"]),
            ],
        ),
        part(
            "died",
            ("agent", "ago", "of", "in words"),
            [
                (
                    d["name"],
                    seconds(d["age_s"]),
                    d["slug"],
                    d["text"],
                )
                for d in ends
                if is_bad_end(d)
            ],
        ),
        part(
            "agents" + "".join(f", {n} {phase}" for phase, n in sorted(phases.items())) + of,
            ("agent", "phase", "age", "builds", "where", "runs"),
            [
                (
                    a["name"],
                    a["phase"],
                    seconds(a["age_s"]),
                    a["builds"],
                    where(a),
                    " ".join(
                        words
                        for words in (mishap_words(a), ", ".join(runs(a)), a["serves_nobody"])
                        if words
                    )
                    or state_words(a),
                )
                for a in agents
            ],
        ),
    ]
    return "\n\n".join(parts)


def order_end(row: _Row) -> str:
    """Return until when an order stands."""
    if row["until_at"] is None:
        return "it is taken back"
    return f"{moment(row['until_at'])}, in {seconds(row['until_in_s'])}"


def item_name(row: _Row) -> str:
    """Return the full name of an item's job; one broker of an earlier version tells the short."""
    return str(row.get("job") or row.get("task") or "")


def runs(row: _Row) -> Sequence[str]:
    """Return the builds that an agent runs."""
    return [str(one) for one in row.get("jobs", row["running"])]


def held_words(row: _Row) -> str:
    """Return what a pause is about: a template, one of its variants, a backend, a place on it."""
    asked = " ".join(row.get("asked", ()))
    variant = f"({asked})" if asked else ""
    backend = " ".join(str(part) for part in (row["backend"], row.get("place")) if part)
    what = " ".join(str(part) for part in (row["template"], variant) if part)
    return " on ".join(part for part in (what, backend) if part) or str(row["scope"])


def where(row: _Row) -> str:
    """Return the backend of an agent, and the place on it where it is known."""
    return " ".join(str(part) for part in (row["backend"], row.get("place")) if part)


def state_words(agent: _Row) -> str:
    """Return what the platform says of an agent that runs nothing: why not yet, or no more."""
    instance = agent["instance"]
    if instance is None:
        return ""
    age_s = instance["leaving_age_s"]
    leaving = "" if age_s is None else f"leaving for {seconds(age_s)}"
    return ": ".join(words for words in (leaving, instance["text"]) if words)


def mishap_words(agent: _Row) -> str:
    """Return what has befallen an agent that lives on; empty if nothing has."""
    mishap = agent["instance"] and agent["instance"].get("mishap")
    if not mishap:
        return ""
    ago = f", {seconds(mishap['age_s'])} ago" if mishap["age_s"] is not None else ""
    often = f", {mishap['times']} times by now" if mishap["times"] > 1 else ""
    return f"{mishap['text']}{ago}{often}"


def size(value: float) -> str:
    """Return an amount of memory as people say it: 12 MiB, 1.5 GiB."""
    mebibytes = value / (1 << 20)
    return f"{mebibytes:.0f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GiB"


def ports_words(instance: _Row | None) -> str:
    """Return where the published ports of an instance are reached; "": it has none."""
    told: _Row = instance or {}
    return ", ".join(
        f"{one['port']}/{one['protocol']} at "
        + (
            f"{_bracketed(reached)}:"
            if (reached := one["address"] or told.get("host", ""))
            else "port "
        )
        + f"{one['host_port']}"
        for one in told.get("ports", ())
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def usage_words(row: _Row | None) -> str:
    """Return what an instance used of memory and processors, as far as its platform told."""
    used: _Row = row or {}
    peak, cached = used.get("memory_peak_bytes"), used.get("memory_cached_peak_bytes")
    limit, spent_s = used.get("memory_limit_bytes"), used.get("cpu_s")
    cores, held_s = used.get("cpu_peak_cores"), used.get("throttled_s")
    parts = (
        f"{size(peak)} of memory at most" if peak is not None else "",
        f"{size(cached)} with files kept in it" if cached is not None else "",
        f"{size(limit)} allowed" if limit is not None else "",
        f"{seconds(spent_s)} of processor time" if spent_s is not None else "",
        f"{cores:.1f} processors at most" if cores is not None else "",
        f"held back by its limit of them for {seconds(held_s)}" if held_s else "",
    )
    return ", ".join(part for part in parts if part)
