import json
import pathlib
import re

import pytest

from broker.controller import reading
from broker.core import model
from broker.core.demand import labels
from broker.core.demand import wishes as demand
from broker.core.demand.wishes import WishKind
from broker.core.model import (
    KnownLabel,
    LabelSource,
    NodeName,
    Retention,
    Stage,
    Template,
    TemplateName,
    WaitReason,
)
from tests.each import each

RECORDINGS = pathlib.Path(__file__).parents[1] / "recordings" / "jenkins"
WHY, EXPR = LabelSource.WHY, LabelSource.EXPRESSION
ONE, NONE, DARK = LabelSource.SINGLE_NODE, LabelSource.NO_LABEL, LabelSource.UNREADABLE
PLACEHOLDER = "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"

# recording -> names of the nodes that existed, and per item: label, where it was learnt, kind
RECORDED = {
    "01-freestyle-label-nobody-serves": (
        ["off-1"],
        {4: ("nobody-serves-this", WHY, WishKind.NOW)},
    ),
    "02-freestyle-label-expression": (
        ["off-1"],
        {5: ("linux&&(docker||!arm)", WHY, WishKind.NOW)},
    ),
    "03-freestyle-no-label-all-busy": (["off-1"], {7: (None, NONE, WishKind.NOW)}),
    "04-freestyle-tied-to-offline-node": (["off-1"], {8: ("off-1", EXPR, WishKind.NOW)}),
    "05-freestyle-label-of-offline-node": (["off-1"], {9: ("offlabel", EXPR, WishKind.NOW)}),
    "06-freestyle-label-of-two-offline-nodes": (["off-1"], {10: ("pair", WHY, WishKind.NOW)}),
    "07-freestyle-quiet-period": (
        ["off-1"],
        {11: ("nobody-serves-this", EXPR, WishKind.ANNOUNCED)},
    ),
    "08-freestyle-blocked-by-own-build": (["off-1"], {13: ("built-in", EXPR, WishKind.LATER)}),
    "09-freestyle-parameterised": (["off-1"], {14: ("gpu", WHY, WishKind.NOW)}),
    "10-freestyle-quoted-label": (["off-1"], {15: ("label with space", WHY, WishKind.NOW)}),
    "11-freestyle-label-busy-node": (["off-1"], {17: ("built-in", EXPR, WishKind.NOW)}),
    "12-freestyle-expression-busy-node": (
        ["off-1"],
        {19: ("built-in && controller", EXPR, WishKind.NOW)},
    ),
    "13-freestyle-label-no-agents-at-all": ([], {47: ("nobody-serves-this", WHY, WishKind.NOW)}),
    "14-freestyle-label-no-executors-at-all": (
        [],
        {59: ("nobody-serves-this", EXPR, WishKind.NOW)},
    ),
    "15-freestyle-no-label-no-executors-at-all": ([], {65: (None, NONE, WishKind.NOW)}),
    "16-freestyle-no-label-no-executors-one-offline-agent": (
        ["unrelated"],
        {68: (None, NONE, WishKind.NOW)},
    ),
    "17-freestyle-no-label-one-offline-normal-agent": (
        ["unrelated"],
        {69: (None, NONE, WishKind.NOW)},
    ),
    "20-pipeline-node-label": (["off-1"], {21: ("foo", WHY, WishKind.NOW)}),
    "21-pipeline-node-expression": (["off-1"], {23: ("linux&&(docker||!arm)", WHY, WishKind.NOW)}),
    "22-pipeline-node-no-label": (["off-1"], {26: (None, NONE, WishKind.NOW)}),
    "23-pipeline-parallel": (
        ["off-1"],
        {28: ("pa&&x", WHY, WishKind.NOW), 29: ("pb", WHY, WishKind.NOW)},
    ),
    "24-pipeline-label-no-agents-at-all": ([], {49: ("foo", WHY, WishKind.NOW)}),
    "25-pipeline-label-one-unrelated-offline-agent": (
        ["unrelated"],
        {54: ("foo", WHY, WishKind.NOW)},
    ),
    "26-pipeline-label-node-created-not-connected": (["foo-1"], {56: (None, ONE, WishKind.NOW)}),
    "27-pipeline-label-two-nodes-not-connected": (
        ["foo-1", "foo-2"],
        {58: ("foo", WHY, WishKind.NOW)},
    ),
    "28-pipeline-label-no-executors-at-all": ([], {61: (None, DARK, WishKind.NOW)}),
    "29-pipeline-label-no-executors-one-offline-agent": (
        ["unrelated"],
        {67: ("foo", WHY, WishKind.NOW)},
    ),
    "30-matrix-label-axis": (
        ["off-1"],
        {31: ("mx-linux", WHY, WishKind.NOW), 32: ("mx-win", WHY, WishKind.NOW)},
    ),
    "31-matrix-label-expression-axis": (
        ["off-1"],
        {34: ("windows||macos", WHY, WishKind.NOW), 35: ("linux&&docker", WHY, WishKind.NOW)},
    ),
    "32-matrix-no-agents-at-all": (
        [],
        {51: ("mx-linux", WHY, WishKind.NOW), 52: ("mx-win", WHY, WishKind.NOW)},
    ),
    "33-matrix-no-executors-at-all": (
        [],
        {63: (None, DARK, WishKind.NOW), 64: (None, DARK, WishKind.NOW)},
    ),
    "34-pipeline-label-only-a-zero-executor-node": ([], {126: ("foo", WHY, WishKind.NOW)}),
    "35-label-two-nodes-both-busy": (
        ["two-1", "two-2"],
        {
            129: ("two", WHY, WishKind.NOW),
            131: ("two-1", EXPR, WishKind.NOW),
            132: ("two", WHY, WishKind.NOW),
        },
    ),
    "36-label-one-node-busy-one-marked-offline": (
        ["two-1", "two-2"],
        {134: ("two", WHY, WishKind.NOW), 136: ("two", WHY, WishKind.NOW)},
    ),
    "37-label-both-nodes-marked-offline": (
        ["two-1", "two-2"],
        {137: ("two", WHY, WishKind.NOW), 139: ("two", WHY, WishKind.NOW)},
    ),
    "38-quieting-down": (
        ["two-1", "two-2"],
        {140: ("two", EXPR, WishKind.NOW), 141: ("nobody-serves-this", EXPR, WishKind.NOW)},
    ),
    "40-life-of-an-item": ([], {}),
    "50-language-of-why-on-a-german-controller": (
        [],
        {122: ("nobody-serves-this", WHY, WishKind.NOW), 124: ("foo", WHY, WishKind.NOW)},
    ),
}


