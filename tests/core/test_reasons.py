"""Which of several templates and backends an item's reason is of: one that could serve it."""

import itertools

import attrs
import pytest

from backends import api
from broker.core import model
from broker.core.model import Phase, Scope, WaitReason
from tests.core.test_plan_orders import unmet
from tests.core.worlds import B, Scene, actions, item, template
from tests.each import each

C = model.BackendName("two")
R = WaitReason


def broken(scene, name, backend):
    scene.backoff(Scope.TEMPLATE, name, backend=backend, cause=model.Failure.REJECTED)


def full(scene, _, backend):
    scene.capacity[backend] = api.Capacity(free_instances=0, text="3 of 3 pods")


def capped(scene, _, backend):
    limits = {**scene.policy.backends, backend: model.BackendPolicy(cap=0)}
    scene.policy = attrs.evolve(scene.policy, backends=limits)


def paused(scene, name, _):
    changed = [attrs.evolve(t, paused=t.paused or t.name == name) for t in scene.policy.templates]
    scene.policy = attrs.evolve(scene.policy, templates=tuple(changed))


def spent(scene, _, backend):
    limits = model.BackendPolicy(launch_rate=0.001, launch_burst=1)
    scene.policy = attrs.evolve(scene.policy, backends={**scene.policy.backends, backend: limits})
    bucket = model.Bucket(tokens=0.0, at=scene.now)
    scene.ledger = attrs.evolve(scene.ledger, buckets={**scene.ledger.buckets, backend: bucket})


def away(scene, _, backend):
    scene.dark_backends.add(backend)


ENDS_FIRST = (  # of two that stand in the way the one that is told
    (spent, R.BUDGET),
    (capped, R.CAP_BACKEND),
    (full, R.NO_ROOM),
    (broken, R.SET_ASIDE),
)


@each(
    ("sooner", "later"),
    list(itertools.combinations(ENDS_FIRST, 2)),
    ids=lambda way: way[0].__name__,
)
@each("swapped", [False, True])
def test_of_two_backends_the_one_that_may_serve_first_is_told(sooner, later, swapped):
    """In whichever order the template names them; what is wrong with the other follows."""
    scene = Scene(template("t", backends=(B, C)))
    one, other = (C, B) if swapped else (B, C)
    sooner[0](scene, "t", one)
    later[0](scene, "t", other)
    scene.wait(item(1, "t"))
    ((reason, text, name, _),) = unmet(scene.plan()).values()
    assert (sooner[1], "t") == (reason, name)
    assert text.startswith(f"{one}: ")
    assert f"; {other}: " in text


@each("wrong", [broken, paused])
@each(
    ("stands", "expected"),
    [(full, R.NO_ROOM), (capped, R.CAP_BACKEND), (spent, R.BUDGET), (away, R.NOT_SYNCED)],
)
@each("names", [("a", "b"), ("b", "a")])
def test_a_template_that_cannot_serve_is_no_reason_while_another_may(
    wrong, stands, expected, names
):
    """It is told after it, by its name; the item counts for the one that may."""
    bad, good = names
    scene = Scene(*(template(n, "x", backends=(B if n == bad else C,)) for n in ("a", "b")))
    stands(scene, good, C)
    wrong(scene, bad, B)
    scene.wait(item(1, "x"), item(2, "x"))
    made = scene.plan()
    for reason, text, name, _ in unmet(made).values():
        assert (expected, good) == (reason, name)
        assert text.startswith("two: ")
        assert f"; template {bad}: " in text
    assert (2, 0) == (made.counts[good].demand, made.counts[bad].demand)


def test_what_holds_for_all_templates_is_said_once():
    """A cap of everybody is no matter of any template."""
    scene = Scene(template("a", "x"), template("b", "x"), cap=0)
    scene.wait(item(1, "x"))
    ((reason, text, *_),) = unmet(scene.plan()).values()
    assert (R.CAP_TOTAL, "0 of 0 agents in all") == (reason, text)


def test_no_more_templates_than_one_reads_are_told_of():
    """Many may serve a label."""
    names = [f"t{n}" for n in range(9)]
    scene = Scene(*(template(name, "x") for name in names))
    for name in names:
        broken(scene, name, B)
    scene.wait(item(1, "x"))
    ((_, text, *_),) = unmet(scene.plan()).values()
    assert 3 == text.count("; template ")


def crowded(where):
    """Let idle agents of others fill the second backend, and one be on another."""
    scene = Scene(template("t", backends=(B, C)), template("other", backends=(B, C)))
    scene.policy = attrs.evolve(
        scene.policy, backends={**scene.policy.backends, C: model.BackendPolicy(cap=1)}
    )
    names = {backend: scene.agent("other", Phase.IDLE, backend=backend) for backend in where}
    scene.wait(item(1, "t"))
    return scene, names


@pytest.mark.parametrize("first", [broken, away, full])
def test_room_is_made_where_a_cap_is_full_though_the_first_backend_would_not_serve(first):
    """Of the agents there, not of those whose going would help nobody."""
    scene, names = crowded([B, C])
    first(scene, "t", B)
    made = scene.plan()
    assert {1: R.CAP_BACKEND} == {number: told[0] for number, told in unmet(made).items()}
    assert [names[C]] == list(actions(made, model.RetireAgent))
