"""Which task goes on which offer: best fit, pure.

Rules: what is wanted first is placed first; each goes where the least is left over, so that large
offers stay whole for large tasks; resources reserved for our role are used before those of all;
revocable resources and disks with a persistent volume or a source of their own are never touched.
Amounts are thousandths, as Mesos itself counts, so sums never drift. Offers of one agent count
as one bag. Refuses to know sessions, tasks that run elsewhere (they are told as ``placed``), time.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs
from attrs import Factory, frozen

from backends.kit import setting
from backends.mesos import attributes
from outside import counts, quotes, text, typed

SCALARS = ("cpus", "mem", "disk", "gpus")
UNITS = {"cpus": "", "mem": " MB", "disk": " MB", "gpus": ""}
_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}|[0-9A-Fa-f:.]{2,45}")
_NAME_MAX = 512
_WHYS = 20  # agents in a reason; more do not fit into one anyway
_LAST_PORT = 65_535
_MOST = 1e12  # of anything; Mesos counts in thousandths, too
HOSTNAME = "@hostname"
"""As an attribute of a constraint: the agent's host name."""

Operator = Literal["IS", "LIKE", "UNLIKE", "CLUSTER", "UNIQUE", "MAX_PER"]


@frozen(kw_only=True)
class Constraint:
    """As in Marathon. ``CLUSTER`` without a value: wherever the first one went."""

    attribute: str = setting.of("Of the Mesos agent, or `@hostname`.")
    operator: Operator = setting.of("As in Marathon.")
    value: str = setting.of("What it is compared with.", "")

    def __attrs_post_init__(self) -> None:
        """Refuse what could not be compared with anything."""
        if self.operator in {"LIKE", "UNLIKE"}:
            try:
                re.compile(self.value)
            except re.error as error:
                raise ValueError(
                    f"{quotes.shown(self.value)} is not a pattern: {error}"
                ) from error
        if self.operator in {"IS", "LIKE", "UNLIKE"} and not self.value:
            raise ValueError(f"{self.operator} needs a value")
        if self.operator == "MAX_PER" and not re.fullmatch(r"[1-9]\d{0,8}", self.value):
            raise ValueError(
                f"MAX_PER needs a number of 1 or more, not {quotes.shown(self.value)}"
            )
        if self.operator == "UNIQUE" and self.value:
            raise ValueError("UNIQUE takes no value; hint: MAX_PER")


@frozen(kw_only=True)
class Need:
    """What one task wants; amounts in thousandths of Mesos' units (cores, MB)."""

    name: str
    scalars: Mapping[str, int]
    ports: int = 0
    # of the first of them: from which to which they may be; of the others: any
    ranges: tuple[tuple[int, int], ...] = ()
    constraints: tuple[Constraint, ...] = ()
    avoid: frozenset[str] = frozenset()  # host names of agents where it must not go
    group: str = ""  # tasks whose constraints look at each other


@frozen(kw_only=True)
class Offer:
    """One offer as the master sent it."""

    id: str
    agent_id: str
    hostname: str
    attributes: Mapping[str, str]  # as ``attributes`` reads them
    resources: tuple[Mapping[str, Any], ...]
    unreadable: frozenset[str] = frozenset()  # attributes that could not be read
    agent_url: str = ""
    unavailable_at: float | None = None  # POSIX seconds, start of a planned maintenance

    def lasts_until(self, at: float) -> bool:
        """True when no maintenance is planned before that time."""
        return self.unavailable_at is None or self.unavailable_at > at


@frozen(kw_only=True)
class Placement:
    """One task on one agent, with the resources that it takes from the offers there."""

    need: Need
    agent_id: str
    hostname: str
    agent_url: str
    traits: Mapping[str, str]  # of the agent, as far as the need's constraints ask
    resources: tuple[Mapping[str, Any], ...]
    ports: tuple[int, ...]


@frozen(kw_only=True)
class Match:
    """``accepted``: offers of one agent and what goes on them. ``misses``: name to the reason."""

    accepted: tuple[tuple[tuple[str, ...], tuple[Placement, ...]], ...] = ()
    declined: tuple[str, ...] = ()
    misses: Mapping[str, str] = Factory(dict)


@attrs.define(kw_only=True)
class _Piece:
    """One resource of an offer and what is left of it."""

    raw: Mapping[str, Any]
    name: str
    left: int = 0
    ranges: list[tuple[int, int]] = attrs.field(factory=list)

    @property
    def is_reserved(self) -> bool:
        return self.raw.get("role", "*") != "*" or bool(self.raw.get("reservations"))


