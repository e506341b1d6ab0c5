"""Matching: nothing is exceeded, nothing is left unanswered, small offers first, and why not."""

import itertools
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.mesos import offers
from tests.each import each

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"


def offer(
    number: int = 1,
    *,
    agent: str = "S1",
    cpus: float = 4.0,
    mem: float = 4096.0,
    ports=((31000, 31099),),
    role: str = "*",
    **attributes: str,
) -> offers.Offer:
    scalars = {"cpus": cpus, "mem": mem}
    resources = [
        {
            "name": "ports",
            "type": "RANGES",
            "role": role,
            "ranges": {"range": [{"begin": a, "end": b} for a, b in ports]},
        }
    ]
    resources += [
        {"name": n, "type": "SCALAR", "role": role, "scalar": {"value": v}}
        for n, v in scalars.items()
    ]
    return offers.Offer(
        id=f"O{number}",
        agent_id=agent,
        hostname=f"host-{agent}",
        attributes=attributes,
        resources=tuple(resources),
    )


def need(name: str = "a", cpus: float = 1.0, mem: float = 512.0, **more) -> offers.Need:
    return offers.Need(
        name=name, scalars={"cpus": round(cpus * 1000), "mem": round(mem * 1000)}, **more
    )


def constraint(attribute: str, operator: str, value: str = "") -> offers.Constraint:
    return offers.Constraint(attribute=attribute, operator=operator, value=value)


amounts = st.integers(1, 80).map(lambda tenth: tenth / 10)
many_offers = st.lists(
    st.tuples(amounts, amounts, st.sampled_from("ABC"), st.sampled_from(["*", "ci"])), max_size=8
).map(
    lambda rows: [
        offer(n, agent=agent, cpus=cpus, mem=mem * 100, role=role, ports=((100 * n, 100 * n + 3),))
        for n, (cpus, mem, agent, role) in enumerate(rows)
    ]
)
many_needs = st.lists(st.tuples(amounts, amounts, st.integers(0, 3)), max_size=8).map(
    lambda rows: [
        need(f"n{n}", cpus=cpus / 2, mem=mem * 50, ports=ports)
        for n, (cpus, mem, ports) in enumerate(rows)
    ]
)


@given(needs=many_needs, given_offers=many_offers)
def test_nothing_is_exceeded_and_every_offer_is_answered(needs, given_offers):
    """Sums per resource and role, ports once each, each need once or with a reason."""
    found = offers.match(needs, given_offers, {})
    answered = [one for ids, _ in found.accepted for one in ids] + list(found.declined)
    assert sorted(one.id for one in given_offers) == sorted(answered)
    placed = [placement.need.name for _, placements in found.accepted for placement in placements]
    assert sorted(one.name for one in needs) == sorted([*placed, *found.misses])
    by_id = {one.id: one for one in given_offers}
    for ids, placements in found.accepted:
        room: dict = {}
        free_ports = set()
        for one in ids:
            assert {by_id[other].agent_id for other in ids} == {by_id[one].agent_id}
            for resource in by_id[one].resources:
                key = (resource["name"], resource["role"])
                if resource["type"] == "SCALAR":
                    room[key] = room.get(key, 0) + round(resource["scalar"]["value"] * 1000)
                else:
                    free_ports |= {
                        p
                        for r in resource["ranges"]["range"]
                        for p in range(r["begin"], r["end"] + 1)
                    }
        for placement in placements:
            taken: dict = {}
            for resource in placement.resources:
                if resource["type"] == "SCALAR":
                    amount = round(resource["scalar"]["value"] * 1000)
                    room[resource["name"], resource["role"]] -= amount
                    taken[resource["name"]] = taken.get(resource["name"], 0) + amount
            assert placement.need.scalars == taken
            assert len(set(placement.ports)) == placement.need.ports
            assert set(placement.ports) <= free_ports
            free_ports -= set(placement.ports)
        assert all(left >= 0 for left in room.values())


