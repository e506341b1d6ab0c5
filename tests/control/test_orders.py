"""Orders of people: taken, kept over a restart, over when their time is, refused with words."""

import json

import attrs
import pytest

from broker import store
from broker.control import orders
from broker.core import model
from broker.core.fleet import standing
from broker.core.model import Phase, StandingKind
from tests.core.worlds import NOW, Scene, template


class Desk:
    """What a broker is to its orders."""

    def __init__(self, folder, *templates):
        self.files = store.FileStore(folder)
        self.scene = Scene(*(templates or (template("a", cap=3), template("b"))))
        self.now = NOW
        self.obstacle = ""
        self.hints = self.reloads = 0
        self.orders = self.anew()

    def anew(self):
        """Another life of the same broker."""
        self.orders = orders.Orders(
            files=self.files,
            now=lambda: self.now,
            policy=lambda: self.scene.policy,
            plan=lambda: self.scene.plan(),
            world=lambda: self.scene.world(),
            obstacle=lambda led: self.obstacle if led else "",
            changed=self.hint,
            retry=self.retry,
            reload=self.reload,
        )
        return self.orders

    def retry(self, template, backend):
        return {"a": 2}.get(template, 0)

    def reload(self):
        self.reloads += 1

    def hint(self):
        self.hints += 1

    def take(self, name, **told):
        told = {key.rstrip("_"): value for key, value in told.items()}
        return self.orders.take(name, told, who="alice")

    @property
    def stands(self):
        return [standing.words(order) for order in self.orders.standing()]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "state")


def test_a_pause_stands_until_it_is_taken_back(desk):
    """Over a restart, too; the loop looks at once."""
    said = desk.take("pause", template="a", note="a new\nkernel")
    assert said == "template a is paused by alice: a new kernel"
    assert desk.hints == 1
    desk.anew()
    assert desk.stands == [said]
    assert desk.take("resume", template="a") == "template a works again"
    assert desk.stands == []
    assert desk.anew().standing() == ()
    with pytest.raises(orders.OrderDenied, match="template a is not paused by an order"):
        desk.take("resume", template="a")


def test_an_order_is_over_when_its_time_is(desk):
    """On the broker's clock, and on that of its next life."""
    desk.take("pause", note="soon", for_="1h")
    (order,) = desk.orders.standing()
    assert order.until_at == NOW + 3600
    desk.now = NOW + 3599
    assert len(desk.anew().standing()) == 1
    desk.now = NOW + 3600
    assert desk.orders.standing() == ()
    assert json.loads(desk.files.load(orders.KEPT)) == []


def test_a_later_order_about_the_same_takes_the_place(desk):
    """A drain of a pause, too; what is about others stays."""
    desk.take("pause", template="a", note="one")
    desk.take("pause", note="all")
    desk.take("drain", template="a", note="two")
    assert desk.stands == [
        "the broker is paused by alice: all",
        "template a is being drained by alice: two",
    ]
    assert desk.take("prewarm", template="b", agents="4").endswith("for another 2 h")
    desk.take("prewarm", template="b", agents="2", for_="1h")
    assert desk.take("prewarm", template="b", agents="0") == "template b is prewarmed no more"
    assert len(desk.stands) == 2


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        ("pause", {"template": "x", "note": "n"}, "there is no template 'x'"),
        ("pause", {"backend": "x", "note": "n"}, "there is no backend 'x'"),
        ("retire", {"agent": "x"}, "there is no agent 'x'"),
        ("prewarm", {"template": "a", "agents": "4"}, "template a has a cap of 3"),
        ("prewarm", {"template": "a", "agents": "0"}, "nothing of template a is prewarmed"),
        ("resume", {}, "the broker is not paused by an order"),
    ],
)
def test_what_cannot_be_done_is_refused(desk, name, told, words):
    """In words, and nothing stands."""
    with pytest.raises(orders.OrderDenied, match=words):
        desk.orders.take(name, told, who="alice")
    assert desk.stands == []


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        ("pause", {"template": "a", "backend": "local", "note": "n"}, "allowed: one of"),
        ("pause", {"note": "n", "for": "soon"}, "for: found 'soon'"),
        ("pause", {"note": "n", "for": "0s"}, "allowed: 1s to 30d"),
        ("pause", {"note": "n", "for": "31d"}, "allowed: 1s to 30d"),
        ("prewarm", {"template": "a", "agents": "-1"}, "a number from 0 to 1000"),
        ("prewarm", {"template": "a", "agents": "1001"}, "a number from 0 to 1000"),
    ],
)
def test_what_makes_no_sense_is_said_to(desk, name, told, words):
    """With what is allowed."""
    with pytest.raises(orders.MalformedOrder, match=words):
        desk.orders.take(name, told, who="alice")
    assert desk.stands == []


def test_a_standby_takes_no_order(desk):
    """It would not be the one that acts."""
    desk.obstacle = "this broker is a standby: ask the one that leads"
    with pytest.raises(orders.OrderDenied, match="standby"):
        desk.take("pause", note="n")


