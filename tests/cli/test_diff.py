"""``diff``: what the files would change, by what a broker says that it has in force."""

import json

from broker import config, page_address, store
from broker.cli import differing
from broker.cli import main as cli
from broker.config import kinds, loading
from broker.status import documents
from tests.status import status_source

HEAD = "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:TOKEN'}\n"
KEY = "k" * 64


def parse(templates, more=""):
    return loading.parse(
        f"{HEAD}{more}\ntemplates: {{{templates}}}",
        kinds.classes(),
        environ={"TOKEN": "11secret"},
    )


def blind(digest):
    return page_address.blinded(KEY, digest)


def compared(before, after, agents=()):
    """Compare two configurations as the command does, through the page's document."""
    source = status_source.FixedSource(
        policy=config.policy(before, wall_now=0.0),
        configuration=config.ConfigurationState(parts=before.parts),
    )
    told = json.loads(json.dumps(documents.configuration(source, blind=blind)))
    return differing.compare(after, told, list(agents), blind)


def agent(settings, template, revision=None):
    """An agent of a template as it is defined, or of another revision."""
    (found,) = (t for t in settings.templates if t.name == template)
    return {"template": template, "revision": revision or found.revision}


def test_the_same_files_differ_in_nothing():
    """Whatever else is on the page."""
    settings = parse("a: {labels: l}")
    found = compared(settings, parse("a: {labels: [l]}"), [agent(settings, "a")])
    assert not found
    assert 0 == found.agents


def test_agents_retire_that_drift_by_it_and_no_others():
    """Not those of a setting that only says when they go, nor those that drift already."""
    before = parse("a: {labels: l}, b: {labels: m}, c: {labels: n}")
    after = parse(
        "a: {labels: l, executors: 2}, b: {labels: m, retention: {idle: 1h}}, d: {labels: p}"
    )
    agents = [
        agent(before, "a"),
        agent(before, "a"),
        agent(before, "a", "long-ago"),
        agent(before, "b"),
        agent(before, "c"),
        {"template": None, "revision": ""},
    ]
    found = compared(before, after, agents)
    assert {
        "a": ("changed", ("executors",), 2),
        "b": ("changed", ("retention.idle",), 0),
        "c": ("gone", (), 1),
        "d": ("new", (), 0),
    } == {t.name: (t.change, t.settings, t.agents) for t in found.templates}
    assert 3 == found.agents


def test_what_waits_for_a_restart_is_told_from_what_does_not():
    """As a reload takes it."""
    before = parse("a: {labels: l}")
    after = parse(
        "a: {labels: l}",
        "limits: {agents: 3}\nlisten: 'off'\nbackends: {local: {kind: process, cap: 3}}",
    )
    found = compared(before, after)
    assert ("backends.local.cap", "limits.agents", "listen") == found.settings
    assert ("backends.local.cap", "listen") == found.restart


def test_another_order_is_another_preference():
    """Nothing else differs."""
    found = compared(
        parse("a: {labels: l}, b: {labels: l}"), parse("b: {labels: l}, a: {labels: l}")
    )
    assert (True, ()) == (found.reordered, found.templates)


def test_what_is_shown_means_nothing_without_the_key():
    """Neither the digests themselves nor anything that was written."""
    before = parse("a: {labels: l, environment: {WORD: hunter2}}")
    source = status_source.FixedSource(
        policy=config.policy(before, wall_now=0.0),
        configuration=config.ConfigurationState(parts=before.parts),
    )
    shown = json.dumps(documents.configuration(source, blind=blind))
    assert not [digest for digest in before.parts.values() if digest in shown]
    assert not [word for word in ("hunter2", "WORD", "env:TOKEN", "https://c/") if word in shown]
    assert {} == documents.configuration(source, blind=None)["settings"]


def test_without_a_broker_it_fails_and_says_so(tmp_path, capsys):
    """A file that cannot be used is told first."""
    path = tmp_path / "broker.yaml"
    path.write_text(f"{HEAD}state_dir: s\ntemplates: {{a: {{labels: l}}}}\n")
    assert 1 == cli.main(["diff", "-c", str(path)])
    assert f"state_dir {tmp_path / 's'}; hint: is it running" in capsys.readouterr().err
    store.FileStore(tmp_path / "s").save(
        page_address.NOTE, json.dumps({"url": "http://127.0.0.1:1/", "key": KEY})
    )
    assert 1 == cli.main(["diff", "-c", str(path)])
    path.write_text(f"{HEAD}templates: {{a: {{}}}}\n")
    assert 2 == cli.main(["diff", "-c", str(path)])
