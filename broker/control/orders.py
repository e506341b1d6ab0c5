"""What a person may order of a broker at work, what stands of it, and where that is kept.

What stands is a list of frozen values, which the core decides with; it is in the state directory
before an order is answered, so it outlives a restart. It is counted no more when its time is over,
when it is taken back, or when the agent that it is about is gone. Refuses to know HTTP and
tokens, and to carry anything out: the loop does.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
from attrs import define, field, frozen

from broker.config import values
from broker.core import model
from broker.core.fleet import lifecycle, standing, withheld
from broker.core.model import StandingKind, StandingOrder
from jnlp import version as jnlp_version
from outside import counts, quotes, text

_LOG = logging.getLogger("broker.control")
KEPT = "orders.json"
"""Key in the store."""
DAMAGED = "orders.damaged"
"""Key in the store: what could not be read, the last time that it happened."""
MOST = 200
"""Orders that stand at a time."""
MOST_WARM = 1000
"""Agents that may be prewarmed of a template."""
_LONGEST_S = 30 * 86_400.0
_NOTE = 256  # characters
_KEPT_BYTES = 1 << 20


class OrderDenied(Exception):  # noqa: N818 -- an answer
    """Nothing is done; the text says why."""


class MalformedOrder(ValueError):  # noqa: N818 -- an answer
    """What is ordered makes no sense; the text says what is allowed."""


@frozen(kw_only=True)
class OrderForm:
    """What may be ordered, and what is to be said with it."""

    name: str
    words: str  # for people, a sentence
    wanted: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    kind: StandingKind | None = None  # that stands afterwards
    lasts_s: float | None = None  # how long, unless it is said; None: until it is taken back
    led: bool = True  # only the broker that leads can do it


FIELDS: Mapping[str, str] = {
    "template": "Name of a template.",
    "backend": "Name of a backend.",
    "agent": "Name of an agent.",
    "agents": "A number of agents, as text.",
    "for": "How long it stands, as in the configuration: 30s, 10m, 2h, 1h30m.",
    "note": "Why, for all who look.",
}
"""What may be said with an order, and what it means."""
TOLD = tuple(name for name in FIELDS if name != "note")
"""What of it stands in the log beside the order; why stands there by itself."""

FORMS: Mapping[str, OrderForm] = {
    form.name: form
    for form in (
        OrderForm(
            name="pause",
            words="Start no new agents: of a template, on a backend, or at all. Builds go on.",
            wanted=("note",),
            may_have=("template", "backend", "for"),
            kind=StandingKind.PAUSE,
        ),
        OrderForm(
            name="drain",
            words="Start no new agents, and let those that are there go after their builds.",
            wanted=("note",),
            may_have=("template", "backend", "for"),
            kind=StandingKind.DRAIN,
        ),
        OrderForm(
            name="resume",
            words="Take back a pause or a drain.",
            may_have=("template", "backend", "note"),
        ),
        OrderForm(
            name="prewarm",
            words="Keep so many agents of a template warm for a while, as far as the caps allow. "
            "0 takes it back.",
            wanted=("template", "agents"),
            may_have=("for", "note"),
            kind=StandingKind.PREWARM,
            lasts_s=2 * 3600.0,
        ),
        OrderForm(
            name="retire",
            words="Let an agent go: at once if it is idle, else after its build.",
            wanted=("agent",),
            may_have=("note",),
            kind=StandingKind.RETIRE,
        ),
        OrderForm(
            name="hold",
            words="Give an agent no further build, and keep it as it is for a while, to be looked "
            "at.",
            wanted=("agent",),
            may_have=("for", "note"),
            kind=StandingKind.HOLD,
            lasts_s=4 * 3600.0,
        ),
        OrderForm(
            name="unhold",
            words="Take back that an agent is held.",
            wanted=("agent",),
            may_have=("note",),
        ),
        OrderForm(
            name="retry",
            words="Try at once what is set aside or backs off: a template, a backend, or all.",
            may_have=("template", "backend", "note"),
        ),
        OrderForm(
            name="reload",
            words="Read the configuration again, and put in force what can be used.",
            may_have=("note",),
            led=False,
        ),
    )
}
"""Every order by its name; server, command line and OpenAPI document are made from it."""
_TAKEN_BACK = {
    StandingKind.PAUSE: frozenset({StandingKind.PAUSE, StandingKind.DRAIN}),
    StandingKind.DRAIN: frozenset({StandingKind.PAUSE, StandingKind.DRAIN}),
    StandingKind.RETIRE: frozenset({StandingKind.RETIRE, StandingKind.HOLD}),
    StandingKind.HOLD: frozenset({StandingKind.RETIRE, StandingKind.HOLD}),
    StandingKind.PREWARM: frozenset({StandingKind.PREWARM}),
}
"""What a new order takes the place of, where it is about the same."""
_TAKES_BACK = {
    "resume": (_TAKEN_BACK[StandingKind.PAUSE], "is not paused by an order", "works again"),
    "unhold": (frozenset({StandingKind.HOLD}), "is not held by an order", "is held no more"),
}


class Keeps(Protocol):
    """What is needed of the store."""

    def load(self, key: str) -> str | None:
        """Return the value last saved, or None. Raises OSError."""

    def save(self, key: str, value: str) -> None:
        """Write durably before returning. Raises OSError."""


@define(kw_only=True)
class Orders:
    """Takes orders of people, and keeps those that stand."""

    files: Keeps
    now: Callable[[], float]
    policy: Callable[[], model.Policy]
    plan: Callable[[], model.Plan | None]
    world: Callable[[], model.World | None]
    # why nothing may be ordered at this moment, of the one that leads; empty: it may
    obstacle: Callable[[bool], str]
    changed: Callable[[], None]  # the loop is to look again
    retry: Callable[[str | None, str | None], int]  # of a template, a backend; how many it was
    reload: Callable[[], None] | None = None
    _standing: tuple[StandingOrder, ...] = field(init=False, factory=tuple)

    def __attrs_post_init__(self) -> None:
        self._standing = _restored(self.files)

    def standing(self) -> tuple[StandingOrder, ...]:
        """Return what stands at this moment."""
        if not self._standing:
            return ()
        now = self.now()
        gone = self._gone()
        over = [o for o in self._standing if not o.stands(now) or o in gone]
        if over:
            for order in over:
                why = "its agent is gone" if order in gone else "its time is over"
                _LOG.info("order over", extra={"order": standing.words(order), "reason": why})
            left = tuple(order for order in self._standing if order not in over)
            try:
                self._keep(left)
            except OSError as error:  # its time is over on the next start as well
                _LOG.warning("state directory not written", extra={"reason": str(error)})
                self._standing = left
        return self._standing

    def take(self, name: str, told: Mapping[str, str], *, who: str) -> str:
        """Do what is ordered, and say what was done.

        ``name`` is one of ``FORMS``, ``told`` has what it asks for. Raises OrderDenied and
        MalformedOrder.
        """
        form = FORMS[name]
        if words := self.obstacle(form.led):
            raise OrderDenied(words)
        about = self._about(told)
        if form.kind is not None:
            said = self._stand(form, form.kind, about, told, who)
        elif form.name in _TAKES_BACK:
            said = self._take_back(about, *_TAKES_BACK[form.name])
        elif form.name == "retry":
            said = self._retry(told)
        else:
            said = self._reload()
        self.changed()
        return said

    # --- what stands ---

    def _stand(
        self,
        form: OrderForm,
        kind: StandingKind,
        about: Mapping[str, Any],
        told: Mapping[str, str],
        who: str,
    ) -> str:
        now, lasts_s = self.now(), _lasts_s(told, form.lasts_s)
        agents = _number(told["agents"]) if "agents" in form.wanted else 0
        order = StandingOrder(
            kind=kind,
            who=who,
            note=text.clean(told.get("note", ""), _NOTE),
            since_at=now,
            until_at=None if lasts_s is None else now + lasts_s,
            agents=agents,
            **about,
        )
        self._check(order)
        replaced = _TAKEN_BACK[kind]
        left = [o for o in self.standing() if o.kind not in replaced or _about(o) != _about(order)]
        if kind is StandingKind.PREWARM and agents == 0:
            if len(left) == len(self._standing):
                raise OrderDenied(f"nothing of {standing.subject(order)} is prewarmed")
            self._save(left)
            return f"{standing.subject(order)} is prewarmed no more"
        if len(left) >= MOST:
            raise OrderDenied(f"{MOST} orders stand already: take back some")
        self._save([*left, order])
        return standing.words(order, now=now)

    def _check(self, order: StandingOrder) -> None:
        """Refuse what could never be done. Raises OrderDenied."""
        template = self.policy().template(order.template or "")
        if order.kind is StandingKind.PREWARM and template is not None:
            if template.cap is not None and order.agents > template.cap:
                raise OrderDenied(f"template {template.name} has a cap of {template.cap}")
            if not template.backends:
                raise OrderDenied(f"template {template.name} has no backend")
        plan = self.plan()
        agent = next((a for a in plan.agents if a.name == order.agent), None) if plan else None
        if agent is not None:
            self._check_agent(order, agent)

    def _check_agent(self, order: StandingOrder, agent: model.Agent) -> None:
        """Refuse what could never be done with an agent. Raises OrderDenied."""
        computer = agent.computer
        is_ours = computer is not None and lifecycle.is_by_order(computer)
        if withheld.is_held(agent) and not is_ours:
            raise OrderDenied(
                f"agent {agent.name} {withheld.words(agent, now=self.now())}: bring it online "
                "in Jenkins first"
            )
        if order.kind is not StandingKind.HOLD or is_ours:
            return
        if agent.phase not in {model.Phase.IDLE, model.Phase.BUSY} or agent.cordoned:
            state = "leaving" if agent.cordoned else agent.phase.value
            raise OrderDenied(
                f"agent {agent.name} is {state}: only one that is idle, or works, can be held"
            )
        world = self.world()
        version = world.controller.version if world is not None else ""
        if not jnlp_version.safe_to_retire_by_offline(version):
            raise OrderDenied(
                f"this controller ({version}) could lose a build when an agent is taken out of "
                "service in the wrong moment; allowed: 2.517, or 2.528.1 of the LTS, and later"
            )

    def _take_back(
        self, about: Mapping[str, Any], kinds: frozenset[StandingKind], odd: str, done: str
    ) -> str:
        wanted = StandingOrder(kind=StandingKind.PAUSE, who="", since_at=0.0, **about)
        left = [o for o in self.standing() if o.kind not in kinds or _about(o) != _about(wanted)]
        if len(left) == len(self._standing):
            raise OrderDenied(f"{standing.subject(wanted)} {odd}")
        self._save(left)
        return f"{standing.subject(wanted)} {done}"

    def _retry(self, told: Mapping[str, str]) -> str:
        number = self.retry(told.get("template"), told.get("backend"))
        if number == 0:
            raise OrderDenied("nothing of it is set aside or backs off")
        return f"{counts.told(number, 'back-off')} ended: tried again at once"

    def _reload(self) -> str:
        if self.reload is None:
            raise OrderDenied("this broker has no files to read its configuration from")
        self.reload()
        return "the configuration is being read again"

    def _about(self, told: Mapping[str, str]) -> dict[str, Any]:
        """Return what an order is about, if there is such a thing. Raises OrderDenied."""
        policy = self.policy()
        names = [name for name in ("template", "backend", "agent") if name in told]
        if len(names) > 1:
            raise MalformedOrder(f"allowed: one of {' and '.join(names)}")
        for name in names:
            value = told[name]
            there: Sequence[str] = [t.name for t in policy.templates]
            if name == "backend":
                there = list(policy.backends)
            elif name == "agent":
                plan = self.plan()
                there = [agent.name for agent in plan.agents] if plan is not None else []
            stood = [getattr(order, name) for order in self._standing]
            if value not in there and value not in stood:  # what is gone may still be resumed
                raise OrderDenied(f"there is no {name} {quotes.shown(value, 64)}")
        return {name: told[name] for name in names}

    def _gone(self) -> frozenset[StandingOrder]:
        """Return the orders about agents that are not there any more."""
        about = [order for order in self._standing if order.agent is not None]
        world, plan = self.world(), self.plan()
        if not about or world is None or plan is None:
            return frozenset()
        views = world.backends.values()
        if not world.controller.synced or not all(view.synced for view in views):
            return frozenset()
        read_at = min([world.controller.read_at, *(view.read_at for view in views)])
        there = {agent.name for agent in plan.agents}
        return frozenset(o for o in about if o.agent not in there and read_at > o.since_at)

    def _save(self, orders: Sequence[StandingOrder]) -> None:
        """Keep what stands from now on. Raises OrderDenied: it would not outlive a restart."""
        try:
            self._keep(tuple(orders))
        except OSError as error:
            raise OrderDenied(f"the state directory cannot be written: {error}") from error

    def _keep(self, orders: tuple[StandingOrder, ...]) -> None:
        self.files.save(KEPT, json.dumps([_told(order) for order in orders], ensure_ascii=True))
        self._standing = orders


def _about(order: StandingOrder) -> tuple[str | None, str | None, str | None]:
    return order.template, order.backend, order.agent


def _lasts_s(told: Mapping[str, str], usual_s: float | None) -> float | None:
    """Return how long an order is to stand. Raises MalformedOrder."""
    if "for" not in told:
        return usual_s
    try:
        lasts_s = values.duration(told["for"])
    except values.Bad as error:
        raise MalformedOrder(f"for: {error}") from None
    if not 0 < lasts_s <= _LONGEST_S:
        raise MalformedOrder(f"for: found {quotes.shown(told['for'], 32)}; allowed: 1s to 30d")
    return lasts_s


def _number(told: str) -> int:
    """Return a number of agents. Raises MalformedOrder."""
    if told.isascii() and told.isdecimal() and len(told) < 6 and int(told) <= MOST_WARM:
        return int(told)
    raise MalformedOrder(
        f"agents: found {quotes.shown(told, 32)}; allowed: a number from 0 to {MOST_WARM}"
    )


# --- in the state directory ---


def _told(order: StandingOrder) -> Mapping[str, Any]:
    return {**attrs.asdict(order), "kind": order.kind.value}


def _restored(files: Keeps) -> tuple[StandingOrder, ...]:
    """Return what an earlier life has kept; what cannot be read is told once, and set aside."""
    try:
        kept = files.load(KEPT)
    except OSError as error:
        _LOG.warning("state directory not read", extra={"reason": str(error)})
        return ()
    if kept is None:
        return ()
    orders: list[StandingOrder] = []
    read = _rows(kept)
    odd = read is None
    read = read or []
    for told in read[:MOST]:
        try:
            orders.append(_order(told))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
            odd = True
    if odd or len(read) > MOST:
        _set_aside(files, kept, orders)
    return tuple(orders)


def _rows(kept: str) -> list[Any] | None:
    """Return what was written, or None for what is no list, or too long for one of ours."""
    if len(kept) > _KEPT_BYTES:
        return None
    try:
        read = json.loads(kept)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, list) else None


def _set_aside(files: Keeps, kept: str, orders: Sequence[StandingOrder]) -> None:
    _LOG.warning(
        "orders of people cannot be read whole: what is odd counts no more",
        extra={"kept_as": DAMAGED, "orders": len(orders)},
    )
    try:
        files.save(DAMAGED, kept[:_KEPT_BYTES])
        files.save(KEPT, json.dumps([_told(order) for order in orders]))
    except OSError as error:
        _LOG.warning("state directory not written", extra={"reason": str(error)})


def _order(told: Mapping[str, Any]) -> StandingOrder:
    """Return an order as it was written; raises what a dictionary of anything may raise."""
    template, backend, agent = (_name(told[key]) for key in ("template", "backend", "agent"))
    since, until, agents = told["since_at"], told["until_at"], told["agents"]
    if not math.isfinite(since) or (until is not None and not math.isfinite(until)):
        raise ValueError(since)
    return StandingOrder(
        kind=StandingKind(told["kind"]),
        who=text.clean(str(told["who"]), 64),
        note=text.clean(str(told["note"]), _NOTE),
        since_at=float(since),
        until_at=None if until is None else float(until),
        agents=min(max(0, int(agents)), MOST_WARM),
        template=model.TemplateName(template) if template is not None else None,
        backend=model.BackendName(backend) if backend is not None else None,
        agent=model.NodeName(agent) if agent is not None else None,
    )


def _name(told: object) -> str | None:
    if told is None or (isinstance(told, str) and told):
        return text.clean(told, 255) if told is not None else None
    raise TypeError(told)
