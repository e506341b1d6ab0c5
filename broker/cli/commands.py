"""The work of each command: read the configuration, build, ask, print.

Refuses to hold rules: what is right is decided in the core, what is shown comes from the same
documents as the status page.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import secrets
import shlex
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import attrs
from attrs import frozen

from backends.kit import finding
from broker import assembly, clock, config, exits, log, presence, signals, store
from broker.cli import doctor as doctors
from broker.cli import recording, rendering, single_look
from broker.config import describing, kinds, loading
from broker.controller import placeholder
from broker.core.decide import explain as explains
from broker.core.demand import labels
from broker.status import documents, terminal
from outside import counts

_SWEEPS_ITSELF = (
    "a broker is at work with this state_dir, and sweeps by itself; hint: agent-broker sweep says "
    "what is left over; to remove every agent stop it first, or let it go by run --drain"
)
_LOG = logging.getLogger("broker.commands")


def _settings(options: argparse.Namespace, *, secrets: bool = True) -> config.Settings:
    """Read the configuration; ``secrets`` only for what needs them. Raises ``ConfigError``."""
    return loading.load(options.config, kinds.classes(), environ=os.environ, secrets=secrets)


def _print_json(value: object) -> None:
    print(json.dumps(terminal.cleaned(value), indent=2, ensure_ascii=False, default=str))


def _print_table(rows: Sequence[Sequence[object]]) -> None:
    print(terminal.table(rows))


# --- run and demo ------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Work until a signal."""
    settings = _settings(options)
    log.configure(form=settings.log.format, level=settings.log.level, secrets=settings.secrets())
    for warning in settings.warnings:
        _LOG.warning("configuration", extra={"reason": warning.told(str(options.config))})
    with _state_dir(settings) as files:
        asyncio.run(_run(settings, files, options))


@contextlib.contextmanager
def _state_dir(settings: config.Settings, *, busy: str = "") -> Iterator[store.FileStore]:
    """Hold it; ``busy`` says what it means that a broker does."""
    try:
        files = store.FileStore(settings.state_dir)
        held = files.locked()
        held.__enter__()
    except store.StateDirTaken as error:
        raise exits.Refused(busy or str(error)) from error
    except OSError as error:
        raise exits.BadInput(
            f"state_dir {settings.state_dir}: {error.strerror or error}; hint: a directory of "
            f"user {os.geteuid()}"
        ) from error
    try:
        yield files
    finally:
        held.__exit__(None, None, None)


async def _run(
    settings: config.Settings, files: store.FileStore, options: argparse.Namespace
) -> None:
    if options.drain and settings.high_availability is not None:
        raise exits.BadInput(
            "--drain and high_availability: the other replica would start again what this one "
            "lets go; hint: to leave for good run one broker without high_availability"
        )
    watch = clock.Clock()
    try:
        made = assembly.build(
            settings, files, watch=watch, leads=assembly.elect(settings, watch=watch)
        )
    except ValueError as error:
        raise exits.BadInput(str(error)) from error
    gc.collect()
    gc.freeze()  # what was loaded stays: the collector need not look at it again
    try:
        with signals.obeyed(made, drain=options.drain, load=lambda: _settings(options)):
            await made.run()
    except placeholder.SecondBroker as error:
        raise exits.Refused(str(error)) from error
    except OSError as error:
        raise exits.Failed(f"cannot serve {settings.listen}: {error.strerror or error}") from error
    except asyncio.CancelledError:
        raise exits.Failed(
            "left at once; agents and nodes stay, the next start adopts them"
        ) from None


def demo(options: argparse.Namespace) -> None:
    """Show it at work without a Jenkins and without Java."""
    from broker.demo import scenario, standalone  # noqa: PLC0415 -- only the demo pays for it

    if options.controller_only:
        try:
            asyncio.run(standalone.serve(listen=options.listen))
        except (OSError, ValueError) as error:
            raise exits.BadInput(f"--listen {options.listen}: {error}") from error
        return

    try:
        told = asyncio.run(
            scenario.play(
                seconds=options.seconds,
                listen=options.listen,
                quiet=options.json,
                kinds=kinds.classes(),
                backend=options.backend,
                stay=options.stay,
            )
        )
    except scenario.Trouble as error:
        raise exits.Failed(str(error)) from error
    except asyncio.CancelledError:
        raise exits.Failed("left at once; every agent of the demo was ended") from None
    if options.json:
        _print_json(told)
    if any(
        told[name] for name in ("left_over", "builds_lost", "builds_failed", "builds_unserved")
    ):
        raise exits.Failed(
            "a build was lost, failed or not served, or something is left: see above"
        )


