"""The page at ``/``: who waits and why, the agents, and what they died of, in plain HTML.

Made from the same documents as the JSON, without scripts, re-read by the browser every few
seconds. All text is escaped here, remote text above all. Refuses to word reasons.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from broker.status import documents
from broker.status.source import StatusSource

_REFRESH_S = 3
_SHOWN = 200  # rows of one table; the JSON has all

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8883; --good: #2a7d46; --bad: #b3261e;
  --wait: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --good: #6cc38a; --bad: #ff8a80; --wait: #e3b341; } }
body { font: 14px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1.2rem; max-width: 84rem; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
.quiet { opacity: .7; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 12px/1.4 ui-monospace, monospace; background: var(--soft); padding: 0 .25em;
  border-radius: 3px; }
pre { font: 12px/1.4 ui-monospace, monospace; margin: .2rem 0 0; white-space: pre-wrap; }
p.none { margin: .2rem 0; opacity: .7; }
"""

_PHASES = {"idle": "good", "busy": "good", "lost": "bad", "orphan": "bad", "unknown": "bad"}

_Row = Mapping[str, Any]
_Column = tuple[str, str, Callable[[_Row], str]]  # head, class, cell (HTML)


def render(source: StatusSource) -> str:
    """Return the whole page."""
    plan = documents.plan(source)
    queue = documents.queue(source)
    agents = documents.agents(source)
    templates = documents.templates(source)
    parts = [
        _header(plan),
        _table("Waiting builds", queue["items"], _QUEUE, "Nothing waits."),
        _table("Templates", templates["templates"], _TEMPLATES, "No template is configured."),
        _table("Agents", agents["agents"], _AGENTS, "There is no agent."),
        _table(
            "Held back", [*plan["backoffs"], *plan["refusals"]], _HELD, "Nothing is held back."
        ),
        _table("What agents ended of", agents["deaths"], _DEATHS, "No agent has ended yet."),
        _table("Last actions", plan["outcomes"], _OUTCOMES, "Nothing was done yet."),
        _table("Sources", plan["sources"], _SOURCES, ""),
        '<p class="quiet">JSON: '
        + " ".join(f"<code>/api/v1/{n}</code>" for n in ("queue", "agents", "templates", "plan"))
        + " · metrics: <code>/metrics</code></p>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{_REFRESH_S}">'
        f"<title>{len(queue['items'])} waiting · {_text(plan['owner'])} · agent broker</title>"
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _header(plan: _Row) -> str:
    ready = (
        '<span class="good">ready</span>'
        if plan["ready"]
        else f'<span class="bad">not ready: {_text(plan["ready_text"])}</span>'
    )
    controller = plan["sources"][0]
    seen = (
        f"controller {_text(controller['version'])}, read {_seconds(plan['observed_age_s'])} ago"
        if controller["version"]
        else "controller not read yet"
    )
    draining = ' <span class="wait">draining</span>' if plan["draining"] else ""
    return (
        f"<header><h1>Agent broker <code>{_text(plan['owner'])}</code></h1> {ready}{draining}"
        f'<span class="quiet">{seen} · overshoot {_text(plan["overshoot"])} · '
        f"version {_text(plan['version'])}</span></header>"
    )


def _table(title: str, rows: Sequence[_Row], columns: Iterable[_Column], nothing: str) -> str:
    head = f"<h2>{title}</h2>"
    if not rows:
        return f'{head}<p class="none">{nothing}</p>' if nothing else ""
    columns = tuple(columns)
    names = "".join(f'<th class="{css}">{name}</th>' for name, css, _ in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{css}">{cell(row)}</td>' for _, css, cell in columns)
        + "</tr>"
        for row in rows[:_SHOWN]
    )
    more = (
        f'<p class="none">and {len(rows) - _SHOWN} more, see the JSON</p>'
        if len(rows) > _SHOWN
        else ""
    )
    return (
        f'{head}<div class="scroll"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}"
    )


def _text(value: object) -> str:
    return "" if value is None else html.escape(str(value))


def _code(value: object) -> str:
    return f"<code>{_text(value)}</code>" if value not in {None, ""} else ""


def _seconds(value: float | None) -> str:
    """Return a duration as people say it: 0.4 s, 12 s, 3 min, 2 h."""
    if value is None:
        return "?"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _of(key: str) -> Callable[[_Row], str]:
    return lambda row: _text(row.get(key))


def _age_of(key: str) -> Callable[[_Row], str]:
    return lambda row: _seconds(row.get(key)) if row.get(key) is not None else ""


def _item(row: _Row) -> str:
    return f"{_text(row['id'])} {_text(row['task'])}".strip()


def _label(row: _Row) -> str:
    if row["label"] is None and row["label_node"] is None:
        return f'<span class="quiet">{_text(row["label_source"])}</span>'
    return f"{_code(row['label'] or row['label_node'])}"


def _why(row: _Row) -> str:
    text = _text(row["text"]) or _text(row["controller_text"])
    return f"<b>{_text(row['reason'] or row['stage'])}</b> {text}"


def _phase(row: _Row) -> str:
    flight = row["in_flight"]
    doing = f" · {_text(flight['verb'])}" if flight is not None else ""
    cordoned = " · cordoned" if row["cordoned"] else ""
    css = _PHASES.get(row["phase"], "wait")
    return f'<span class="{css}">{_text(row["phase"])}</span>{doing}{cordoned}'


def _running(row: _Row) -> str:
    return "<br>".join(_text(url) for url in row["running"])


def _lines(row: _Row) -> str:
    lines = "\n".join(row["last_lines"][-5:])
    return _text(row["text"]) + (f"<pre>{_text(lines)}</pre>" if lines else "")


def _held_what(row: _Row) -> str:
    if "scope" in row:
        return _text(" ".join(p for p in (row["template"], row["backend"]) if p) or row["scope"])
    return _text(row["subject"])


def _source(row: _Row) -> str:
    return _text(row["backend"] or row["source"])


def _state(row: _Row) -> str:
    if row["synced"]:
        return '<span class="good">synced</span>'
    return f'<span class="bad">unknown</span> {_text(row["error"])}'


def _count(key: str) -> Callable[[_Row], str]:
    return lambda row: _text(row["counts"][key])


_QUEUE: tuple[_Column, ...] = (
    ("Item", "", _item),
    ("Label", "", _label),
    ("Waits", "n", _age_of("waiting_age_s")),
    ("Why", "", _why),
)
_TEMPLATES: tuple[_Column, ...] = (
    ("Template", "", lambda row: _code(row["name"])),
    ("Labels", "", lambda row: _text(" ".join(row.get("labels", ["(no longer configured)"])))),
    ("Demand", "n", _count("demand")),
    ("Idle", "n", _count("idle")),
    ("Busy", "n", _count("busy")),
    ("Starting", "n", _count("starting")),
    ("Keep warm", "n", _count("warm_target")),
    ("Agents", "n", _count("agents")),
    ("Cap", "n", _of("cap")),
)
_AGENTS: tuple[_Column, ...] = (
    ("Agent", "", lambda row: _code(row["name"])),
    ("Phase", "", _phase),
    ("Age", "n", _age_of("age_s")),
    ("Idle for", "n", _age_of("idle_age_s")),
    ("Builds", "n", _of("builds")),
    ("Backend", "", _of("backend")),
    ("Runs", "", _running),
)
_HELD: tuple[_Column, ...] = (
    ("What", "", _held_what),
    ("Until", "n", _age_of("until_in_s")),
    ("Why", "", _of("text")),
)
_DEATHS: tuple[_Column, ...] = (
    ("Agent", "", lambda row: _code(row["name"])),
    ("When", "n", lambda row: f"{_seconds(row['age_s'])} ago"),
    ("Reason", "", _of("slug")),
    ("In words", "", _lines),
)
_OUTCOMES: tuple[_Column, ...] = (
    ("When", "n", lambda row: f"{_seconds(row['ended_age_s'])} ago"),
    ("Action", "", lambda row: f"{_text(row['verb'])} {_code(row['name'])}"),
    ("Because", "", _of("reason")),
    ("Result", "", lambda row: f"{_text(row['result'])} {_text(row['text'])}"),
)
_SOURCES: tuple[_Column, ...] = (
    ("Source", "", _source),
    ("State", "", _state),
    ("Read", "n", lambda row: f"{_seconds(row['read_age_s'])} ago" if row["read_at"] else ""),
    ("Capacity", "", _of("capacity")),
)