def exchanges(name):
    return json.loads((RECORDINGS / "queue" / f"{name}.json").read_text())["exchanges"]


def recorded_view(name, note=None):
    """Return what the controller showed in a recording, as the broker asks for it."""
    asked = {e["note"]: e["response"].get("json") for e in exchanges(name)}
    document = asked.get(note or "smallest useful set") or asked.get("Accept-Language: en")
    document = document or asked["empty queue"]
    items = reading.parse_queue(document["items"], 0.0)[0]
    names = ["master", *RECORDED[name][0]]
    return model.ControllerView(
        synced=True,
        quieting_down=any("about to shut down" in item.why for item in items),
        items=items,
        computers=tuple(model.Computer(name=NodeName(n)) for n in names),
    )


def read(view, templates=(), ledger=None, ours=None):
    found, known = demand.wishes(view, templates, ledger or model.Ledger(), ours or {})
    return {wish.item.id: wish for wish in found}, known


@each("name", sorted(RECORDED))
def test_every_recorded_queue(name):
    """Which label the broker sees in each recording, and from where."""
    wishes, _ = read(recorded_view(name))
    seen = {i: (w.label.expression, w.label.source, w.kind) for i, w in wishes.items()}
    assert seen == RECORDED[name][1]


def test_no_recording_is_left_out():
    """Every recorded queue has its row."""
    assert {path.stem for path in (RECORDINGS / "queue").glob("*.json")} == set(RECORDED)


@each("name", sorted(RECORDED))
def test_the_controllers_own_answer_agrees(name):
    """Where the script console told the assigned label, what we read means the same."""
    told = [e for e in exchanges(name) if e["note"].startswith("script console")]
    wishes, _ = read(recorded_view(name))
    for number, assigned in re.findall(
        r"^(\d+) (.+)$", "".join(e["response"]["body"] for e in told), re.M
    ):
        wish = wishes[int(number)]
        if wish.label.source in {DARK, ONE}:
            continue
        expected = None if assigned == "null" else assigned
        assert (wish.expression and wish.expression.canonical()) == expected


def test_a_german_controller_without_a_language_asked_for():
    """Texts in another language are not guessed at: the label is unreadable, not absent."""
    wishes, _ = read(
        recorded_view("50-language-of-why-on-a-german-controller", "no Accept-Language")
    )
    assert {w.label.source for w in wishes.values()} == {DARK}
    assert {w.unmet.reason for w in wishes.values()} == {WaitReason.LABEL_UNREADABLE}


# --- single rules, on items made for them ---------------------------------------------------------


def template(name, *labels_, **more):
    return Template(
        name=TemplateName(name),
        labels=frozenset(labels_),
        backends=(model.BackendName("b"),),
        revision="r",
        **{"retention": Retention(), **more},
    )


