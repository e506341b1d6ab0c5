"""Every reader of remote text takes steps in proportion to the text, whatever is in it (K1).

Each is given 64 KB made for it: the beginnings that it looks for, again and again, and never the
end. Steps are counted, not time: the calls that are made, ours and the interpreter's. What one
call of the interpreter does inside counts as one step; where that has no end the suite's own limit
of time ends it.
"""

import sys

import pytest

from broker.controller import reading
from broker.core import model
from broker.core.demand import labels, parameters, queue_texts
from broker.core.demand import wishes as demand
from broker.core.fleet import lifecycle, marks
from broker.leading import identity
from jnlp import answers, entries, errors, node, secret, state, version
from outside import secrets, text, typed
from tests.core import test_parameters, worlds
from tests.each import each

SIZE = 65536
MOST = 8  # steps for each character; the dearest reader takes 3.7


def long(*parts):
    """Return about 64 KB of the parts, again and again, or of one after the other."""
    whole = "".join(parts)
    return (whole * (SIZE // len(whole) + 1))[:SIZE]


def queue_of(**fields):
    task = {"name": "n", "url": "u", "_class": "C"}
    return {"_class": "BuildableItem", "id": 1, "buildable": True, "task": task, **fields}


def read_item(why="", label=None):
    """Read one item, say why it waits, and tell who could serve it: all that a look does."""
    item = queue_of(why=why)
    if label is not None:
        item["task"]["labelExpression"] = label
    items, _ = reading.parse_queue([item], 0.0)
    templates = [worlds.template(f"t{n}", f"l{n}", "linux") for n in range(20)]
    view = model.ControllerView(synced=True, items=items)
    return demand.wishes(view, templates, model.Ledger(), {})


def read_computer(**fields):
    flags = {"idle": True, "offline": True, "temporarilyOffline": True}
    return state.parse({"displayName": "n", **flags, **fields})


def read_list(body):
    for entry in entries.Entries(body.encode(), "items"):
        entry.parse()


def read_failure(body="", **headers):
    return answers.failure("GET x", 403, headers, body)


CASES = {
    "owner mark": (
        marks.from_description,
        "[agent-broker " + long("a=a"),
        "[agent-broker " + long("a=a "),
        long("[agent-broker "),
        long("[agent-broker a=a "),
        long("]"),
    ),
    "owner mark of an instance": (
        lambda t: marks.from_metadata(dict.fromkeys(marks.from_metadata.__annotations__, t)),
        long("9"),
    ),
    "why": (
        read_item,
        long("There are no nodes with the label ‘"),
        long("All nodes of label ‘"),
        "All nodes of label ‘" + long("’ are off"),
        long("‘"),
        long("’"),
        long("‘a’ doesn’t have label ‘"),
        long("’ is offline"),
        long("‘’ is offline"),
        long("Must run on "),
        "Must run on " + long("a"),
        "Must run on " + long(" "),
        long("Waiting for next available executor on ‘"),
        long("‘x’ is reserved for jobs with matching label expression"),
        long("\x1b"),
        long("\ud800"),
    ),
    "reasons of an item": (
        lambda t: queue_texts.veto(reading.parse_queue([queue_of(why=t)], 0.0)[0][0].why),
        long("; "),
        long("‘; "),
        long("’; "),
        long("‘’ doesn’t have label ‘"),
        long("‘a’ is offline; "),
        long("Must run on a not b; "),
        "Must run on " + long("a"),
    ),
    "labelExpression": (
        lambda t: read_item(label=t),
        long("a&&"),
        long("a||b&&"),
        long("("),
        long("!"),
        long('"'),
        '"' + long("\\"),
        '"' + long("a"),
        long("-"),
        long("->"),
        long("a<->"),
        long(" "),
    ),
    "label of the greatest length": (
        lambda t: labels._parsed(t[: labels.MAX_LENGTH], labels.Grammar.TODAY),
        long("a&&"),
        long("(("),
        long("a<->"),
        long("!a||"),
        '"' + long('\\"'),
        long('"a"'),
        long("--"),
    ),
    "offline cause": (
        lambda t: lifecycle.cause_of(model.Computer(name="n", offline_cause=state.cause(t))),
        long("&"),
        long("&lt;"),
        long("&#1"),
        long("agent-broker: "),
        "agent-broker: " + long("a-"),
    ),
    "claim": (identity.read, long("agent-broker: held by "), "agent-broker: held by " + long("a")),
    "computer": (
        lambda t: read_computer(
            displayName=t, description=t, executors=[{}], offlineCause={"description": t}
        ),
        long("Disconnected by "),
        "Disconnected by " + long(" :"),
        long("[agent-broker "),
        long("\u202e"),
        long(" "),
    ),
    "numbers": (
        lambda t: read_computer(numExecutors=int("9" * 4000)),
        "",
    ),
    "error page": (
        read_failure,
        long('<p class="error">'),
        '<p class="error">' + long("<"),
        long("<h1>Error</h1>"),
        "<h1>Error</h1>" + long(" "),
        long("<title>"),
        "<title>" + long("<!--"),
        long("<!--"),
        long("<script"),
        long("<style>"),
        long("<head "),
        long("<"),
        long("</"),
        long("<a "),
        long("is missing the "),
        "is missing the " + long("a"),
        long("Error 500 "),
        long("&amp"),
        long("0123456789abcdef"),
    ),
    "X-Error": (
        lambda t: read_failure("", **{"X-Error": t}),
        long("a"),
        long("\x1b["),
        long("0a"),
    ),
    "X-Required-Permission": (
        lambda t: read_failure("", **{"X-Required-Permission": t}),
        long("."),
    ),
    "Location": (
        lambda t: answers.redirect("GET x", "/x", t, posted=False),
        long("http://["),
        long("/"),
        long("//"),
        long("@:"),
        long("login/"),
        long("%"),
    ),
    "Retry-After": (lambda t: read_failure("", **{"Retry-After": t}), long("1"), long(" ")),
    "JNLP file": (
        secret.from_jnlp,
        long("<argument>"),
        "<argument>" + long(" "),
        long("<argument> "),
        long("</argument>"),
        "<argument>" + long("a"),
    ),
    "agent-secret": (secret.from_text, long("a"), long(" "), long("\n")),
    "config.xml": (
        lambda t: node.with_labels(t, ("x",)),
        "<slave>" + long("<!--"),
        "<slave>" + long("<![CDATA["),
        "<slave>" + long("<?"),
        "<slave>" + long("<!"),
        "<slave>" + long("<a"),
        "<slave>" + long("<a>"),
        "<slave" + long("a"),
        "<slave " + long('"'),
        "<slave " + long("'\""),
        "<slave>" + long("<a/>"),
        "<slave>" + long("</a>"),
        long("<a '"),
        long('<a "b" '),
        long("< "),
    ),
    "config.xml, other questions": (
        lambda t: (node.name_of(t), node.is_accepting(t), node.labels_of(t)),
        f"<slave><name>{long('&amp;')}</name></slave>",
        f"<slave><label>{long('a ')}</label></slave>",
    ),
    "X-Jenkins": (version.parse, long("1."), long("1"), long(" "), "2." + long("9")),
    "a list": (
        read_list,
        '{"items": [' + long("{"),
        '{"items": [' + long("[]"),
        '{"items": [' + long("{},"),
        '{"items": ["' + long("a"),
        '{"items": [{"a": "' + long('\\"'),
        '{"items": [' + long('"'),
        '{"items": [' + long("["),
        '{"items": [' + long("9"),
        '{"items": [' + long("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]],"),
        '{"items": [{' + long('"a":1,'),
        "{" + long('"a":1,'),
        '{"' + long("a"),
        long(" "),
        long("\\"),
    ),
    "clean": (
        text.clean,
        long("0123456789abcdef"),
        long("a"),
        long(" "),
        long("\n"),
        long("\x1b["),
        long("\ud800"),
        long("A+/"),
    ),
    "fit": (lambda t: (text.fit(t, SIZE), text.name(t)), long("\n"), long("\u202e"), long("a")),
    "last lines": (
        lambda t: text.last_lines(t, 20),
        long("a"),
        long("\n"),
        long("a\r\n"),
        long("0123456789abcdef"),
    ),
    "blanked": (
        secrets.blanked,
        long("0123456789abcdef"),
        long("A"),
        long("A="),
        long("sha256:"),
        long("token-of-som"),
    ),
    "each": (
        lambda t: typed.each([t] * 100, int),
        long("9"),
        long("x"),
    ),
}


def steps(read, worst):
    """Count the calls that reading a text takes; only our own errors leave it."""
    counted = 0

    def count(*_):
        nonlocal counted
        counted += 1
        if counted > MOST * SIZE:
            raise TooManyError

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read(worst)
    except (errors.JenkinsError, ValueError):
        pass
    finally:
        sys.setprofile(before)
    return counted


def test_what_an_expression_asks_of_a_template_takes_one_look_at_it():
    """However many ways there are to take some of the labels that it names."""
    asked = "||".join(f"image=golang:{n}" for n in range(parameters.MOST_ASKED))
    rest = "||".join(f"(a{n}&&b)" for n in range(300))
    text = f"({rest})&&({asked})"
    expression = labels.parse(text)
    taken = steps(lambda one: parameters.asked(one, test_parameters.DOCKER), expression)
    assert taken <= 3 * MOST * labels.size(text)


class TooManyError(Exception):
    """It takes more steps than it may."""


@each("name", CASES)
def test_a_reader_takes_few_steps_for_each_character(name):
    """For the worst that anybody could think of."""
    secrets.register("token-of-somebody", "another-secret", "a-third-one")
    read, *inputs = CASES[name]
    for worst in inputs:
        assert steps(read, worst) <= MOST * SIZE, f"{name}: {worst[:60]!r}…"


def test_a_reader_that_begins_anew_at_each_character_is_found():
    """So that the count itself can be trusted."""

    def slowly(told):
        return [told.startswith("a", at) for begin in range(len(told)) for at in range(begin)]

    with pytest.raises(TooManyError):
        steps(slowly, long("a"))


def _label(number):
    """Return a label expression of 4 kB that no other item has."""
    parts = (f"(a{number}x{n}&&!b{n})" for n in range(1000))
    return "||".join(parts)[:4000].rpartition("||")[0]


def test_a_look_at_any_number_of_expressions_costs_its_budget():
    """Whoever may run jobs can make a thousand of 4 kB in one build: 26 s of each look once. How many
    are not read is the budget: reading is what costs.

    The short ones come first, so that nobody else waits for them; what is not read says so.
    """
    templates = [worlds.template(f"t{n}", f"l{n}", "linux") for n in range(20)]
    many = [worlds.item(n, _label(n)) for n in range(1000)]
    scene = worlds.Scene(*templates)
    scene.wait(*many, worlds.item(5000, "l7 && linux"))
    made = scene.plan()
    assert worlds.launches(made) == {"t7": 1}
    unread = [u for u in made.unmet if "too many different label expressions" in u.text]
    assert 900 < len(unread) <= 1000
    assert {u.reason for u in unread} == {model.WaitReason.BAD_LABEL}


def test_what_was_read_is_remembered_up_to_a_limit():
    """However many there are."""
    for number in range(200):
        labels.parse(f"x{number}||" + _label(number)[:3000].rpartition("||")[0])
    assert labels._cache._weight <= labels._REMEMBERED


def test_a_label_that_is_too_long_is_told_as_such():
    """It is no label of that name: what could want an agent is not known."""
    wishes, _ = read_item(label="a&&" * 3000 + "a")
    assert wishes[0].expression is None
    assert "is not read: 8192 characters, 4096 are read" in wishes[0].unmet.text
    assert demand.could_want(wishes[0], frozenset({"a"}), agent_exclusive=True) is None
