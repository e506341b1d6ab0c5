"""The work of each command: read the configuration, build, ask, print.

Refuses to hold rules: what is right is decided in the core, what is shown comes from the same
documents as the status page.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import attrs

from backends import finding
from broker import (
    assembly,
    clock,
    config,
    configured,
    ends,
    lean,
    log,
    once,
    placeholder,
    signals,
    store,
)
from broker.core import explain as explains
from broker.core import labels, model
from broker.core import ledger as ledgers
from broker.status import documents, terminal
from outside import waits

_ASK_S = 10.0
_LOG = logging.getLogger("broker.commands")


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print_table(rows: Sequence[Sequence[object]]) -> None:
    print(terminal.table(rows))


# --- run and demo ------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Work until a signal."""
    settings = configured.load_apart(options.config)
    log.configure(form=settings.log.format, level=settings.log.level, secrets=settings.secrets())
    for warning in settings.warnings:
        _LOG.warning("configuration", extra={"reason": warning})
    with _state_dir(settings) as files:
        asyncio.run(_run(settings, files, options))


@contextlib.contextmanager
def _state_dir(settings: config.Settings) -> Iterator[store.FileStore]:
    try:
        files = store.FileStore(settings.state_dir)
        held = files.locked()
        held.__enter__()
    except store.StateDirTaken as error:
        raise ends.Refused(str(error)) from error
    except OSError as error:
        raise ends.BadInput(
            f"state_dir {settings.state_dir}: {error.strerror or error}; hint: a directory that "
            f"user {os.geteuid()} may write to"
        ) from error
    try:
        yield files
    finally:
        held.__exit__(None, None, None)


async def _run(
    settings: config.Settings, files: store.FileStore, options: argparse.Namespace
) -> None:
    if options.drain and settings.high_availability is not None:
        raise ends.BadInput(
            "--drain and high_availability: the other replica would start again what this one "
            "lets go; hint: to leave for good run one broker without high_availability"
        )
    watch = clock.Clock()
    try:
        made = assembly.build(
            settings, files, watch=watch, leads=assembly.elect(settings, watch=watch)
        )
    except ValueError as error:
        raise ends.BadInput(str(error)) from error
    lean.settle()
    try:
        with signals.obeyed(
            made, drain=options.drain, load=lambda: configured.load_apart(options.config)
        ):
            await made.run()
    except placeholder.SecondBroker as error:
        raise ends.Refused(str(error)) from error
    except OSError as error:
        raise ends.Failed(f"cannot serve {settings.listen}: {error.strerror or error}") from error
    except asyncio.CancelledError:
        raise ends.Failed(
            "left at once; agents and nodes stay, the next start adopts them"
        ) from None


def demo(options: argparse.Namespace) -> None:
    """Show it at work without a Jenkins and without Java."""
    from broker.demo import scenario, standalone  # noqa: PLC0415 -- only the demo pays for it

    if options.controller_only:
        try:
            asyncio.run(standalone.serve(listen=options.listen))
        except (OSError, ValueError) as error:
            raise ends.BadInput(f"--listen {options.listen}: {error}") from error
        return

    try:
        told = asyncio.run(
            scenario.play(
                seconds=options.seconds,
                listen=options.listen,
                quiet=options.json,
                kinds=configured.kinds(),
                backend=options.backend,
                stay=options.stay,
            )
        )
    except scenario.Trouble as error:
        raise ends.Failed(str(error)) from error
    except asyncio.CancelledError:
        raise ends.Failed("left at once; every agent of the demo was ended") from None
    if options.json:
        _print_json(told)
    if any(
        told[name] for name in ("left_over", "builds_lost", "builds_failed", "builds_unserved")
    ):
        raise ends.Failed(
            "a build was lost, failed or not served, or something is left: see above"
        )


# --- without a controller ----------------------------------------------------------------------


def check_config(options: argparse.Namespace) -> None:
    """Say whether the configuration can be used, and what is odd about it."""
    try:
        settings = configured.load(options.config)
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
                "warnings": list(settings.warnings),
            }
        )
        return
    for warning in settings.warnings:
        print(f"warning: {warning}")
    backends = ", ".join(f"{name} ({entry.kind})" for name, entry in settings.backends.items())
    print(
        f"{options.config}: good; owner {settings.owner}, {len(policy.templates)} templates, "
        f"backends {backends}"
    )


def explain(options: argparse.Namespace) -> None:
    """Say which templates would serve a label and what the others lack."""
    policy = config.policy(configured.load(options.config), wall_now=clock.Clock().wall())
    try:
        answers = explains.explain_label(options.label, policy)
    except labels.LabelError as error:
        raise ends.BadInput(f"label {options.label!r}: {error}") from error
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
    from broker import rendering  # noqa: PLC0415 -- a broker at work need not hold it

    settings, wall_now = configured.load(options.config), clock.Clock().wall()
    policy = config.policy(settings, wall_now=wall_now)
    try:
        shown = rendering.render(settings, policy, template=options.template, now=wall_now)
    except rendering.NotShown as error:
        raise ends.BadInput(str(error)) from error
    for name, text in shown.items():
        print(f"---\n# backend {name}\n{text}", end="")


