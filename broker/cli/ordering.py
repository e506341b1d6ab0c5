"""``pause``, ``drain``, ``resume`` and the other orders of a person to the broker at work.

Each goes to the broker that works with the same state directory, by the way that any program could
take (``POST /api/v1/…``). Refuses to carry anything out, and to know what an order means.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from broker import config, exits, page_address, store
from broker.cli import inspection, shared
from broker.control import orders as order_forms
from broker.control import tokens
from broker.status import terminal
from outside import secrets

TOKEN = "AGENT_BROKER_TOKEN"  # noqa: S105 -- the name of a variable
"""Whose token it is, if not the first of the file that may operate."""
_READ_S = 30
"""Seconds that a configuration may take to be read."""


def give(options: argparse.Namespace) -> None:
    """Order something of the broker that works here, and say what it says."""
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    form = order_forms.FORMS[options.order]
    told = {
        name: str(value)
        for name in (*form.wanted, *form.may_have)
        if (value := getattr(options, name, None)) is not None
    }
    answer = _ordered(settings, form.name, told)
    _say(options, answer, answer.get("said"))


def reload(options: argparse.Namespace) -> None:
    """Have the configuration read again; end when it is in force, or refused."""
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    told = {"note": options.note} if options.note is not None else {}
    before = _reading(_ordered(settings, "reload", told, documents=True))
    for _ in range(_READ_S):
        asked = inspection.RunningBroker.of(settings, "plan").answers
        if asked is not None and (reading := _reading(asked["plan"])) != before:
            break
        time.sleep(1.0)
    else:
        raise exits.Failed(f"the broker did not say within {_READ_S} s what came of it")
    plan = asked["plan"]
    if reading[1] != before[1]:
        raise exits.Failed(f"refused, one before is in force: {plan['configuration_refusal']}")
    waits = ", ".join(plan["configuration_waits"])
    more = f"; a restart is needed for {waits}" if waits else ""
    _say(options, plan, f"the configuration is in force{more}")


def _reading(plan: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return when a configuration was put in force, and when one was refused."""
    return plan["configuration_at"], plan["configuration_refused_at"]


def _ordered(
    settings: config.Settings, name: str, told: Mapping[str, str], *, documents: bool = False
) -> dict[str, Any]:
    """Order something, and return the answer; ``documents``: the plan as it was before.

    Raises BadInput, Refused and Failed.
    """
    note = page_address.noted(store.ReadOnlyStore(settings.state_dir))
    if note is None:
        raise exits.Failed("no broker works with this state_dir; hint: is it running?")
    token = _token(settings)
    try:
        before = asyncio.run(page_address.ask(note.url, ("plan",), note=note))["plan"]
        answer = asyncio.run(page_address.order(note, name, token=token, told=told))
    except page_address.OrderDeclined as error:
        raise exits.Refused(f"the broker at {note.url} says: {error}") from error
    except page_address.NoAnswer as error:
        raise exits.Failed(
            f"no broker answers at {note.url}: {error}; hint: is it running?"
        ) from error
    return before if documents else answer


def _say(options: argparse.Namespace, document: Mapping[str, Any], words: object) -> None:
    if options.json:
        shared.print_json(document)
    else:
        print(terminal.plain(words))


def show(options: argparse.Namespace) -> None:
    """Print what people have ordered, and stands."""
    answers, _ = asyncio.run(inspection.asked(options, ["orders"]))
    document = answers["orders"]
    if options.json:
        shared.print_json(document)
        return
    rows = document["orders"]
    if not rows:
        print("nothing stands")
        return
    lines = [(r["text"], terminal.seconds(r["age_s"]), terminal.order_end(r)) for r in rows]
    shared.print_table([("what stands", "for", "until"), *lines])


def _token(settings: config.Settings) -> str:
    """Return the token to order with. Raises BadInput."""
    if token := os.environ.get(TOKEN, "").strip():
        secrets.register(token)
        return token
    path = settings.tokens_file
    if path is None:
        raise exits.BadInput(
            "control.tokens_file is not set: nothing can be ordered; hint: control: "
            "{tokens_file: /etc/agent-broker/tokens}, a line NAME operate TOKEN in it"
        )
    try:
        found = tokens.operator(tokens.read(path))
    except tokens.TokensError as error:
        raise exits.BadInput(f"control.tokens_file: {error}") from error
    except OSError as error:
        raise exits.BadInput(
            f"control.tokens_file {path}: {error.strerror or error}; hint: {TOKEN}=… with a token "
            "of yours"
        ) from error
    if found is None:
        raise exits.BadInput(f"control.tokens_file {path}: nobody in it may operate")
    return found
