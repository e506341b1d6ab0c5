"""The page at ``/``: who waits and why, the agents, and what they died of, in plain HTML.

Made from the same documents as the JSON. It is whole without scripts; ``live.js`` keeps it fresh.
All text is escaped here, remote text above all. Refuses to word reasons.
"""

import functools
import html
import importlib.resources
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from broker.core import model
from broker.status import chart, documents, terminal
from broker.status.source import StatusSource
from outside import counts

_SHOWN = 200  # rows of one table; the others are found by looking for them, or in the JSON
_OF_A_GROUP = 20  # rows of builds that wait alike

_PHASES = {"idle": "good", "busy": "good", "lost": "bad", "orphan": "bad", "unknown": "bad"}
_NEEDS_PERSON = frozenset(reason.value for reason in model.WaitReason if reason.needs_person)
_STALE_S = 60.0

_Row = Mapping[str, Any]
_Column = tuple[str, str, Callable[[_Row], str]]  # head, class, cell (HTML)


def render(source: StatusSource, *, looked_for: str = "", root: str = "") -> str:
    """Return the whole page, or what somebody looks for; ``root``: the way to the first page."""
    wanted = documents.wanted(looked_for)
    plan = documents.plan(source, most=_SHOWN)
    agents = documents.agents(source, most=_SHOWN, looked_for=wanted)
    groups, more_groups = documents.groups(source, wanted, most=_OF_A_GROUP)
    templates = documents.templates(source)
    held = [*plan["backoffs"], *plan["refusals"]]
    held_total = len(plan["backoffs"]) + len(source.plan.refusals if source.plan else ())
    died = [d for d in agents["deaths"] if terminal.is_bad_end(d)]
    gone = [d for d in agents["deaths"] if not terminal.is_bad_end(d)]
    old = terminal.as_of(plan)
    of = f' <span class="bad">{escaped(old)}</span>' if old else ""
    lost = [s for s in plan["sources"] if s["error"] or not s["synced"]]
    good = [s for s in plan["sources"] if s["synced"] and not s["error"]]
    parts = [
        _strip(source, plan, held_total, died),
        table("sources-lost", "Sources", lost, _SOURCES, alarm=True),
        _waiting(groups, more_groups, of, wanted, root),
        table("orders", "Ordered by people", plan["orders"], _ORDERS),
        table("held", "Held back", held, _HELD, total=held_total, alarm=True),
        table("died", "Died", died, deaths(root), alarm=True),
        section("hour", "The last hour", chart.picture(source.hour, now=source.now())),
        table(
            "templates", "Templates", templates["templates"], _TEMPLATES,
            "No template is configured.",
        ),
        table(
            "agents",
            f"Agents{of}",
            agents["agents"],
            _agents(root),
            _no_agent(of, wanted),
            total=agents["total"],
            beyond="Look for one by its name, template, place or job.",
        ),
        table("gone", "Gone as planned", gone, deaths(root)),
        table("actions", "Last actions", plan["outcomes"], _OUTCOMES, "Nothing was done yet."),
        table("sources", "Sources", good, _SOURCES),
        _footer(root),
    ]  # fmt: skip
    total = _total(source)
    title = f"{total} waiting · {escaped(plan['owner'])} · agent broker"
    return whole(title, header(plan, root, looked_for), parts, root=root)


def _total(source: StatusSource) -> int:
    return int(documents.queue(source, most=0)["total"])


