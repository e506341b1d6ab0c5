"""Labels with values: what is asked of a template, what is allowed, and what follows from it."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import spec
from broker.core.demand import labels, parameters
from broker.core.fleet import ledger as ledgers
from broker.core.model import Choice, LaunchAgent, Parameter, ParameterKind, Phase, WaitReason
from jnlp import secret
from jnlp import tunnel as jnlp_tunnel
from tests.core.worlds import NOW, B, Scene, item, template

MIB = 1 << 20
PARAMETERS = {
    "image": Parameter(
        kind=ParameterKind.IMAGE, allow=("golang:*", "registry.example.com/team/*")
    ),
    "memory": Parameter(kind=ParameterKind.MEMORY, least=512 * MIB, most=8192 * MIB),
    "cpu": Parameter(kind=ParameterKind.CPU, most=4.0),
    "size": Parameter(
        kind=ParameterKind.CHOICE,
        values={"small": Choice(cpu=0.5), "large": Choice(memory_bytes=8192 * MIB, image="big:1")},
    ),
}
LAUNCH = model.LaunchSettings(
    connection=jnlp_tunnel.Connection(),
    agent_url="http://c/",
    image="plain:1",
    resources=backends_api.Resources(
        memory_bytes=2048 * MIB,
        memory_reservation_bytes=1024 * MIB,
        cpu_shares=2.0,
    ),
)
DOCKER = template("docker", "docker", "linux", parameters=PARAMETERS, launch=LAUNCH)


def ask(text):
    return parameters.asked(labels.parse(text), DOCKER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker", set()),
        ("docker && image=golang:1.22", {"image=golang:1.22"}),
        ('linux&&"image=golang:1.22"&&memory=4g', {"image=golang:1.22", "memory=4g"}),
        ("image=golang:1.22", {"image=golang:1.22"}),
        ("docker && cpu=0.5 && size=small", {"cpu=0.5", "size=small"}),
        ("docker && memory=512Mi", {"memory=512Mi"}),
        ("docker && image=registry.example.com/team/a@sha256:" + "0123abcd" * 4, None),
        ("image=golang:1.21 || image=golang:1.22", {"image=golang:1.21"}),
        ("docker || image=golang:1.22", set()),
        ("docker && !image=golang:1.22", set()),
        ("docker && image=evil:1 || docker && image=golang:1.22", {"image=golang:1.22"}),
        ("docker && (image=golang:1.22 || windows)", {"image=golang:1.22"}),
        ("docker && cpu=1 -> image=golang:1.22", set()),
    ],
)
def test_the_fewest_labels_that_match_are_taken(text, expected):
    """With ``||`` the first that may be asked for, with ``!`` none."""
    expected = expected if expected is not None else {text.partition(" && ")[2]}
    answer = ask(text)
    assert answer == parameters.Asked(frozenset(expected))
    bound = parameters.bound(DOCKER, answer.labels)
    assert labels.parse(text).matches(bound.labels)


@pytest.mark.parametrize("size", ["flavour", "size"])
def test_what_has_a_name_of_its_own_is_stronger_than_a_word_of_a_list(size):
    """Whatever both are called: no alphabet decides."""
    template_ = attrs.evolve(DOCKER, parameters={**PARAMETERS, size: PARAMETERS["size"]})
    launch = parameters.bound(template_, {f"{size}=large", "memory=1g", "image=golang:1"}).launch
    assert launch.resources.memory_bytes == 1024 * MIB
    assert launch.image == "golang:1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("docker && size=large && kind=big", "kind and size both set the memory"),
        ("docker && image=golang:1 && tag=2", "image and tag both set the image"),
        ("docker && side=1 && other=2", "other and side both set the image of go"),
    ],
)
def test_two_that_set_the_same_are_refused(text, words):
    """Neither is meant more than the other."""
    tag = Parameter(kind=ParameterKind.IMAGE, allow=("*",), stands_for="golang:{value}")
    side = attrs.evolve(tag, container="go")
    kind = Parameter(kind=ParameterKind.CHOICE, values={"big": Choice(memory_bytes=MIB)})
    more = {"tag": tag, "side": side, "other": side, "kind": kind}
    template_ = attrs.evolve(DOCKER, parameters={**PARAMETERS, **more})
    answer = parameters.asked(labels.parse(text), template_)
    assert answer == parameters.Asked(complaint=words)


@pytest.mark.parametrize(
    "text", ["windows", "windows && image=golang:1.22", "docker && colour=red"]
)
def test_what_is_asked_of_another_template_is_none_of_this_one(text):
    """An unknown name of a parameter is a label like others."""
    assert ask(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "docker && image=evil:1",
            "of template docker image=evil:1 is not allowed, but image=golang:*, image=registry",
        ),
        ("docker && image=registry.example.com/team/a/b", "image=registry.example.com/team/*"),
        ('docker && "image=golang:1 2"', "image=golang:1 2 is not allowed"),
        ("docker && memory=9g", "but memory=SIZE (512Mi or 4g, say) from 512Mi up to 8Gi"),
        ("docker && memory=4", "memory=4 is not allowed"),
        ("docker && memory=256m", "memory=256m is not allowed"),
        ("docker && cpu=4.5", "but cpu=CORES (0.5 or 2, say) up to 4"),
        ("docker && cpu=0", "cpu=0 is not allowed"),
        ("docker && cpu=-1", "cpu=-1 is not allowed"),
        ("docker && image=golang:1@sha256:" + "0" * 64, "image=golang:1@sha256"),
        ("docker && size=huge", "but size=small, size=large"),
        ("docker && cpu=1 && cpu=2", "it asks for two values of cpu, 1 and 2"),
        (
            "docker && " + " && ".join(f"cpu={n}" for n in range(1, 8)),
            "it names 7 values of parameters of template docker, 6 are read",
        ),
    ],
)
def test_what_is_not_allowed_is_told_with_what_is(text, words):
    """By the first way in which it would fit, were it allowed."""
    answer = ask(text)
    assert not answer.labels
    assert words in answer.complaint
    scene = Scene(DOCKER)
    scene.wait(item(1, text))
    plan = scene.plan()
    assert not plan.actions
    (unmet,) = plan.unmet
    assert (unmet.reason, unmet.text) == (WaitReason.PARAMETER, answer.complaint)


@pytest.mark.parametrize(
    "atom",
    [
        "image=",
        "image=../../etc",
        "image=GOLANG:1",
        "image=golang:1\u200b",
        "image=golang:é",
        "image=golang:*",
        "image=golang:1=2",
        "image==golang:1",
        "image=golang:" + "1" * 200,
        "image=golang:1,golang:2",
        "memory=1e999",
        "memory=inf",
        "memory=nan",
        "memory=-4g",
        "memory=0g",
        "memory=٤g",
        "memory=4g4g",
        "memory=4gg",
        "memory=99999999999g",
        "cpu=1e3",
        "cpu=0x1",
        "cpu=.5",
        "cpu=1_0",
        "cpu=²",
        "cpu=+1",
        "size=small ",
        "size=Small",
        "size=",
    ],
)
def test_what_no_template_allows_is_a_reason_and_nothing_else(atom):
    """Whatever a person, or somebody who is none, writes into a job."""
    asked = parameters.asked(labels.Expression(labels.Op.ATOM, name=atom), DOCKER)
    assert not asked.labels
    assert "is not allowed, but" in asked.complaint
    assert len(asked.complaint) < 400


def test_a_value_stands_for_settings():
    """Image, limits; a reservation is no more than the limit; what is not asked for stays."""
    bound = parameters.bound(DOCKER, {"memory=512m", "cpu=0.5"}).launch
    assert bound.image == "plain:1"
    assert bound.resources == backends_api.Resources(
        memory_bytes=512 * MIB,
        memory_reservation_bytes=512 * MIB,
        cpu_limit=0.5,
        cpu_shares=0.5,
    )
    assert parameters.bound(DOCKER, {"size=large"}).launch.image == "big:1"
    assert parameters.bound(DOCKER, ()) is DOCKER


def _scene(*templates, **more):
    scene = Scene(*templates or (DOCKER,), **more)

    def variant(phase, *asked, **agent):
        name = scene.agent("docker", phase, **agent)
        computer = scene.computers[-1]
        scene.computers[-1] = attrs.evolve(computer, labels=computer.labels | set(asked))
        return name

    return scene, variant


def _launches(plan):
    return [action for action in plan.actions if isinstance(action, LaunchAgent)]


def test_an_item_is_ordered_an_agent_with_what_it_asks_for():
    """Node and instance are made of the variant; the node carries just the labels asked for."""
    scene, _ = _scene()
    scene.wait(item(1, "docker && image=golang:1.22 && memory=4g"))
    (launch,) = _launches(scene.plan())
    assert launch.asked == ("image=golang:1.22", "memory=4g")
    bound = spec.variant(launch, DOCKER)
    site = spec.Site(
        owner="o",
        style=spec.Style.ENTRY_POINT,
        controller_version="2.528.3",
        jar_url="http://c/jnlpJars/agent.jar",
        work_dir=None,
        now=NOW,
    )
    assert spec.definition(launch, bound, site).labels == (
        "docker",
        "image=golang:1.22",
        "linux",
        "memory=4g",
    )
    instance = spec.instance(launch, bound, site, secret.Secret("s"))
    assert instance.image == "golang:1.22"
    assert instance.resources.memory_bytes == 4096 * MIB


def test_one_for_each_variant_that_waits():
    """Items that ask for the same share nothing with others but the template."""
    scene, _ = _scene()
    scene.wait(*(item(n, f"docker && image=golang:1.{n % 2}") for n in range(4)))
    scene.wait(item(9, "docker"))
    asked = sorted(launch.asked for launch in _launches(scene.plan()))
    assert asked == [
        (),
        *[("image=golang:1.0",)] * 2,
        *[("image=golang:1.1",)] * 2,
    ]


def test_an_idle_agent_serves_its_variant_again_and_no_other():
    """It is known by its node's labels alone, so a restart forgets nothing."""
    scene, variant = _scene()
    name = variant(Phase.IDLE, "image=golang:1.22", known=False)
    scene.wait(item(1, "docker && image=golang:1.22"), item(2, "docker && image=golang:1.21"))
    plan = scene.plan()
    (launch,) = _launches(plan)
    assert (launch.item, launch.asked) == (2, ("image=golang:1.21",))
    unmet = {one.item: one for one in plan.unmet}
    assert (unmet[1].reason, unmet[1].agent) == (WaitReason.AGENT_IDLE, name)


