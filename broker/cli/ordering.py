"""``pause``, ``drain``, ``resume`` and the other orders of a person to the broker at work.

Each goes to the broker that works with the same state directory, by the way that any program could
take (``POST /api/v1/…``). Refuses to carry anything out, and to know what an order means.
"""

import argparse
import asyncio
import os

from broker import config, exits, page_address, store
from broker.cli import inspection, shared
from broker.control import orders as order_forms
from broker.control import tokens
from broker.status import terminal
from outside import secrets

TOKEN = "AGENT_BROKER_TOKEN"  # noqa: S105 -- the name of a variable
"""Whose token it is, if not the first of the file that may operate."""


def give(options: argparse.Namespace) -> None:
    """Order something of the broker that works here, and say what it says."""
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    form = order_forms.FORMS[options.order]
    told = {
        name: str(value)
        for name in (*form.wanted, *form.may_have)
        if (value := getattr(options, name, None)) is not None
    }
    note = page_address.noted(store.ReadOnlyStore(settings.state_dir))
    if note is None:
        raise exits.Failed("no broker works with this state_dir; hint: is it running?")
    token = _token(settings)
    try:
        answer = asyncio.run(page_address.order(note, form.name, token=token, told=told))
    except page_address.OrderDeclined as error:
        raise exits.Refused(f"the broker at {note.url} says: {error}") from error
    except page_address.NoAnswer as error:
        raise exits.Failed(
            f"no broker answers at {note.url}: {error}; hint: is it running?"
        ) from error
    if options.json:
        shared.print_json(answer)
    else:
        print(terminal.plain(answer.get("said")))


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