def whole(title: str, head: str, parts: Iterable[str], *, root: str) -> str:
    """Return a document: its style is in it, its script is beside it, nothing is elsewhere."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_style()}</style></head><body>{head}"
        f"<main>{''.join(parts)}</main>"
        f'<script src="{root}live.js" data-root="{root}"></script></body></html>'
    )


@functools.cache
def _style() -> str:
    return (importlib.resources.files("broker.status") / "page.css").read_text("utf-8")


def header(plan: _Row, root: str, looked_for: str = "") -> str:
    """Return what stands at the top: whose page it is, and what is looked for."""
    first = root or "./"
    return (
        f'<header><h1><a href="{first}">Agent broker <code>{escaped(plan["owner"])}</code></a>'
        f'</h1><form role="search" action="{first}"><label for="q">Look for</label> '
        f'<input id="q" name="q" type="search" value="{escaped(looked_for)}" maxlength="128" '
        'placeholder="job, label, reason, agent, place"><button>Look</button></form></header>'
    )


def _state(plan: _Row) -> str:
    """Return one line: is it ready, does it lead, what is odd, of when is all this."""
    ready = (
        '<span class="good">ready</span>'
        if plan["ready"]
        else f'<span class="bad">not ready: {escaped(plan["ready_text"])}</span>'
    )
    if not plan["leading"]:
        since = f" since {terminal.seconds(plan['leader_age_s'])}" if plan["leader"] else ""
        ready += f' <span class="wait">standby: {escaped(plan["standby_text"])}{since}</span>'
    elif plan["leader"]:
        ready += (
            f' <span class="good">leads since {terminal.seconds(plan["leader_age_s"])}</span>'
            f" as <code>{escaped(plan['leader'])}</code>"
        )
    controller = plan["sources"][0]
    age = plan["observed_age_s"]
    stale = ' class="bad"' if age is not None and age > _STALE_S else ""
    seen = (
        f"controller {escaped(controller['version'])}, "
        f"<span{stale}>read {terminal.seconds(age)} ago</span>"
        if controller["version"]
        else "controller not read yet"
    )
    odd = "".join(
        f' <span class="{css}">{escaped(words)}</span>'
        for css, words in terminal.configuration_words(plan)
    )
    draining = ' <span class="wait">draining</span>' if plan["draining"] else ""
    quiet = ' <span class="wait">controller shuts down</span>' * controller["quieting_down"]
    over = ' class="bad"' if plan["overshoot"] else ""
    return (
        f'<p class="state">{ready}{odd}{draining}{quiet} <span class="quiet">{seen} · '
        f"<span{over}>overshoot {escaped(plan['overshoot'])}</span> · "
        f"version {escaped(plan['version'])}</span></p>"
    )


def _strip(
    source: StatusSource,
    plan: _Row,
    held_total: int,
    died: Sequence[_Row],
) -> str:
    """Return the page in one line: what to worry about is coloured."""
    last = source.plan
    agents = last.agents if last is not None else ()
    stuck = sum(unmet.reason.needs_person for unmet in last.unmet) if last is not None else 0
    waiting = _total(source)
    items = documents.queue(source, most=1)["items"]
    ages = [row["waiting_age_s"] for row in items if row["waiting_age_s"] is not None]
    longest = f"longest {terminal.seconds(max(ages))}" if ages else "builds"
    phases = Counter(agent.phase.value for agent in agents)
    by_phase = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    counted = last.counts.values() if last is not None else ()
    busy, slots = sum(c.busy for c in counted), sum(c.busy + c.idle for c in counted)
    half, most = source.hour.waited(0.5), source.hour.waited(0.95)
    waits = (
        f"95 % within {terminal.seconds(most)}"
        if most is not None
        else "no build began in the last hour"
    )
    tiles = (
        (waiting, f"{waiting} waiting", "wait", longest, "#waiting"),
        (
            stuck,
            counts.told(stuck, "needs help", "need help"),
            "bad",
            "nothing will start by itself",
            "#waiting",
        ),
        (len(agents), counts.told(len(agents), "agent"), "", by_phase or "none", "#agents"),
        (slots, f"{busy / slots:.0%} used" if slots else "none used", "",
         f"{busy} of {counts.told(slots, 'executor')} at work", "#agents"),
        (half or 0.0, f"{terminal.seconds(half)} wait" if half is not None else "no waits", "",
         waits, "#hour"),
        (held_total, f"{held_total} held back", "wait", "after failures or by a rule", "#held"),
        (len(died), f"{len(died)} died", "bad", "of the last ends", "#died"),
    )  # fmt: skip
    cells = "".join(
        f'<li class="tile"><a href="{where}"><b class="{css if count else ""}">{words}</b>'
        f'<span class="quiet">{escaped(more)}</span></a></li>'
        for count, words, css, more, where in tiles
    )
    return (
        f'<section id="strip" class="bare">{_state(plan)}<ul class="tiles">{cells}</ul></section>'
    )


def _waiting(
    groups: Sequence[documents.AlikeBuilds],
    more: int,
    of: str,
    wanted: documents.RowFilter,
    root: str,
) -> str:
    """Return who waits: alike ones are one row, which unfolds."""
    title = f"Waiting builds{of}"
    if not groups:
        nothing = "Nothing that waits is like that." if wanted else "Nothing waits."
        words = "Nothing waited." if of else nothing
        return section("waiting", title, f'<p class="none">{words}</p>')
    rows = []
    for group in groups:
        first = group.rows[0]
        jobs = item(first) if group.total == 1 else _folded(f"group-{first['id']}", group, root)
        rows.append(
            f'<tr><td class="n" data-head="Builds">{group.total}</td><td class="k w">{jobs}</td>'
            f'<td class="k w">{_label(first)}</td><td class="n" data-head="Longest">'
            f"{terminal.seconds(group.longest_s)}</td><td>{why(first)}</td></tr>"
        )
    beyond = f'<p class="none">and {more} more reasons; look for a job or a label</p>'
    heads = (("Builds", "n"), ("Job", "k w"), ("Label", "k w"), ("Longest", "n"), ("Why", ""))
    names = "".join(f'<th scope="col" class="{css}">{name}</th>' for name, css in heads)
    return section(
        "waiting",
        title,
        f'<div class="scroll"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{beyond if more > 0 else ''}",
    )


def _folded(name: str, group: documents.AlikeBuilds, root: str) -> str:
    """Return the jobs of a group: the first ones, once it is unfolded."""
    waits = (
        f"<li>{item(row)} <span class='quiet'>{terminal.seconds(row['waiting_age_s'])}</span></li>"
        for row in group.rows
    )
    left = group.total - len(group.rows)
    query = urllib.parse.urlencode({"q": group.rows[0]["label"] or group.rows[0]["reason"] or ""})
    more = (
        f'<li><a href="{root or "./"}?{escaped(query)}">and {left} more</a></li>' if left else ""
    )
    jobs = len({row["job"] for row in group.rows})
    words = (group.rows[0]["job"] or "a job") + (" and others" if jobs > 1 else "")
    return (
        f'<details id="{name}"><summary>{escaped(words)}</summary>'
        f"<ul>{''.join(waits)}{more}</ul></details>"
    )


def _no_agent(of: str, wanted: documents.RowFilter) -> str:
    if wanted:
        return "No agent is like that."
    return "There was no agent." if of else "There is no agent."


def _footer(root: str) -> str:
    names = ("queue", "history", "agents", "templates", "plan", "events")
    links = " ".join(f'<a href="{root}api/v1/{n}">{n}</a>' for n in names)
    return (
        f'<footer id="footer"><p class="quiet">JSON: {links} · '
        f'<a href="{root}metrics">metrics</a></p>'
        '<noscript><p class="quiet">Without scripts this page is as of the moment in which it was '
        "loaded.</p></noscript></footer>"
    )


def section(name: str, title: str, inner: str, *, alarm: bool = False) -> str:
    """Return a part of the page with a heading; ``name`` is its anchor."""
    mark = ' class="alarm"' if alarm else ""
    return (
        f'<section id="{name}"{mark} aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title}</h2>{inner}</section>'
    )


def table(
    name: str,
    title: str,
    rows: Sequence[_Row],
    columns: Iterable[_Column],
    nothing: str = "",
    *,
    total: int | None = None,
    alarm: bool = False,
    beyond: str = "The JSON has all.",
) -> str:
    """Return a section; none at all when it has no rows and nothing to say about that.

    ``total``: how many rows there are, if not all are given; ``beyond``: where the others are.
    """
    if not rows:
        return section(name, title, f'<p class="none">{nothing}</p>') if nothing else ""
    columns = tuple(columns)
    total = len(rows) if total is None else total
    names = "".join(f'<th scope="col" class="{css}">{head}</th>' for head, css, _ in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{css}" data-head="{head}">{cell(row)}</td>' for head, css, cell in columns
        )
        + "</tr>"
        for row in rows[:_SHOWN]
    )
    more = f'<p class="none">and {total - _SHOWN} more. {beyond}</p>' if total > _SHOWN else ""
    return section(
        name,
        title,
        f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody>'
        f"</table></div>{more}",
        alarm=alarm,
    )


def escaped(value: object) -> str:
    """Return a text that means nothing to a browser."""
    return "" if value is None else html.escape(str(value))


def _link(url: object, text: object) -> str:
    """Return a link, for addresses of the web only: nothing else may run on a click."""
    if str(url or "").startswith(("http://", "https://")):
        return f'<a href="{escaped(url)}" rel="noreferrer">{escaped(text)}</a>'
    return escaped(text)


def _code(value: object) -> str:
    return f"<code>{escaped(value)}</code>" if value not in {None, ""} else ""


def _of(key: str) -> Callable[[_Row], str]:
    return lambda row: escaped(row.get(key))


def _age_of(key: str) -> Callable[[_Row], str]:
    return lambda row: terminal.seconds(row.get(key)) if row.get(key) is not None else ""


def item(row: _Row) -> str:
    """Return whose item it is, as a link where there is one."""
    return _link(row["url"], row["job"] or f"item {row['id']}")


def _label(row: _Row) -> str:
    if row["label"] is None and row["label_node"] is None:
        return f'<span class="quiet">{escaped(row["label_source"])}</span>'
    return f"{_code(row['label'] or row['label_node'])}"


def why(row: _Row) -> str:
    """Return why it waits."""
    text = escaped(row["text"]) or escaped(row["controller_text"])
    css = "bad" if row["reason"] in _NEEDS_PERSON else ""
    return f'<b class="{css}">{escaped(row["reason"] or row["stage"])}</b> {text}{_so_far(row)}'


def _so_far(row: _Row) -> str:
    """Return its place among those that wait for its template, and what it waited for."""
    words = terminal.place_words(row) if row.get("place") else ""
    place = f' <span class="quiet">({escaped(words)})</span>' if words else ""
    far = terminal.spent_words(row.get("so_far_s") or {})
    return place + (f'<br><span class="quiet">so far: {escaped(far)}</span>' if far else "")


def _agent(row: _Row, root: str) -> str:
    asked = " ".join(row["asked"])
    return _named(row, root) + (
        f'<br><span class="quiet">{escaped(asked)}</span>' if asked else ""
    )


def _named(row: _Row, root: str) -> str:
    name = urllib.parse.quote(str(row["name"]), safe="")
    return f'<a href="{root}agents/{escaped(name)}">{_code(row["name"])}</a>'


def phase(row: _Row) -> str:
    """Return where an agent is in its life, and what is being done about it."""
    flight = row["in_flight"]
    doing = f" · {escaped(flight['verb'])}" if flight is not None else ""
    cordoned = " · cordoned" if row["cordoned"] else ""
    if row["check"]:
        cordoned = f" · {escaped(row['check'])} check"
    css = _PHASES.get(row["phase"], "wait")
    return f'<span class="{css}">{escaped(row["phase"])}</span>{doing}{cordoned}'


def running(row: _Row) -> str:
    """Return the builds of an agent, and what there is to be said of it."""
    links = [_link(url, job) for url, job in zip(row["running"], row["jobs"], strict=True)]
    if mishap := terminal.mishap_words(row):
        links.insert(0, f'<span class="bad">{escaped(mishap)}</span>')
    if row["serves_nobody"]:
        links.append(f'<span class="wait">{escaped(row["serves_nobody"])}</span>')
    if not links:
        links.append(f'<span class="quiet">{escaped(terminal.state_words(row))}</span>')
    if ports := terminal.ports_words(row["instance"]):
        links.append(f'<span class="quiet">{escaped(ports)}</span>')
    return "<br>".join(links)


def _lines(row: _Row) -> str:
    lines = "\n".join(row["last_lines"][-5:])
    used = terminal.usage_words(row.get("usage"))
    return (
        escaped(row["text"])
        + (f'<br><span class="quiet">used {escaped(used)}</span>' if used else "")
        + (f"<pre>{escaped(lines)}</pre>" if lines else "")
    )


def _memory(row: _Row) -> str:
    usage = (row["instance"] or {}).get("usage") or {}
    used, limit = usage.get("memory_bytes"), usage.get("memory_limit_bytes")
    if used is None:
        return ""
    return terminal.size(used) + (f" of {terminal.size(limit)}" if limit is not None else "")


def _until(row: _Row) -> str:
    until = row.get("until_at")
    return (
        f"{escaped(until[11:19])} UTC, in {terminal.seconds(row['until_in_s'])}" if until else ""
    )


def _held_what(row: _Row) -> str:
    if "scope" in row:
        return escaped(terminal.held_words(row))
    return escaped(row["subject"])


def _source(row: _Row) -> str:
    return escaped(row["backend"] or row["source"])


def _read(row: _Row) -> str:
    return f"{terminal.seconds(row['read_age_s'])} ago" if row["read_at"] else ""


def _source_state(row: _Row) -> str:
    if row["synced"] and not row["error"]:
        return '<span class="good">synced</span>'
    if row["synced"]:
        return f'<span class="bad">partly</span> {escaped(row["error"])}'
    return f'<span class="bad">unknown</span> {escaped(row["error"])}'


def _because(row: _Row) -> str:
    said = f'<br><span class="quiet">{escaped(row["text"])}</span>' if row["text"] else ""
    job = f" ({escaped(row['job'])})" if row["job"] else ""
    return escaped(row["reason"]) + job + said


def _count(key: str) -> Callable[[_Row], str]:
    return lambda row: escaped(row["counts"][key])


_TEMPLATES: tuple[_Column, ...] = (
    ("Template", "k", lambda row: _code(row["name"])),
    ("Demand", "n", _count("demand")),
    ("Idle", "n", _count("idle")),
    ("Busy", "n", _count("busy")),
    ("Starting", "n", _count("starting")),
    ("Keep warm", "n", _count("warm_target")),
    ("Agents", "n", _count("agents")),
    ("Cap", "n", _of("cap")),
    ("Labels", "", lambda row: escaped(" ".join(row.get("labels", ["(no longer configured)"])))),
)
_ORDERS: tuple[_Column, ...] = (
    ("What stands", "", _of("text")),
    ("For", "n", _age_of("age_s")),
    ("Until", "k", lambda row: escaped(terminal.order_end(row))),
)
_HELD: tuple[_Column, ...] = (
    ("What", "k", _held_what),
    ("Until", "k", _until),
    ("Why", "", _of("text")),
)
_OUTCOMES: tuple[_Column, ...] = (
    ("When", "n", lambda row: f"{terminal.seconds(row['ended_age_s'])} ago"),
    ("Action", "k", lambda row: f"{escaped(row['verb'])} {_code(row['name'])}"),
    ("Result", "k", lambda row: escaped(row["result"])),
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
    ("State", "", _source_state),
)


def _agents(root: str) -> tuple[_Column, ...]:
    return (
        ("Agent", "k w", lambda row: _agent(row, root)),
        ("Phase", "k", phase),
        ("Age", "n", _age_of("age_s")),
        ("Idle for", "n", _age_of("idle_age_s")),
        ("Builds", "n", _of("builds")),
        ("Memory", "n", _memory),
        ("Where", "k", lambda row: escaped(terminal.where(row))),
        ("Runs", "", running),
    )


def deaths(root: str) -> tuple[_Column, ...]:
    """Return the columns of those that have ended."""
    return (
        ("Agent", "k w", lambda row: _named(row, root)),
        ("When", "n", lambda row: f"{terminal.seconds(row['age_s'])} ago"),
        ("Where", "k", lambda row: escaped(terminal.where(row))),
        ("Reason", "k", _of("slug")),
        ("In words", "", _lines),
    )