@attrs.define(kw_only=True)
class _Bag:
    """What one agent offers, all its offers together."""

    offers: list[Offer]
    pieces: list[_Piece]
    placements: list[Placement] = attrs.field(factory=list)

    def free(self, name: str) -> int:
        if name == "ports":
            return sum(
                end - begin + 1
                for piece in self.pieces
                if piece.name == name
                for begin, end in piece.ranges
            )
        return sum(piece.left for piece in self.pieces if piece.name == name)


def parse(raw: Mapping[str, Any]) -> Offer:
    """Read an offer of the v1 API; an odd attribute or resource costs that one.

    Raises KeyError, TypeError, ValueError or AttributeError where it is no offer.
    """
    url = raw.get("url", {})
    address = url.get("address", {})
    scheme = "https" if url.get("scheme") == "https" else "http"
    hostname = _text(raw["hostname"])
    # the address that the master itself uses; a certificate is for the name
    first, second = ("hostname", "ip") if scheme == "https" else ("ip", "hostname")
    host = address.get(first) or address.get(second) or hostname
    start = raw.get("unavailability", {}).get("start", {}).get("nanoseconds")
    if start is not None and (start := typed.number(start, 0, 1e22)) is None:
        raise ValueError("maintenance that does not say when it begins")
    read, unreadable = _attributes(
        [(one["name"], one) for one in raw.get("attributes", ())], attributes.of_offer
    )
    return Offer(
        id=_text(raw["id"]["value"]),
        agent_id=_text(raw["agent_id"]["value"]),
        hostname=hostname,
        attributes=read,
        unreadable=unreadable,
        resources=tuple(one for one in raw.get("resources", ()) if _is_resource(one)),
        agent_url=location(scheme, host, address.get("port")),
        unavailable_at=None if start is None else start / 1e9,
    )


def parse_warning(raw: Mapping[str, Any]) -> tuple[str, float]:
    """Read an inverse offer: the agent's id, and when its maintenance begins, POSIX seconds.

    Raises KeyError, TypeError, ValueError or AttributeError where it is none.
    """
    start = typed.number(raw["unavailability"]["start"]["nanoseconds"], 0, 1e22)
    if start is None:
        raise ValueError("maintenance that does not say when it begins")
    return _text(raw["agent_id"]["value"]), start / 1e9


def location(scheme: str, host: Any, port: Any) -> str:
    """Return where somebody is; empty for what is no host and port."""
    number = typed.integer(port, -1, 65536)
    if number is None or not 0 < number < 65536:
        return ""
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        return ""
    return f"{scheme}://[{host}]:{number}" if ":" in host else f"{scheme}://{host}:{number}"


def match(
    needs: Sequence[Need],
    offers: Iterable[Offer],
    placed: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    until: float = -math.inf,
) -> Match:
    """Place what can be placed; every offer is in the answer, accepted or declined.

    ``placed``: group to the traits of the agents where its tasks run already. ``until``: POSIX
    seconds; an agent that goes into maintenance before gets nothing.
    """
    bags = _bags(offers)
    there = {group: list(traits) for group, traits in placed.items()}
    misses = {}
    for need in needs:
        why: list[str] = []
        fitting = []
        for agent_id, bag in bags.items():
            problem = _problem(need, bag, there.get(need.group, ()), until)
            if problem is None:
                fitting.append((_left_over(need, bag), agent_id))
            else:
                why.append(text.clean(f"{bag.offers[0].hostname}: {problem}"))
        if not fitting:
            misses[need.name] = "; ".join(sorted(why)[:_WHYS]) or "nothing was offered"
            continue
        bag = bags[min(fitting)[1]]
        placement = _take(need, bag)
        bag.placements.append(placement)
        there.setdefault(need.group, []).append(placement.traits)
    return Match(
        accepted=tuple(
            (tuple(offer.id for offer in bag.offers), tuple(bag.placements))
            for bag in bags.values()
            if bag.placements
        ),
        declined=tuple(
            offer.id for bag in bags.values() if not bag.placements for offer in bag.offers
        ),
        misses=misses,
    )