def test_any_item_that_asks_for_less_may_be_served_by_a_variant():
    """As the controller does it: its labels are all there."""
    scene, variant = _scene()
    name = variant(Phase.IDLE, "image=golang:1.22")
    scene.wait(item(1, "docker"))
    plan = scene.plan()
    assert not _launches(plan)
    assert plan.unmet[0].agent == name


def test_an_agent_that_is_ordered_is_its_variant_before_its_node_is_seen():
    """The next look orders no second one."""
    scene, _ = _scene()
    scene.wait(item(1, "docker && image=golang:1.22"))
    (launch,) = _launches(scene.plan())
    scene.ledger = ledgers.expect(scene.ledger, launch, now=scene.now, policy=scene.policy)
    plan = scene.plan()
    assert not _launches(plan)
    assert plan.unmet[0].agent == launch.name
    scene.wait(item(2, "docker && image=golang:1.21"))
    (other,) = _launches(scene.plan())
    assert other.item == 2


def test_variants_share_the_cap_of_the_template():
    """And are told of it."""
    capped = attrs.evolve(DOCKER, cap=1)
    scene, variant = _scene(capped)
    variant(Phase.BUSY, "image=golang:1.22")
    scene.wait(item(1, "docker && image=golang:1.21"))
    plan = scene.plan()
    assert not _launches(plan)
    assert plan.unmet[0].reason is WaitReason.CAP_TEMPLATE


