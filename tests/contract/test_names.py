"""Instance names and metadata as labels."""

import re
import string

import hypothesis
import pytest
from hypothesis import strategies as st

from backends.kit import names

LEGAL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
VALUES = st.one_of(
    st.text(),
    st.text(alphabet=string.ascii_letters + string.digits + "._-x", max_size=70),
    st.text(min_size=50, max_size=300),
    st.text(alphabet="a\ud800\udfff\U0001f701é_.-x"),  # lone surrogates too
    st.sampled_from(["", "x--", "x--x", "x-.ax", "_", "a" * 63, "a" * 64, "\0", "-a", "a."]),
)
METADATA = st.dictionaries(st.sampled_from([*names.KEYS, "a", "a-2", "z" * 40]), VALUES)


@hypothesis.settings(  # the first use of Hypothesis on a machine builds its character tables
    suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None
)
@hypothesis.given(METADATA, st.sampled_from(["", "jenkins-agent-broker/", "x.y/"]))
def test_any_metadata_comes_back_from_legal_labels(metadata, prefix):
    """Whatever the values hold, every label is legal on the strictest platform, and all return."""
    labels = names.encode_metadata(metadata, prefix=prefix)
    for key, value in labels.items():
        assert key.startswith(prefix)
        assert re.fullmatch(r"[a-z][a-z0-9.-]{0,62}", key[len(prefix) :])
        assert LEGAL.fullmatch(value), value
    assert names.decode_metadata(labels, prefix=prefix) == metadata


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None)
@hypothesis.given(VALUES, VALUES)
def test_different_values_have_different_labels(one, two):
    """A platform that selects by label never mixes up two owners."""
    same = names.encode_metadata({"owner": one}) == names.encode_metadata({"owner": two})
    assert same == (one == two)


@pytest.mark.parametrize("value", ["jenkins-main", "maven.17", "a_b", "1714564800", "A" * 63])
def test_legal_values_stay_readable(value):
    """What already is a legal label is not touched."""
    assert names.encode_metadata({"template": value}) == {"template": value}


def test_labels_of_others_are_left_out():
    """A platform's own labels, with or without our prefix, are no metadata."""
    labels = {
        "com.docker.x": "1",
        "broker/owner": "me",
        "broker/Weird": "2",
        "broker/owner.x": "3",
    }
    assert names.decode_metadata(labels, prefix="broker/") == {"owner": "me"}


@pytest.mark.parametrize("damage", ["first", "middle", "last", "changed"])
def test_half_a_value_never_passes_for_a_whole_one(damage):
    """When a piece is missing or edited, reading fails instead of giving another value."""
    labels = names.encode_metadata({"node": "ä" * 60})
    keys = sorted(labels)
    assert len(keys) >= 3
    if damage == "changed":
        labels[keys[1]] = "x-._Zx"
    else:
        del labels[{"first": keys[0], "middle": keys[1], "last": keys[-1]}[damage]]
    with pytest.raises(ValueError, match="damaged"):
        names.decode_metadata(labels)


@pytest.mark.parametrize("key", ["", "Owner", "a.2", "1a", "a_b", "a" * 41, "-a", "a-"])
def test_keys_that_cannot_be_told_apart_are_refused(key):
    """Keys are ours: a name that would collide with a piece or be illegal is an error."""
    with pytest.raises(ValueError, match="metadata key"):
        names.encode_metadata({key: "x"})


@pytest.mark.parametrize("name", ["a", "A1", "main-maven-x7f3", "a.b_c-d", "a" * 63])
def test_good_instance_names(name):
    """These are accepted."""
    assert names.name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("", "empty"),
        ("a" * 64, "64 characters"),
        (".", "not safe"),
        ("..", "not safe"),
        ("a/b", "not safe"),
        ("-a", "not safe"),
        ("a-", "not safe"),
        ("a b", "not safe"),
        ("ä", "not safe"),
        ("a\n", "not safe"),
        ("$(id)", "not safe"),
    ],
)
def test_bad_instance_names_are_told_why(name, part):
    """Each refused name comes with the reason."""
    problem = names.name_problem(name)
    assert problem is not None
    assert part in problem