@given(one_need=many_needs.filter(bool).map(lambda needs: needs[0]), given_offers=many_offers)
def test_what_fits_somewhere_is_placed_where_the_least_is_left(one_need, given_offers):
    """One need: placed if and only if some agent has room, and no other leaves less over."""
    found = offers.match([one_need], given_offers, {})
    left = {}
    for agent in {one.agent_id for one in given_offers}:
        mine = [one for one in given_offers if one.agent_id == agent]
        free = {
            n: sum(
                round(r["scalar"]["value"] * 1000)
                for o in mine
                for r in o.resources
                if r["name"] == n
            )
            for n in ("cpus", "mem")
        }
        ports = 4 * len(mine)
        if all(free[n] >= one_need.scalars[n] for n in free) and ports >= one_need.ports:
            left[agent] = sum((free[n] - one_need.scalars[n]) / one_need.scalars[n] for n in free)
    assert bool(left) == bool(found.accepted)
    if left:
        assert min(left.values()) == left[found.accepted[0][1][0].agent_id]


def test_small_offers_are_used_first():
    """The large one stays whole for a large task."""
    found = offers.match(
        [need(cpus=1)],
        [offer(1, agent="big", cpus=32), offer(2, agent="small", cpus=1, mem=512)],
        {},
    )
    assert ("O2",) == found.accepted[0][0]
    assert ("O1",) == found.declined


def test_reserved_resources_are_used_before_those_of_all():
    """And given back exactly as they were offered, but for the amount."""
    found = offers.match(
        [need(cpus=3)], [offer(1, cpus=2, role="*"), offer(2, cpus=2, role="ci")], {}
    )
    (placement,) = found.accepted[0][1]
    assert [("ci", 2.0), ("*", 1.0)] == [
        (r["role"], r["scalar"]["value"]) for r in placement.resources if r["name"] == "cpus"
    ]


def test_what_can_be_taken_away_or_is_a_volume_is_not_touched():
    """Revocable resources, persistent volumes, disks with a source."""
    one = offer(cpus=0.5)
    extra = [
        {"name": "cpus", "type": "SCALAR", "role": "*", "scalar": {"value": 8}, key: {}}
        for key in ("revocable", "disk", "shared")
    ]
    found = offers.match(
        [need(cpus=1)], [offers.attrs.evolve(one, resources=(*one.resources, *extra))], {}
    )
    assert {"a": "host-S1: cpus 0.5 of 1"} == found.misses


@each(
    ("operator", "value", "there", "fits"),
    [
        ("IS", "r1", [], True), ("IS", "r2", [], False),
        ("LIKE", "r[0-9]", [], True), ("LIKE", "r", [], False),
        ("UNLIKE", "r[0-9]", [], False), ("UNLIKE", "x.*", [], True),
        ("CLUSTER", "", [], True), ("CLUSTER", "", ["r1"], True), ("CLUSTER", "", ["r2"], False), ("CLUSTER", "r1", ["r1"], True), ("CLUSTER", "r9", [], False),
        ("UNIQUE", "", [], True), ("UNIQUE", "", ["r2"], True), ("UNIQUE", "", ["r1"], False),
        ("MAX_PER", "2", ["r1"], True), ("MAX_PER", "2", ["r1", "r1"], False),
    ],
)  # fmt: skip
def test_constraints(operator, value, there, fits):
    """As Marathon's operators, against what of the same template runs already."""
    one = need(constraints=(constraint("rack", operator, value),), group="g")
    placed = {"g": [{"rack": rack} for rack in there], "other": [{"rack": "r1"}] * 9}
    found = offers.match([one], [offer(rack="r1")], placed)
    assert fits == bool(found.accepted)
    if not fits:
        assert "rack is 'r1'" in found.misses["a"]


