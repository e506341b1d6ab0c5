"""``doctor --try`` by the broker at work: it tries with its own backends, where it stands.

Refuses to try anything itself (``broker.trying``).
"""

import asyncio
from collections.abc import AsyncIterator

from attrs import field, frozen

from backends.kit import finding
from broker import config, page_address, store
from broker.control import tokens
from broker.core import model
from outside import text

_LOOK_S = 0.5
_CHECK = "try"


@frozen(kw_only=True)
class TryWay:
    """Who tries, and what is said of it; without ``note`` nobody but this command."""

    said: finding.Finding
    note: page_address.PageAddress | None = None
    token: str = field(default="", repr=False)


class _Alone(Exception):  # noqa: N818 -- a result, not an error
    """No broker tries in our place; the text says why."""


async def way(settings: config.Settings) -> TryWay:
    """Return by whom agents are to be tried: the broker at work, if it takes our token."""
    note = page_address.noted(store.ReadOnlyStore(settings.state_dir))
    if note is None or not await _answers(note):
        words = "from here, as another owner: no broker answers that works with this state_dir"
        return TryWay(said=finding.ok(_CHECK, words))
    try:
        token = await _token(settings, note)
    except _Alone as reason:
        words = f"from here, as another owner, not by the broker at {note.url}: {reason}"
        return TryWay(said=finding.warn(_CHECK, words))
    said = finding.ok(_CHECK, f"by the broker that works here, {note.url}")
    return TryWay(said=said, note=note, token=token)


async def _answers(note: page_address.PageAddress) -> bool:
    try:
        await page_address.ask(note.url, ("plan",), note=note)
    except page_address.NoAnswer:
        return False
    return True


async def _token(settings: config.Settings, note: page_address.PageAddress) -> str:
    """Return a token that the broker takes. Raises _Alone."""
    if settings.tokens_file is None:
        raise _Alone("it takes orders only with control.tokens_file")
    try:
        token = tokens.operator(tokens.read(settings.tokens_file))
        if token is None:
            raise _Alone("nobody in control.tokens_file may operate")
        there = await page_address.order(note, "try", token=token)
    except (OSError, tokens.TokensError) as error:
        raise _Alone(f"control.tokens_file: {error}") from error
    except (page_address.OrderDeclined, page_address.NoAnswer) as error:
        raise _Alone(f"it says: {error}") from error
    if there["owner"] != settings.owner:
        raise _Alone(f"it is that of owner {text.clean(there['owner'])}")
    return token


async def tries(settings: config.Settings, by: TryWay) -> AsyncIterator[finding.Finding]:
    """Yield how an agent of each template fares on each backend, one after the other."""
    for template in settings.templates:
        check = f"try {template.name}"
        if template.paused or not template.backends:
            yield finding.warn(check, "not tried: it is paused")
            continue
        try:
            async for one in _template(template.name, by):
                yield one
        except page_address.OrderDeclined as error:
            yield finding.warn(check, f"not tried: {error}")
        except page_address.NoAnswer as error:
            yield finding.fail(check, f"the broker answers no more: {error}", "its log")
            return


async def _template(name: model.TemplateName, by: TryWay) -> AsyncIterator[finding.Finding]:
    """Have one template tried. Raises OrderDeclined, NoAnswer."""
    assert by.note is not None  # noqa: S101 -- or nobody is asked
    told = {"template": name, "why": "agent-broker doctor --try"}
    there = await page_address.order(by.note, "try", token=by.token, told=told)
    number, shown = there.get("number"), 0
    while True:
        findings = there.get("findings", [])
        for row in findings[shown:]:
            yield _finding(row)
        shown = len(findings)
        if there.get("state") != "running" or there.get("number") != number:
            return
        await asyncio.sleep(_LOOK_S)
        there = await page_address.order(by.note, "try", token=by.token)


def _finding(row: dict[str, str]) -> finding.Finding:
    grades = {grade.value: grade for grade in finding.Grade}
    return finding.Finding(
        check=text.clean(str(row.get("check"))),
        verdict=grades.get(str(row.get("verdict")), finding.Grade.FAIL),
        text=str(row.get("text")),
        hint=str(row.get("hint", "")),
        fault=text.clean(str(row.get("fault", ""))),
    )
