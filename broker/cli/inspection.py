"""``status``, ``events``, ``plan``, ``sweep``, ``record``, ``doctor``: what is there.

The broker at work is asked where there is one; else they look by themselves.

Refuses to hold rules: what is right is decided in the core, what is shown comes from the same
documents as the status page.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import pathlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs
import yarl
from attrs import field, frozen

from backends.kit import finding
from broker import assembly, clock, config, exits, log, page_address, store, trying
from broker.cli import doctor as doctors
from broker.cli import recording, shared, single_look, trying_there, watching
from broker.core.fleet import marks
from broker.loop import ending
from broker.status import documents, terminal
from outside import counts

_SWEEPS_ITSELF = (
    "a broker is at work with this state_dir, and sweeps by itself; hint: agent-broker sweep says "
    "what is left over; to remove every agent stop it first, or let it go by run --drain"
)


def plan(options: argparse.Namespace) -> None:
    """Print what is to be done now: by the broker that works here, else by a look of our own."""
    if options.world is not None:
        _print_plan(options, recording.replayed(options.world, number=options.number), url=None)
        return
    if options.number is not None:
        raise exits.BadInput("--number is of --world; hint: name the file with --world FILE")
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    asked = RunningBroker.of(settings, "plan", "queue", "agents")
    ours = (
        asked.answers is not None
        and asked.answers["plan"]["configuration"] == settings.fingerprint
    )
    if asked.answers is not None and ours:
        asked.say()
        shown = asked.answers
    else:
        if asked.answers is not None:
            shared.note(
                "the broker that works here has another configuration in force: by the file"
            )
        settings = shared.settings_of(options)
        log.configure(level="error", secrets=settings.secrets())
        shown = asyncio.run(single_look.dry(settings))
    _print_plan(options, shown, url=asked.url if ours else None)


def record(options: argparse.Namespace) -> None:
    """Write what is seen to a file, until it is told to end."""
    settings = shared.settings_of(options)
    log.configure(level="error", secrets=settings.secrets())
    asyncio.run(
        recording.record(
            settings,
            options.path,
            seconds=options.seconds,
            every_s=options.every,
            with_names=options.names,
        )
    )


def _print_plan(
    options: argparse.Namespace, shown: dict[str, documents.Document], *, url: str | None
) -> None:
    document = _plan_document(shown, url=url)
    if options.json:
        shared.print_json(document)
        return
    actions = document["actions"]
    if actions:
        launches = [(a["verb"], a["name"], a["job"], a["reason"]) for a in actions]
        shared.print_table([("would", "agent", "for", "because"), *launches])
    else:
        print("nothing to do")
    parts: tuple[tuple[tuple[str, ...], list[tuple[Any, ...]]], ...] = (
        (
            ("under way", "agent", "because"),
            [(a["verb"], a["name"], a["reason"]) for a in document["under_way"]],
        ),
        (
            ("waits", "item", "agent", "reason", "why"),
            [(w["job"], w["item"], w["agent"], w["reason"], w["text"]) for w in document["waits"]],
        ),
        (("held back", "why"), [(h["subject"], h["text"]) for h in document["held_back"]]),
    )
    for head, rows in parts:
        if rows:
            print()
            shared.print_table([head, *rows])


def _plan_document(shown: dict[str, documents.Document], *, url: str | None) -> dict[str, Any]:
    agents = shown["agents"]["agents"]
    return {
        "asked": url,
        "actions": shown["plan"]["actions"],
        "under_way": [
            {"name": a["name"], "verb": a["in_flight"]["verb"], "reason": a["in_flight"]["reason"]}
            for a in agents
            if a["in_flight"] is not None
        ],
        "waits": [
            {
                "item": i["id"],
                "job": i["job"],
                "reason": i["reason"],
                "text": i["text"],
                "template": i["template"],
                "agent": i["agent"],
            }
            for i in shown["queue"]["items"]
            if i["reason"] is not None
        ],
        "held_back": shown["plan"]["refusals"],
        "agents": [{key: a[key] for key in ("name", "phase", "template")} for a in agents],
    }


def doctor(options: argparse.Namespace) -> None:
    """Check everything from outside; fails if anything will not work."""
    if options.tries and options.read_only:
        raise exits.BadInput("--try and --read-only: one of them")
    settings = shared.settings_of(options)
    log.configure(level="error", secrets=settings.secrets())
    findings = asyncio.run(_examine(settings, options))
    if options.json:
        shared.print_json([{**attrs.asdict(f), "verdict": f.verdict.value} for f in findings])
    bad = sum(f.verdict is finding.Grade.FAIL for f in findings)
    if bad:
        raise exits.Failed(f"{bad} of {counts.told(len(findings), 'check')} failed")


async def _examine(
    settings: config.Settings, options: argparse.Namespace
) -> list[finding.Finding]:
    watch = clock.Clock()
    findings: list[finding.Finding] = []
    shared = settings.high_availability
    lease = assembly.make_lease(shared) if shared is not None else None
    async with (
        single_look.built(settings, watch, reads_only=True) as broker,
        contextlib.AsyncExitStack() as stack,
    ):
        if lease is not None:
            stack.push_async_callback(lease.aclose)
        probe = f"{settings.owner}-doctor-{secrets.token_hex(3)}" if options.tries else None
        running = doctors.running(settings, broker.files)
        checks = doctors.examine(
            settings, broker.backends, now=watch.now, probe=probe, lease=lease
        )
        async for one in _chained(running, checks, _tries(settings, options, findings, watch)):
            findings.append(one)
            if not options.json:
                check, said = terminal.plain(one.check), terminal.plain(one.text)
                print(f"{one.verdict.value:4}  {check:18}  {said}", flush=True)
                who = f" (fault: {one.fault})" if one.fault else ""
                if one.hint or who:
                    hint = one.hint or finding.whose(one.fault)
                    print(f"{'':26}-> {terminal.plain(hint)}{who}")
    return findings


async def _tries(
    settings: config.Settings,
    options: argparse.Namespace,
    before: Sequence[finding.Finding],
    watch: clock.Clock,
) -> AsyncIterator[finding.Finding]:
    """Try an agent of each template on each of its backends, once all else is well.

    By the broker at work where there is one that may be told to, else as an owner of its own.
    """
    if not options.tries:
        return
    if any(one.verdict is finding.Grade.FAIL for one in before):
        yield finding.warn("try", "no agent was tried", "mend what failed first")
        return
    by = await trying_there.way(settings)
    yield by.said
    if by.note is not None:
        async for one in trying_there.tries(settings, by):
            yield one
        return
    with tempfile.TemporaryDirectory(prefix="agent-broker-try-") as folder:
        path = pathlib.Path(folder)
        own = attrs.evolve(settings, owner=trying.OWNER.format(settings.owner), state_dir=path)
        async with single_look.built(own, watch, reads_only=False) as broker:
            trier = assembly.trier(broker)
            for template in broker.policy.templates:
                if template.paused or not template.backends:
                    yield finding.warn(f"try {template.name}", "not tried: it is paused")
                    continue
                for backend in template.backends:
                    async for one in trier.findings(template, backend):
                        yield one


async def _chained(*parts: AsyncIterator[finding.Finding]) -> AsyncIterator[finding.Finding]:
    for part in parts:
        async for one in part:
            yield one


def sweep(options: argparse.Namespace) -> None:
    """List what is left over; remove it with ``--yes``, where no broker is at work."""
    if options.yes:
        _clear(options)
        return
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    name = "leftovers/all" if options.all else "leftovers"
    asked = RunningBroker.of(settings, name)
    if asked.answers is not None:
        asked.say()
        document = asked.answers[name]
    else:
        settings = shared.settings_of(options)
        log.configure(level="error", secrets=settings.secrets())
        document = asyncio.run(single_look.leftover(settings, everything=options.all))
    rows = [{"name": a["name"], "reason": a["reason"]} for a in document["leftovers"]]
    kept = [{"name": r["subject"], "reason": r["text"]} for r in document["kept"]]
    _print_swept(options, rows, [], kept)
    if options.all and not options.json:
        print(terminal.plain(f"would go at last: {_last(settings)}"))
    if not rows:
        return
    if asked.answers is not None:
        left = counts.told(len(rows), "is left over", "are left over")
        way = "to remove every agent, stop it with SIGTERM after run --drain"
        raise exits.Refused(
            f"{left}; the broker that works here removes what nobody needs by itself; hint: {way}"
            if options.all
            else f"{left}; the broker that works here removes what is left over by itself"
        )
    raise exits.Refused(f"{len(rows)} would be removed; hint: add --yes")


def _clear(options: argparse.Namespace) -> None:
    settings = shared.settings_of(options)
    log.configure(level="error", secrets=settings.secrets())
    with shared.state_dir(settings, busy=_SWEEPS_ITSELF):
        rows, removed, kept = asyncio.run(
            single_look.clear(
                settings,
                everything=options.all,
                before=lambda rows: shared.note(_announced(options, settings, rows)),
            )
        )
    _print_swept(options, rows, removed, kept)
    failed = [row["name"] for row in rows if row["name"] not in removed]
    if failed:
        left = counts.told(len(failed), "is left", "are left")
        raise exits.Failed(f"{left} that could not be removed: {ending.listed(failed)}")


def _announced(
    options: argparse.Namespace, settings: config.Settings, rows: single_look.Rows
) -> str:
    """Say what is about to be removed, before any of it is."""
    names = ending.listed([row["name"] for row in rows]) or "nothing"
    last = f"; at last {_last(settings)}" if options.all else ""
    return f"about to remove {names}{last}"


def _last(settings: config.Settings) -> str:
    return f"{marks.placeholder_name(settings.owner)}, the node that the broker keeps for itself"


def _print_swept(
    options: argparse.Namespace,
    rows: single_look.Rows,
    removed: list[str],
    kept: single_look.Rows,
) -> None:
    if options.json:
        shared.print_json({"found": rows, "removed": removed, "kept": kept})
        return
    if not rows and not kept:
        print("nothing is left over")
    for row in rows:
        left = "would go" if options.all and not options.yes else "left over"
        state = "removed" if row["name"] in removed else left
        print(terminal.plain(f"{state}: {row['name']}: {row['reason']}"))
    for row in kept:
        print(terminal.plain(f"kept: {row['name']}: {row['reason']}"))


_BY_URL = (
    "a broker at work keeps the configuration that it read last, and answers all the same; hint: "
    "--url http://HOST:PORT names its page (its log says where it listens)"
)
_STATUS = ("plan", "queue", "templates", "agents")


def status(options: argparse.Namespace) -> None:
    """Ask the running broker, once or again and again."""
    if options.names and (options.json or options.watch is not None):
        raise exits.BadInput("--names stands alone; hint: agent-broker status --help")
    if options.watch is None:
        shown, url = _asked(options)
        if options.names:
            for row in shown["agents"]["agents"]:
                print(terminal.plain(row["name"]))
        elif options.json:
            shared.print_json(shown)
        else:
            print(_rendered(shown, url))
        return
    screen = watching.Screen()

    def show() -> bool:
        try:
            shown, url = _asked(options)
            text = "" if options.json else _rendered(shown, url)
        except exits.Failed as error:
            screen.fail(str(error))
            return True
        if options.json:
            shared.print_json(shown, as_line=True)
            screen.last = url  # from now on a broker that is away is waited for
        else:
            screen.show(text, f"{_time()}, every {options.watch:g} s; Ctrl-C ends it")
        return True

    watching.again(show, every_s=options.watch)


def _time() -> str:
    return f"{dt.datetime.fromtimestamp(clock.Clock().wall(), dt.UTC):%H:%M:%S} UTC"


def _asked(options: argparse.Namespace) -> tuple[dict[str, documents.Document], str]:
    return asyncio.run(asked(options, ("agents",) if options.names else _STATUS))


def _rendered(shown: dict[str, documents.Document], url: str) -> str:
    try:
        return terminal.render(shown, width=shared.width())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise exits.Failed(f"the broker at {url} is not of this version: {words}") from error


def events(options: argparse.Namespace) -> None:
    """Print what the running broker did of late, and why; with ``--follow`` also what follows."""
    news = _News()

    def show() -> bool:
        try:
            shown, _ = asyncio.run(asked(options, ("events",)))
        except exits.Failed as error:
            news.fail(str(error))
            return True
        for event in news.of(shown["events"]["events"]):
            if options.json:
                shared.print_json(event, as_line=True)
            else:
                print(_event(event), flush=True)
        return True

    if options.follow:
        watching.again(show, every_s=_EVENTS_S)
        return
    shown, _ = asyncio.run(asked(options, ("events",)))
    rows = shown["events"]["events"]
    if options.json:
        shared.print_json(rows)
        return
    if not rows:
        print("nothing was done yet")
    for event in rows:
        print(_event(event))


_EVENTS_S = 1.0


class _News:
    """Which events are new, and whether the broker is away, each said once."""

    def __init__(self) -> None:
        self._seen: set[tuple[object, ...]] | None = None
        self._away = ""

    def of(self, rows: Sequence[documents.Document]) -> list[documents.Document]:
        """Return those that were not there the last time, the oldest first."""
        before, self._away = self._seen, ""
        keys = [(r["at"], r["kind"], r["agent"], r["result"], r["slug"]) for r in rows]
        self._seen = set(keys)
        if before and rows and not before & self._seen:
            shared.note("some may be missing here: more happened than the broker keeps")
        return [
            row for key, row in zip(keys, rows, strict=True) if before is None or key not in before
        ]

    def fail(self, words: str) -> None:
        """Say once that there is no answer. Raises Failed if there never was one."""
        if self._seen is None:
            raise exits.Failed(words)
        if words != self._away:
            shared.note(words)
        self._away = words


def _event(row: documents.Document) -> str:
    result = "" if row["result"] == "ok" else f" {row['result']}"
    words = ": ".join(part for part in (row["slug"], row["text"]) if part)
    job = f" ({row['job']})" if row["job"] else ""
    parts = (terminal.moment(row["at"]), f"{row['kind']}{result}", row["agent"], f"{words}{job}")
    line = "  ".join(terminal.plain(part) for part in parts if part)
    columns = shared.width()
    return line if columns is None else "\n    ".join(terminal.folded(line, columns - 4))


async def asked(
    options: argparse.Namespace, names: Sequence[str]
) -> tuple[dict[str, documents.Document], str]:
    """Return what a broker says, and where: that of this state directory, or who is listened to.

    What is only shown to people need not be proved; but it has to be of the same owner.
    """
    if options.url is not None:
        return await _page(options.url, names), _public(options.url)
    try:
        settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    except config.ConfigError as error:
        raise config.ConfigError((*error.lines, _BY_URL), error.problems) from error
    note = page_address.noted(store.ReadOnlyStore(settings.state_dir))
    if note is not None:
        with contextlib.suppress(page_address.NoAnswer):
            answers = await page_address.ask(note.url, names, note=note)
            return _owned(settings, answers, note.url), note.url
    if settings.listen is None:
        raise exits.BadInput("listen is off in the configuration; hint: name the page with --url")
    host, port = settings.listen
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return _owned(settings, await _page(url, names), url), url


async def _page(url: str, names: Sequence[str]) -> dict[str, documents.Document]:
    url = url.rstrip("/")
    try:
        return await page_address.ask(url, names, note=None)
    except page_address.NotABroker as error:
        raise exits.Failed(
            f"what answers at {_public(url)} is not a broker: {error}; "
            "hint: its log names its address"
        ) from error
    except page_address.NoAnswer as error:
        raise exits.Failed(
            f"no broker answers at {_public(url)}: {error}; hint: is it running?"
        ) from error


def _public(url: str) -> str:
    """Return an address without who asks: a page behind a proxy may want a password."""
    return str(yarl.URL(url).with_user(None))


def _owned(
    settings: config.Settings, shown: dict[str, documents.Document], url: str
) -> dict[str, documents.Document]:
    (first, *_) = shown.values()
    owner = first.get("owner")
    if owner != settings.owner:
        raise exits.Failed(
            f"the broker at {url} is that of owner {owner}, not of {settings.owner}"
        )
    return shown


@frozen
class RunningBroker:
    """What the broker said that works with this state directory; nothing if none answers."""

    url: str | None
    answers: dict[str, documents.Document] | None
    key: str = field(default="", repr=False)  # of its life

    @classmethod
    def of(cls, settings: config.Settings, *names: str) -> "RunningBroker":
        """Ask; a broker of another state directory, owner or controller is none."""
        note = page_address.noted(store.ReadOnlyStore(settings.state_dir))
        if note is None:
            return cls(None, None)
        try:
            answers = asyncio.run(page_address.ask(note.url, names, note=note))
        except page_address.NoAnswer:
            return cls(None, None)
        if any(one.get("owner") != settings.owner for one in answers.values()):
            return cls(None, None)
        return cls(note.url, answers, note.key)

    def blinded(self, digest: str) -> str:
        """Return a digest as that broker shows it."""
        return page_address.blinded(self.key, digest)

    def say(self) -> None:
        """Tell whose word it is, and how old."""
        (first, *_) = (self.answers or {}).values()
        age = terminal.seconds(first["observed_age_s"])
        stands = "" if first["leading"] else f", a standby ({first['standby_text']})"
        shared.note(f"asked the broker that works here, {self.url}: it looked {age} ago{stands}")