@frozen(kw_only=True)
class MesosAgent:
    """All of one agent, as an operator's view of the cluster shows it."""

    id: str = ""
    hostname: str
    attributes: Mapping[str, str]  # as ``attributes`` reads them
    totals: Mapping[str, int]  # thousandths; for "ports" their number
    free: Mapping[str, int] | None = None  # of it now, offers to others too; None: not told
    unreadable: frozenset[str] = frozenset()  # attributes that could not be read


def parse_agent(raw: Mapping[str, Any], *, role: str) -> MesosAgent:
    """Read an agent of the master's ``/slaves``: what it has for ``role`` when it is empty.

    Raises KeyError, TypeError, ValueError or AttributeError where it is none.
    """
    usable = [raw.get("unreserved_resources", raw.get("resources", {}))]
    for owner, reserved in raw.get("reserved_resources", {}).items():
        if role == owner or role.startswith(f"{owner}/"):
            usable.append(reserved)
    totals, used = _amounts(usable), raw.get("used_resources")
    free: dict[str, int] | None = None
    if used is not None:
        taken = _amounts([used])
        inactive = raw.get("active") is False or raw.get("deactivated") is True
        free = {name: 0 if inactive else had - taken[name] for name, had in totals.items()}
    read, unreadable = _attributes(raw.get("attributes", {}).items(), attributes.of_page)
    return MesosAgent(
        id=_text(raw["id"]) if "id" in raw else "",
        hostname=_text(raw["hostname"]),
        attributes=read,
        unreadable=unreadable,
        totals=totals,
        free=free,
    )


