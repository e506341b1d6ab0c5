"""What the last lines of an agent say it died of."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.loop import complaints, last_words

OLD_JAVA = [  # agent.jar 3309 on Java 11, as it is
    "Error: LinkageError occurred while loading main class hudson.remoting.Launcher",
    (
        "\tjava.lang.UnsupportedClassVersionError: hudson/remoting/Launcher has been compiled by a more"
        " recent version of the Java Runtime (class file version 61.0), this version of the Java"
        " Runtime only recognizes class file versions up to 55.0"
    ),
]
NO_AUTHORITY = [  # agent.jar 3309, a controller whose authority it does not know
    "Nov 29, 2026 10:20:03 AM hudson.remoting.Launcher$CuiListener status",
    "INFO: Could not locate server among [https://127.0.0.1:18090/]; waiting 10 seconds",
    "java.io.IOException: Failed to connect to https://127.0.0.1:18090/tcpSlaveAgentListener/",
    "\tat org.jenkinsci.remoting.engine.JnlpAgentEndpointResolver.resolve(X.java:238)",
    "Caused by: javax.net.ssl.SSLHandshakeException: PKIX path building failed",
    "\t... 2 more",
    (
        "Caused by: sun.security.provider.certpath.SunCertPathBuilderException: unable to find valid"
        " certification path to requested target"
    ),
    "\tat java.base/sun.security.provider.certpath.SunCertPathBuilder.build(X.java:141)",
    "\t... 22 more",
]


def death(lines, cause=model.Cause.LOST_EXITED, reason="its instance ended"):
    action = model.RetireAgent(name="a", backend="b", reason=reason, cause=cause)
    return last_words.death_of(action, None, lines, at=0.0)


def test_a_java_that_is_too_old_is_an_end_of_its_own():
    told = death(OLD_JAVA)
    assert told.cause is model.Cause.LOST_JAVA
    assert "its Java is too old: it is Java 11, needed is 17" in told.text
    assert death(OLD_JAVA, cause=model.Cause.CONNECT_TIMEOUT).cause is model.Cause.LOST_JAVA


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: this agent requires Java 21 or newer",
        "[12:00] java.lang.UnsupportedClassVersionError: hudson/slaves/SlaveComputer$SlaveVersion",
    ],
)
def test_other_words_for_it(line):
    assert (
        complaints.complaint(["before", line, "\tat x.y(Z.java:1)"]).cause is model.Cause.LOST_JAVA
    )


def test_of_a_trace_the_innermost_cause_is_told():
    told = death(NO_AUTHORITY, cause=model.Cause.CONNECT_TIMEOUT)
    assert told.cause is model.Cause.LOST_NO_CONTROLLER
    assert told.text.endswith("unable to find valid certification path to requested target")
    assert "22 more" not in told.text


def test_without_a_trace_it_is_the_last_line_and_without_lines_nothing():
    assert death(["one", "two", ""]).text == "its instance ended; it said last: two"
    assert death([]).text == "its instance ended"


def test_a_planned_end_is_not_explained_by_what_the_agent_said():
    assert death(OLD_JAVA, cause=model.Cause.IDLE, reason="idle for long") == death(
        OLD_JAVA, cause=model.Cause.IDLE, reason="idle for long"
    )
    assert death(OLD_JAVA, cause=model.Cause.IDLE, reason="idle for long").text == "idle for long"


def test_the_pause_that_follows_says_the_same():
    key = ledgers.key_of(model.Scope.TEMPLATE, model.BackendName("b"), model.TemplateName("t"))
    pause = model.Backoff(
        failures=1, until_at=9.0, reason="its instance ended", cause=model.Cause.LOST_EXITED
    )
    ledger = model.Ledger(backoffs={key: pause})
    told = death(OLD_JAVA)
    after = ledgers.reworded(ledger, key, "its instance ended", told.text)
    assert after.backoffs[key].reason == told.text
    assert ledgers.reworded(ledger, key, "something else", told.text) is ledger


EXIT = backends_api.Exit(slug="exited", code=1)
IDLE, LOST = model.Cause.IDLE, model.Cause.LOST_EXITED


@pytest.mark.parametrize(
    ("action", "exit_", "wanted"),
    [
        (model.RetireAgent(name="a", backend="b", reason="", cause=IDLE), None, False),
        (model.RetireAgent(name="a", backend="b", reason="", cause=IDLE), EXIT, True),
        (model.RetireAgent(name="a", backend="b", reason="", cause=LOST), None, True),
        (model.SweepInstance(name="a", backend="b", reason=""), None, True),
        (model.SweepNode(name="a", reason=""), None, True),
    ],
)
def test_whose_last_words_are_read(action, exit_, wanted):
    """Of whoever goes as planned nobody asks, unless it has ended by itself meanwhile."""
    running = backends_api.InstanceState.RUNNING
    instance = backends_api.Instance(name="a", state=running, metadata={}, exit=exit_)
    agent = model.Agent(name="a", phase=model.Phase.IDLE, backend="b", instance=instance)
    assert wanted is last_words.are_wanted(action, agent)
    assert not last_words.are_wanted(action, attrs.evolve(agent, instance=None))
    assert not last_words.are_wanted(action, None)


def test_what_it_used_is_in_its_certificate():
    used = backends_api.Usage(at=5.0, memory_peak_bytes=1 << 20)
    memory = model.Memory(first_seen_at=0.0, usage=used)
    agent = model.Agent(name="a", phase=model.Phase.LOST, memory=memory)
    action = model.SweepInstance(name="a", backend="b", reason="x", cause=model.Cause.LOST_EXITED)
    assert used == last_words.death_of(action, agent, (), at=6.0).usage