# --- without a controller ----------------------------------------------------------------------


def check_config(options: argparse.Namespace) -> None:
    """Say whether the configuration can be used, and what is odd about it."""
    try:
        settings = _settings(options)
    except config.ConfigError as error:
        if options.json:
            _print_json(
                {"file": str(options.config), "good": False, "problems": error.documents()}
            )
        raise
    policy = config.policy(settings, wall_now=clock.Clock().wall())
    if options.json:
        _print_json(
            {
                "good": True,
                "file": str(options.config),
                "owner": settings.owner,
                "templates": [t.name for t in policy.templates],
                "backends": {name: entry.kind for name, entry in settings.backends.items()},
                "warnings": [w.told(str(options.config)) for w in settings.warnings],
            }
        )
        return
    for warning in settings.warnings:
        print(f"warning: {warning.told(str(options.config))}")
    backends = ", ".join(f"{name} ({entry.kind})" for name, entry in settings.backends.items())
    print(
        f"{options.config}: good; owner {settings.owner}, "
        f"{counts.told(len(policy.templates), 'template')}, "
        f"backends {backends}"
    )


def explain(options: argparse.Namespace) -> None:
    """Say which templates would serve a label and what the others lack."""
    settings = _settings(options, secrets=False)
    policy = config.policy(settings, wall_now=clock.Clock().wall())
    try:
        answers = explains.explain_label(options.label, policy)
    except labels.LabelError as error:
        raise exits.BadInput(f"label {options.label!r}: {error}") from error
    if options.json:
        _print_json([attrs.asdict(answer) for answer in answers])
        return
    _print_table(
        [("template", "serves", "why"), *((a.template, _yes(a.serves), a.text) for a in answers)]
    )


def _yes(value: bool) -> str:  # noqa: FBT001 -- a word for a value
    return "yes" if value else "no"


def render(options: argparse.Namespace) -> None:
    """Print what each backend of a template would create for one agent."""
    settings = _settings(options, secrets=False)
    wall_now = clock.Clock().wall()
    policy = config.policy(settings, wall_now=wall_now)
    try:
        shown = rendering.render(settings, policy, template=options.template, now=wall_now)
    except rendering.NotShown as error:
        raise exits.BadInput(str(error)) from error
    for name, text in shown.items():
        print(f"---\n# backend {name}\n{text}", end="")


def init(options: argparse.Namespace) -> None:
    """Write a commented configuration; never over another file."""
    try:
        with options.path.open("x", encoding="utf-8") as file:
            file.write(describing.sample_config())
    except FileExistsError:
        raise exits.Refused(f"{options.path} exists; hint: name another file") from None
    except OSError as error:
        raise exits.BadInput(f"{options.path}: {error.strerror}") from error
    check = ["agent-broker", "check-config"]
    if str(options.path) != "broker.yaml":  # what it looks for by itself
        check += ["--config", str(options.path)]
    print(f"{options.path} written; next: edit it, then {shlex.join(check)}")


def schema(_: argparse.Namespace) -> None:
    """Print the JSON Schema."""
    _print_json(describing.schema(kinds.classes()))


# --- with a controller, once -------------------------------------------------------------------


def plan(options: argparse.Namespace) -> None:
    """Print what is to be done now: by the broker that works here, else by a look of our own."""
    if options.world is not None:
        _print_plan(options, recording.replayed(options.world, number=options.number), url=None)
        return
    if options.number is not None:
        raise exits.BadInput("--number is of --world; hint: name the file with --world FILE")
    settings = _settings(options, secrets=False)
    asked = _Asked.of(settings, "plan", "queue", "agents")
    ours = asked.told is not None and asked.told["plan"]["configuration"] == settings.fingerprint
    if asked.told is not None and ours:
        asked.say()
        shown = asked.told
    else:
        if asked.told is not None:
            _note("the broker that works here has another configuration in force: by the file")
        settings = _settings(options)
        log.configure(level="error", secrets=settings.secrets())
        shown = asyncio.run(single_look.dry(settings))
    _print_plan(options, shown, url=asked.url if ours else None)


