"""Why something happens is a value: whole enums, and nobody steers by their texts."""

import ast
import pathlib

import pytest

from backends import api
from broker.core import model
from broker.core.fleet import agents
from broker.metrics import values
from jnlp import errors
from tests.core import worlds
from tests.each import each

ROOT = pathlib.Path(__file__).parent.parent.parent
REASONS = frozenset({"slug", "subject", "cause", "reason", "failure"})


def subclasses(base):
    return {base} | {deep for kind in base.__subclasses__() for deep in subclasses(kind)}


def test_every_error_is_a_failure_and_every_failure_an_error():
    """Whatever a backend or the controller raises has a member; none is made up."""
    raised = {
        kind.slug for base in (api.BackendError, errors.JenkinsError) for kind in subclasses(base)
    }
    assert raised == {failure.slug for failure in model.Failure}
    assert model.Failure.of("what nobody knows") is model.Failure.BUG


def test_every_end_of_an_instance_is_a_cause():
    """Each with a member of its own, which is an accident, and says so in its slug."""
    causes = [model.Cause.of_exit(slug) for slug in api.EXIT_SLUGS]
    assert [f"lost-{slug}" for slug in api.EXIT_SLUGS] == [cause.slug for cause in causes]
    assert len(set(causes)) == len(api.EXIT_SLUGS)
    assert all(cause.accident and cause.scope is not None for cause in causes)


@each("slug", api.EXIT_SLUGS)
def test_a_lost_agent_goes_for_how_its_instance_ended(slug):
    """Read from the certificate, not from its words."""
    scene = worlds.Scene(worlds.template("t"))
    scene.agent("t", model.Phase.LOST, exit=api.Exit(slug=slug, message="max-age"))
    (agent,), _, _ = agents.observe(scene.world(), scene.policy)
    assert agents.why_lost(agent)[0] is model.Cause.of_exit(slug)


def test_slugs_are_labels_and_words_are_a_sentence():
    """One of each, fit for a node's label, a metric's label and a table of the manual."""
    members = [*model.Cause, *model.Failure, *model.WaitReason]
    assert len({member.value for member in members}) == len(members)
    for member in members:
        assert set(member.value) <= set("abcdefghijklmnopqrstuvwxyz-")
    for member in [*model.Cause, *model.Failure]:
        assert member.words
        assert not set("|\n") & set(member.words)


def test_what_was_written_by_somebody_else_is_a_member_or_nothing():
    """A node's label may say anything."""
    assert model.Cause.find("max-age") is model.Cause.MAX_AGE
    assert model.Cause.find("max_age") is None


def test_every_reach_of_a_backend_has_a_scope():
    """Of the same word; the controller alone is nobody's backend."""
    assert set(model.SCOPES) == set(api.Reach)
    assert all(reach.value == scope.value for reach, scope in model.SCOPES.items())
    assert set(model.Scope) - set(model.SCOPES.values()) == {model.Scope.CONTROLLER}


def test_the_metrics_know_every_member():
    """Their lists are made from them."""
    assert set(values.END_REASONS) == {cause.slug for cause in model.Cause}
    assert set(values.RESULTS) > {failure.slug for failure in model.Failure}
    assert set(values.CYCLE_SLUGS) == {why.value for why in model.CycleFailure}


def steered_by_text(tree):
    """Yield where a reason is compared with a text, or asked how it begins."""
    for node in ast.walk(tree):
        parts = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"startswith", "endswith", "removeprefix"}:
                parts = [node.func.value, *node.args]
        names = {part.attr for part in parts if isinstance(part, ast.Attribute)}
        texts = [part for part in parts if is_text(part)]
        if names & REASONS and texts:
            yield node.lineno


def is_text(node):
    inside = node.elts if isinstance(node, ast.Tuple | ast.Set | ast.List) else [node]
    return any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in inside)


@pytest.mark.parametrize(
    "code",
    [
        'a.slug == "max-age"',
        'a.slug.startswith("lost-")',
        'b.cause in {"x"}',
        '"sweep" == r.subject',
    ],
)
def test_the_search_finds_what_it_is_for(code):
    """Else the next test would hold whatever is written."""
    assert list(steered_by_text(ast.parse(code)))


def test_nobody_steers_by_a_text():
    """A typo in one would be seen by nobody."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "broker").rglob("*.py"))
        for line in steered_by_text(ast.parse(path.read_text()))
    ]
    assert found == []
