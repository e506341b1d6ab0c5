"""Several brokers of one owner: the section of the configuration, and the claim that they share."""

import asyncio
import pathlib

import attrs
import jsonschema
import pytest

from broker import assembly, clock, config, store
from broker.cli import main as cli
from broker.config import describing, kinds, loading
from broker.controller import placeholder
from broker.core import election, model
from broker.leading import identity, leadership
from tests.each import each

TEXT = """\
owner: o
controller: {{url: "http://localhost/"}}
high_availability: {told}
backends: {{c: {{kind: {kind}}}}}
templates: {{t: {{labels: x, image: i}}}}
"""


def loaded(told="{}", kind="kubernetes"):
    text = TEXT.format(told=told, kind=kind)
    return loading.parse(text, kinds.classes(), environ={}, base=pathlib.Path("/nowhere"))


def test_an_empty_section_is_enough_in_a_cluster():
    """The lease is named after the owner; a fail-over fits into fifteen seconds."""
    told = loaded().high_availability
    assert ("kubernetes", "agent-broker-o", None) == (told.kind, told.name, told.identity)
    assert told.settings.namespace is None
    assert election.Terms() == told.terms
    assert told.terms.lease_s + told.terms.retry_s <= 13
    assert loaded("null").high_availability is None


def test_everything_can_be_said():
    """Where the lease is, and the durations."""
    told = loaded(
        "{kind: lease, name: n, identity: one, namespace: jenkins, context: c, lease: 30s, "
        "renew_deadline: 20s, retry: 5s}"
    )
    shared = told.high_availability
    assert ("n", "one") == (shared.name, shared.identity)
    assert ("jenkins", "c") == (shared.settings.namespace, shared.settings.context)
    assert election.Terms(lease_s=30, renew_deadline_s=20.0, retry_s=5.0) == shared.terms
    assert any("a fail-over may take 35 s" in warning.text for warning in told.warnings)


@each(
    ("told", "kind", "where", "words"),
    [
        ("yes", "kubernetes", "", "allowed: a section of settings"),
        ("{kind: raft}", "kubernetes", ".kind", "allowed: lease"),
        ("{lease: 2500ms}", "kubernetes", ".lease", "whole seconds"),
        ("{lease: 8s}", "kubernetes", ".lease", "1.5 times high_availability.renew_deadline (6s)"),
        ("{retry: 4s}", "kubernetes", ".renew_deadline", "twice high_availability.retry (4s)"),
        ("{retry: 10ms}", "kubernetes", ".retry", "100ms to 1h"),
        ("{name: A_b}", "kubernetes", ".name", "lower-case letters"),
        ("{identity: a b}", "kubernetes", ".identity", "lower-case letters"),
        ("{namespace: A}", "kubernetes", ".namespace", "not a name of a namespace"),
        ("{page_size: 3}", "kubernetes", ".page_size", "unknown setting"),
    ],
)
def test_every_mistake_is_told(told, kind, where, words):
    """With its path."""
    with pytest.raises(config.ConfigError) as raised:
        loaded(told, kind)
    assert f"high_availability{where}: " in str(raised.value)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("process", "its agents are processes of one machine"),
        ("memory", "its agents live inside one broker"),
        ("mesos", "its framework id"),
    ],
)
def test_agents_that_only_one_broker_can_reach_are_refused(kind, why):
    """Whoever takes over could neither see nor end them."""
    with pytest.raises(config.ConfigError) as raised:
        loaded("{}", f"{kind}, master: 'http://m:5050'" if kind == "mesos" else kind)
    assert f"backends.c: kind {kind} cannot be with high_availability: {why}" in str(raised.value)


@pytest.mark.parametrize("kind", ["kubernetes", "docker"])
def test_agents_that_both_reach_are_fine(kind):
    """The lease may be elsewhere than the agents."""
    assert loaded("{server: 'https://api:6443'}", kind).high_availability is not None


def test_no_backend_means_processes_and_is_refused():
    """The default of the broker alone."""
    text = TEXT.format(told="{}", kind="x").replace("backends: {c: {kind: x}}\n", "")
    with pytest.raises(config.ConfigError, match="processes of one machine"):
        loading.parse(text, kinds.classes(), environ={})