def record(options: argparse.Namespace) -> None:
    """Write what is seen to a file, until it is told to end."""
    if not 0.1 <= options.every <= 3600 or not 0 <= (options.seconds or 0) < 1e8:
        raise exits.BadInput("--every: allowed: 0.1 to 3600 seconds; --seconds: not below 0")
    settings = _settings(options)
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
    told = _plan_document(shown, url=url)
    if options.json:
        _print_json(told)
        return
    actions = [(a["verb"], a["name"], a["reason"]) for a in told["actions"]]
    print(
        terminal.table([("would", "agent", "because"), *actions]) if actions else "nothing to do"
    )
    for title, rows in (
        ("under way", [(a["name"], a["verb"], a["reason"]) for a in told["under_way"]]),
        ("waits", [(w["item"], w["reason"], w["text"]) for w in told["waits"]]),
        ("held back", [(h["subject"], "", h["text"]) for h in told["held_back"]]),
    ):
        if rows:
            print()
            _print_table([(title, "", "why"), *rows])


def _plan_document(told: dict[str, documents.Document], *, url: str | None) -> dict[str, Any]:
    agents = told["agents"]["agents"]
    return {
        "asked": url,
        "actions": told["plan"]["actions"],
        "under_way": [
            {"name": a["name"], "verb": a["in_flight"]["verb"], "reason": a["in_flight"]["reason"]}
            for a in agents
            if a["in_flight"] is not None
        ],
        "waits": [
            {
                "item": i["id"],
                "reason": i["reason"],
                "text": i["text"],
                "template": i["template"],
            }
            for i in told["queue"]["items"]
            if i["reason"] is not None
        ],
        "held_back": told["plan"]["refusals"],
        "agents": [{key: a[key] for key in ("name", "phase", "template")} for a in agents],
    }


def doctor(options: argparse.Namespace) -> None:
    """Check everything from outside; fails if anything will not work."""
    if options.tries and options.read_only:
        raise exits.BadInput("--try and --read-only: one of them")
    settings = _settings(options)
    log.configure(level="error", secrets=settings.secrets())
    found = asyncio.run(_examine(settings, options))
    if options.json:
        _print_json([{**attrs.asdict(f), "verdict": f.verdict.value} for f in found])
    bad = sum(f.verdict is finding.Grade.FAIL for f in found)
    if bad:
        raise exits.Failed(f"{bad} of {counts.told(len(found), 'check')} failed")


async def _examine(
    settings: config.Settings, options: argparse.Namespace
) -> list[finding.Finding]:
    watch = clock.Clock()
    found: list[finding.Finding] = []
    shared = settings.high_availability
    lease = assembly.make_lease(shared) if shared is not None else None
    async with (
        single_look.built(settings, watch, reads_only=True) as made,
        contextlib.AsyncExitStack() as stack,
    ):
        if lease is not None:
            stack.push_async_callback(lease.aclose)
        probe = f"{settings.owner}-doctor-{secrets.token_hex(3)}" if options.tries else None
        running = doctors.running(settings, made.files)
        checks = doctors.examine(settings, made.backends, now=watch.now, probe=probe, lease=lease)
        async for one in _chained(running, checks):
            found.append(one)
            if not options.json:
                check, said = terminal.plain(one.check), terminal.plain(one.text)
                print(f"{one.verdict.value:4}  {check:18}  {said}", flush=True)
                if one.hint:
                    print(f"{'':26}-> {terminal.plain(one.hint)}")
    return found


async def _chained(*parts: AsyncIterator[finding.Finding]) -> AsyncIterator[finding.Finding]:
    for part in parts:
        async for one in part:
            yield one


def sweep(options: argparse.Namespace) -> None:
    """List what is left over; remove it with ``--yes``, where no broker is at work."""
    if options.yes:
        _clear(options)
        return
    settings = _settings(options, secrets=False)
    name = "leftovers/all" if options.all else "leftovers"
    asked = _Asked.of(settings, name)
    if asked.told is not None:
        asked.say()
        told = asked.told[name]
    else:
        settings = _settings(options)
        log.configure(level="error", secrets=settings.secrets())
        told = asyncio.run(single_look.leftover(settings, everything=options.all))
    found = [{"name": a["name"], "reason": a["reason"]} for a in told["leftovers"]]
    kept = [{"name": r["subject"], "reason": r["text"]} for r in told["kept"]]
    _print_swept(options, found, [], kept)
    if not found:
        return
    if asked.told is not None:
        left = counts.told(len(found), "is left over", "are left over")
        way = "to remove every agent, stop it with SIGTERM after run --drain"
        raise exits.Refused(
            f"{left}; the broker that works here removes what nobody needs by itself; hint: {way}"
            if options.all
            else f"{left}; the broker that works here removes what is left over by itself"
        )
    raise exits.Refused(f"{len(found)} would be removed; hint: add --yes")


