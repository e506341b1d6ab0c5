"""Owner marks survive both ways, and nothing else passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.fleet import marks

WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(owner=WORDS, template=WORDS, backend=WORDS, revision=WORDS, at=st.integers(0, 2**37))
def test_both_ways_are_the_same_facts(owner, template, backend, revision, at):
    """A broker that starts with nothing reads from either side what was written."""
    told = marks.Marks(
        owner=owner, template=template, backend=backend, revision=revision, created_at=float(at)
    )
    assert told == marks.from_description(told.description())
    assert told == marks.from_metadata(told.metadata("n"))


@pytest.mark.parametrize(
    "description",
    [
        "",
        "a node of the platform team",
        "[agent-broker owner=o]",
        "[agent-broker owner=o template=t backend=b revision=r created=soon]",
        "agent-broker owner=o template=t backend=b revision=r created=1",
    ],
)
def test_what_is_no_mark(description):
    """Somebody else's node, half a mark, a mark that cannot be read: not ours."""
    assert marks.from_description(description) is None


def test_a_person_may_write_around_the_mark():
    """Only the bracket is read."""
    told = marks.Marks(owner="o", template="t", backend="b", revision="r", created_at=1.0)
    assert told == marks.from_description(f"please keep! {told.description()} thanks")
