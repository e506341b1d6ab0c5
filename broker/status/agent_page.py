"""The page of one agent: where it is in its life, what it runs, what it uses, what it died of.

Made from the document of one agent. Refuses to word reasons, and to ask a platform.
"""

import urllib.parse
from collections.abc import Mapping
from typing import Any

from broker.status import documents, page, terminal
from broker.status.page import escaped
from broker.status.source import StatusSource

_ROOT = "../"
_Row = Mapping[str, Any]


def render(source: StatusSource, name: str) -> str:
    """Return the page of an agent that is, or was, there."""
    told = documents.agent(source, name)
    plan = documents.plan(source, most=0)
    parts = [_about(told), _moments(told), _serves(told), _death(told), _events(told), _more(name)]
    title = f"{escaped(name)} · {escaped(plan['owner'])} · agent broker"
    return page.whole(title, page.header(plan, _ROOT), parts, root=_ROOT)


def _about(told: _Row) -> str:
    row, node, name = told["agent"], told["node"], told["name"]
    title = f"Agent <code>{escaped(name)}</code>"
    if row is None:
        words = "It is gone." if told["death"] is not None else "No agent of that name is known."
        return page.section("about", title, f'<p class="none">{words}</p>')
    ordered = told["ordered_for"]
    facts = [
        ("Phase", page.phase(row) + (f" — {escaped(told['text'])}" if told["text"] else "")),
        ("Template", escaped(row["template"])),
        ("Where", escaped(terminal.where(row))),
        ("Age", terminal.seconds(row["age_s"])),
        ("Ordered for", escaped(ordered["job"] or f"item {ordered['item']}") if ordered else ""),
        ("Builds", escaped(row["builds"])),
        ("Runs", page.running(row)),
        ("Labels", escaped(" ".join(node["labels"])) if node is not None else ""),
        ("Out of service", escaped(row["offline_cause"])),
        ("Held by", escaped(row["held_by"])),
        ("Used", escaped(terminal.usage_words((row["instance"] or {}).get("usage")))),
    ]
    cells = "".join(f"<dt>{head}</dt><dd>{cell}</dd>" for head, cell in facts if cell)
    return page.section("about", title, f"<dl>{cells}</dl>")


def _moments(told: _Row) -> str:
    rows = told["moments"]
    if not rows:
        return ""
    lines = "".join(
        f"<li>{escaped(row['text'])} <span class='quiet'>{terminal.moment(row['at'])} UTC, "
        f"{terminal.seconds(row['age_s'])} ago</span></li>"
        for row in rows
    )
    return page.section("moments", "Its life so far", f'<ol class="moments">{lines}</ol>')


def _serves(told: _Row) -> str:
    columns = (("Job", "k", page.item), ("Why", "", page.why))
    return page.table("serves", "Wait for it", told["serves"], columns)


def _death(told: _Row) -> str:
    rows = [told["death"]] if told["death"] is not None else []
    is_bad = bool(rows) and terminal.is_bad_end(rows[0])
    return page.table("death", "What it ended of", rows, page.deaths(_ROOT), alarm=is_bad)


def _events(told: _Row) -> str:
    columns = (
        ("When", "n", lambda row: f"{terminal.seconds(row['age_s'])} ago"),
        ("What", "k", lambda row: escaped(f"{row['kind']} {row['result']}".removesuffix(" ok"))),
        ("In words", "", lambda row: escaped(row["text"])),
    )
    return page.table("events", "Lately", told["events"][::-1], columns)


def _more(name: str) -> str:
    path = f"{_ROOT}api/v1/agents/{urllib.parse.quote(name, safe='')}"
    return (
        f'<footer id="footer"><p class="quiet"><a href="{escaped(path)}">JSON</a> · what it has '
        f"written: <code>agent-broker logs {escaped(name)}</code></p></footer>"
    )