def test_an_agent_that_is_to_be_avoided_is_given_nothing():
    """By its host name, however well it fits; the offer is declined, and the reason told."""
    given = [offer(1, agent="S1"), offer(2, agent="S2", cpus=64.0)]
    avoiding = need(avoid=frozenset({"host-S1"}))
    found = offers.match([avoiding], given, {})
    ((ids, (placement,)),) = found.accepted
    assert (("O2",), "host-S2", ("O1",)) == (ids, placement.hostname, found.declined)
    assert {"a": "host-S1: to be avoided for now"} == offers.match(
        [avoiding], given[:1], {}
    ).misses


def test_constraints_look_at_what_is_placed_in_the_same_step():
    """Two tasks that must not share a rack, one rack: one of them waits."""
    unique = (constraint(offers.HOSTNAME, "UNIQUE"),)
    found = offers.match(
        [need("a", constraints=unique), need("b", constraints=unique)], [offer()], {}
    )
    assert ["b"] == list(found.misses)


@pytest.mark.parametrize(
    ("operator", "fits"),
    [("IS", False), ("LIKE", False), ("UNLIKE", True), ("UNIQUE", False), ("CLUSTER", False)],
)
def test_an_agent_without_the_attribute(operator, fits):
    """Only UNLIKE is content with it."""
    one = constraint("rack", operator, "" if operator == "UNIQUE" else "r.*")
    found = offers.match([need(constraints=(one,))], [offer()], {})
    assert fits == bool(found.accepted)


def test_what_no_agent_can_ever_hold_is_said():
    """From a recorded master's page: 4 cores, 4096 MB, rack r1."""
    calls = json.loads((RECORDED / "21-operator-views" / "calls.json").read_text())
    raw = next(c["response"]["body"] for c in calls if c["request"]["path"] == "/slaves")["slaves"]
    agents = [offers.parse_agent(one, role="*") for one in raw]
    assert {"cpus": 4000, "mem": 4096000, "disk": 10240000, "gpus": 0, "ports": 100} == agents[
        0
    ].totals
    assert offers.never_fits(need(cpus=4, mem=4096), agents) is None
    assert (
        "none of 1 agent can ever hold it, the nearest: agent-1 has cpus 4 of 5"
        == offers.never_fits(need(cpus=5), agents)
    )
    assert "rack is 'r1', not 'r2'" in offers.never_fits(
        need(constraints=(constraint("rack", "IS", "r2"),)), agents
    )
    assert offers.never_fits(need(cpus=99), []) is None, "an empty cluster may grow"


@pytest.mark.parametrize(
    ("changes", "wanted", "placed", "room"),
    [({}, {"cpus": 3.9, "mem": 4032}, (), True), ({}, {"cpus": 4}, (), False),
     ({"active": False}, {"cpus": 1}, (), False), ({"deactivated": True}, {"cpus": 1}, (), False),
     ({"used_resources": None}, {"cpus": 1}, (), False),
     ({}, {"constraints": (constraint("rack", "IS", "r2"),)}, (), False),
     ({}, {"constraints": (constraint("rack", "UNIQUE", ""),)}, (), True),
     ({}, {"constraints": (constraint("rack", "UNIQUE", ""),)}, ({"rack": "r1"},), False)],
)  # fmt: skip
def test_where_there_is_room_now(changes, wanted, placed, room):
    """From the same page: 0.1 cores and 64 MB are used; what is not told is no room."""
    every = json.loads((RECORDED / "21-operator-views" / "calls.json").read_text())
    raw = next(c["response"]["body"] for c in every if c["request"]["path"] == "/slaves")["slaves"]
    agents = [offers.parse_agent({**one, **changes}, role="*") for one in raw]
    assert room is offers.has_room(need(**wanted), agents, placed)