def test_an_idle_variant_makes_room_for_another_under_the_cap():
    """It would serve nobody who waits, and stand in the way for as long as it may be idle."""
    capped = attrs.evolve(DOCKER, cap=1)
    scene, variant = _scene(capped)
    name = variant(Phase.IDLE, "image=golang:1.22", idle_s=5.0)
    scene.wait(item(1, "docker && image=golang:1.21"))
    (action,) = scene.plan().actions
    assert isinstance(action, model.RetireAgent)
    assert (action.name, action.cause) == (name, model.Cause.YIELD)


def test_there_are_so_many_variants_at_most():
    """One that is there already gets more agents; an idle one makes room for a new one."""
    few = attrs.evolve(DOCKER, variants=2)
    scene, variant = _scene(few)
    variant(Phase.BUSY, "image=golang:1.1")
    variant(Phase.BUSY, "image=golang:1.2")
    scene.wait(item(1, "docker && image=golang:1.3"), item(2, "docker && image=golang:1.2"))
    plan = scene.plan()
    (launch,) = _launches(plan)
    assert launch.item == 2
    (unmet,) = [one for one in plan.unmet if one.item == 1]
    assert unmet.reason is WaitReason.CAP_VARIANTS
    assert "2 variants" in unmet.text
    assert "image=golang:1.1; image=golang:1.2" in unmet.text
    scene, variant = _scene(few)
    variant(Phase.BUSY, "image=golang:1.1")
    idle = variant(Phase.IDLE, "image=golang:1.2", idle_s=5.0)
    scene.wait(item(1, "docker && image=golang:1.3"))
    (action,) = scene.plan().actions
    assert (type(action), action.name) == (model.RetireAgent, idle)


