"""Who is given up, and who never is."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import giving_up
from broker.core.fleet import marks
from broker.core.model import ItemId, Phase, Stage, WaitReason
from broker.hook import reasons
from broker.loop import turn
from tests.core.worlds import NOW, B, Scene, item, template
from tests.loop.test_turn import notes, state_of, taken


class Life:
    """Looks at a scene, second by second; nothing is carried out."""

    def __init__(self, scene):
        self.scene, self.state, self.given_up = scene, state_of(scene), []

    def go(self, seconds, step=1.0, **more):
        for _ in range(int(seconds / step)):
            self.scene.now += step
            made = taken(self.state, self.scene, **more)
            self.state = made.state
            self.given_up += [note.item for note in notes(made, giving_up.GiveUp)]
        return self.given_up

    @property
    def told(self):
        return {one.item: one for one in self.state.plan.unmet}


def lonely(**policy):
    """One item that no template serves, and one that is served."""
    scene = Scene(template("t"), **{"give_up_s": 60.0, **policy})
    scene.wait(item(1, "nobody"))
    scene.agent("t", Phase.IDLE)
    scene.wait(item(2, "t", age_s=0.0))
    return scene


def test_what_nothing_can_serve_is_cancelled_once_after_its_time():
    life = Life(lonely())
    assert [] == life.go(60)
    assert [1] == life.go(60)
    text = life.told[1].text
    assert text.startswith("it is cancelled, since nothing could serve it for 1 min (give_up): ")
    assert "no template serves" in text


def test_off_by_default():
    assert [] == Life(lonely(give_up_s=None)).go(200)


def test_it_has_its_last_words_before_it_is_cancelled():
    """Two looks at the least, three seconds apart; its own log is told at once."""
    scene = lonely()
    scene.items[0] = attrs.evolve(
        scene.items[0],
        task_class="org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask",
    )
    life, said, told = Life(scene), [], {}
    while not life.given_up:
        life.go(1)
        lines, told = reasons.lines(scene.items, life.state.plan.unmet, told, scene.now)
        said += [(scene.now, text) for number, text in lines if number == 1]
    assert 2 == len(said)
    (first, _), (second, text) = said
    assert second - first < 60.0
    assert "it is cancelled" in text
    assert scene.now - second >= giving_up.LAST_WORDS_S


@pytest.mark.parametrize("stage", [Stage.BLOCKED, Stage.WAITING, Stage.PENDING])
def test_who_is_blocked_quiet_or_given_is_never(stage):
    scene = Scene(template("t"), give_up_s=60.0)
    scene.wait(item(1, "nobody", stage=stage, quiet_until_at=NOW + 9999))
    assert [] == Life(scene).go(200)


def test_who_waits_for_a_cap_is_never():
    scene = Scene(template("t", cap=0), give_up_s=60.0)
    scene.wait(item(1, "t"))
    assert [] == Life(scene).go(200)


def test_time_before_this_broker_saw_it_does_not_count():
    scene = Scene(template("t"), give_up_s=60.0)
    scene.wait(item(1, "nobody", age_s=9999.0))
    life = Life(scene)
    assert [] == life.go(60)
    assert [1] == life.go(10)


def test_while_a_backend_is_unknown_nobody_is():
    scene = lonely()
    life = Life(scene)
    life.go(50)
    scene.dark_backends.add(B)
    assert [] == life.go(200)
    scene.dark_backends.clear()
    assert [1] == life.go(10)


def test_while_the_controller_is_unknown_or_quiets_down_nobody_is():
    scene = lonely()
    life = Life(scene)
    life.go(50)
    scene.synced = False
    assert [] == life.go(100)
    scene.synced, scene.quieting_down = True, True
    assert [] == life.go(100)


def test_what_could_not_be_cancelled_is_not_tried_again_while_something_is_unknown():
    scene = lonely()
    life = Life(scene)
    assert [1] == life.go(70)
    scene.dark_backends.add(B)
    assert [1] == life.go(900)


def test_while_a_person_has_paused_everything_nobody_is():
    scene = lonely()
    order = model.StandingOrder(kind=model.StandingKind.PAUSE, who="a", since_at=NOW)
    scene.policy = attrs.evolve(scene.policy, standing=(order,))
    assert [] == Life(scene).go(200)


def test_a_standby_gives_up_nobody():
    assert [] == Life(lonely()).go(200, leads=False)
    assert [] == Life(lonely()).go(200, may_order=False)


def test_where_another_owners_broker_works_a_label_may_be_its():
    scene = lonely()
    theirs = marks.Marks(
        owner="other",
        template=model.TemplateName("x"),
        backend=B,
        revision="r",
        created_at=NOW,
    )
    away = model.Computer(
        name=model.NodeName("other-x-1"), offline=True, description=theirs.description()
    )
    scene.computers.append(away)
    life = Life(scene)
    assert [] == life.go(200)


def test_a_template_may_have_its_own_time():
    """It counts for what waits for it while it backs off, and for nobody else."""
    policy = Scene(template("t", give_up_s=30.0), template("u")).policy
    limit = giving_up._limit
    backs_off = model.Unmet(ItemId(1), WaitReason.BACKOFF, "", model.TemplateName("t"))
    assert 30.0 == limit(backs_off, policy)
    assert None is limit(attrs.evolve(backs_off, template=model.TemplateName("u")), policy)
    assert None is limit(attrs.evolve(backs_off, template=None), policy)
    assert 99.0 == limit(
        attrs.evolve(backs_off, template=None), attrs.evolve(policy, give_up_s=99.0)
    )


def test_one_that_could_not_be_cancelled_is_tried_again_later():
    life = Life(lonely())
    life.go(70)
    assert [1] == life.go(200)
    assert [1, 1] == life.go(200)


def test_that_we_ended_it_is_kept():
    scene = lonely()
    life = Life(scene)
    life.go(70)
    life.state = turn.gave_up(life.state, ItemId(1))
    del scene.items[0]
    life.go(1)
    (closed,) = [one for one in life.state.waits.closed if one.item == 1]
    assert model.WaitEnd.GIVEN_UP is closed.end
    assert "it is cancelled" in closed.text


def test_that_somebody_else_ended_it_is_not_taken_for_ours():
    scene = lonely()
    life = Life(scene)
    life.go(70)
    del scene.items[0]
    life.go(1)
    (closed,) = [one for one in life.state.waits.closed if one.item == 1]
    assert model.WaitEnd.LEFT is closed.end
    late = turn.gave_up(life.state, ItemId(1))  # the answer came after the look
    (closed,) = [one for one in late.waits.closed if one.item == 1]
    assert model.WaitEnd.GIVEN_UP is closed.end


def test_only_some_in_one_look():
    scene = Scene(template("t"), give_up_s=60.0)
    scene.wait(*(item(number, "nobody") for number in range(50)))
    life = Life(scene)
    while not life.given_up:
        life.go(1)
    assert giving_up.MOST == len(life.given_up)
    assert set(range(50)) == set(life.go(5))
