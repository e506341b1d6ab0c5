"""A setting at a wrong place is told where its own is."""

from broker.config import errors, kinds, places, reading
from tests.each import each

KINDS = kinds.classes()


def hint(*path, said=""):
    problem = errors.Problem(path=path, text=f"{reading.UNKNOWN}; allowed: x", hint=said)
    return places.Places(kinds=KINDS).hinted(problem).hint


@each(
    ("path", "where"),
    [
        (("templates", "t", "once"), "retention of this section"),
        (("templates", "t", "idle"), "retention of this section"),
        (("defaults", "idle"), "retention of this section"),
        (("templates", "t", "pod"), "kubernetes of this section"),
        (("templates", "t", "warm", "from"), "schedule.windows of this section"),
        (("templates", "t", "docker", "memory"), "templates.NAME.resources"),
        (("templates", "t", "hosts"), "backends.NAME (of kind docker)"),
        (("backends", "b", "hosts"), "backends.NAME (of kind docker)"),
        (("backends", "b", "image"), "templates.NAME"),
        (("retention",), "templates.NAME"),
        (("token",), "controller"),
        (("controller", "owner"), "the top level of the file"),
        (("idle",), "poll or templates.NAME.retention"),
    ],
)
def test_what_is_a_setting_somewhere_says_where(path, where):
    """In the same section it is a step further in, else what is nearest."""
    assert hint(*path) == f"it belongs in {where}"


def test_what_is_nobodys_is_left_alone():
    """A word that only resembles one keeps its hint, and so does what resembles one of here."""
    assert hint("templates", "t", "nonsense") == ""
    assert hint("templates", "t", "labls", said="did you mean labels?") == "did you mean labels?"
    assert hint("templates", "t", "docker", "privileged") == ""  # that of another kind is not it
    assert hint("poll", "idles", said="did you mean idle?") == "did you mean idle?"


def test_every_setting_is_known_by_its_place():
    """Those of the kinds as well: none is forgotten when a kind gets another one."""
    known = places.Places(kinds=KINDS).found
    for kind, classes in KINDS.items():
        for attribute in classes.template_settings.__attrs_attrs__:
            assert ("templates", "NAME", kind) in known[reading.key_of(attribute)]
