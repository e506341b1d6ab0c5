import asyncio
import io
import json
import logging
import urllib.parse

import pytest

from broker import log

SECRET = "0123456789abcdef" * 4


@pytest.fixture
def written():
    """The log as JSON, and the root logger as it was afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    yield stream
    root.handlers[:], level = before
    root.setLevel(level)


def test_bound_fields_appear_also_in_tasks(written):
    """One line per event, as JSON, with what was bound around it."""
    log.configure(form="json", stream=written)

    async def work():
        logging.getLogger("broker.x").info("launch done", extra={"seconds": 1.5})

    async def main():
        with log.bound(agent="o-t-1"):
            async with asyncio.TaskGroup() as group:
                group.create_task(work())
        logging.getLogger("broker.x").info("after")

    asyncio.run(main())
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert (first["message"], first["agent"], first["seconds"]) == ("launch done", "o-t-1", 1.5)
    assert (first["level"], first["logger"]) == ("INFO", "broker.x")
    assert "agent" not in second


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_not_known_has_no_field(written, form):
    """No null, and no None: whoever reads it would look for what it means."""
    log.configure(form=form, stream=written)
    with log.bound(cycle=None):
        logging.getLogger("broker.x").info("item started", extra={"item": None, "warm": False})
    said = written.getvalue()
    assert not [word for word in ("item=", '"item"', "cycle", "null", "None") if word in said]
    assert "warm" in said


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_blanked_wherever_they_stand(written, form):
    """In messages, fields and tracebacks; an image digest is no secret."""
    log.configure(form=form, stream=written, secrets=["hunter2-token"])
    logger = logging.getLogger("broker.x")
    digest = "sha256:" + "ab" * 32
    logger.info("token hunter2-token", extra={"url": f"http://u:hunter2-token@c/{SECRET}"})
    try:
        raise ValueError(f"secret {SECRET} hunter2-token")
    except ValueError:
        logger.exception("failed with %s", digest)
    text = written.getvalue()
    assert "hunter2" not in text
    assert SECRET not in text
    assert digest in text


def test_the_console_form_is_short(written):
    """Time, level, message, fields."""
    log.configure(form="console", stream=written, level="warning")
    logging.getLogger("broker.x").info("not shown")
    logging.getLogger("broker.x").warning("retire failed", extra={"slug": "busy"})
    assert written.getvalue().split(" ", 1)[1] == "WARNING retire failed  slug=busy\n"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("secret", ['pa"ss\\wörd', "with space/and%2F", "tab\there'"])
def test_a_secret_is_blanked_however_the_line_quotes_it(written, form, secret):
    """JSON, Python and URLs write some characters differently."""
    log.configure(form=form, stream=written, secrets=[secret])
    logger = logging.getLogger("broker.x")
    url = f"http://u:{urllib.parse.quote(secret, safe='')}@c/"
    logger.info(
        "told %s", secret, extra={"url": url, "shown": repr(secret), "inner": {"s": secret}}
    )
    text = written.getvalue()
    assert text.count("(hidden)") >= 4
    for part in ("wörd", "w\\u00f6rd", "w%C3%B6rd", "space", "here"):
        assert part not in text