def test_an_order_about_an_agent_is_over_when_the_agent_is_gone(desk):
    """As long as a source is unknown it is not known to be gone."""
    name = desk.scene.agent("a", Phase.BUSY)
    desk.take("retire", agent=name)
    desk.scene.now += 10
    desk.now += 10
    assert len(desk.stands) == 1
    desk.scene.computers.clear()
    desk.scene.instances = {key: [] for key in desk.scene.instances}
    desk.scene.dark_backends.add("local")
    assert len(desk.stands) == 1
    desk.scene.dark_backends.clear()
    desk.scene.ledger = attrs.evolve(desk.scene.ledger, memories={})
    assert desk.stands == []


GOOD = {
    "kind": "pause", "who": "bob", "note": "n", "since_at": NOW, "until_at": None,
    "template": "a", "backend": None, "agent": None, "agents": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ("{", 0),
        ("{}", 0),
        ("[" * 100_000, 0),
        ("\x00\ufffd", 0),
        (json.dumps([GOOD, {"kind": "pause"}]), 1),
        (json.dumps([GOOD, {**GOOD, "kind": "explode"}]), 1),
        (json.dumps([GOOD, {**GOOD, "template": {}}]), 1),
        (json.dumps([GOOD, {**GOOD, "until_at": "soon"}]), 1),
        (json.dumps([GOOD, {**GOOD, "until_at": float("nan")}]), 1),
        (json.dumps([GOOD, {**GOOD, "since_at": 10**400}]), 1),
        (json.dumps([GOOD, 7, None, [], "x"]), 1),
        (json.dumps([GOOD] * 1000), orders.MOST),
        (json.dumps([{**GOOD, "note": "n" * (2 << 20)}]), 0),
    ],
)
def test_what_cannot_be_read_is_told_once_and_set_aside(desk, caplog, kept, left):
    """What is whole stands on."""
    desk.files.save(orders.KEPT, kept)
    assert len(desk.anew().standing()) == left
    assert "cannot be read whole" in caplog.text
    assert desk.files.load(orders.DAMAGED)
    caplog.clear()
    assert len(desk.anew().standing()) == left
    assert not caplog.text


def test_what_cannot_be_kept_is_not_taken(desk, monkeypatch):
    """It would be gone after a restart, and nobody would know."""

    def full(key, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(desk.files, "save", full)
    with pytest.raises(orders.OrderDenied, match="No space left"):
        desk.take("pause", note="n")
    assert desk.stands == []


def test_no_more_than_so_many_stand(desk):
    """What is kept is bounded."""
    names = [f"t{n}" for n in range(orders.MOST + 1)]
    desk.scene = Scene(*(template(name) for name in names))
    for name in names[:-1]:
        desk.take("pause", template=name, note="n")
    with pytest.raises(orders.OrderDenied, match="200 orders stand already"):
        desk.take("pause", template=names[-1], note="n")
    assert model.StandingKind is StandingKind


def test_what_backs_off_is_tried_again(desk):
    """Of a template, a backend, or all; nothing to try again is said."""
    assert desk.take("retry", template="a") == "2 back-offs ended: tried again at once"
    with pytest.raises(orders.OrderDenied, match="nothing of it is set aside"):
        desk.take("retry", backend="local")


def test_a_standby_reads_its_configuration_again(desk):
    """Its own: that needs no leader."""
    desk.obstacle = "this broker is a standby: ask the one that leads"
    assert "is being read again" in desk.take("reload")
    assert desk.reloads == 1
    with pytest.raises(orders.OrderDenied, match="standby"):
        desk.take("retry")


def test_an_agent_is_held_and_let_back(desk):
    """Only one in service, that nobody else holds, on a controller that loses nothing by it."""
    busy, held = desk.scene.agent("a", Phase.BUSY), desk.scene.agent("a", Phase.HELD)
    starts = desk.scene.agent("b", Phase.CONNECTING, age_s=5)
    assert desk.take("hold", agent=busy).endswith("is held by alice for another 4 h")
    desk.take("retire", agent=busy)
    assert desk.stands == [f"agent {busy} is to go after its build by alice"]
    desk.take("hold", agent=busy)
    assert desk.take("unhold", agent=busy) == f"agent {busy} is held no more"
    with pytest.raises(orders.OrderDenied, match="is not held by an order"):
        desk.take("unhold", agent=busy)
    with pytest.raises(orders.OrderDenied, match="bring it online in Jenkins first"):
        desk.take("hold", agent=held)
    with pytest.raises(orders.OrderDenied, match="bring it online in Jenkins first"):
        desk.take("retire", agent=held)
    with pytest.raises(orders.OrderDenied, match="is connecting: only one that is idle"):
        desk.take("hold", agent=starts)
    desk.scene.version = "2.516.3"
    with pytest.raises(orders.OrderDenied, match="could lose a build"):
        desk.take("hold", agent=busy)
