"""The script for the controller: what stands in it, and what its answers say."""

import re

import pytest

from broker.core.fleet import marks
from broker.hook import messages, script

URL = "http://127.0.0.1:8087/"
KEY = "k" * 32


def test_without_the_key_it_is_no_secret():
    """It looks for it on the controller."""
    plain = script.install("o", URL)
    assert script.KEY_VARIABLE in plain
    assert script.KEY_FILE in plain
    assert KEY in script.install("o", URL, key=KEY)
    for text in (plain, script.install("o", URL, key=KEY), script.remove("o")):
        assert not re.search(r"@[A-Z]+@", text)


def test_it_reads_the_marks_that_nodes_have():
    """Words on both sides are the same."""
    told = marks.Marks(owner="o", template="t", backend="b", revision="r", created_at=1.0, slot=2)
    text = script.install("o", URL)
    node = told.description(single_use=True)
    assert "'[agent-broker owner=' + owner + ' '" in text
    assert "[agent-broker owner=o " in node
    assert node.endswith(f"{marks.SINGLE_USE}]")
    assert f"'{marks.SINGLE_USE}]'" in text
    assert marks.from_description(node) == told


def test_it_reads_what_it_is_answered():
    """Every field of an answer has its reader, and what it sends its writer."""
    text = script.install("o", URL)
    for field in messages.HookAnswer(pause_ms=1).document():
        assert f"answer.get('{field}')" in text
    for field in ("hook", "owner", "session", "sent_ms", "lost", "events"):
        assert f"body.put('{field}'" in text
    for field in ("closed", "busy", "ended"):
        assert f"results.put('{field}'" in text


@pytest.mark.parametrize("key", ["it's", "back\\slash", "$x${y}", '"', "a'+b+'c"])
def test_no_key_ends_its_quotes(key):
    """Nothing in it is read as Groovy."""
    line = next(
        line for line in script.install("o", URL, key=key).splitlines() if "def key" in line
    )
    inner = line.removeprefix("def key = '").removesuffix("'")
    assert re.fullmatch(r"(?:[^'\\]|\\.)*", inner)
    assert re.sub(r"\\(.)", r"\1", inner) == key


def test_what_the_console_answers():
    """As Jenkins 2.541.3 printed it."""
    assert script.is_installed("Result: agent-broker hook 1 of o is installed\n")
    assert not script.is_installed("groovy.lang.MissingPropertyException: No such property")
    assert script.removed("Result: agent-broker hooks removed: 1\n") == 1
    assert script.removed("java.lang.Error") is None
