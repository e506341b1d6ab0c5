"""The claim on an owner name, as tables and as brokers on one controller."""

import itertools

import pytest
from attrs import define, field

from broker.controller import placeholder
from broker.core import model
from broker.core.fleet import marks
from broker.leading import identity
from broker.leading.identity import Claim, Standing, Step
from jnlp import errors
from tests.each import each


def test_the_claim_is_read_back():
    """From the description of the placeholder node, whatever stands around it."""
    claim = Claim(holder="ab12", since=123)
    assert identity.read(placeholder.definition("o", claim).description) == claim
    assert identity.read(f"please keep {claim.text()} thanks") == claim
    assert identity.read("agent-broker: held by ab12 since 123") is None
    assert identity.read("[agent-broker held by ../x since 1]") is None


MINE, OTHER = Claim(holder="me", since=100), Claim(holder="other", since=50)
WORKS = {"works": True, "stood": True}
FRESH = {"works": True}
ASKED = {"asked_at": 100.0, "questions": 1}
OURS = {Standing(mine=MINE, **ASKED).question}
THEIRS = {"0123456789ab"}


@each(
    ("seen", "questions", "standing", "now", "step", "works"),
    [
        (None, set(), {}, 100, Step.TAKE, True),  # nobody was here
        (OTHER, set(), {"previous": ("older", "other")}, 100, Step.TAKE, True),  # our earlier life
        (MINE, set(), {}, 100, Step.WORK, True),  # the lease's claim
        (OTHER, set(), {}, 100, Step.ASK, False),
        (OTHER, OURS, ASKED, 105, Step.WAIT, False),
        (OTHER, OURS | THEIRS, ASKED, 105, Step.WAIT, False),  # another newcomer
        (OTHER, set(), ASKED, 105, Step.REFUSE, False),  # somebody lives
        (OTHER, THEIRS, ASKED, 105, Step.REFUSE, False),
        (OTHER, OURS, ASKED, 110, Step.TAKE, True),  # nobody lives
        (None, OURS, ASKED, 101, Step.TAKE, True),  # it has left for good meanwhile
        (MINE, set(), WORKS, 500, Step.WORK, True),
        (MINE, THEIRS, WORKS, 500, Step.ANSWER, True),
        (None, set(), WORKS, 500, Step.TAKE, True),  # a person deleted the node
        (OTHER, set(), FRESH, 500, Step.ASK, False),  # both came to an empty place
        (OTHER, set(), WORKS, 500, Step.ASK, True),  # words, that may be anybody's
        (OTHER, OURS, {**WORKS, **ASKED}, 105, Step.WAIT, True),
        (OTHER, OURS, {**WORKS, **ASKED}, 110, Step.TAKE, True),  # nobody stood up for them
        (OTHER, set(), {**WORKS, **ASKED}, 105, Step.REFUSE, False),
        (MINE, OURS, {**WORKS, **ASKED}, 105, Step.ANSWER, True),  # our own question is left
    ],
)
def test_every_step(seen, questions, standing, now, step, works):
    """One row for each situation."""
    decided, after = identity.decide(
        seen, questions, Standing(mine=MINE, **standing), now=now, challenge_s=10
    )
    assert (decided, after.works) == (step, works)


def test_a_question_has_a_name_of_its_own_each_time():
    """A node name is never used again, and none is that of an agent."""
    names = {Standing(mine=MINE, questions=n).question for n in range(100)}
    assert len(names) == 100
    for name in names:
        assert marks.question_of("o", marks.question_name("o", name)) == name
    for other in ("o-claim-ab12cd", "o-claim-0123456789aX", "o2-claim-0123456789ab", "o-claim-"):
        assert marks.question_of("o", other) is None


@define
class Controller:
    """Nodes by name, and what a look shows of them."""

    nodes: dict = field(factory=dict)
    calls: int = 0

    async def create(self, definition):
        self.calls += 1
        if definition.name in self.nodes:
            raise errors.NodeExists("already exists")
        self.nodes[definition.name] = definition.description

    async def delete(self, name):
        self.calls += 1
        if self.nodes.pop(name, None) is None:
            raise errors.NotFound("no such node")

    def view(self, **more):
        computers = tuple(
            model.Computer(name=model.NodeName(n), offline=True, description=d)
            for n, d in self.nodes.items()
        )
        return model.ControllerView(synced=True, computers=computers, **more)

    def claim(self):
        return identity.read(self.nodes[marks.placeholder_name("o")])


def broker(controller, holder, *previous):
    claim = Claim(holder=holder, since=10)
    return placeholder.Placeholder(
        nodes=controller,
        owner="o",
        standing=Standing(mine=claim, previous=previous),
        challenge_s=10,
    )


async def duel(order, controller, *brokers):
    """Let brokers look in some order, and then by turns; return who refused and who works."""
    refused, working, now, both = set(), [], 20.0, 0
    turns = (*order, *(tuple(range(len(brokers))) * 20))
    for who in turns:
        now += 1.0
        if who in refused:
            continue
        try:
            await brokers[who].tend(controller.view(), now=now)
        except placeholder.SecondBroker:
            refused.add(who)
        working = [n for n, b in enumerate(brokers) if n not in refused and b.standing.works]
        both = both + 1 if len(working) > 1 else 0
        assert both <= 2 * len(brokers), "two worked for more than a look of each"
    return refused, working


