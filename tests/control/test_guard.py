"""Who may order something of a broker at work, and who is turned away."""

import logging
import os

import pytest

from broker.control import guard, tokens
from outside import secrets

ALICE, GRAFANA = "a" * 32, "g" * 32
LINES = f"# who role token\nalice operate {ALICE}\n\ngrafana view {GRAFANA}\n"


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "tokens"
    made.write_text(LINES)
    made.chmod(0o600)
    return made


def asked(token=ALICE, method="POST", **headers):
    told = {"Host": "h:1", "Content-Type": "application/json", **headers}
    if token:
        told["Authorization"] = f"Bearer {token}"
    return guard.OrderRequest(method=method, path="/api/v1/try", headers=told, remote="10.0.0.9")


def admitted(path, request, wanted=tokens.Role.OPERATE):
    return guard.Guard(lambda: path).admit(request, wanted=wanted)


def test_whoever_has_a_token_is_known_by_name(path):
    """And may do what their role may, or less."""
    assert admitted(path, asked()).who == "alice"
    assert admitted(path, asked(), tokens.Role.VIEW).who == "alice"
    assert admitted(path, asked(GRAFANA), tokens.Role.VIEW).who == "grafana"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked(None), 401),
        (asked("x" * 32), 401),
        (asked(ALICE[:-1]), 401),
        (asked(GRAFANA), 403),
        (asked(Origin="http://evil.example"), 403),
        (asked(Origin="null"), 403),
        (asked(Origin="null", Host=""), 403),
        (asked(Origin="http://["), 403),
        (asked(Origin="http://u@h:1"), 403),
        (asked(Origin=""), 403),
        (asked(**{"Sec-Fetch-Site": "cross-site"}), 403),
        (asked(**{"Sec-Fetch-Site": "same-site"}), 403),
        (asked(**{"Content-Type": "text/plain"}), 415),
        (asked(**{"Content-Type": "application/x-www-form-urlencoded"}), 415),
    ],
)
def test_everybody_else_is_turned_away(path, request_, status):
    """With what is missing, and never with a token."""
    answer = admitted(path, request_)
    assert answer.status == status
    assert ALICE not in answer.words


def test_a_page_of_our_own_may_ask(path):
    """Its origin is the host that is asked."""
    own = asked(Origin="http://h:1", **{"Sec-Fetch-Site": "same-origin"})
    assert admitted(path, own).who == "alice"


def test_without_a_file_there_is_nothing_to_order():
    """As if there were no such address."""
    door = guard.Guard(lambda: None)
    assert not door.is_open
    assert door.admit(asked(), wanted=tokens.Role.OPERATE).status == 404


def test_another_file_counts_at_once(path):
    """Whoever is in it no more is not let in, and one that is wrong lets nobody in."""
    door = guard.Guard(lambda: path)
    assert door.admit(asked(), wanted=tokens.Role.OPERATE).who == "alice"
    for content, status in ((f"bob operate {'b' * 32}\n", 401), ("bob\n", 503)):
        part = path.with_name("part")
        part.write_text(content)
        part.replace(path)
        assert door.admit(asked(), wanted=tokens.Role.OPERATE).status == status
    path.unlink()
    assert door.admit(asked(), wanted=tokens.Role.OPERATE).status == 503
    path.write_text(LINES)
    path.chmod(0o666)  # whoever likes could let himself in
    assert door.admit(asked(), wanted=tokens.Role.OPERATE).status == 503
    path.chmod(0o644)
    assert door.admit(asked(), wanted=tokens.Role.OPERATE).who == "alice"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice operate", "line 1: allowed: NAME ROLE TOKEN"),
        (f"a/b operate {ALICE}", "line 1: allowed: NAME ROLE TOKEN"),
        (f"alice root {ALICE}", "line 1: allowed as role: view, operate"),
        ("alice operate short", "at least 20 characters"),
        (f"alice operate {ALICE}\nbob view {ALICE}", "stands there twice"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_shows_nothing(line, words):
    """Of a token not even a part."""
    with pytest.raises(tokens.TokensError, match=words) as raised:
        tokens.parsed(line)
    assert ALICE not in str(raised.value)


def test_a_token_is_never_shown(path):
    """Not in what is kept of it, and not in any text that goes out."""
    holders = tokens.parsed(tokens.read(path))
    assert ALICE not in repr(holders)
    assert repr(holders[0].digest) not in repr(holders)
    assert ALICE not in secrets.blanked(f"said {ALICE}")
    assert tokens.operator(path.read_text()) == ALICE


def test_no_token_of_a_full_file_is_shown(path):
    """Not the first one either."""
    every = [f"{number:032}" for number in range(tokens.MOST)]
    path.write_text("".join(f"w{one} view {one}\n" for one in every))
    assert len(tokens.parsed(tokens.read(path))) == tokens.MOST
    assert not [one for one in every if one in secrets.blanked(f"said {one}")]
    with pytest.raises(tokens.TokensError, match=f"allowed: {tokens.MOST}"):
        tokens.parsed(f"{path.read_text()}alice operate {ALICE}\n")


def test_what_is_ordered_stands_in_the_log(path, caplog):
    """Who, what, why and from where; whoever was turned away, too."""
    with caplog.at_level(logging.INFO, logger="broker.control"):
        who = admitted(path, asked())
        guard.ordered(who, "try linux", remote="10.0.0.9", why="it\nhangs")
        admitted(path, asked("x" * 32))
    (ordered, refused) = caplog.records
    assert (ordered.who, ordered.order, ordered.remote) == ("alice", "try linux", "10.0.0.9")
    assert "\n" not in ordered.why
    assert "turned away" in refused.getMessage()
    assert os.linesep not in refused.getMessage()
