"""Every limit of every setting, from where it is declared: what is on it is taken, what is past it
is refused with its place and what is allowed, and the JSON Schema for editors says the same."""

import typing

import attrs
import jsonschema
import pytest

from backends import registry
from backends.kit import setting
from broker.config import describing, reading, shape
from broker.config.errors import Problem
from tests.each import each

CLASSES = (
    shape.Document,
    shape.Backend,
    shape.Template,
    shape.HighAvailability,
    *(registry.settings_class(kind) for kind in sorted(registry.KINDS)),
    *(registry.template_settings_class(kind) for kind in sorted(registry.KINDS)),
)


def inside(cls, seen):
    """Yield a class of settings and all in it, each once."""
    if cls in seen:
        return
    seen.add(cls)
    yield cls
    for attribute in attrs.fields(cls):
        kind, _ = reading.optional_of(attribute.type)
        for one in (kind, *typing.get_args(kind)):
            if isinstance(one, type) and attrs.has(one):
                yield from inside(one, seen)


def declared():
    """Yield every setting that has limits."""
    seen = set()
    for cls in CLASSES:
        for one in inside(cls, seen):
            for attribute in attrs.fields(one):
                if setting.limits_of(attribute) != setting.NONE:
                    yield pytest.param(one, attribute, id=f"{one.__name__}.{attribute.name}")


DECLARED = list(declared())
NUMBERS = [one for one in DECLARED if setting.limits_of(one.values[1]).like is None]
TEXTS = [one for one in DECLARED if one not in NUMBERS]


def written(attribute, value):
    """Return a number as the file has it; a duration to the millisecond, as it can be written."""
    if attribute.name.endswith("_s") and attribute.type in {float, float | None}:
        return f"{round(value * 1000)}ms"
    return value


def step(attribute):
    """Return the smallest difference that can be written."""
    if attribute.name.endswith("_s"):
        return 0.001
    return 1 if int in {attribute.type, *typing.get_args(attribute.type)} else 1e-6


def edges(attribute):
    """Return values at the limits, and values past them."""
    limits, least = setting.limits_of(attribute), step(attribute)
    if attribute.type == shape.Cap | None:
        least = 1
    good = [limits.least, limits.most, limits.above + least if limits.above is not None else None]
    bad = [
        limits.above,
        None if limits.least is None else limits.least - least,
        None if limits.most is None else limits.most + least,
    ]
    return [v for v in good if v is not None], [v for v in bad if v is not None and v >= 0]


def problems(cls, attribute, value):
    """Return what is said of one setting of a class, whatever else the class may miss."""
    found: list[Problem] = []
    reading.read(cls, {reading.key_of(attribute): value}, ("here",), found)
    path = ("here", reading.key_of(attribute))
    return [one for one in found if one.path[:2] == path and "missing" not in one.text]


def fits(attribute, value):
    """Tell whether an editor takes a value."""
    return jsonschema.Draft202012Validator(describing._field(attribute)).is_valid(value)


def test_there_are_some():
    """A class that is no longer found does not pass as success."""
    assert len(NUMBERS) > 60
    assert len(TEXTS) > 10


@each(("cls", "attribute"), NUMBERS)
def test_a_number_is_taken_on_its_limits_and_refused_past_them(cls, attribute):
    """With what is allowed, in the words of the manual."""
    good, bad = edges(attribute)
    assert good
    for value in good:
        assert problems(cls, attribute, written(attribute, value)) == []
        assert fits(attribute, written(attribute, value))
    for value in bad:
        (told,) = problems(cls, attribute, written(attribute, value))
        assert f"allowed: {setting.allowed(attribute)}" in told.text
        assert fits(attribute, written(attribute, value)) == isinstance(
            written(attribute, value), str
        )  # the schema has no words for a duration's limits
        with pytest.raises(ValueError, match=f"^{attribute.name}: found .*; allowed: "):
            next(check for check in _validators(attribute))(None, attribute, value)


def _validators(attribute):
    both = attribute.validator
    return getattr(both, "_validators", (both,))


@each(("cls", "attribute"), NUMBERS)
def test_no_number_is_without_a_bound_above(cls, attribute):
    """Ten to the power of twenty is nowhere what somebody meant."""
    assert setting.limits_of(attribute).most is not None


@each(("cls", "attribute"), TEXTS)
def test_a_text_that_does_not_fit_is_told_with_what_does(cls, attribute):
    """Also as a part of a list; and editors refuse it, too."""
    wrong = "\n ? "
    listed = typing.get_origin(reading.optional_of(attribute.type)[0]) is tuple
    value = [wrong] if listed else wrong
    told = problems(cls, attribute, value)
    assert told
    assert setting.allowed(attribute)
    assert f"allowed: {setting.allowed(attribute)}" in told[0].text
    assert not fits(attribute, value)


def test_every_number_of_the_common_settings_has_limits():
    """Durations, sizes, counts: those of the kinds are declared with care by their owners."""
    seen, missing = set(), []
    for cls in (shape.Document, shape.Backend, shape.Template, shape.HighAvailability):
        for one in inside(cls, seen):
            for attribute in attrs.fields(one):
                kind, _ = reading.optional_of(attribute.type)
                if kind in {int, float} and setting.limits_of(attribute) == setting.NONE:
                    missing.append(f"{one.__name__}.{attribute.name}")
    assert missing == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0s"), (0.25, "250ms"), (90, "90s"), (120, "2m"), (5400, "90m"), (86_400, "1d")],
)
def test_durations_are_told_as_they_are_written(number, words):
    """In the largest unit that fits."""
    assert setting.duration(number) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0"), (4096, "4Ki"), (1 << 30, "1Gi"), (1000, "1000")]
)
def test_sizes_are_told_as_they_are_written(number, words):
    """In the largest binary unit that fits."""
    assert setting.size(number) == words


def test_a_password_in_an_address_is_not_quoted():
    """What stands before an '@' may be one."""
    attribute = next(
        p.values[1]
        for p in TEXTS
        if p.values[1].name == "master" and "mesos" in p.values[0].__module__
    )
    found = setting.wrong(attribute, "zk://user:hunter2@zk1:2181 /mesos")
    assert found is not None
    assert "hunter2" not in found.text()
    assert "zk1" in found.text()