ORDERS = list(itertools.product((0, 1), repeat=6))


@each("order", ORDERS)
async def test_whoever_was_there_first_goes_on(order):
    """In whatever order the two look."""
    controller = Controller()
    first, second = broker(controller, "first"), broker(controller, "second")
    for now in (1.0, 2.0):
        assert await first.tend(controller.view(), now=now)
    assert await duel(order, controller, first, second) == ({1}, [0])
    assert controller.claim().holder == "first"
    assert list(controller.nodes) == [marks.placeholder_name("o")]


@each("order", ORDERS)
@each("previous", [(), ("old",), ("older", "old")])
async def test_of_two_that_start_at_once_one_works(order, previous):
    """Nobody was there before, or both come from a copy of one state directory."""
    controller = Controller()
    if previous:
        await controller.create(placeholder.definition("o", Claim(holder="old", since=1)))
    two = [broker(controller, name, *previous) for name in ("one", "two")]
    refused, working = await duel(order, controller, *two)
    assert len(refused) == len(working) == 1
    assert list(controller.nodes) == [marks.placeholder_name("o")]


@each("order", ORDERS)
async def test_of_two_that_ask_a_dead_one_one_works(order):
    """Both wait; whoever takes the claim first answers the other."""
    controller = Controller()
    await controller.create(placeholder.definition("o", Claim(holder="dead", since=1)))
    two = [broker(controller, name) for name in ("one", "two")]
    refused, working = await duel(order, controller, *two)
    assert len(refused) == len(working) == 1
    assert list(controller.nodes) == [marks.placeholder_name("o")]


async def test_words_end_nobody():
    """Whoever may describe nodes writes another claim into every look: the broker goes on."""
    controller = Controller()
    one = broker(controller, "one")
    for now in (1.0, 2.0):
        await one.tend(controller.view(), now=now)
    told = []
    for now in range(10, 100):
        if marks.placeholder_name("o") in controller.nodes:
            forged = Claim(holder="mallory", since=0).text()
            controller.nodes[marks.placeholder_name("o")] = forged
        assert await one.tend(controller.view(), now=float(now))
        told.append(one.doubt)
    assert any("(mallory): asking whether it lives" in words for words in told)
    assert controller.calls < 50


async def test_words_of_a_stranger_at_the_start_cost_a_wait():
    """A claim that nobody stands up for is taken over; questions of strangers are removed."""
    controller = Controller()
    await controller.create(placeholder.definition("o", Claim(holder="mallory", since=1)))
    one = broker(controller, "one")
    works = [await one.tend(controller.view(), now=float(now)) for now in range(15)]
    assert works == [False] * 10 + [True] * 5
    for n in range(30):
        controller.nodes[marks.question_name("o", f"{n:012x}")] = "who lives?"
    for now in range(20, 24):
        assert await one.tend(controller.view(), now=float(now))
    assert list(controller.nodes) == [marks.placeholder_name("o")]


async def test_what_cannot_be_read_is_no_answer():
    """While a computer is odd, nobody knows whether the question stands."""
    controller = Controller()
    await controller.create(placeholder.definition("o", Claim(holder="other", since=1)))
    one = broker(controller, "one")
    assert not await one.tend(controller.view(), now=1.0)
    question = next(n for n in controller.nodes if "claim" in n)
    del controller.nodes[question]
    hidden = controller.view(odd_computers="1 computers", odd_names=frozenset({question}))
    assert not await one.tend(hidden, now=2.0)
    assert not await one.tend(controller.view(odd_nameless=True), now=3.0)
    with pytest.raises(placeholder.SecondBroker):
        await one.tend(controller.view(), now=4.0)


async def test_a_question_whose_answer_was_lost_is_asked_all_the_same():
    """The node is there, the broker does not know it: the next try finds it, and time runs."""

    class Forgetful(Controller):
        async def create(self, definition):
            await super().create(definition)
            raise errors.Unreachable("reset by peer")

    controller = Forgetful()
    name = marks.placeholder_name("o")
    controller.nodes[name] = placeholder.definition("o", Claim(holder="x", since=1)).description
    one = broker(controller, "one")
    with pytest.raises(errors.Unreachable):
        await one.tend(controller.view(), now=1.0)
    for now in range(10, 20):
        assert not await one.tend(controller.view(), now=float(now))
    with pytest.raises(errors.Unreachable):  # takes over, and again hears nothing of it
        await one.tend(controller.view(), now=21.0)
    assert await one.tend(controller.view(), now=22.0)
    assert controller.claim().holder == "one"


async def test_a_node_that_is_refused_is_tried_again_after_a_growing_pause():
    """Meanwhile the refusal is what there is to say; and when it may be made, it is made."""

    class Refusing(Controller):
        async def create(self, definition):
            if now < 1600:
                tries.append(now - 1000)
                raise errors.Forbidden("no Agent/Create")
            await super().create(definition)

    controller, tries = Refusing(), []
    made = broker(controller, "one")
    for now in range(1000, 1635):
        with pytest.raises(errors.Forbidden):
            await made.tend(controller.view(), now=float(now))
    assert tries == [0, 5, 15, 35, 75, 155, 275, 395, 515]
    now = 1635
    assert await made.tend(controller.view(), now=float(now))
    assert controller.claim().holder == "one"