@pytest.mark.parametrize(
    ("role", "cpus"), [("*", 1), ("ci", 3), ("ci/builds", 7), ("ci/builds/x", 7), ("circle", 1)]
)
def test_what_is_reserved_for_a_role_above_ours_is_ours_too(role, cpus):
    """Mesos offers it to the roles below."""
    raw = {
        "hostname": "h",
        "unreserved_resources": {"cpus": 1},
        "reserved_resources": {"ci": {"cpus": 2}, "ci/builds": {"cpus": 4}},
    }
    assert cpus * 1000 == offers.parse_agent(raw, role=role).totals["cpus"]


def test_a_recorded_offer_is_read():
    """Attributes, the agent's address, resources untouched."""
    events = json.loads((RECORDED / "02-launch-finish/stream-1.json").read_text())["events"]
    raw = next(e["event"]["offers"]["offers"][0] for e in events if e["event"]["type"] == "OFFERS")
    one = offers.parse(raw)
    assert {"os": "linux", "rack": "r1", "jenkins": "true"} == one.attributes
    assert "http://127.0.0.1:5051" == one.agent_url
    assert tuple(raw["resources"]) == one.resources


@pytest.mark.parametrize(
    ("ranges", "free"),
    [
        (((10, 13), (10, 13)), [10, 11, 12, 13]),
        (((10, 11), (10, 15)), [10, 11, 12, 13, 14, 15]),
        (((10, 20), (12, 13)), list(range(10, 21))),
        (((13, 12), (15, 15), (11, 11)), [11, 15]),
    ],
)
def test_a_port_is_given_once_however_often_it_is_offered(ranges, free):
    """A task with one port twice is refused by the master."""
    found = offers.match([need(ports=len(free))], [offer(ports=ranges)], {})
    ((_, (placement,)),) = found.accepted
    assert free == sorted(placement.ports)
    assert not offers.match([need(ports=len(free) + 1)], [offer(ports=ranges)], {}).accepted


@pytest.mark.parametrize(
    ("ranges", "ports"),
    [
        ([(31005, 31005)], [31005, 31000]),
        ([(31000, 31001), (31000, 31000)], [31001, 31000]),
        ([(1, 65535), (31000, 31002)], [31001, 31000]),
        ([(31098, 40000), (1, 31000)], [31098, 31000]),
        ([(1, 30999)], None),
        ([(31000, 31000), (31000, 31000)], None),
    ],
)
def test_a_port_is_one_of_those_that_it_may_be(ranges, ports):
    """An agent that does not offer one is passed over, and says so."""
    wanted = need(ports=2, ranges=tuple(ranges))
    found = offers.match([wanted], [offer()], {})
    if ports is None:
        assert "are not free" in found.misses["a"]
        return
    ((_, (placement,)),) = found.accepted
    assert ports == list(placement.ports)
    told = [one for one in placement.resources if one["name"] == "ports"]
    assert sorted(ports) == [r["begin"] for one in told for r in one["ranges"]["range"]]


@given(
    free=st.sets(st.integers(1, 12)),
    ranges=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=4),
)
def test_ports_are_found_whenever_there_is_a_way(free, ranges):
    """Against every choice there is."""
    asked = [(first, first + more) for first, more in ranges]
    ways = itertools.product(*([p for p in free if a <= p <= b] for a, b in asked))
    there = any(len(set(way)) == len(way) for way in ways)
    given_offer = offer(ports=tuple((port, port) for port in sorted(free)))
    found = offers.match([need(ports=len(asked), ranges=tuple(asked))], [given_offer], {})
    assert there == bool(found.accepted)
    for _, placements in found.accepted:
        assert all(a <= port <= b for port, (a, b) in zip(placements[0].ports, asked, strict=True))


def test_a_port_that_one_task_has_is_not_offered_to_the_next():
    """Two tasks on one agent."""
    needs = [need(name, ports=1, ranges=((31005, 31005),)) for name in "ab"]
    found = offers.match(needs, [offer()], {})
    assert ["a"] == [p.need.name for _, placements in found.accepted for p in placements]
    assert "31005 are not free" in found.misses["b"]
