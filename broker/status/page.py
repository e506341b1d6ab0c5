"""The page at ``/``: who waits and why, the agents, and what they died of, in plain HTML.

Made from the same documents as the JSON, without scripts, re-read by the browser every few
seconds. All text is escaped here, remote text above all. Refuses to word reasons.
"""

import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from broker.core import model
from broker.status import documents, terminal
from broker.status.source import StatusSource
from outside import counts

_REFRESH_S = 3
_SHOWN = 200  # rows of one table; the JSON has all

_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f8; --card: #fff; --line: #0001; --soft: #0000000d;
  --good: #22733d; --bad: #b3261e; --wait: #8a5a00; --badback: #b3261e14; }
@media (prefers-color-scheme: dark) { :root { --back: #15181b; --card: #1e2226; --line: #fff1;
  --soft: #ffffff14; --good: #6cc38a; --bad: #ff8a80; --wait: #e3b341; --badback: #ff8a801a; } }
* { box-sizing: border-box; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1.2rem; max-width: 84rem;
  background: var(--back); }
h1 { font-size: 1.25rem; margin: 0; } h2 { font-size: .95rem; margin: 0 0 .5rem; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem; margin: .8rem 0; }
section.alarm { border-left: 4px solid var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .8rem;
  margin: .8rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
.quiet { opacity: .72; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem 1.1rem .3rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
th { font-weight: 400; font-size: .85em; opacity: .72; white-space: nowrap; }
th:last-child, td:last-child { width: 100%; min-width: 14rem; padding-right: 0; }
td.k { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 12px/1.4 ui-monospace, monospace; background: var(--soft); padding: .1em .3em;
  border-radius: 4px; }
pre { font: 12px/1.4 ui-monospace, monospace; margin: .3rem 0 0; white-space: pre-wrap;
  background: var(--soft); padding: .3rem .5rem; border-radius: 4px; }
@media (max-width: 46rem) { body { padding: .7rem; } thead { display: none; }
  tr, th:last-child, td:last-child { display: block; width: auto; min-width: 0; }
  tr { padding: .4rem 0; border-bottom: 1px solid var(--line); } tr:last-child { border: 0; }
  td { display: inline-block; border: 0; padding: 0 .8rem 0 0; } td:empty { display: none; }
  td.k { white-space: normal; }
  td.n::before { content: attr(data-head) " "; opacity: .72; font-size: .85em; } }
a { color: inherit; } p { margin: .2rem 0; } p.none { opacity: .72; }
"""

_PHASES = {"idle": "good", "busy": "good", "lost": "bad", "orphan": "bad", "unknown": "bad"}
_NEEDS_PERSON = frozenset(reason.value for reason in model.WaitReason if reason.needs_person)
_STALE_S = 60.0

_Row = Mapping[str, Any]
_Column = tuple[str, str, Callable[[_Row], str]]  # head, class, cell (HTML)


def render(source: StatusSource) -> str:
    """Return the whole page."""
    plan = documents.plan(source, most=_SHOWN)
    queue = documents.queue(source, most=_SHOWN)
    agents = documents.agents(source, most=_SHOWN)
    templates = documents.templates(source)
    held = [*plan["backoffs"], *plan["refusals"]]
    held_total = len(plan["backoffs"]) + len(source.plan.refusals if source.plan else ())
    died = [d for d in agents["deaths"] if terminal.is_bad_end(d)]
    gone = [d for d in agents["deaths"] if not terminal.is_bad_end(d)]
    old = terminal.as_of(queue)
    of = f' <span class="bad">{_text(old)}</span>' if old else ""
    parts = [
        _header(plan),
        _tiles(source.plan, queue, held_total, died),
        _table(
            "Sources",
            [s for s in plan["sources"] if s["error"] or not s["synced"]],
            _SOURCES,
            alarm=True,
        ),
        _table(
            f"Waiting builds{of}",
            queue["items"],
            _QUEUE,
            "Nothing waited." if old else "Nothing waits.",
            total=queue["total"],
        ),
        _table("Ordered by people", plan["orders"], _ORDERS),
        _table("Held back", held, _HELD, total=held_total, alarm=True),
        _table("Died", died, _DEATHS, alarm=True),
        _table("Templates", templates["templates"], _TEMPLATES, "No template is configured."),
        _table(
            f"Agents{of}",
            agents["agents"],
            _AGENTS,
            "There was no agent." if old else "There is no agent.",
            total=agents["total"],
        ),
        _table("Gone as planned", gone, _DEATHS),
        _table("Last actions", plan["outcomes"], _OUTCOMES, "Nothing was done yet."),
        _table(
            "Sources", [s for s in plan["sources"] if s["synced"] and not s["error"]], _SOURCES
        ),
        '<p class="quiet">JSON: '
        + " ".join(
            f'<a href="api/v1/{n}">{n}</a>'
            for n in ("queue", "history", "agents", "templates", "plan")
        )
        + ' · <a href="metrics">metrics</a></p>',
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{_REFRESH_S}">'
        f"<title>{queue['total']} waiting · {_text(plan['owner'])} · agent broker</title>"
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _header(plan: _Row) -> str:
    ready = (
        '<span class="good">ready</span>'
        if plan["ready"]
        else f'<span class="bad">not ready: {_text(plan["ready_text"])}</span>'
    )
    if not plan["leading"]:
        since = f" since {terminal.seconds(plan['leader_age_s'])}" if plan["leader"] else ""
        ready += f' <span class="wait">standby: {_text(plan["standby_text"])}{since}</span>'
    elif plan["leader"]:
        ready += (
            f' <span class="good">leads since {terminal.seconds(plan["leader_age_s"])}</span>'
            f" as <code>{_text(plan['leader'])}</code>"
        )
    controller = plan["sources"][0]
    age = plan["observed_age_s"]
    old = ' class="bad"' if age is not None and age > _STALE_S else ""
    seen = (
        f"controller {_text(controller['version'])}, "
        f"<span{old}>read {terminal.seconds(age)} ago</span>"
        if controller["version"]
        else "controller not read yet"
    )
    reading = "".join(
        f' <span class="{css}">{_text(words)}</span>'
        for css, words in terminal.configuration_words(plan)
    )
    draining = ' <span class="wait">draining</span>' if plan["draining"] else ""
    quiet = ' <span class="wait">controller shuts down</span>' * controller["quieting_down"]
    over = ' class="bad"' if plan["overshoot"] else ""
    return (
        f"<header><h1>Agent broker <code>{_text(plan['owner'])}</code></h1> {ready}{reading}"
        f'{draining}{quiet}<span class="quiet">{seen} · '
        f"<span{over}>overshoot {_text(plan['overshoot'])}"
        f"</span> · version {_text(plan['version'])}</span></header>"
    )


def _tiles(plan: model.Plan | None, queue: _Row, held_total: int, died: Sequence[_Row]) -> str:
    """Return the page in one line: what to worry about is coloured."""
    agents = plan.agents if plan is not None else ()
    stuck = sum(unmet.reason.needs_person for unmet in plan.unmet) if plan is not None else 0
    waits = [row["waiting_age_s"] for row in queue["items"] if row["waiting_age_s"] is not None]
    longest = f"longest {terminal.seconds(max(waits))}" if waits else "builds"
    phases = Counter(agent.phase.value for agent in agents)
    by_phase = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b class="{css if count else ""}">{words}</b>'
            f'<span class="quiet">{_text(text)}</span></div>'
            for count, words, css, text in (
                (queue["total"], f"{queue['total']} waiting", "wait", longest),
                (
                    stuck,
                    counts.told(stuck, "needs help", "need help"),
                    "bad",
                    "nothing will start by itself",
                ),
                (len(agents), counts.told(len(agents), "agent"), "", by_phase or "none"),
                (held_total, f"{held_total} held back", "wait", "after failures or by a rule"),
                (len(died), f"{len(died)} died", "bad", "of the last ends"),
            )
        )
        + "</div>"
    )


def _table(
    title: str,
    rows: Sequence[_Row],
    columns: Iterable[_Column],
    nothing: str = "",
    *,
    total: int | None = None,
    alarm: bool = False,
) -> str:
    """Return a section; none at all when it has no rows and nothing to say about that.

    ``total``: how many rows there are, if not all are given.
    """
    if not rows:
        text = f'<p class="none">{nothing}</p>'
        return f"<section><h2>{title}</h2>{text}</section>" if nothing else ""
    columns = tuple(columns)
    total = len(rows) if total is None else total
    names = "".join(f'<th class="{css}">{name}</th>' for name, css, _ in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{css}" data-head="{head}">{cell(row)}</td>' for head, css, cell in columns
        )
        + "</tr>"
        for row in rows[:_SHOWN]
    )
    more = f'<p class="none">and {total - _SHOWN} more, see the JSON</p>' if total > _SHOWN else ""
    mark = ' class="alarm"' if alarm else ""
    return (
        f'<section{mark}><h2>{title}</h2><div class="scroll"><table><thead><tr>{names}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>{more}</section>"
    )


def _text(value: object) -> str:
    return "" if value is None else html.escape(str(value))


def _link(url: object, text: object) -> str:
    """Return a link, for addresses of the web only: nothing else may run on a click."""
    if str(url or "").startswith(("http://", "https://")):
        return f'<a href="{_text(url)}" rel="noreferrer">{_text(text)}</a>'
    return _text(text)


def _code(value: object) -> str:
    return f"<code>{_text(value)}</code>" if value not in {None, ""} else ""


def _of(key: str) -> Callable[[_Row], str]:
    return lambda row: _text(row.get(key))


def _age_of(key: str) -> Callable[[_Row], str]:
    return lambda row: terminal.seconds(row.get(key)) if row.get(key) is not None else ""


def _item(row: _Row) -> str:
    return _link(row["url"], row["job"] or f"item {row['id']}")


def _label(row: _Row) -> str:
    if row["label"] is None and row["label_node"] is None:
        return f'<span class="quiet">{_text(row["label_source"])}</span>'
    return f"{_code(row['label'] or row['label_node'])}"


def _why(row: _Row) -> str:
    text = _text(row["text"]) or _text(row["controller_text"])
    css = "bad" if row["reason"] in _NEEDS_PERSON else ""
    words = terminal.place_words(row)
    place = f' <span class="quiet">({_text(words)})</span>' if words else ""
    far = terminal.spent_words(row["so_far_s"])
    so_far = f'<br><span class="quiet">so far: {_text(far)}</span>' if far else ""
    return f'<b class="{css}">{_text(row["reason"] or row["stage"])}</b> {text}{place}{so_far}'


def _agent(row: _Row) -> str:
    asked = " ".join(row["asked"])
    return _code(row["name"]) + (f'<br><span class="quiet">{_text(asked)}</span>' if asked else "")


def _phase(row: _Row) -> str:
    flight = row["in_flight"]
    doing = f" · {_text(flight['verb'])}" if flight is not None else ""
    cordoned = " · cordoned" if row["cordoned"] else ""
    if row["check"]:
        cordoned = f" · {_text(row['check'])} check"
    css = _PHASES.get(row["phase"], "wait")
    return f'<span class="{css}">{_text(row["phase"])}</span>{doing}{cordoned}'


def _running(row: _Row) -> str:
    links = [_link(url, job) for url, job in zip(row["running"], row["jobs"], strict=True)]
    if mishap := terminal.mishap_words(row):
        links.insert(0, f'<span class="bad">{_text(mishap)}</span>')
    if row["serves_nobody"]:
        links.append(f'<span class="wait">{_text(row["serves_nobody"])}</span>')
    if not links:
        links.append(f'<span class="quiet">{_text(terminal.state_words(row))}</span>')
    if ports := terminal.ports_words(row["instance"]):
        links.append(f'<span class="quiet">{_text(ports)}</span>')
    return "<br>".join(links)


def _lines(row: _Row) -> str:
    lines = "\n".join(row["last_lines"][-5:])
    used = terminal.usage_words(row.get("usage"))
    return (
        _text(row["text"])
        + (f'<br><span class="quiet">used {_text(used)}</span>' if used else "")
        + (f"<pre>{_text(lines)}</pre>" if lines else "")
    )


def _memory(row: _Row) -> str:
    usage = (row["instance"] or {}).get("usage") or {}
    used, limit = usage.get("memory_bytes"), usage.get("memory_limit_bytes")
    if used is None:
        return ""
    return terminal.size(used) + (f" of {terminal.size(limit)}" if limit is not None else "")


def _until(row: _Row) -> str:
    until = row.get("until_at")
    return f"{_text(until[11:19])} UTC, in {terminal.seconds(row['until_in_s'])}" if until else ""


def _held_what(row: _Row) -> str:
    if "scope" in row:
        return _text(terminal.held_words(row))
    return _text(row["subject"])


def _source(row: _Row) -> str:
    return _text(row["backend"] or row["source"])


def _read(row: _Row) -> str:
    return f"{terminal.seconds(row['read_age_s'])} ago" if row["read_at"] else ""


def _state(row: _Row) -> str:
    if row["synced"] and not row["error"]:
        return '<span class="good">synced</span>'
    if row["synced"]:
        return f'<span class="bad">partly</span> {_text(row["error"])}'
    return f'<span class="bad">unknown</span> {_text(row["error"])}'


def _because(row: _Row) -> str:
    said = f'<br><span class="quiet">{_text(row["text"])}</span>' if row["text"] else ""
    job = f" ({_text(row['job'])})" if row["job"] else ""
    return _text(row["reason"]) + job + said


def _count(key: str) -> Callable[[_Row], str]:
    return lambda row: _text(row["counts"][key])


_QUEUE: tuple[_Column, ...] = (
    ("Job", "k", _item),
    ("Item", "n", _of("id")),
    ("Label", "k", _label),
    ("Waits", "n", _age_of("waiting_age_s")),
    ("Why", "", _why),
)
_TEMPLATES: tuple[_Column, ...] = (
    ("Template", "k", lambda row: _code(row["name"])),
    ("Demand", "n", _count("demand")),
    ("Idle", "n", _count("idle")),
    ("Busy", "n", _count("busy")),
    ("Starting", "n", _count("starting")),
    ("Keep warm", "n", _count("warm_target")),
    ("Agents", "n", _count("agents")),
    ("Cap", "n", _of("cap")),
    ("Labels", "", lambda row: _text(" ".join(row.get("labels", ["(no longer configured)"])))),
)
_AGENTS: tuple[_Column, ...] = (
    ("Agent", "k", _agent),
    ("Phase", "k", _phase),
    ("Age", "n", _age_of("age_s")),
    ("Idle for", "n", _age_of("idle_age_s")),
    ("Builds", "n", _of("builds")),
    ("Memory", "n", _memory),
    ("Where", "k", lambda row: _text(terminal.where(row))),
    ("Runs", "", _running),
)
_ORDERS: tuple[_Column, ...] = (
    ("What stands", "", _of("text")),
    ("For", "n", _age_of("age_s")),
    ("Until", "k", lambda row: _text(terminal.order_end(row))),
)
_HELD: tuple[_Column, ...] = (
    ("What", "k", _held_what),
    ("Until", "k", _until),
    ("Why", "", _of("text")),
)
_DEATHS: tuple[_Column, ...] = (
    ("Agent", "k", lambda row: _code(row["name"])),
    ("When", "n", lambda row: f"{terminal.seconds(row['age_s'])} ago"),
    ("Where", "k", lambda row: _text(terminal.where(row))),
    ("Reason", "k", _of("slug")),
    ("In words", "", _lines),
)
_OUTCOMES: tuple[_Column, ...] = (
    ("When", "n", lambda row: f"{terminal.seconds(row['ended_age_s'])} ago"),
    ("Action", "k", lambda row: f"{_text(row['verb'])} {_code(row['name'])}"),
    ("Result", "k", lambda row: _text(row["result"])),
    ("Because", "", _because),
)
_SOURCES: tuple[_Column, ...] = (
    ("Source", "k", _source),
    (
        "Read",
        "n",
        lambda row: f"{terminal.seconds(row['read_age_s'])} ago" if row["read_at"] else "",
    ),
    ("Capacity", "k", _of("capacity")),
    ("State", "", _state),
)