MAVEN = template("maven", "maven", "linux", "jdk17")
WIN = template("win", "windows", "jdk17")
ANY = template("any", "any", exclusive=False, takes_unlabelled=True)
OURS = {NodeName("o-maven-1"): MAVEN.name}


def item(why="", **more):
    defaults = {
        "id": model.ItemId(1),
        "stage": Stage.BUILDABLE,
        "why": why,
        "task_class": PLACEHOLDER,
        "in_queue_since_at": 10.0,
    }
    return model.QueueItem(**{**defaults, **more})


def one(queue_item, *, computers=(), ledger=None, templates=(MAVEN, WIN, ANY), quieting=False):
    view = model.ControllerView(
        synced=True, items=(queue_item,), computers=computers, quieting_down=quieting
    )
    wishes, known = read(view, templates, ledger, OURS)
    return wishes[queue_item.id], known


def nobody(label):
    return item(f"There are no nodes with the label ‘{label}’")


@pytest.mark.parametrize(
    ("label", "served_by"),
    [
        ("maven", ("maven",)),
        ("jdk17", ("maven", "win")),
        ("jdk17&&!windows", ("maven",)),
        ("!linux", ("win", "any")),
    ],
)
def test_templates_that_serve_a_label(label, served_by):
    """All templates whose labels match, in the order of the configuration."""
    wish, _ = one(nobody(label))
    assert wish.templates == served_by
    assert wish.unmet is None


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("linux&&gpu", "no template serves 'linux&&gpu'; the nearest, maven, lacks gpu"),
        (
            "jdk17&&!windows&&!linux",
            "no template serves 'jdk17&&!windows&&!linux'; the nearest, maven, must not have linux",
        ),
        ("gpu&&cuda", "no template serves 'gpu&&cuda'; the nearest, maven, lacks cuda, gpu"),
    ],
)
def test_the_nearest_template(label, text):
    """An item that nobody serves is told what would have to change."""
    wish, _ = one(nobody(label))
    assert (wish.unmet.reason, wish.unmet.text) == (WaitReason.NO_TEMPLATE, text)


def test_nothing_configured_at_all():
    """Without templates there is no nearest one."""
    wish, _ = one(nobody("x"), templates=())
    assert wish.unmet.text == "no template serves 'x'"


def test_a_malformed_label_is_reported():
    """The controller takes it for one odd label; so do we, and say what is wrong."""
    wish, _ = one(nobody("a b"))
    assert wish.unmet.reason is WaitReason.BAD_LABEL
    assert "'b' at character 3" in wish.unmet.text


def test_an_odd_label_that_a_template_has_is_served():
    """A label with a blank is legal; ``why`` shows it without its quotes."""
    odd = template("odd", "a b")
    wish, _ = one(nobody("a b"), templates=(odd,))
    assert (wish.templates, wish.unmet) == (("odd",), None)


def test_quotes_in_the_job_decide_what_the_text_means():
    """``"a&&b"`` in quotes is one label, although ``why`` shows it without them."""
    quoted = item(
        "There are no nodes with the label ‘a&&b’", label_expression='"a&&b"', exports_label=True
    )
    wish, _ = one(quoted)
    assert wish.expression == labels.atom("a&&b")


def test_the_text_outranks_the_jobs_setting():
    """A build may be sent to another label than its job's."""
    wish, _ = one(item(nobody("windows").why, label_expression="maven", exports_label=True))
    assert (wish.label.source, wish.templates) == (WHY, ("win",))


def test_what_the_text_said_before_outranks_the_jobs_setting():
    """The same item does not change its label when the text begins to hide it."""
    _, known = one(item(nobody("windows").why, label_expression="maven", exports_label=True))
    hidden = item("‘o-maven-1’ is offline", label_expression="maven", exports_label=True)
    wish, again = one(hidden, ledger=model.Ledger(labels=known))
    assert (wish.label.source, wish.templates) == (LabelSource.REMEMBERED, ("win",))
    assert again == known


def test_a_pushed_label_outranks_everything():
    """The hook knows; null means no label."""
    wish, _ = one(nobody("windows"), ledger=model.Ledger(hooks={1: "maven"}))
    assert (wish.label.source, wish.templates) == (LabelSource.HOOK, ("maven",))
    wish, _ = one(nobody("windows"), ledger=model.Ledger(hooks={1: None}))
    assert (wish.label.source, wish.templates) == (NONE, ("any",))


def test_labels_of_items_that_left_are_forgotten():
    """Memory is as long as the queue."""
    ledger = model.Ledger(labels={model.ItemId(99): KnownLabel(source=WHY, expression="x")})
    _, known = one(nobody("maven"), ledger=ledger)
    assert set(known) == {1}