def test_the_warm_pool_is_the_templates_own():
    """An idle variant is nobody's warm agent, and goes when it was idle for too long."""
    warm = attrs.evolve(DOCKER, min_idle=1)
    scene, variant = _scene(warm)
    name = variant(Phase.IDLE, "image=golang:1.22", idle_s=10_000.0)
    actions = scene.plan().actions
    (launch,) = [one for one in actions if isinstance(one, LaunchAgent)]
    assert launch.asked == ()
    (retire,) = [one for one in actions if isinstance(one, model.RetireAgent)]
    assert retire.name == name


def test_a_changed_template_changes_its_variants():
    """Their marks hold its revision."""
    scene, variant = _scene()
    name = variant(Phase.IDLE, "image=golang:1.22", revision="before")
    (action,) = scene.plan().actions
    assert (action.name, action.cause) == (name, model.Cause.DRIFT)


def test_an_image_that_does_not_exist_keeps_no_other_variant_waiting():
    """What fails is the variant; the rest of the template goes on."""
    scene, _ = _scene()
    scene.wait(item(1, "docker && image=golang:9.99"))
    (launch,) = _launches(scene.plan())
    outcome = ledgers.Outcome(
        action=launch,
        at=scene.now,
        failure=model.Failure.REJECTED,
        text="no such image",
        scope=model.Scope.TEMPLATE,
    )
    scene.ledger = ledgers.settle(scene.ledger, outcome, policy=scene.policy, jitter=0.5)
    scene.wait(item(2, "docker && image=golang:1.22"), item(3, "docker"))
    plan = scene.plan()
    assert {one.item for one in _launches(plan)} == {2, 3}
    (unmet,) = [one for one in plan.unmet if one.item == 1]
    assert unmet.reason is WaitReason.SET_ASIDE
    assert "template docker image=golang:9.99 is set aside" in unmet.text


