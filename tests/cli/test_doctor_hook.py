"""What ``doctor`` says of the push hook: as the broker at work has it."""

import attrs
import pytest

from backends.kit import finding
from broker import page_address, store
from broker.cli import doctor
from broker.config import kinds, loading
from broker.hook import inbox
from broker.status import Server
from tests.status import status_source
from tests.status.status_source import NOW

CONFIG = """\
owner: o
controller: {{url: "http://127.0.0.1:1/"}}
state_dir: {folder}
templates: {{t: {{labels: t}}}}
"""


async def said(tmp_path, hooked):
    """Return what the check finds beside a broker whose hook is so."""
    path = tmp_path / "broker.yaml"
    path.write_text(CONFIG.format(folder=tmp_path / "state"))
    settings = loading.load([path], kinds.classes(), environ={})
    source = attrs.evolve(status_source.full(), hooked=hooked)
    server = Server(source, metrics=lambda: (b"", "text/plain"))
    files = store.FileStore(settings.state_dir)
    note = page_address.announce(files, await server.start(host="127.0.0.1", port=0))
    server.prove = lambda word, path, body: page_address.proof(note.key, word, path, body)
    try:
        return [one async for one in doctor.running(settings, files) if one.check == "push hook"]
    finally:
        await server.aclose()


@pytest.mark.parametrize(
    ("hooked", "verdict", "words"),
    [
        (inbox.HookState(since_at=NOW, heard_at=NOW, version=1), "ok", "version 1 is heard"),
        (inbox.HookState(since_at=NOW, heard_at=NOW, lost=7), "ok", "7 events dropped"),
        (inbox.HookState(since_at=NOW - 99), "warning", "it was never heard"),
        (inbox.HookState(since_at=NOW - 99, heard_at=NOW - 90), "warning", "heard once"),
        (inbox.HookState(since_at=NOW - 99, trouble="not the key"), "warning", "not the key"),
    ],
)
async def test_it_is_heard_or_why_not(tmp_path, hooked, verdict, words):
    """With what to do about it."""
    (one,) = await said(tmp_path, hooked)
    assert one.verdict is (finding.Grade.OK if verdict == "ok" else finding.Grade.WARN)
    assert words in one.text
    assert bool(one.hint) is (verdict != "ok")


async def test_where_there_is_to_be_none_nothing_is_said(tmp_path):
    """Polling is no fault."""
    assert await said(tmp_path, None) == []
