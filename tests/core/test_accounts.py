"""What an item's wait was spent on: sums are exact, each part is right but for one look."""

import attrs
import hypothesis
from hypothesis import strategies as st

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import accounts, latency
from broker.core.model import ItemId, NodeName, Phase, Stage, WaitReason, WaitStep

T = model.TemplateName("t")
AGENT = NodeName("o-t-a1")
CAP, QUIET, BLOCKED = WaitReason.CAP_TEMPLATE, WaitReason.QUIET_PERIOD, WaitReason.BLOCKED


def item(number=1, stage=Stage.BUILDABLE, since=100.0, ready=None, **more):
    return model.QueueItem(
        id=ItemId(number),
        stage=stage,
        in_queue_since_at=since,
        buildable_since_at=ready,
        task_url="http://c/job/app/",
        **more,
    )


def world(now, *items, synced=True, **more):
    view = model.ControllerView(synced=synced, read_at=now, items=items, **more)
    return model.World(now=now, controller=view, backends={})


def plan(*unmet, agents=()):
    return model.Plan(unmet=unmet, agents=agents)


def unmet(reason, number=1, agent=None, template=T, text="words"):
    return model.Unmet(ItemId(number), reason, text, template, agent)


class Looks:
    """One look after the other."""

    def __init__(self):
        self.book, self.before, self.sums = model.WaitBook(), None, {}

    def __call__(self, now, items, reasons, *, started=(), agents=(), **more):
        seen, decided = world(now, *items, **more), plan(*reasons, agents=agents)
        self.book, tally = accounts.look(self.book, seen, decided, self.before, started)
        if seen.controller.synced:
            self.before = (seen, decided)
        for key, seconds in tally.items():
            self.sums[key] = self.sums.get(key, 0.0) + seconds
        return self

    def so_far(self, now, number=1):
        return accounts.so_far(self.book.open[ItemId(number)], now)


def test_time_between_two_looks_is_what_the_earlier_one_showed():
    looks = Looks()
    looks(110.0, [item(stage=Stage.WAITING)], [unmet(QUIET)])
    looks(112.0, [item(ready=105.0)], [unmet(CAP)])  # the queue says 105: we know no better
    looks(117.0, [item(ready=105.0)], [unmet(WaitReason.BACKOFF)])
    assert {QUIET: 12.0, CAP: 5.0, WaitReason.BACKOFF: 3.0} == looks.so_far(120.0)


def test_a_quiet_period_ends_when_the_queue_says_so():
    """Not at the look that shows it: that time was lost by nobody seeing it."""
    looks = Looks()
    looks(101.0, [item(stage=Stage.WAITING)], [unmet(QUIET)])
    looks(109.0, [item(ready=105.0)], [unmet(CAP)])
    assert {QUIET: 5.0, WaitStep.UNSEEN: 4.0, CAP: 1.0} == looks.so_far(110.0)


def test_of_the_time_before_the_first_sight_the_queue_tells():
    looks = Looks()(110.0, [item(ready=104.0)], [unmet(CAP)])
    assert {QUIET: 4.0, WaitStep.UNSEEN: 6.0} == looks.so_far(110.0)
    looks = Looks()(110.0, [item(stage=Stage.BLOCKED)], [unmet(BLOCKED)])
    assert {BLOCKED: 12.0} == looks.so_far(112.0)


def test_a_look_without_the_controller_is_unknown_until_the_next_one():
    looks = Looks()
    looks(100.0, [item()], [unmet(CAP)])
    looks(105.0, [], [], synced=False)
    looks(108.0, [], [], synced=False)
    looks(109.0, [item()], [unmet(CAP)])
    assert {CAP: 6.0, WaitStep.UNKNOWN: 4.0} == looks.so_far(110.0)


def test_a_long_gap_says_little():
    """As after a suspended machine: sixty seconds are believed."""
    looks = Looks()
    looks(100.0, [item()], [unmet(CAP)])
    looks(1000.0, [item()], [unmet(CAP)])
    assert {CAP: 60.0, WaitStep.UNKNOWN: 840.0} == looks.so_far(1000.0)


def instance(state=backends_api.InstanceState.STARTING, **more):
    return backends_api.Instance(name=AGENT, state=state, **more)


def test_the_way_of_its_agent_is_told_step_by_step():
    running = backends_api.InstanceState.RUNNING
    ways = [
        (WaitReason.AGENT_ORDERED, None),  # by the very plan
        (WaitReason.AGENT_ORDERED, model.Agent(name=AGENT, phase=Phase.LAUNCHING)),
        (
            WaitReason.AGENT_STARTING,
            model.Agent(name=AGENT, phase=Phase.CONNECTING, instance=instance(fetching=True)),
        ),
        (
            WaitReason.AGENT_STARTING,
            model.Agent(name=AGENT, phase=Phase.CONNECTING, instance=instance()),
        ),
        (
            WaitReason.AGENT_STARTING,
            model.Agent(name=AGENT, phase=Phase.CONNECTING, instance=instance(running)),
        ),
        (
            WaitReason.AGENT_STARTING,
            model.Agent(name=AGENT, phase=Phase.CHECKING, instance=instance(running)),
        ),
        (WaitReason.AGENT_STARTING, model.Agent(name=AGENT, phase=Phase.UNKNOWN)),
        (
            WaitReason.AGENT_IDLE,
            model.Agent(name=AGENT, phase=Phase.IDLE, instance=instance(running)),
        ),
    ]
    looks = Looks()
    for second, (reason, agent) in enumerate(ways):
        present = (agent,) if agent is not None else ()
        looks(100.0 + second, [item()], [unmet(reason, agent=AGENT)], agents=present)
    looks(108.0, [item(stage=Stage.PENDING)], [])
    assert [
        (WaitStep.ORDERED, 2.0),
        (WaitStep.IMAGE, 1.0),
        (WaitStep.STARTING, 1.0),
        (WaitStep.CONNECTING, 1.0),
        (WaitStep.CHECKING, 1.0),
        (WaitStep.UNKNOWN, 1.0),
        (WaitStep.GIVEN, 2.0),
    ] == list(looks.so_far(109.0).items())


