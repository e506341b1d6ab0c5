"""Slots: small numbers that no two agents of a template have at a time, for places that outlive them."""

import attrs
from attrs import Factory, frozen

from backends.kit import names
from broker.core import model
from broker.core.decide import spec
from broker.core.fleet import ledger as ledgers
from broker.core.fleet import marks
from broker.core.model import Phase
from jnlp import secret as jnlp_secret
from tests.core import test_spec, worlds
from tests.core.worlds import B

CACHED = worlds.template("linux", cap=9, numbered=True)


def ordered(scene, *labels):
    for label in labels:
        scene.items.append(worlds.item(len(scene.items) + 1, label))
    made = scene.plan()
    found = worlds.actions(made, model.LaunchAgent).values()
    return made, sorted((action.template, action.slot) for action in found)


def test_the_lowest_free_ones_are_taken():
    """Whoever is there has its own, whatever it does: at work, going, or without a node."""
    scene = worlds.Scene(CACHED)
    for phase, slot in ((Phase.BUSY, 0), (Phase.DRAINED, 2), (Phase.ORPHAN, 3)):
        scene.agent("linux", phase, slot=slot)
    assert [("linux", 1), ("linux", 4)] == ordered(scene, "linux", "linux")[1]


def test_what_is_ordered_has_its_own_before_anybody_sees_it():
    scene = worlds.Scene(CACHED)
    made, first = ordered(scene, "linux")
    assert [("linux", 0)] == first
    scene.ledger = ledgers.expect(made.ledger, *made.actions, now=scene.now, policy=scene.policy)
    assert [("linux", 1)] == ordered(scene, "linux")[1]


def test_a_broker_that_starts_with_nothing_reads_them_from_the_marks():
    scene = worlds.Scene(CACHED)
    scene.agent("linux", Phase.BUSY, slot=0, known=False)
    scene.agent("linux", Phase.ORPHAN, slot=1, known=False)
    assert [("linux", 2)] == ordered(scene, "linux")[1]


def test_each_template_counts_for_itself_and_others_have_none():
    scene = worlds.Scene(CACHED, worlds.template("mac", numbered=True), worlds.template("plain"))
    scene.agent("linux", Phase.BUSY, slot=0)
    found = ordered(scene, "linux", "mac", "plain")[1]
    assert [("linux", 1), ("mac", 0), ("plain", None)] == found


def test_marks_carry_them():
    told = marks.Marks(owner="o", template="t", backend="b", revision="r", created_at=1.0, slot=12)
    assert told == marks.from_description(told.description())
    assert told == marks.from_metadata(told.metadata("n"))
    for odd in ("-1", "", "x", "1" * 9):
        read = marks.from_metadata(told.metadata("n") | {"slot": odd})
        assert read.slot is None
    without = attrs.evolve(told, slot=None)
    assert "slot" not in without.description()
    assert "slot" not in without.metadata("n")


@frozen(kw_only=True)
class Mount:
    name: str = "cache-{slot}"
    options: dict = Factory(lambda: {"o": "addr=x,dir=/{slot}", "n": 3})


@frozen(kw_only=True)
class Options:
    mounts: tuple = (Mount(), Mount(name="plain"))
    pod: dict = Factory(lambda: {"spec": {"volumes": [{"claimName": "cache-{slot}"}]}})


def test_settings_of_every_form_have_them_put_in():
    """Sections, lists and values of kinds; what belongs to shells stays."""
    told = names.in_slot(Options(), 7)
    assert ("cache-7", "plain") == (told.mounts[0].name, told.mounts[1].name)
    assert {"o": "addr=x,dir=/7", "n": 3} == told.mounts[0].options
    assert {"spec": {"volumes": [{"claimName": "cache-7"}]}} == told.pod
    assert "${slot}" == names.in_slot("${slot}", 7)
    assert Options() == names.in_slot(Options(), None)
    assert names.has_slot(Options())
    assert not names.has_slot(told)


def test_an_instance_is_told_its_own_place():
    launch = attrs.evolve(
        worlds.template("linux").launch,
        remote_fs="/srv/{slot}",
        environment={"CACHE": "/cache/{slot}/{name}"},
        platform={B: Options()},
    )
    template = worlds.template("linux", numbered=True, launch=launch)
    action = model.LaunchAgent(name="o-linux-1", template="linux", backend=B, reason="", slot=3)
    wanted = spec.variant(action, template)
    site = test_spec.site()
    made = spec.instance(action, wanted, site, jnlp_secret.Secret("x" * 64))
    assert "/srv/3" == spec.remote_fs(wanted, site, action.name) == made.work_dir
    assert "/cache/3/o-linux-1" == made.env["CACHE"]
    assert "cache-3" == made.options.mounts[0].name
    assert ("3", 3) == (made.metadata["slot"], made.slot)
    assert "slot=3]" in spec.definition(action, wanted, site).description


def test_texts_that_name_a_slot_are_found_where_they_are():
    found = names.slotted(({"a": [Options()]}, "x-{slot}", "${slot}"))
    assert found == {"cache-{slot}", "addr=x,dir=/{slot}", "x-{slot}"}
