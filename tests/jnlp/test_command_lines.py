"""Whole command lines and environments, for every way in and every age of agent.jar.

``UPDATE_GOLDEN=1 pytest tests/jnlp/test_command_lines.py`` writes them anew, to be read.
"""

import os
import pathlib
import shlex

import pytest

from jnlp import launch, tunnel
from jnlp import secret as jnlp_secret
from tests.each import each

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "commands"
HEX = "77d22d22bee9710338ba271da5749f269ac4974e749ba5796b9c5fce1227a951"
IDENTITY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"
JARS = {"3.40": "", "4.5": "2.263.4", "3206": "2.440.1", "3355": "2.568.2"}
"""Remoting to the controller next to which it is used; the first one's is not readable."""

WAYS = {
    "TCP": tunnel.connection(),
    "TCP, tunnel HOST:PORT": tunnel.connection(tunnel="gate.example:50443"),
    "TCP, tunnel HOST:": tunnel.connection(tunnel="gate.example:"),
    "TCP, tunnel :PORT": tunnel.connection(tunnel=":50443"),
    "TCP, tunnel [IPv6]:PORT": tunnel.connection(tunnel="[2001:db8::1]:50443"),
    "WebSocket": tunnel.connection(tunnel.Transport.WEBSOCKET),
    "direct": tunnel.connection(
        tunnel.Transport.DIRECT, direct="ci.example:50000", instance_identity=IDENTITY
    ),
    "direct, two protocols": tunnel.connection(
        tunnel.Transport.DIRECT,
        direct="ci.example:50000",
        instance_identity=IDENTITY,
        protocols=("JNLP4-connect", "Ping"),
    ),
}
RECONNECTS = {"for ever": None, "never": 0.0, "for 90 s": 90.0}
SINCE = {
    "-url": 2.0, "-tunnel": 2.0, "-headless": 2.0, "-noreconnect": 2.0, "-workDir": 3.08,
    "-jar-cache": 2.24, "-protocols": 3.34, "-instanceIdentity": 3.34, "-webSocket": 4.0, "-direct": 4.0,
    "-secret": 3176.0, "-name": 3176.0, "-noReconnectAfter": 3241.0,
}  # fmt: skip
"""Options and the first remoting that has them (REST reference, section 4.2)."""


def inbound(way):
    return launch.Inbound(
        url="https://ci.example/jenkins/",
        name="ci-maven-x1",
        secret=jnlp_secret.Secret(HEX),
        secrets_dir="/run/agent",
        work_dir="/home/jenkins/agent",
        connection=WAYS[way],
    )


def ways(jar):
    """An agent.jar of before 4.0 knows TCP only."""
    return [way for way in WAYS if not jar.startswith("3.") or way.startswith("TCP")]


def command(jar, way, reconnect):
    return launch.java_command(
        inbound(way),
        jar="/run/agent/agent.jar",
        style=launch.remoting_style(JARS[jar]),
        jvm_options=("-Xmx128m",),
        reconnect_for_s=RECONNECTS[reconnect],
    )


def listed(jar):
    """Everything that is told to an agent of this age, readable."""
    style = launch.remoting_style(JARS[jar])
    lines = [f"remoting {jar}, controller {JARS[jar] or 'of a version that cannot be read'}", ""]
    for way in ways(jar):
        lines.append(f"== {way}")
        for reconnect in RECONNECTS:
            argv = shlex.join(command(jar, way, reconnect).argv)
            lines += [f"   come back {reconnect}:", f"     {argv}"]
        image = launch.image_command(inbound(way), style=style, jvm_options=("-Xmx128m",))
        own = launch.own_command(inbound(way), ("my-agent",))
        for title, env in (("entry point of an image", image.env), ("own program", own.env)):
            lines.append(f"   {title}:")
            lines += [f"     {key}={env[key]}" for key in sorted(env)]
        lines.append("")
    return "\n".join(lines)


@pytest.mark.parametrize("jar", JARS)
def test_everything_told_to_an_agent_is_the_golden_one(jar):
    """Command line, and the variables of both other kinds."""
    golden = FOLDER / f"remoting-{jar}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(listed(jar))
    assert golden.read_text() == listed(jar)
    assert HEX not in listed(jar)


@each("jar", JARS)
@each("reconnect", RECONNECTS)
def test_no_option_is_younger_than_the_jar(jar, reconnect):
    """An unknown one prints the usage and ends with 0: the agent would never come."""
    for way in ways(jar):
        argv = command(jar, way, reconnect).argv
        own = argv[argv.index("-Xmx128m") + 1 :]
        options = {word for word in own if word.startswith("-") and word not in {"-cp", "-jar"}}
        assert {o for o in options if SINCE[o] > float(jar)} == set()
        excluded = {"-webSocket": {"-tunnel", "-direct"}, "-direct": {"-url", "-tunnel"}}
        for option, others in excluded.items():
            assert option not in options or not options & others