def test_the_schema_knows_the_section():
    """With the settings of where the lease is, and no others."""
    schema = describing.schema(kinds.classes())["properties"]["high_availability"]
    jsonschema.validate({"lease": "10s", "namespace": "a", "kubeconfig": "k"}, schema)
    jsonschema.validate(None, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"page_size": 3}, schema)


def test_a_drain_is_refused(tmp_path, capsys):
    """The other replica would start again what this one lets go."""
    path = tmp_path / "broker.yaml"
    path.write_text(TEXT.format(told="{}", kind="kubernetes"))
    assert cli.BAD_INPUT == cli.main(["run", "--drain", "--config", str(path)])
    assert "--drain and high_availability" in capsys.readouterr().err


class Nodes:
    """The nodes of one controller, by name with their descriptions."""

    def __init__(self):
        self.all = {}

    async def create(self, definition):
        self.all[definition.name] = definition.description

    async def delete(self, name):
        del self.all[name]

    @property
    def message(self):
        return self.all.get("o-placeholder", "")

    def view(self):
        computers = tuple(
            model.Computer(name=name, offline=True, description=words)
            for name, words in self.all.items()
        )
        return model.ControllerView(synced=True, computers=computers)


def place(nodes, holder):
    claim = identity.Claim(holder=holder, since=0)
    return placeholder.Placeholder(
        nodes=nodes, owner="o", standing=identity.Standing(mine=claim), challenge_s=10.0
    )


async def test_replicas_share_one_claim():
    """Whoever takes over works in its first cycle; back in office, so does the other."""
    nodes = Nodes()
    one, two = place(nodes, "a1"), place(nodes, "b2")
    for now, term in ((100.0, one), (200.0, two), (300.0, one)):
        term.begin("lease77", now=now)
        assert await term.tend(nodes.view(), now=now)
        assert "held by lease77 " in nodes.message


async def test_a_broker_that_does_not_share_the_lease_is_still_noticed():
    """One that lives defends its claim, and the group refuses to work."""
    nodes = Nodes()
    stranger, one = place(nodes, "c3"), place(nodes, "a1")
    assert await stranger.tend(nodes.view(), now=100.0)
    assert await stranger.tend(nodes.view(), now=101.0)
    one.begin("lease77", now=102.0)
    assert not await one.tend(nodes.view(), now=102.0)
    assert await stranger.tend(nodes.view(), now=103.0)
    with pytest.raises(placeholder.SecondBroker):
        await one.tend(nodes.view(), now=104.0)


async def test_a_claim_is_not_written_when_the_old_one_took_too_long_to_go():
    """The other may lead by then."""
    nodes = Nodes()
    it = place(nodes, "a1")
    await it.tend(nodes.view(), now=100.0)
    it.begin("lease77", now=101.0)
    it.standing = attrs.evolve(it.standing, previous=("a1",))
    it.leads = lambda: bool(nodes.message)
    await it.tend(nodes.view(), now=102.0)
    assert nodes.all == {}


async def test_names_of_replicas_are_never_alike(tmp_path):
    """The same configuration on the same host, twice."""
    told = loaded("{server: 'http://127.0.0.1:1', identity: one}")
    watch = clock.Clock()
    first, second = assembly.elect(told, watch=watch), assembly.elect(told, watch=watch)
    assert first.me.startswith("one_")
    assert first.me != second.me
    made = assembly.build(told, store.FileStore(tmp_path), watch=watch, leads=first)
    try:
        assert not made.leads.leading
        assert "nobody leads; lease agent-broker-o is free" == made.leadership.reason
        assert b"jenkins_broker_leader 0.0" in made.recorder.render()[0]
        alone = assembly.build(told, store.FileStore(tmp_path), watch=watch)
        assert alone.leads.leading
        assert isinstance(alone.leads, leadership.Always)
        await alone.aclose()
    finally:
        await made.aclose()
        await asyncio.sleep(0)


async def test_a_reload_changes_for_how_long_another_broker_is_asked(tmp_path):
    """It follows the pace of the looks, which changes at once."""
    told = loaded("{server: 'http://127.0.0.1:1', identity: one}")
    made = assembly.build(told, store.FileStore(tmp_path), watch=clock.Clock())
    try:
        slower = attrs.evolve(told, poll=attrs.evolve(told.poll, idle_s=60.0))
        made.reload(slower)
        assert (made.reconciler.pace.idle_s, made.reconciler.place.challenge_s) == (60.0, 120.0)
    finally:
        await made.aclose()