def init(options: argparse.Namespace) -> None:
    """Write a commented configuration; never over another file."""
    from broker.config import describing  # noqa: PLC0415 -- a broker at work need not hold it

    try:
        with options.path.open("x", encoding="utf-8") as file:
            file.write(describing.sample_config())
    except FileExistsError:
        raise ends.Refused(f"{options.path} exists; hint: name another file") from None
    except OSError as error:
        raise ends.BadInput(f"{options.path}: {error.strerror}") from error
    print(f"{options.path} written; next: edit it, then agent-broker check-config")


def schema(_: argparse.Namespace) -> None:
    """Print the JSON Schema."""
    from broker.config import describing  # noqa: PLC0415 -- as above

    _print_json(describing.schema(configured.kinds()))


# --- with a controller, once -------------------------------------------------------------------


def plan(options: argparse.Namespace) -> None:
    """Look once and print the plan; change nothing."""
    settings = configured.load(options.config)
    log.configure(level="error", secrets=settings.secrets())
    made, world = asyncio.run(once.dry(settings))
    if options.json:
        _print_json(_plan_document(made))
        return
    once.complain(world)
    if made.actions:
        _print_table(
            [
                ("would", "agent", "because"),
                *((ledgers.verb_of(a).value, a.name, a.reason) for a in made.actions),
            ]
        )
    else:
        print("nothing to do")
    for title, rows in (
        ("waits", [(str(u.item), u.reason.value, u.text) for u in made.unmet]),
        ("held back", [(r.subject, "", r.text) for r in made.refusals]),
    ):
        if rows:
            print()
            _print_table([(title, "", "why"), *rows])


def _plan_document(made: model.Plan) -> dict[str, Any]:
    return {
        "actions": [{"verb": ledgers.verb_of(a).value, **attrs.asdict(a)} for a in made.actions],
        "waits": [
            {"item": u.item, "reason": u.reason.value, "text": u.text, "template": u.template}
            for u in made.unmet
        ],
        "held_back": [attrs.asdict(r) for r in made.refusals],
        "agents": [
            {"name": a.name, "phase": a.phase.value, "template": a.template} for a in made.agents
        ],
    }


def doctor(options: argparse.Namespace) -> None:
    """Check everything from outside; fails if anything will not work."""
    settings = configured.load(options.config)
    log.configure(level="error", secrets=settings.secrets())
    found = asyncio.run(_examine(settings, options))
    if options.json:
        _print_json([{**attrs.asdict(f), "verdict": f.verdict.value} for f in found])
    bad = sum(f.verdict is finding.Verdict.FAIL for f in found)
    if bad:
        raise ends.Failed(f"{bad} of {len(found)} checks failed")


async def _examine(settings: config.Settings, options: argparse.Namespace) -> list[Any]:
    from broker import doctor as doctors  # noqa: PLC0415 -- a broker at work need not hold it

    watch = clock.Clock()
    found = []
    shared = settings.high_availability
    lease = assembly.make_lease(shared) if shared is not None else None
    async with once.built(settings, watch) as made, contextlib.AsyncExitStack() as stack:
        if lease is not None:
            stack.push_async_callback(lease.aclose)
        probe = None if options.read_only else f"{settings.owner}-doctor-{secrets.token_hex(3)}"
        async for one in doctors.examine(
            settings, made.backends, now=watch.now, probe=probe, lease=lease
        ):
            found.append(one)
            if not options.json:
                said = terminal.plain(one.text)
                print(f"{one.verdict.value:4}  {one.check:18}  {said}", flush=True)
                if one.hint:
                    print(f"{'':26}-> {one.hint}")
    return found


def sweep(options: argparse.Namespace) -> None:
    """List what is left over; remove it with ``--yes``."""
    settings = configured.load(options.config)
    log.configure(level="error", secrets=settings.secrets())
    found, removed, kept = asyncio.run(once.sweep(settings, options))
    if options.json:
        _print_json({"found": found, "removed": removed, "kept": kept})
        return
    if not found and not kept:
        print("nothing is left over")
    for row in found:
        state = "removed" if row["name"] in removed else "left over"
        print(f"{state}: {row['name']}: {row['reason']}")
    for row in kept:
        print(f"kept: {row['name']}: {row['reason']}")
    if found and not options.yes:
        raise ends.Refused(f"{len(found)} would be removed; hint: add --yes")


# --- with a running broker ---------------------------------------------------------------------


def status(options: argparse.Namespace) -> None:
    """Ask the running broker."""
    url = options.url
    if url is None:
        listen = configured.load(options.config).listen
        if listen is None:
            raise ends.BadInput(
                "listen is off in the configuration; hint: name the page with --url"
            )
        url = f"http://{listen[0]}:{listen[1]}"
    told = asyncio.run(_ask(url.rstrip("/")))
    if options.json:
        _print_json(told)
        return
    print(terminal.render(told))


async def _ask(url: str) -> dict[str, documents.Document]:
    try:
        async with (
            aiohttp.ClientSession() as session,
            waits.timeout(_ASK_S),
        ):
            told = {}
            for name in ("plan", "queue", "templates", "agents"):
                async with session.get(f"{url}/api/v1/{name}") as answer:
                    answer.raise_for_status()
                    told[name] = await answer.json()
            return told
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ends.Failed(
            f"no broker answers at {url}: {error or type(error).__name__}; hint: is it running?"
        ) from error
