"""``check-config``, ``explain``, ``render``, ``init``, ``schema``: the configuration alone.

Refuses to ask controller or backends; ``explain`` asks the broker that works here, if one does,
what it leaves alone just now.
"""

import argparse
import shlex
from collections.abc import Iterable

import attrs

from broker import clock, config, exits
from broker.cli import inspection, rendering, shared
from broker.config import describing, kinds, samples, values
from broker.core import model
from broker.core.decide import explain as explains
from broker.core.demand import labels
from broker.status import documents
from outside import counts


def check_config(options: argparse.Namespace) -> None:
    """Say whether the configuration can be used, and what is odd about it.

    No secret is needed: whoever checks a change rarely has them.
    """
    named = ", ".join(map(str, shared.files_of(options)))
    try:
        settings = _checked(options)
    except config.ConfigError as error:
        if options.json:
            shared.print_json({"file": named, "good": False, "problems": error.documents()})
        raise
    policy = config.policy(settings, wall_now=clock.Clock().wall())
    if options.json:
        shared.print_json(
            {
                "good": True,
                "file": named,
                "owner": settings.owner,
                "templates": [t.name for t in policy.templates],
                "backends": {name: entry.kind for name, entry in settings.backends.items()},
                "warnings": [warning.placed() for warning in settings.warnings],
            }
        )
        return
    for warning in settings.warnings:
        print(f"warning: {warning.placed()}")
    backends = ", ".join(f"{name} ({entry.kind})" for name, entry in settings.backends.items())
    print(
        f"{named}: good; owner {settings.owner}, "
        f"{counts.told(len(policy.templates), 'template')}, "
        f"backends {backends}"
    )


def _checked(options: argparse.Namespace) -> config.Settings:
    settings = shared.settings_of(options, secrets=config.Secrets.LOOKED_FOR)
    if options.strict and settings.warnings:
        raise config.ConfigError.of(settings.warnings)
    return settings


def explain(options: argparse.Namespace) -> None:
    """Say which templates would serve a label and what the others lack."""
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    policy = config.policy(settings, wall_now=clock.Clock().wall())
    try:
        answers = explains.explain_label(options.label, policy, job=options.job)
    except labels.LabelError as error:
        raise exits.BadInput(
            f"the label {values.shown(options.label)} is malformed: {error}"
        ) from error
    asked = inspection.RunningBroker.of(settings, "plan")
    backoffs = asked.answers["plan"].get("backoffs", []) if asked.answers is not None else []
    answers = tuple(held_up(one, policy, backoffs) for one in answers)
    if options.json:
        shared.print_json([attrs.asdict(answer) for answer in answers])
        return
    shared.print_table(
        [("template", "serves", "why"), *((a.template, _yes(a.serves), a.text) for a in answers)]
    )


def held_up(
    answer: explains.Answer, policy: model.Policy, backoffs: Iterable[documents.Document]
) -> explains.Answer:
    """Add what keeps a template that serves from starting agents just now.

    ``backoffs``: rows of the JSON document ``plan``, as the page shows them; odd ones say nothing.
    """
    template = policy.template(answer.template)
    if template is None or not answer.serves:
        return answer
    words = "; it is paused" if template.paused else ""
    for row in backoffs:
        scope, backend = row.get("scope"), row.get("backend")
        whole = scope == model.Scope.CONTROLLER.value or (
            scope == model.Scope.BACKEND.value and backend in template.backends
        )
        its_own = (
            row.get("template") == template.name
            and backend in template.backends
            and row.get("asked", []) == list(answer.asked)
        )
        if whole or its_own:
            where = f" on {backend}" if backend else ""
            words += f"; left alone{where} just now: {row.get('text', '')}"
    return attrs.evolve(answer, text=answer.text + words)


def _yes(value: bool) -> str:  # noqa: FBT001 -- a word for a value
    return "yes" if value else "no"


def render(options: argparse.Namespace) -> None:
    """Print what each backend of a template would create for one agent."""
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    wall_now = clock.Clock().wall()
    policy = config.policy(settings, wall_now=wall_now)
    try:
        shown = rendering.render(
            settings,
            policy,
            template=options.template,
            now=wall_now,
            label=options.label,
            controller_version=options.controller,
        )
    except rendering.NotShown as error:
        raise exits.BadInput(str(error)) from error
    for name, text in shown.items():
        print(f"---\n# backend {name}, next to a controller {options.controller}\n{text}", end="")


def init(options: argparse.Namespace) -> None:
    """Write a commented configuration; never over another file."""
    try:
        with shared.new_file(options.path, mode=0o666) as file:
            file.write(samples.sample(options.backend))
    except OSError as error:
        raise exits.Failed(f"{options.path}: cannot be written: {error.strerror}") from error
    check = ["agent-broker", "check-config"]
    if str(options.path) != "broker.yaml":  # what it looks for by itself
        check += ["--config", str(options.path)]
    print(f"{options.path} written; next: edit it, then {shlex.join(check)}")


def schema(_: argparse.Namespace) -> None:
    """Print the JSON Schema."""
    shared.print_json(describing.schema(kinds.classes()))
