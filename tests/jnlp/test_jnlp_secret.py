import copy
import json
import pathlib
import pickle

import pytest

from jnlp import secret

RECORDINGS = pathlib.Path(__file__).parents[1] / "recordings" / "jenkins"
FILES = [
    exchange
    for exchange in json.loads((RECORDINGS / "agent" / "01-jnlp-files.json").read_text())[
        "exchanges"
    ]
    if exchange["response"]["headers"].get("Content-Type") == "application/x-java-jnlp-file"
]


@pytest.mark.parametrize("exchange", FILES, ids=[str(n) for n in range(len(FILES))])
def test_every_recorded_file_gives_its_secret(exchange):
    """The first argument, whatever options follow."""
    body = exchange["response"]["body"]
    found = secret.from_jnlp(body).reveal()
    assert (
        f"<argument>{found}</argument><argument>{exchange['request']['path'].split('/')[2]}"
        in body
    )
    assert len(found) == 64


def test_the_recorded_secret_depends_on_the_name_only():
    """Delete and create again: the same secret (so it may be cached by name)."""
    by_note = {e["note"]: secret.from_jnlp(e["response"]["body"]) for e in FILES}
    assert by_note["tcp-1: slave-agent.jnlp"] == by_note["secret of the new node"]
    assert by_note["tcp-1: slave-agent.jnlp"] != by_note["ws-1: slave-agent.jnlp"]
    assert len({by_note["tcp-1: slave-agent.jnlp"], by_note["secret of the new node"]}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>login</html>",
        "<argument></argument>",
        f"<argument>{'0' * 63}</argument>",
        f"<argument>{'G' * 64}</argument>",
        f"<argument>name</argument><argument>{'0' * 64}</argument>",
    ],
)
def test_other_texts_are_refused_and_not_quoted(text):
    """A file that is something else may still hold a secret."""
    with pytest.raises(ValueError, match="argument") as raised:
        secret.from_jnlp(text)
    assert "0000" not in str(raised.value)


def test_a_secret_shows_itself_to_reveal_only():
    """Not to repr, str, format, a container's repr, pickle or an attribute listing."""
    hidden = secret.Secret("hush")
    shown = f"{hidden} {hidden!r} {[hidden]}"
    assert "hush" not in shown
    assert hidden.reveal() == "hush"
    with pytest.raises(TypeError):
        pickle.dumps(hidden)
    with pytest.raises(TypeError):
        copy.deepcopy(hidden)
    assert not hasattr(hidden, "__dict__")
    assert hidden != "hush"
