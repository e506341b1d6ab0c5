"""Somebody asks for a thousand images: it harms nobody but them."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import variants
from broker.core.demand import wishes as demand
from broker.core.fleet import ledger as ledgers
from broker.core.fleet import places
from broker.core.model import (
    AgentFate,
    LaunchAgent,
    NodeName,
    Parameter,
    ParameterKind,
    Phase,
    TemplateName,
    WaitReason,
)
from tests.core.worlds import NOW, B, Scene, item, template

DOCKER = template(
    "docker",
    "docker",
    parameters={"image": Parameter(kind=ParameterKind.IMAGE, allow=("golang:*",))},
    cap=20,
)
MANY = 1000
URL = "http://c/job/{}/"


def _scene(docker=DOCKER):
    scene = Scene(docker, template("linux", "linux"))

    def variant(phase, *asked, **agent):
        name = scene.agent("docker", phase, **agent)
        computer = scene.computers[-1]
        scene.computers[-1] = attrs.evolve(computer, labels=computer.labels | set(asked))
        return name

    return scene, variant


def _attack(scene, number=MANY):
    """Let one job wait for ever other images, for longer than anybody else."""
    scene.wait(
        *(
            item(n, f"docker && image=golang:{n}", age_s=500.0, task_url=URL.format("evil"))
            for n in range(1, number + 1)
        )
    )


def _launches(plan):
    return [action for action in plan.actions if isinstance(action, LaunchAgent)]


def _proved(scene, *asked):
    key = ledgers.key_of(model.Scope.TEMPLATE, B, TemplateName("docker"), asked=asked)
    trial = model.Trial(revision="r1", online=ledgers.ENOUGH_ONLINE)
    scene.ledger = attrs.evolve(scene.ledger, trials={**scene.ledger.trials, key: trial})


def test_a_thousand_images_start_few_agents():
    """And all others are served in the same look: who asks for nothing, or for a known variant."""
    scene, _ = _scene()
    _proved(scene, "image=golang:good")
    _attack(scene)
    others = [
        item(5001, "docker"),
        item(5002, "docker && image=golang:good", task_url=URL.format("good")),
        item(5003, "linux"),
    ]
    scene.wait(*others)
    plan = scene.plan()
    served = [launch.item for launch in _launches(plan)]
    assert {5001, 5002, 5003} <= set(served)
    assert len(served) == len(others) + 4
    waits = {one.item: one for one in plan.unmet}
    assert len(waits) >= MANY - 4
    assert waits[MANY].reason is WaitReason.TRIAL
    assert "of variants of template docker that brought none online" in waits[MANY].text


def test_anothers_first_image_comes_before_the_second_of_a_job():
    """Though it is new as well, and has waited for less."""
    scene, _ = _scene()
    _attack(scene)
    scene.wait(item(5001, "docker && image=golang:new", task_url=URL.format("good")))
    asked = [launch.asked for launch in _launches(scene.plan())]
    assert len(asked) == 4
    assert ("image=golang:new",) in asked


@pytest.mark.parametrize(("cap", "most"), [(1, 1), (2, 1), (5, 2), (100, 4), (None, 4)])
def test_a_small_template_keeps_room_for_others(cap, most):
    """Half of it, or four agents."""
    scene, _ = _scene(attrs.evolve(DOCKER, cap=cap))
    _attack(scene, 10)
    assert len(_launches(scene.plan())) == most


def test_images_that_fail_are_forgotten_and_nobody_else_is_held_back():
    """Round by round, as long as they wait: what is remembered has an end."""
    scene, _ = _scene()
    _attack(scene, 130)
    for turn in range(40):
        scene.now += 1.0
        launches = _launches(scene.plan())
        assert len(launches) <= 4
        for launch in launches:
            outcome = ledgers.Outcome(
                action=launch,
                at=scene.now,
                failure=model.Failure.REJECTED,
                text="no such image",
                scope=model.Scope.TEMPLATE,
            )
            scene.ledger = ledgers.settle(
                scene.ledger, outcome, policy=scene.policy, jitter=0.5, revision="r1"
            )
        if turn == 0:
            assert launches
    kept = [key for key in scene.ledger.backoffs if key.asked]
    assert len(kept) <= 100
    assert len([key for key in scene.ledger.windows if key.asked]) <= 100
    assert not [key for key in scene.ledger.backoffs if not key.asked]
    scene.wait(item(5001, "docker"), item(5002, "docker && image=golang:new"))
    assert {5001, 5002} <= {launch.item for launch in _launches(scene.plan())}


def test_variants_that_start_are_counted_with_those_of_this_look():
    """So the next look adds none."""
    scene, variant = _scene()
    for number in range(4):
        variant(Phase.CONNECTING, f"image=golang:{number}", age_s=5.0)
    _attack(scene, 10)
    plan = scene.plan()
    assert {launch.item for launch in _launches(plan)} == set()


def test_a_variant_proves_itself_and_no_other():
    """Who came online with one image says nothing of another one, or of the template's own."""
    scene, variant = _scene()
    variant(Phase.IDLE, "image=golang:good", known=False)
    scene.ledger = attrs.evolve(scene.ledger, trials={})
    trials = scene.plan().ledger.trials
    assert {key.asked for key in trials} == {frozenset({"image=golang:good"})}


def test_wrong_images_blame_no_place():
    """A thousand that never came, on one host, while others do well on the next one."""
    fates, good = {}, TemplateName("docker")
    for number in range(50):
        fates[NodeName(f"e{number}")] = AgentFate(
            backend=B, place="north", template=good, revision="r1", at=NOW - 100.0 + number,
            came=False, bad="no such image", asked=frozenset({f"image=golang:{number % 7}"}),
        )  # fmt: skip
        fates[NodeName(f"g{number}")] = AgentFate(
            backend=B, place="south", template=good, revision="r1", at=NOW - 100.0 + number,
            came=True,
        )  # fmt: skip
    trial = model.Trial(revision="r1", online=ledgers.ENOUGH_ONLINE)
    proved = {ledgers.key_of(model.Scope.TEMPLATE, B, good): trial}
    ledger = model.Ledger(fates=fates, trials=proved)
    after, only = places.judge(ledger, {B: ("north", "south")}, now=NOW)
    assert not places.avoided(after, now=NOW)
    assert not only


def test_a_variant_that_does_well_elsewhere_blames_a_place():
    """As any definition does."""
    fates = {}
    for number in range(5):
        for place, bad in (("north", "it ended"), ("south", "")):
            fates[NodeName(f"{place}{number}")] = AgentFate(
                backend=B, place=place, template=TemplateName("docker"), revision="r1",
                at=NOW - 100.0 + number, came=not bad, bad=bad,
                asked=frozenset({"image=golang:good"}),
            )  # fmt: skip
    after, _ = places.judge(model.Ledger(fates=fates), {B: ("north", "south")}, now=NOW)
    assert [place for _, place in places.avoided(after, now=NOW)] == ["north"]


def test_each_jobs_first_variant_comes_first():
    """Items without one are in nobody's row."""
    scene, _ = _scene()
    scene.wait(
        item(1, "docker && image=golang:1", task_url=URL.format("a")),
        item(2, "docker && image=golang:2", task_url=URL.format("a")),
        item(3, "docker", task_url=URL.format("a")),
        item(4, "docker && image=golang:4", task_url=URL.format("b")),
        item(5, "docker && image=golang:5", task_url=URL.format("a")),
    )
    wishes, _ = demand.wishes(scene.world().controller, scene.policy.templates, scene.ledger, {})
    assert variants.ranks([[wish] for wish in wishes]) == [0, 1, 0, 0, 2]