@pytest.mark.parametrize(
    "why",
    [
        "‘o-maven-1’ is offline",
        "Waiting for next available executor on ‘o-maven-1’",
    ],
)
def test_our_node_named_is_demand_for_its_template(why):
    """Creating a node hides its label from the other items that wait for it."""
    wish, _ = one(item(why))
    assert (wish.label.source, wish.templates, wish.unmet) == (ONE, ("maven",), None)


def test_a_foreign_node_named_is_left_to_its_owner():
    """A node that is not ours will take the item."""
    wish, _ = one(item("‘build-7’ is offline"))
    assert wish.unmet.reason is WaitReason.NOT_OURS
    assert "build-7" in wish.unmet.text


def test_a_label_that_only_a_foreign_node_has():
    """No template serves it, somebody else's node does."""
    foreign = model.Computer(name=NodeName("mac-1"), labels=frozenset({"mac", "mac-1"}))
    wish, _ = one(item("Waiting for next available executor on ‘mac’"), computers=(foreign,))
    assert (wish.label.source, wish.unmet.reason) == (WHY, WaitReason.NOT_OURS)


def test_an_item_that_must_go_on_with_one_agent():
    """A pipeline after a restart asks for its node by name."""
    for queue_item in (
        item("Must run on o-maven-1 not o-maven-2"),
        item(nobody("o-maven-1").why),
        item("‘o-maven-1’ is offline", label_expression="o-maven-1", exports_label=True),
    ):
        wish, _ = one(queue_item)
        assert (wish.pinned, wish.templates) == ("o-maven-1", ("maven",))
        assert demand.could_want(wish, {"maven", "o-maven-1"}, True) is True
        assert demand.could_want(wish, {"maven", "o-maven-2"}, True) is False


def test_composite_texts():
    """A reason that names a label gives it, wherever it stands; an exclusive refusal means none."""
    wish, _ = one(item("‘a’ is not accepting tasks; ‘b’ doesn’t have label ‘windows’"))
    assert (wish.label.source, wish.templates) == (WHY, ("win",))
    wish, _ = one(item("‘a’ is reserved for jobs with matching label expression"))
    assert (wish.label.source, wish.templates) == (NONE, ("any",))


def test_items_without_a_label():
    """They go to the template that says it takes them, or it is said that none does."""
    plain = item(
        "Waiting for next available executor", exports_label=True, task_class="x.FreeStyle"
    )
    assert one(plain)[0].templates == ("any",)
    wish, _ = one(plain, templates=(MAVEN,))
    assert wish.unmet.reason is WaitReason.NO_TEMPLATE
    assert "takes_unlabelled" in wish.unmet.text


@pytest.mark.parametrize(
    ("more", "kind", "reason"),
    [
        ({"stage": Stage.WAITING, "why": "In the quiet period. Expires in 3 sec"}, WishKind.ANNOUNCED, WaitReason.QUIET_PERIOD),
        ({"stage": Stage.BLOCKED, "why": "Build #1 is already in progress"}, WishKind.LATER, WaitReason.BLOCKED),
        ({"stage": Stage.PENDING}, WishKind.STARTED, None),
        ({"task_class": "org.jenkinsci.plugins.workflow.job.WorkflowJob"}, WishKind.NOT_DEMAND, None),
        ({"task_class": "hudson.matrix.MatrixProject"}, WishKind.NOT_DEMAND, None),
    ],
)  # fmt: skip
def test_what_is_no_demand_now(more, kind, reason):
    """Only what is buildable and not yet given away asks for an agent."""
    wish, _ = one(item(**{"label_expression": "maven", "exports_label": True, **more}))
    assert wish.kind is kind
    assert (wish.unmet and wish.unmet.reason) == reason


def test_a_controller_that_shuts_down_gives_out_nothing():
    """During quiet-down every item waits for that alone."""
    wish, _ = one(item("Jenkins is about to shut down", label_expression="maven"), quieting=True)
    assert wish.unmet.reason is WaitReason.QUIETING_DOWN


def test_who_could_want_an_agent():
    """True, false, or not known: the last protects for a while."""
    has = {"maven", "linux", "jdk17", "o-maven-1"}
    assert demand.could_want(one(nobody("linux"))[0], has, True) is True
    assert demand.could_want(one(nobody("windows"))[0], has, True) is False
    assert demand.could_want(one(item("‘o-maven-1’ is offline"))[0], has, True) is True
    assert demand.could_want(one(item("‘o-maven-1’ is offline"))[0], {"maven"}, True) is None
    unreadable = one(item("Warte auf Godot"))[0]
    assert demand.could_want(unreadable, has, True) is None
    plain = one(item("Waiting for next available executor"))[0]
    assert demand.could_want(plain, has, True) is False
    assert demand.could_want(plain, has, False) is True
    pending = one(item(stage=Stage.PENDING, label_expression="linux"))[0]
    assert demand.could_want(pending, has, True) is False
