"""``describe`` and ``logs``: one agent, all that is known of it, and what it says.

What the broker knows is asked of the one that works here, else seen in a look of our own; what
an agent writes is read from its platform, with the rights of the configuration. Refuses to hold
rules.
"""

import argparse
import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

from backends import api as backends_api
from broker import clock, config, exits, log, output
from broker.cli import inspection, shared, single_look
from broker.core import model
from broker.status import documents, terminal
from outside import counts, waits

_ASK_S = 15.0
_EVERY_S = 1.0
_LISTED_EVERY = 5
"""Looks at the output between two at whether the agent is there: a listing is dear."""
KEPT = shared.LINES_KEPT
"""Lines of what was said last: by them what is new is found."""
_WHERE = "docs/troubleshooting.md"


def describe(options: argparse.Namespace) -> None:
    """Print all that is known of one agent."""
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    document = _known(settings, options.agent, aloud=True)
    if document is None:
        settings = shared.settings_of(options)
        log.configure(level="error", secrets=settings.secrets())
        document = asyncio.run(single_look.agent(settings, options.agent))
    if document["agent"] is None and document["death"] is None:
        raise exits.Failed(
            f"no agent {options.agent} is known, nor the end of one; "
            "hint: agent-broker status --names lists them"
        )
    if options.json:
        shared.print_json(document)
        return
    shared.print_table([*_rows(document)])
    for head, rows in (
        (
            ("when", "ago", "what"),
            [
                (terminal.moment(m["at"]), terminal.seconds(m["age_s"]), m["text"])
                for m in document["moments"]
            ],
        ),
        (
            ("when", "done", "why"),
            [
                (terminal.moment(e["at"]), f"{e['kind']} {e['result']}", e["text"])
                for e in document["events"]
            ],
        ),
    ):
        if rows:
            print()
            shared.print_table([head, *rows])
    if (dead := document["death"]) is not None and dead["last_lines"]:
        print("\nits last lines:")
        for line in dead["last_lines"]:
            print(f"  {terminal.plain(line)}")


def _known(
    settings: config.Settings, name: str, *, aloud: bool = False
) -> documents.Document | None:
    """Return what the broker says that works here; None if none answers."""
    path = f"agents/{name}"
    asked = inspection.RunningBroker.of(settings, path)
    if asked.answers is None:
        return None
    if aloud:
        asked.say()
    return asked.answers[path]


def _rows(document: documents.Document) -> Iterator[tuple[str, str]]:
    """Yield what a person reads of an agent, one line for each thing that is known."""
    yield "agent", document["name"]
    agent, node, dead = document["agent"], document["node"], document["death"]
    if agent is not None:
        cordoned = ", taken out of service" if agent["cordoned"] else ""
        if agent.get("check"):  # a broker of an earlier release says none
            cordoned = f", out of service until its {agent['check']} check has passed"
        yield "phase", f"{agent['phase']}{cordoned}"
        yield "why", document["text"]
        yield "template", _template(agent, document["template"])
        if agent["asked"]:
            yield "asked for", " ".join(agent["asked"])
        yield "where", terminal.where(agent)
        yield "age", terminal.seconds(agent["age_s"])
        yield "builds", str(agent["builds"])
        yield from (("runs", build) for build in terminal.runs(agent))
        yield from (
            ("serves", f"{terminal.item_name(item)} (item {item['id']}): {item['text']}")
            for item in document["serves"]
        )
        if (ordered := document["ordered_for"]) is not None:
            job = f"{ordered['job']} (item {ordered['item']})"
            yield "ordered for", job if ordered["job"] else f"item {ordered['item']}"
        yield "node", _node(node) if node is not None else "none"
        if node is not None:
            yield "labels", " ".join(node["labels"])
        yield "instance", _instance(agent)
        if agent["instance"] and (ports := terminal.ports_words(agent["instance"])):
            yield "ports", ports
        if agent["instance"] and (used := terminal.usage_words(agent["instance"].get("usage"))):
            yield "used", used
        if agent["serves_nobody"]:
            yield "serves nobody", agent["serves_nobody"]
    if dead is not None:
        yield from _death_rows(dead, alone=agent is None)


def _death_rows(dead: documents.Document, *, alone: bool) -> Iterator[tuple[str, str]]:
    yield "died", f"{terminal.seconds(dead['age_s'])} ago, {dead['phase']} before it"
    yield "of", f"{dead['slug']}: {dead['text']}"
    if alone:
        yield "template", dead["template"] or ""
        yield "where", terminal.where(dead)
    if dead["exit_code"] is not None:
        yield "exit code", str(dead["exit_code"])
    if used := terminal.usage_words(dead.get("usage")):
        yield "used", used
    yield "more", f"{_WHERE}, {dead['slug']}"


def _template(agent: documents.Document, template: documents.Document | None) -> str:
    if template is None:
        return f"{agent['template']} (no longer configured)" if agent["template"] else "not known"
    if agent["revision"] and agent["revision"] != template["revision"]:
        return f"{agent['template']} (its definition has changed since)"
    return str(agent["template"])


def _node(node: documents.Document) -> str:
    state = f"offline: {node['offline_cause']}" if node["offline"] else "online"
    executors = counts.told(node["executors"], "executor")
    return f"{state}, {node['busy_executors']} of {executors} at work"


def _instance(agent: documents.Document) -> str:
    instance = agent["instance"]
    if instance is None:
        return "none"
    words = (instance["state"], terminal.mishap_words(agent), terminal.state_words(agent))
    soon = f"will end: {instance['ends_because']}" if instance["ends_because"] else ""
    return "; ".join(part for part in (*words, soon) if part)


