"""Attributes of agents: an offer and a page are read alike, and a constraint finds what is written."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.mesos import attributes, offers
from tests.each import each

NUMBERS = ("7", "0", "-3", "109", "100000", "1234567", "20161130", "20161107.1", "20170101", "0.25",
           "1e15", "123456789012345", "-0.5", "1.50")  # fmt: skip


def offered(written: str) -> dict:
    """Return an attribute as an offer tells it, made of an operator's text as Mesos does."""
    if written.startswith("["):
        pairs = [part.split("-") for part in written.strip("[]").split(",")]
        ranges = [{"begin": int(begin), "end": int(end)} for begin, end in pairs]
        return {"name": "a", "type": "RANGES", "ranges": {"range": ranges}}
    if written.startswith("{"):
        members = [part.strip() for part in written.strip("{}").split(",")]
        return {"name": "a", "type": "SET", "set": {"item": members}}
    try:
        return {"name": "a", "type": "SCALAR", "scalar": {"value": float(written)}}
    except ValueError:
        return {"name": "a", "type": "TEXT", "text": {"value": written}}


def shown(written: str) -> object:
    """Return the same as the page /slaves shows it: numbers as such, lists with blanks."""
    try:
        return json.loads(json.dumps(float(written)))
    except ValueError:
        return written.replace(",", ", ") if written[0] in "[{" else written


def fits(written: str, operator: str, value: str = "", placed=()) -> tuple[bool, bool]:
    """Return whether an offer matches, and whether the page says that the agent could hold it."""
    one = offers.Constraint(attribute="a", operator=operator, value=value)
    need = offers.Need(name="n", scalars={"cpus": 100}, constraints=(one,), group="g")
    raw = {
        "id": {"value": "O1"}, "agent_id": {"value": "S1"}, "hostname": "h",
        "resources": [{"name": "cpus", "type": "SCALAR", "role": "*", "scalar": {"value": 1}}],
        "attributes": [offered(written)],
    }  # fmt: skip
    traits = [{"a": attributes.of_offer(offered(other))} for other in placed]
    found = offers.match([need], [offers.parse(raw)], {"g": traits})
    page = {"hostname": "h", "resources": {"cpus": 1}, "attributes": {"a": shown(written)}}
    agent = offers.parse_agent(page, role="*")
    return bool(found.accepted), offers.never_fits(need, [agent]) is None


@each("written", NUMBERS)
def test_a_number_is_found_as_it_is_written_and_as_a_number(written):
    """Also a date, which a double writes with an exponent, and with an end of zeros."""
    number = float(written)
    for value in {
        written,
        repr(number),
        f"{number:.1f}" if number == round(number, 1) else written,
    }:
        assert (True, True) == fits(written, "IS", value), value
        assert (True, True) == fits(written, "CLUSTER", value), value
    others = [f"{written}1", str(number + 0.125), str(number + 1)]
    for other in (*others[: 3 if abs(number) < 1e12 else 0], "x", "nan", "1_0"):
        assert (False, False) == fits(written, "IS", other), other


@each(
    ("written", "operator", "value", "fit"),
    [
        ("20161107.1", "LIKE", r"2016.*", True),
        ("20161107.1", "LIKE", r"2016\d{4}\.1", True),
        ("20161107.1", "UNLIKE", r"2016.*", False),
        ("20161107.1", "UNLIKE", r".*e\+.*", True),
        ("7", "LIKE", "7", True),
        ("7", "LIKE", r"7\.0", True),
        ("7", "LIKE", "[1-6]", False),
        ("7", "UNLIKE", "7", False),
        ("7", "UNLIKE", "8", True),
        ("[1-3,7-9]", "IS", "[1-3, 7-9]", True),
        ("[7-9,1-3]", "IS", "1-3,7-9", True),
        ("[1-3,4-9]", "IS", "[1-9]", True),
        ("[1-3]", "IS", "[1-4]", False),
        ("[1-3]", "LIKE", "1-.*", True),
        ("{b,a}", "IS", "{a, b}", True),
        ("{b,a}", "IS", "a,b", True),
        ("{a,b}", "LIKE", r"a,.*", True),
        ("{a,b}", "IS", "{a}", False),
        ("r1", "IS", "r1", True),
        ("r1", "IS", "R1", False),
        ("1.2.3", "IS", "1.2.3", True),
    ],
)
def test_every_kind_by_its_offer_and_by_its_page(written, operator, value, fit):
    assert (fit, fit) == fits(written, operator, value)


@pytest.mark.parametrize("written", ["7", "20161107.1", "[1-3,7-9]", "{b,a}", "r1"])
def test_others_of_the_template_are_compared_by_value(written):
    """What was kept of an agent's attribute is equal to what is offered of the same again."""
    assert not fits(written, "UNIQUE", placed=[written])[0]
    assert fits(written, "UNIQUE", placed=["8"])[0]
    assert not fits(written, "MAX_PER", "2", placed=[written, written])[0]
    assert fits(written, "MAX_PER", "3", placed=[written, written])[0]
    assert fits(written, "CLUSTER", placed=[written])[0]
    assert not fits(written, "CLUSTER", placed=["8"])[0]
    kept = attributes.of_offer(offered(written))
    assert kept == attributes.of_text(kept) == attributes.of_page(shown(written)), (
        "after a restart"
    )


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
@example(1e22)
@example(5e-324)
@example(-0.0)
def test_any_number_is_read_alike_from_both(number):
    """One text without an exponent; a second reading changes nothing."""
    if abs(number) >= 1e300:
        return
    one = attributes.of_offer({"type": "SCALAR", "scalar": {"value": number}})
    assert one == attributes.of_page(number)
    assert "e" not in one
    if abs(number) < 1e15:
        assert one == attributes.of_text(one) == attributes.of_text(f"{number:.15g}")


def test_an_attribute_that_cannot_be_read_meets_no_constraint():
    """Nor does an odd one hide the others, or the agent."""
    odd = {"name": "a", "type": "SCALAR", "scalar": {"value": "x"}}
    good = {"name": "b", "type": "TEXT", "text": {"value": "y"}}
    raw = {
        "id": {"value": "O1"}, "agent_id": {"value": "S1"}, "hostname": "h",
        "resources": [{"name": "cpus", "type": "SCALAR", "role": "*", "scalar": {"value": 1}}],
        "attributes": [odd, good],
    }  # fmt: skip
    offer = offers.parse(raw)
    assert ({"b": "y"}, {"a"}) == (offer.attributes, offer.unreadable)
    for operator, fit in (("IS", False), ("UNLIKE", False), ("CLUSTER", False)):
        one = offers.Constraint(attribute="a", operator=operator, value="x")
        need = offers.Need(name="n", scalars={"cpus": 100}, constraints=(one,))
        assert fit == bool(offers.match([need], [offer], {}).accepted)
    need = offers.Need(name="n", scalars={"cpus": 100})
    assert offers.match([need], [offer], {}).accepted
