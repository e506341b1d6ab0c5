"""What agents say they died of: real outputs of agent.jar (3309; old: 4.5), and what is made of them."""

from broker.core import model
from broker.loop import complaints
from outside import text as texts
from tests.each import each
from tests.project import test_house as house

RECORDINGS = house.ROOT / "tests" / "recordings"
C = model.Cause


def tail(name):
    """What is read of an agent: its last lines."""
    return (RECORDINGS / "agent" / f"{name}.txt").read_text().splitlines()[-120:]


AT = "http://127.0.0.1:1/login"
RECORDED = {
    "dns": ("the name no.such.host.invalid cannot be resolved", C.LOST_NO_CONTROLLER),
    "dns-ws": ("the name no.such.host.invalid cannot be resolved", C.LOST_NO_CONTROLLER),
    "refused": (
        (
            "it cannot reach its controller: Connection refused "
            "(http://127.0.0.1:1/tcpSlaveAgentListener/)"
        ),
        C.LOST_NO_CONTROLLER,
    ),
    "refused-ws": (
        f"it cannot reach its controller: Connection refused ({AT})",
        C.LOST_NO_CONTROLLER,
    ),
    "tunnel-dns": ("the name of its tunnel cannot be resolved", C.LOST_NO_CONTROLLER),
    "tunnel-http": (
        "something else answers than a controller's port for agents (127.0.0.1:18080)",
        C.LOST_NO_CONTROLLER,
    ),
    "tls-plain": (
        "TLS to its controller failed: Unsupported or unrecognized SSL message",
        C.LOST_NO_CONTROLLER,
    ),
    "tls-plain-ws": (
        "TLS to its controller failed: Unsupported or unrecognized SSL message",
        C.LOST_NO_CONTROLLER,
    ),
    "not-jenkins": (
        (
            "what answers it is not a Jenkins controller, or one without a port for agents "
            "(http://127.0.0.1:18080/nothere/tcpSlaveAgentListener/)"
        ),
        C.LOST_NO_CONTROLLER,
    ),
    "connected": ("an agent of the name o1 is connected already", C.LOST_REFUSED),
    "wrong-secret": ("the controller refused its secret", C.LOST_REFUSED),
    "wrong-name": ("the controller knows no node nobody", C.LOST_REFUSED),
    "wrong-secret-ws": (
        "the controller, or a proxy before it, refused its WebSocket",
        C.LOST_REFUSED,
    ),
    "connected-ws": (
        "the controller, or a proxy before it, refused its WebSocket",
        C.LOST_REFUSED,
    ),
    "old-wrong-secret": ("the controller refused its secret", C.LOST_REFUSED),
    "old-wrong-secret-ws": ("the controller refused its secret", C.LOST_REFUSED),
    "old-wrong-name": ("the controller knows no node ghost", C.LOST_REFUSED),
    "old-wrong-name-ws": (
        "the controller, or a proxy before it, refused its WebSocket with 400",
        C.LOST_REFUSED,
    ),
    "old-connected": ("an agent of the name s1 is connected already", C.LOST_REFUSED),
    "unknown-option": ('"-bogus" is not a valid option', None),
    "no-secret-file": ("No such file: secret", None),
    "heap": ("its Java ran out of memory", C.LOST_MEMORY),
    "no-memory": ("there was too little memory for its Java to start", C.LOST_MEMORY),
}


@each("name", RECORDED)
def test_what_a_real_agent_says(name):
    words, cause = RECORDED[name]
    told = complaints.complaint(tail(name))
    assert told.cause is cause
    assert told.words.startswith(words)


def test_every_recorded_end_is_judged():
    assert {path.stem for path in (RECORDINGS / "agent").glob("*.txt")} == RECORDED.keys()


def test_what_it_said_before_it_was_connected_counts_no_more():
    """It did not find its controller at first; what it died of is another story."""
    lines = [*tail("refused-ws"), "INFO: Connected", "the workshop is on fire"]
    assert complaints.complaint(lines) == complaints.Complaint(words="the workshop is on fire")


def test_the_last_complaint_counts():
    told = complaints.complaint([*tail("dns"), *tail("connected")])
    assert told.cause is C.LOST_REFUSED


def test_help_hides_nothing():
    """As it is read, without the blanks before its lines; where the log goes on it has ended."""
    text = "\n".join([*tail("unknown-option"), *tail("dns")])
    told = complaints.telling(texts.last_lines(text, 1000))
    assert ['"-bogus" is not a valid option', *complaints.telling(tail("dns"))] == told


def test_that_it_was_connected_is_no_complaint():
    """As of whoever is killed in the midst of its work."""
    lines = [*tail("refused-ws"), "Nov 29, 2026 8:13:52 PM x.Y z", "INFO: Connected", ""]
    assert complaints.complaint(lines) == complaints.Complaint()


def test_where_it_says_nothing_nothing_is_said():
    assert complaints.complaint([]) == complaints.Complaint()
    assert complaints.complaint(["", "  "]) == complaints.Complaint()


def test_frames_and_time_stamps_are_not_worth_a_persons_time():
    assert complaints.telling(
        [
            "Nov 29, 2026 8:13:52 PM hudson.remoting.Launcher$CuiListener error",
            "SEVERE: it failed",
            "\tat java.base/java.net.Socket.connect(Socket.java:1)",
            "\t... 2 more",
            "",
        ]
    ) == ["SEVERE: it failed"]


def test_a_sign_stands_at_the_beginning_of_a_word():
    """Looked for at every letter of a long word a line would cost the square of its length."""
    rows = [row for row in complaints.TABLE if row.cause is model.Cause.LOST_NO_CONTROLLER]
    line = "javax.net.ssl.SSLHandshakeException: no cipher"
    assert any(row.sign.search(line) for row in rows)
    assert not any(row.sign.search(f"x{line.rpartition('.')[2]}") for row in rows)
    long = f"{'w' * 200} is already connected to this controller"
    assert complaints.complaint([long]).cause is None