def _amounts(parts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return what resources of a page come to together, in thousandths; of ports their number."""
    found = {name: sum(_milli(part.get(name, 0)) for part in parts) for name in SCALARS}
    found["ports"] = sum(
        max(0, int(end) - int(begin) + 1)
        for part in parts
        for begin, end in re.findall(r"(\d{1,20})-(\d{1,20})", part.get("ports", ""))
    )
    return found


def has_room(
    need: Need,
    agents: Iterable[MesosAgent],
    placed: Sequence[Mapping[str, str]],
    *,
    before: Iterable[Need] = (),
    leaving: Collection[str] = (),
) -> bool:
    """Return whether an agent has room for a task now, which others may have been offered.

    ``placed``: traits of the agents where tasks of its group run. ``before``: what takes its room
    first. ``leaving``: ids of agents that get nothing any more.
    """
    for agent in _without(agents, before):
        if agent.hostname in need.avoid or agent.id in leaving:
            continue
        free = agent.free
        if free is not None and all(free.get(n, 0) >= wanted for n, wanted in _wanted(need)):
            values = {
                one.attribute: [t[one.attribute] for t in placed if one.attribute in t]
                for one in need.constraints
            }
            if all(_violation(c, agent, values[c.attribute]) is None for c in need.constraints):
                return True
    return False


def _without(agents: Iterable[MesosAgent], needs: Iterable[Need]) -> list[MesosAgent]:
    """Return the agents with less that is free: each need is taken from the first that has it."""
    left = list(agents)
    for need in needs:
        wanted = _wanted(need)
        for number, agent in enumerate(left):
            free = agent.free
            if free is not None and all(free.get(n, 0) >= amount for n, amount in wanted):
                less = {**free, **{n: free.get(n, 0) - amount for n, amount in wanted}}
                left[number] = attrs.evolve(agent, free=less)
                break
    return left


def never_fits(need: Need, agents: Sequence[MesosAgent]) -> str | None:
    """Say why no agent could hold the task even if it were empty, or None if one could."""
    best: list[str] = []
    for agent in agents:
        lacking = [
            f"{name} {_show(name, agent.totals.get(name, 0))} of {_show(name, wanted)}"
            for name, wanted in _wanted(need)
            if agent.totals.get(name, 0) < wanted
        ]
        lacking += [
            problem
            for one in need.constraints
            if one.operator in {"IS", "LIKE", "UNLIKE"}
            or (one.operator == "CLUSTER" and one.value)
            if (problem := _violation(one, agent, ())) is not None
        ]
        if not lacking:
            return None
        if not best or len(lacking) < len(best):
            best = [text.clean(f"{agent.hostname} has {lacking[0]}"), *lacking[1:]]
    if not agents:
        return None  # an empty cluster may grow
    return (
        f"none of {counts.told(len(agents), 'agent')} can ever hold it, the nearest: "
        f"{', '.join(best)}"
    )


# --- inside ---


def _bags(offers: Iterable[Offer]) -> dict[str, _Bag]:
    bags: dict[str, _Bag] = {}
    for offer in offers:
        bag = bags.setdefault(offer.agent_id, _Bag(offers=[], pieces=[]))
        bag.offers.append(offer)
        bag.pieces += [piece for raw in offer.resources if (piece := _piece(raw)) is not None]
    for bag in bags.values():
        bag.pieces.sort(key=lambda piece: not piece.is_reserved)
    return bags


def _piece(raw: Mapping[str, Any]) -> _Piece | None:
    if "revocable" in raw or "disk" in raw or "shared" in raw or "provider_id" in raw:
        return None
    if raw["type"] == "SCALAR":
        return _Piece(raw=raw, name=raw["name"], left=_milli(raw["scalar"]["value"]))
    if raw["type"] == "RANGES" and raw["name"] == "ports":
        ranges = [
            (_port(one["begin"]), _port(one["end"])) for one in raw["ranges"].get("range", ())
        ]
        return _Piece(raw=raw, name="ports", ranges=_apart(ranges))
    return None


def _apart(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, of which no two hold the same port: it can be given once."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        begin = max(begin, found[-1][1] + 1) if found else begin  # noqa: PLW2901 -- the rest of it
        if begin <= end:
            found.append((begin, end))
    return found


def _port(value: Any) -> int:
    number = typed.integer(value, -1, 65536)
    if number is None or not 0 <= number < 65536:
        raise ValueError("a port that is not a port number")
    return number


def _wanted(need: Need) -> list[tuple[str, int]]:
    wanted = [(name, amount) for name, amount in need.scalars.items() if amount > 0]
    return [*wanted, ("ports", need.ports)] if need.ports else wanted


def _problem(
    need: Need, bag: _Bag, placed: Sequence[Mapping[str, str]], until: float
) -> str | None:
    if not all(offer.lasts_until(until) for offer in bag.offers):
        return "goes into maintenance soon"
    for name, wanted in _wanted(need):
        if bag.free(name) < wanted:
            return f"{name} {_show(name, bag.free(name))} of {_show(name, wanted)}"
    if need.ports and _chosen(need, bag) is None:
        told = ", ".join(_words(first, last) for first, last in need.ranges)
        return f"ports {told} are not free"
    if text.clean(bag.offers[0].hostname) in need.avoid:
        return "to be avoided for now"
    for one in need.constraints:
        values = [traits[one.attribute] for traits in placed if one.attribute in traits]
        problem = _violation(one, bag.offers[0], values)
        if problem is not None:
            return problem
    return None


def _violation(one: Constraint, where: Offer | MesosAgent, values: Sequence[str]) -> str | None:  # noqa: PLR0911 -- one operator, one return
    """Say how an agent breaks a constraint, or None; ``values``: of agents where others run."""
    value = _value(one.attribute, where)
    shown = (
        f"{one.attribute} is {quotes.shown(value)}" if value is not None else f"no {one.attribute}"
    )
    if one.attribute in where.unreadable:
        return f"{one.attribute} cannot be read"
    if one.operator == "UNLIKE":
        broken = value is not None and _is_like(value, one.value)
        return f"{shown}, which UNLIKE {quotes.shown(one.value)} excludes" if broken else None
    if value is None:
        return f"{shown}, which {one.operator} needs"
    if one.operator == "LIKE" and not _is_like(value, one.value):
        return f"{shown}, not LIKE {quotes.shown(one.value)}"
    if (
        one.operator in {"IS", "CLUSTER"}
        and one.value
        and not attributes.is_written(value, one.value)
    ):
        return f"{shown}, not {quotes.shown(one.value)}"
    if one.operator == "CLUSTER" and not one.value and any(value != other for other in values):
        return f"{shown}, the others are at {quotes.shown(values[0])}"
    if one.operator in {"UNIQUE", "MAX_PER"}:
        most = int(one.value or 1)
        return f"{shown}, where {most} run already" if list(values).count(value) >= most else None
    return None


def _is_like(value: str, pattern: str) -> bool:
    return any(re.fullmatch(pattern, one) for one in attributes.spellings(value))


def _left_over(need: Need, bag: _Bag) -> float:
    """Return how much would be left, in tasks of this size; ports do not count."""
    return sum(
        (bag.free(name) - wanted) / wanted for name, wanted in _wanted(need) if name != "ports"
    )


def _take(need: Need, bag: _Bag) -> Placement:
    """Cut what the task needs out of the bag."""
    taken: list[Mapping[str, Any]] = []
    for name, wanted in need.scalars.items():
        missing = wanted
        for piece in bag.pieces:
            part = min(missing, piece.left) if piece.name == name else 0
            if part > 0:
                piece.left -= part
                missing -= part
                taken.append({**piece.raw, "scalar": {"value": part / 1000}})
    ports = (_chosen(need, bag) if need.ports else None) or []
    missed = set(ports)
    for piece in bag.pieces:
        mine = sorted(port for port in missed if _holds(piece, port))
        missed.difference_update(mine)
        for port in mine:
            _cut(piece, port)
        if mine:
            ranges = [{"begin": port, "end": port} for port in mine]
            taken.append({**piece.raw, "ranges": {"range": ranges}})
    first = bag.offers[0]
    traits = {
        one.attribute: value
        for one in need.constraints
        if (value := _value(one.attribute, first)) is not None
    }
    return Placement(
        need=need,
        agent_id=first.agent_id,
        hostname=first.hostname,
        agent_url=first.agent_url,
        traits=traits,
        resources=tuple(taken),
        ports=tuple(ports),
    )


def _chosen(need: Need, bag: _Bag) -> list[int] | None:
    """Return the ports that it gets, in their order; None where not all can be had.

    Which has to be the lowest number is served first, each with the first port that it may have:
    whatever comes later may have every higher one as well, so nothing is found by another order.
    Ports that are reserved for us go first to those that may be any.
    """
    pieces = [piece for piece in bag.pieces if piece.name == "ports"]
    taken: set[int] = set()
    found: dict[int, int] = {}
    for number, (first, last) in sorted(enumerate(need.ranges), key=lambda one: one[1][1]):
        port = _lowest(pieces, first, last, taken)
        if port is None:
            return None
        found[number] = port
        taken.add(port)
    for number in range(len(need.ranges), need.ports):
        free = (_lowest([piece], 0, _LAST_PORT, taken) for piece in pieces)
        port = next((one for one in free if one is not None), None)
        if port is None:
            return None
        found[number] = port
        taken.add(port)
    return [found[number] for number in range(need.ports)]


def _lowest(pieces: Iterable[_Piece], first: int, last: int, taken: Collection[int]) -> int | None:
    """Return the first port of these resources that is not taken."""
    best: int | None = None
    for piece in pieces:
        for begin, end in piece.ranges:
            port = max(begin, first)
            while port in taken:
                port += 1
            if port <= min(end, last) and (best is None or port < best):
                best = port
    return best


def _holds(piece: _Piece, port: int) -> bool:
    return piece.name == "ports" and any(begin <= port <= end for begin, end in piece.ranges)


def _cut(piece: _Piece, port: int) -> None:
    """Take one port out of a resource."""
    left = []
    for begin, end in piece.ranges:
        if begin <= port <= end:
            left += [(begin, port - 1), (port + 1, end)]
        else:
            left.append((begin, end))
    piece.ranges = [(begin, end) for begin, end in left if begin <= end]


def _words(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _value(attribute: str, where: Offer | MesosAgent) -> str | None:
    return where.hostname if attribute == HOSTNAME else where.attributes.get(attribute)


def _attributes(
    listed: Iterable[tuple[Any, Any]], read: Callable[[Any], str]
) -> tuple[dict[str, str], frozenset[str]]:
    """Return attributes by name, and the names of those that could not be read."""
    texts: dict[str, str] = {}
    unreadable = set()
    for name, raw in listed:
        good, _ = typed.each([raw], read)
        if good:
            texts[_text(name)] = good[0]
        else:
            unreadable.add(_text(name))
    return texts, frozenset(unreadable)


def _is_resource(raw: Any) -> bool:
    """Return whether it is one that can be read; others are as if they were not there."""
    _, odd = typed.each([raw], _piece)
    return not odd


def _text(raw: Any) -> str:
    """Return a name that the master tells. Raises ValueError for what is none."""
    if not isinstance(raw, str) or not raw or len(raw) > _NAME_MAX:
        raise ValueError("a name that is not a text")
    return raw


def _milli(value: Any) -> int:
    number = typed.number(value, 0, _MOST)
    if number is None:
        raise ValueError("an amount that is not a number")
    return round(number * 1000)


def _show(name: str, amount: int) -> str:
    return str(amount) if name == "ports" else f"{amount / 1000:g}{UNITS.get(name, '')}"