# --- logs --------------------------------------------------------------------------------------


def logs(options: argparse.Namespace) -> None:
    """Print what an agent has written last; with ``--follow`` also what it writes from then on."""
    settings = shared.settings_of(options)
    log.configure(level="error", secrets=settings.secrets())
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        asyncio.run(_logs(settings, options))


async def _logs(settings: config.Settings, options: argparse.Namespace) -> None:
    async with single_look.built(settings, clock.Clock(), reads_only=True) as broker:
        try:
            name, instance = await _find(broker.backends, options.agent)
        except _NotThere as error:
            await asyncio.to_thread(_print_last_words, settings, options, str(error))
            return
        backend, tail = broker.backends[name], Tail()
        try:
            first = await _read(backend, options.agent)
        except backends_api.BackendError as error:
            raise exits.Failed(f"backend {name}: {error.reason}") from error
        _print_lines(options, tail.news(first)[-options.tail :])
        if options.follow:
            end = await _follow(broker.backends, name, instance, tail, options)
            await asyncio.to_thread(_print_end, settings, options, end)


async def _follow(
    backends: Mapping[model.BackendName, backends_api.Backend],
    name: model.BackendName,
    instance: backends_api.Instance,
    tail: "Tail",
    options: argparse.Namespace,
) -> backends_api.Exit | None:
    """Print what is new until the agent has ended; return how, where its platform tells."""
    trouble, looks = "", 0
    while instance.exit is None or instance.state is not backends_api.InstanceState.EXITED:
        await asyncio.to_thread(output.pause, _EVERY_S)
        looks += 1
        try:
            _print_lines(options, tail.news(await _read(backends[name], options.agent)))
            if looks % _LISTED_EVERY == 0:
                _, instance = await _find({name: backends[name]}, options.agent)
            trouble = ""
        except (backends_api.NotFound, _NotThere):
            break
        except (backends_api.BackendError, exits.Failed) as error:
            words = str(error)
            if words != trouble:
                shared.note(f"backend {name}: {words}")
            trouble = words
    return instance.exit


async def _read(backend: backends_api.Backend, name: str) -> list[str]:
    return (await backend.logs(name, tail=KEPT)).splitlines()


class Tail:
    """What an output ended with so far, by which what is new in it is found."""

    def __init__(self) -> None:
        self._seen: list[str] = []
        self.missed = False

    def news(self, lines: Sequence[str]) -> Sequence[str]:
        """Return which of the last ``lines`` were not there before; ``missed``: not all of them.

        Lines that repeat themselves without end are found to be the ones that are known.
        """
        alike = min(len(self._seen), len(lines))
        while alike and self._seen[-alike:] != list(lines[:alike]):
            alike -= 1
        self.missed = bool(self._seen) and bool(lines) and not alike
        news = lines[alike:]
        self._seen = [*self._seen, *news][-KEPT:]
        return news


def _print_lines(options: argparse.Namespace, lines: Sequence[str]) -> None:
    for line in lines:
        if options.json:
            shared.print_json({"line": line}, as_line=True)
        else:
            print(terminal.plain(line), flush=True)


def _print_last_words(settings: config.Settings, options: argparse.Namespace, why: str) -> None:
    """Print what is kept of an agent that is gone. Raises Failed if nothing is."""
    known = _known(settings, options.agent)
    dead = known["death"] if known is not None else None
    if dead is None:
        raise exits.Failed(f"{why}; hint: agent-broker status --names lists the agents")
    _print_lines(options, dead["last_lines"][-options.tail :])
    _print_end(settings, options, None)


def _print_end(
    settings: config.Settings, options: argparse.Namespace, end: backends_api.Exit | None
) -> None:
    """Say that the agent is gone, and of what, by the broker's word or its platform's."""
    known = _known(settings, options.agent)
    dead = known["death"] if known is not None else None
    if dead is not None:
        slug, text = dead["slug"], dead["text"]
    elif end is not None:
        code = f"exit code {end.code}" if end.code is not None else ""
        slug, text = end.slug, ": ".join(part for part in (code, end.message) if part)
    else:
        slug, text = None, "of what is not known here; hint: the log of the broker"
    if options.json:
        shared.print_json({"ended": {"slug": slug, "text": text}}, as_line=True)
    else:
        shared.note(f"{options.agent} is gone: {f'{slug}: ' if slug else ''}{text}")


class _NotThere(Exception):  # noqa: N818 -- what it is
    """No platform shows the agent; ``str`` says which were asked."""


async def _find(
    backends: Mapping[model.BackendName, backends_api.Backend], name: str
) -> tuple[model.BackendName, backends_api.Instance]:
    """Return where an agent runs. Raises _NotThere, and Failed where not all could be asked."""

    async def listed(
        backend: backends_api.Backend,
    ) -> Sequence[backends_api.Instance] | str:
        try:
            async with waits.timeout(_ASK_S):
                return await backend.list()
        except backends_api.Partial as error:
            return error.seen if any(i.name == name for i in error.seen) else error.reason
        except backends_api.BackendError as error:
            return error.reason
        except TimeoutError:
            return f"no answer within {_ASK_S:.0f} s"

    answers = await asyncio.gather(*map(listed, backends.values()))
    silent = []
    for backend, answer in zip(backends, answers, strict=True):
        if isinstance(answer, str):
            silent.append(f"backend {backend}: {answer}")
            continue
        for one in answer:
            if one.name == name:
                return backend, one
    if silent:
        raise exits.Failed(f"whether {name} is there is not known: {'; '.join(silent)}")
    raise _NotThere(f"no instance {name} on {', '.join(backends)}")