def test_who_starts_is_kept_with_where_and_why_it_waited():
    looks = Looks()(104.0, [item()], [unmet(CAP, agent=AGENT)])
    start = latency.Started(
        item=ItemId(1), agent=NodeName("other"), template=T, warm=True, waited_s=4.0
    )
    looks(107.0, [], [], started=[start])
    assert {} == looks.book.open
    (closed,) = looks.book.closed
    assert (1, "other", "t", model.WaitEnd.STARTED) == (
        closed.item,
        closed.agent,
        closed.template,
        closed.end,
    )
    assert ("http://c/job/app/", "words") == (closed.task_url, closed.text)
    assert {WaitStep.UNSEEN: 4.0, CAP: 3.0} == closed.spent


def test_what_became_of_one_that_left_is_written_down_when_it_is_known():
    looks = Looks()(104.0, [item()], [unmet(CAP)])(107.0, [], [])
    assert model.WaitEnd.LEFT is looks.book.closed[0].end
    book = accounts.learnt(looks.book, ItemId(1), model.WaitEnd.STARTED, AGENT)
    assert (model.WaitEnd.STARTED, AGENT) == (book.closed[0].end, book.closed[0].agent)
    again = accounts.learnt(book, ItemId(1), model.WaitEnd.CANCELLED)
    assert book == again  # whatever is known stays


def test_no_more_than_five_hundred_are_kept():
    looks = Looks()
    for number in range(accounts.CLOSED_KEPT + 20):
        looks(100.0 + number, [item(number)], [unmet(CAP, number)])
    assert accounts.CLOSED_KEPT == len(looks.book.closed)
    assert accounts.CLOSED_KEPT + 18 == looks.book.closed[-1].item


def test_while_some_items_cannot_be_read_nobody_has_left():
    looks = Looks()(100.0, [item()], [unmet(CAP)])(101.0, [], [], odd_items="one has no id")
    assert {CAP: 2.0} == looks.so_far(102.0)
    assert () == looks.book.closed


def test_what_needs_nobody_has_no_account():
    """It runs on the controller: the plan has no reason for it."""
    assert {} == Looks()(100.0, [item()], []).book.open
    assert {} == Looks()(100.0, [item(stage=Stage.PENDING)], []).book.open


def test_an_account_that_goes_on_is_the_same():
    """Ten thousand that wait for a cap cost no more than ten thousand comparisons."""
    looks = Looks()(100.0, [item()], [unmet(CAP)])
    before = looks.book.open[1]
    assert before is looks(105.0, [item()], [unmet(CAP)]).book.open[1]


def test_nothing_of_the_time_before_the_broker_began_is_counted():
    """Another life of it has counted it."""
    looks = Looks()(200.0, [item(ready=104.0)], [unmet(CAP)])
    assert {} == looks.sums
    looks(203.0, [item(ready=104.0)], [unmet(CAP)])
    assert {(T, CAP): 3.0} == looks.sums


def test_every_spell_has_words_and_slugs_are_not_used_twice():
    assert {*WaitReason, *WaitStep} == set(model.SPELLS)
    slugs = [spell.value for spell in model.SPELLS]
    assert len(slugs) == len(set(slugs))


STAGES = st.sampled_from([*Stage])
SIGHT = st.tuples(
    st.floats(0.01, 90.0),
    st.booleans(),
    st.dictionaries(
        st.integers(1, 4),
        st.tuples(STAGES, st.sampled_from([CAP, QUIET, BLOCKED, WaitReason.NO_TEMPLATE])),
    ),
)


@hypothesis.given(st.lists(SIGHT, max_size=12))
def test_accounts_always_add_up_to_the_wait(sights):
    """Whatever is seen; and what is counted is what was booked since the first look."""
    looks, now, since = Looks(), 1000.0, {}
    for gap, synced, shown in sights:
        now += gap
        items, reasons = [], []
        for number, (stage, reason) in shown.items():
            since.setdefault(number, now - gap / 2)
            items.append(item(number, stage, since[number], now - gap / 3))
            if stage is not Stage.PENDING:
                reasons.append(unmet(reason, number))
        looks(now, items, reasons, synced=synced)
        if synced:
            since = {n: at for n, at in since.items() if n in shown}
        for account in looks.book.open.values():
            spent = accounts.so_far(account, now)
            assert abs(sum(spent.values()) - (now - account.since_at)) < 1e-6
            assert all(seconds > 0.0 for seconds in spent.values())
    for closed in looks.book.closed:
        assert abs(sum(closed.spent.values()) - (closed.ended_at - closed.since_at)) < 1e-6
    assert all(seconds > 0.0 for seconds in looks.sums.values())


def test_a_template_may_change_while_it_waits():
    looks = Looks()(100.0, [item()], [unmet(CAP)])
    looks(102.0, [item()], [unmet(CAP, template=model.TemplateName("u"))])
    looks(105.0, [item()], [unmet(CAP, template=model.TemplateName("u"))])
    assert {("t", CAP): 2.0, ("u", CAP): 3.0} == looks.sums
    assert {CAP: 5.0} == looks.so_far(105.0)


def test_values_are_frozen():
    account = model.Account(ItemId(1), 0.0, CAP, 0.0)
    assert attrs.evolve(account) == account