def _clear(options: argparse.Namespace) -> None:
    settings = _settings(options)
    log.configure(level="error", secrets=settings.secrets())
    with _state_dir(settings, busy=_SWEEPS_ITSELF):
        found, removed, kept = asyncio.run(single_look.clear(settings, everything=options.all))
    _print_swept(options, found, removed, kept)


def _print_swept(
    options: argparse.Namespace,
    found: single_look.Rows,
    removed: list[str],
    kept: single_look.Rows,
) -> None:
    if options.json:
        _print_json({"found": found, "removed": removed, "kept": kept})
        return
    if not found and not kept:
        print("nothing is left over")
    for row in found:
        state = "removed" if row["name"] in removed else "left over"
        print(terminal.plain(f"{state}: {row['name']}: {row['reason']}"))
    for row in kept:
        print(terminal.plain(f"kept: {row['name']}: {row['reason']}"))


# --- with a running broker ---------------------------------------------------------------------


def status(options: argparse.Namespace) -> None:
    """Ask the running broker."""
    told, url = asyncio.run(_status(options))
    if options.json:
        _print_json(told)
        return
    try:
        print(terminal.render(told))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise exits.Failed(
            f"what answers at {url} is not a broker of this version: {error!r}"
        ) from error


async def _status(options: argparse.Namespace) -> tuple[dict[str, documents.Document], str]:
    """Return what a broker says, and where: that of this state directory, or who is listened to.

    What is only shown to people need not be proved; but it has to be of the same owner.
    """
    names = ("plan", "queue", "templates", "agents")
    if options.url is not None:
        return await _page(options.url, names), options.url
    settings = _settings(options, secrets=False)
    note = presence.noted(store.ReadOnlyStore(settings.state_dir))
    if note is not None:
        with contextlib.suppress(presence.NoAnswer):
            told = await presence.ask(note.url, names, note=note)
            return _owned(settings, told, note.url), note.url
    if settings.listen is None:
        raise exits.BadInput("listen is off in the configuration; hint: name the page with --url")
    host, port = settings.listen
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return _owned(settings, await _page(url, names), url), url


async def _page(url: str, names: Sequence[str]) -> dict[str, documents.Document]:
    url = url.rstrip("/")
    try:
        return await presence.ask(url, names, note=None)
    except presence.NoAnswer as error:
        raise exits.Failed(f"no broker answers at {url}: {error}; hint: is it running?") from error


def _owned(
    settings: config.Settings, told: dict[str, documents.Document], url: str
) -> dict[str, documents.Document]:
    owner = told["plan"].get("owner")
    if owner != settings.owner:
        raise exits.Failed(
            f"the broker at {url} is that of owner {owner}, not of {settings.owner}"
        )
    return told


@frozen
class _Asked:
    """What the broker said that works with this state directory; nothing if none answers."""

    url: str | None
    told: dict[str, documents.Document] | None

    @classmethod
    def of(cls, settings: config.Settings, *names: str) -> "_Asked":
        """Ask; a broker of another state directory, owner or controller is none."""
        note = presence.noted(store.ReadOnlyStore(settings.state_dir))
        if note is None:
            return cls(None, None)
        try:
            told = asyncio.run(presence.ask(note.url, names, note=note))
        except presence.NoAnswer:
            return cls(None, None)
        if any(one.get("owner") != settings.owner for one in told.values()):
            return cls(None, None)
        return cls(note.url, told)

    def say(self) -> None:
        """Tell whose word it is, and how old."""
        (first, *_) = (self.told or {}).values()
        age = terminal.seconds(first["observed_age_s"])
        stands = "" if first["leading"] else f", a standby ({first['standby_text']})"
        _note(f"asked the broker that works here, {self.url}: it looked {age} ago{stands}")


def _note(text: str) -> None:
    print(terminal.plain(text), file=sys.stderr)
