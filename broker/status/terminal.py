"""The status for a terminal, from the same documents as the page; tables, durations.

Remote text goes to a terminal here, so what could steer it is made harmless. Refuses to word
reasons and to ask anybody.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from broker.core import model
from outside import text as texts

_CELL = 4096
_Row = Mapping[str, Any]


def seconds(value: float | None) -> str:
    """Return a duration as people say it: 0.4 s, 12 s, 3 min, 2 h."""
    if value is None:
        return "?"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return columns as wide as their widest cell, but the last as long as it is."""
    texts = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    )


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
    """Return what is odd about the configuration in force, each as ``bad`` or ``wait``."""
    words = []
    if refusal := plan.get("configuration_refusal"):
        ago = seconds(plan["configuration_refused_age_s"])
        words.append(("bad", f"configuration refused {ago} ago, one before it works: {refusal}"))
    if waits := plan.get("configuration_waits"):
        words.append(("wait", f"a restart is needed for {', '.join(waits)}"))
    return words


def render(told: Mapping[str, _Row]) -> str:
    """Return what the person on call wants to know first, from all four documents."""
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
    parts = [
        plain(
            f"owner {plan['owner']}, {state}, read {seconds(plan['observed_age_s'])} ago, "
            f"overshoot {plan['overshoot']}"
        ),
        *(plain(words) for _, words in configuration_words(plan)),
        _part(
            f"waiting{of}",
            ("item", "label", "waits", "reason", "why"),
            [
                (i["id"], i["label"], seconds(i["waiting_age_s"]), i["reason"], i["text"])
                for i in items
            ],
        ),
        _part(
            "held back",
            ("what", "for", "why"),
            [
                *(
                    (
                        " ".join(
                            part for part in (b["template"], b["backend"], b.get("place")) if part
                        )
                        or b["scope"],
                        seconds(b["until_in_s"]),
                        b["text"],
                    )
                    for b in plan["backoffs"]
                ),
                *((r["subject"], "", r["text"]) for r in plan["refusals"]),
            ],
        ),
        _part(
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
        _part(
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
                        part
                        for part in (mishap_words(a), *a["running"], a["serves_nobody"])
                        if part
                    )
                    or state_words(a),
                )
                for a in agents
            ],
        ),
    ]
    return "\n\n".join(parts)


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


def _part(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    return f"{title}:\n{table([head, *rows])}" if rows else f"{title}: none"