def test_failures_of_ever_new_variants_are_forgotten():
    """Whoever writes jobs writes as many as they like."""
    scene, _ = _scene()
    for number in range(300):
        key = ledgers.key_of(model.Scope.TEMPLATE, B, "docker", asked=[f"image=golang:{number}"])
        scene.ledger = ledgers.failed(
            scene.ledger,
            key,
            cause=model.Failure.REJECTED,
            reason="no",
            now=scene.now,
            policy=scene.policy,
            jitter=0.5,
        )
    assert len(scene.ledger.backoffs) == 100
    assert key in scene.ledger.backoffs


def _on(number, name):
    """Return an item of which the text names the only node that has its label."""
    why = f"Waiting for next available executor on ‘{name}’"
    return item(number, None, why=why, exports_label=False, task_class="x$PlaceholderTask")


def test_a_label_that_is_not_told_is_of_the_variant_of_the_node_that_is_named():
    """The text names the one node that has the label: another one has to be like that."""
    scene, variant = _scene()
    name = variant(Phase.BUSY, "image=golang:1.22")
    scene.wait(_on(1, name))
    (launch,) = _launches(scene.plan())
    assert launch.asked == ("image=golang:1.22",)


def test_each_of_several_nodes_is_of_its_own_variant():
    """None of these items is taken for one that wants the same."""
    scene, variant = _scene()
    tags = ["1.22", "1.23", "1.24"]
    names = [variant(Phase.BUSY, f"image=golang:{tag}") for tag in tags]
    scene.wait(*(_on(number, name) for number, name in enumerate(names)))
    plan = scene.plan()
    assert {(f"image=golang:{tag}",) for tag in tags} == {one.asked for one in _launches(plan)}
    assert {0, 1, 2} == {unmet.item for unmet in plan.unmet}


@pytest.mark.parametrize("label", ["image=evil.example/x:1", "memory=abc", "cpu=0", "size=odd"])
def test_an_agent_is_no_way_around_what_is_allowed(label):
    """Whoever may configure a node writes its labels; and what is allowed may have changed."""
    scene, variant = _scene()
    name = variant(Phase.BUSY, label)
    scene.wait(_on(1, name))
    plan = scene.plan()
    assert not _launches(plan)
    (unmet,) = plan.unmet
    assert unmet.reason is WaitReason.PARAMETER
    assert f"{label} is not allowed" in unmet.text
    assert name in unmet.text


def test_each_variant_fills_agents_of_its_own():
    """Two that ask for different things are two agents' work, however many slots each has."""
    scene, _ = _scene(attrs.evolve(DOCKER, executors=2))
    scene.wait(item(1, "docker && memory=1g"), item(2, "docker && memory=2g"))
    assert sorted(one.asked for one in _launches(scene.plan())) == [("memory=1g",), ("memory=2g",)]


@pytest.mark.parametrize(
    "why",
    [
        "There are no nodes with the label ‘docker&&image=golang:",
        "All nodes of label ‘docker&&image=golang:",
        "‘o-docker-a1’ doesn’t have label ‘docker&&image=golang:",
    ],
)
def test_a_label_that_is_too_long_to_be_read_is_no_free_agents_word(why):
    """Nothing but the label was read of the text, and not its end: no agent serves that."""
    scene, variant = _scene()
    variant(Phase.IDLE, "image=golang:1")
    task = "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"
    long = why + "1" * 9000
    scene.ledger = attrs.evolve(scene.ledger, english=True)
    scene.wait(item(1, why=long, age_s=500.0, task_class=task, exports_label=False))
    plan = scene.plan()
    assert not _launches(plan)
    assert [one.reason for one in plan.unmet] == [WaitReason.LABEL_UNREADABLE]
