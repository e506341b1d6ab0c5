import json
import pathlib

import pytest

from jnlp import launch, trust, tunnel
from jnlp import secret as jnlp_secret
from tests.each import each

RECORDINGS = pathlib.Path(__file__).parents[1] / "recordings" / "jenkins" / "agent"
HEX = "77d22d22bee9710338ba271da5749f269ac4974e749ba5796b9c5fce1227a951"
IDENTITY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"
DIRECT = tunnel.connection(
    tunnel.Transport.DIRECT,
    direct="ci:50000",
    instance_identity=IDENTITY,
    protocols=("JNLP4-connect", "Ping"),
)
WEBSOCKET = tunnel.connection(tunnel.Transport.WEBSOCKET)
TUNNEL = tunnel.connection(tunnel="localhost:50555")
STYLES = list(launch.OptionStyle)


def inbound(**changes):
    values = {
        "url": "http://localhost:8080/",
        "name": "tcp-1",
        "secret": jnlp_secret.Secret(HEX),
        "secrets_dir": "${secrets}",
        "work_dir": "${work}",
        "connection": tunnel.connection(),
    }
    return launch.Inbound(**{**values, **changes})


def command(style=launch.OptionStyle.NAMED_WITH_LIMIT, reconnect_for_s=None, **changes):
    return launch.java_command(
        inbound(**changes), jar="agent.jar", style=style, reconnect_for_s=reconnect_for_s
    )


@pytest.mark.parametrize(
    ("recording", "note", "changes"),
    [
        ("10-connect-tcp", "TCP, hudson.remoting.jnlp.Main form", {}),
        ("11-connect-tunnel-and-direct", "tunnel as an argument", {"connection": TUNNEL}),
        (
            "11-connect-tunnel-and-direct",
            "-tunnel localhost: (port",
            {"connection": tunnel.connection(tunnel="localhost:")},
        ),
        ("12-connect-websocket", "WebSocket as an argument", {"connection": WEBSOCKET}),
    ],
)
def test_old_style_is_what_connected(recording, note, changes):
    """The command that a real agent of remoting 4.5 connected with, the secret in a file."""
    runs = json.loads((RECORDINGS / f"{recording}.json").read_text())["runs"]
    (run,) = (run for run in runs if run["note"].startswith(note))
    words = run["command"].split()
    name, secret = words[-1], words[-2]
    made = command(launch.OptionStyle.POSITIONAL, name=name, work_dir=name, **changes).argv
    assert made[-2:] == ("@${secrets}/agent-secret", name)
    assert sorted(made) == sorted(
        ["@${secrets}/agent-secret" if w == secret else w for w in words]
    )
    assert made[:5] == ("java", "-cp", "agent.jar", "hudson.remoting.jnlp.Main", "-headless")


def test_old_style_direct_is_what_connected():
    """No URL at all; protocols one by one, as the option takes a single value."""
    runs = json.loads((RECORDINGS / "11-connect-tunnel-and-direct.json").read_text())["runs"]
    (run,) = (run for run in runs if run["note"].startswith("-direct"))
    words = run["command"].split()
    identity = words[words.index("-instanceIdentity") + 1]
    connection = tunnel.connection(
        tunnel.Transport.DIRECT,
        direct="localhost:50000",
        instance_identity=identity,
        protocols=("JNLP4-connect",),
    )
    made = command(
        launch.OptionStyle.POSITIONAL, name="tun-1", work_dir="tun-1", connection=connection
    )
    assert sorted(made.argv[:-2]) == sorted(words[:-2])


@pytest.mark.parametrize(
    ("connection", "options"),
    [
        (tunnel.connection(), ("-url", "http://localhost:8080/")),
        (TUNNEL, ("-url", "http://localhost:8080/", "-tunnel", "localhost:50555")),
        (WEBSOCKET, ("-url", "http://localhost:8080/", "-webSocket")),
        (
            DIRECT,
            (
                *("-direct", "ci:50000", "-instanceIdentity", IDENTITY),
                *("-protocols", "JNLP4-connect", "-protocols", "Ping"),
            ),
        ),
    ],
)
def test_new_style(connection, options):
    """Named options only, from remoting 3176."""
    made = launch.java_command(
        inbound(connection=connection),
        jar="/cache/agent.jar",
        style=launch.OptionStyle.NAMED,
        java="/opt/java/bin/java",
        jvm_options=("-Xmx128m", "-XX:+UseSerialGC"),
    )
    assert made.argv == (
        "/opt/java/bin/java",
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-jar",
        "/cache/agent.jar",
        *options,
        "-workDir",
        "${work}",
        "-secret",
        "@${secrets}/agent-secret",
        "-name",
        "tcp-1",
    )
    assert made.env == {}


@each(
    ("style", "seconds", "expected"),
    [
        (launch.OptionStyle.NAMED_WITH_LIMIT, None, ()),
        (launch.OptionStyle.NAMED_WITH_LIMIT, 600.0, ("-noReconnectAfter", "600s")),
        (launch.OptionStyle.NAMED_WITH_LIMIT, 0.2, ("-noReconnectAfter", "1s")),
        (launch.OptionStyle.NAMED_WITH_LIMIT, 0.0, ("-noreconnect",)),
        (launch.OptionStyle.NAMED, 600.0, ()),
        (launch.OptionStyle.NAMED, 0, ("-noreconnect",)),
        (launch.OptionStyle.POSITIONAL, 600.0, ()),
        (launch.OptionStyle.POSITIONAL, 0, ("-noreconnect",)),
    ],
)
def test_how_long_an_agent_tries_to_come_back(style, seconds, expected):
    """The limit only where agent.jar knows it: an unknown option ends the agent with 0."""
    argv = command(style, seconds).argv
    plain = command(style, None).argv
    added = tuple(word for word in argv if word not in plain)
    assert added == expected


@each("style", STYLES)
@each("connection", [tunnel.connection(), TUNNEL, WEBSOCKET, DIRECT])
def test_the_secret_is_in_the_file_only(style, connection):
    """Never in a command line, an environment or a repr."""
    who = inbound(connection=connection)
    made = [
        launch.java_command(who, jar="agent.jar", style=style),
        launch.image_command(who, style=style, jvm_options=("-Xmx1g",)),
        launch.own_command(who, ("./agent.sh",)),
    ]
    for one in made:
        assert one.secret_files == {"agent-secret": HEX}
        assert HEX not in repr(one)
        assert HEX not in " ".join((*one.argv, *one.env, *one.env.values()))
    assert HEX not in repr(who)


@pytest.mark.parametrize("style", STYLES)
def test_the_environment_of_an_image(style):
    """The variables that entry scripts of 2020 and of today share."""
    made = launch.image_command(inbound(connection=TUNNEL), style=style)
    assert made.argv == ()
    assert made.env == {
        "JENKINS_URL": "http://localhost:8080/",
        "JENKINS_SECRET": "@${secrets}/agent-secret",
        "JENKINS_AGENT_NAME": "tcp-1",
        "JENKINS_NAME": "tcp-1",
        "JENKINS_AGENT_WORKDIR": "${work}",
        "JENKINS_TUNNEL": "localhost:50555",
    }


def test_the_environment_of_an_image_by_websocket_and_direct():
    """No pair that the entry script would turn into a refusal of agent.jar."""
    websocket = launch.image_environment(
        inbound(connection=WEBSOCKET), style=launch.OptionStyle.NAMED
    )
    assert websocket["JENKINS_WEB_SOCKET"] == "true"
    assert "JENKINS_TUNNEL" not in websocket
    direct = launch.image_environment(inbound(connection=DIRECT), style=launch.OptionStyle.NAMED)
    assert "JENKINS_URL" not in direct
    assert direct["JENKINS_DIRECT_CONNECTION"] == "ci:50000"
    assert direct["JENKINS_INSTANCE_IDENTITY"] == IDENTITY
    # what ``-protocols $JENKINS_PROTOCOLS`` of the script becomes, unquoted
    words = f"-protocols {direct['JENKINS_PROTOCOLS']}".split()
    assert words == ["-protocols", "JNLP4-connect", "-protocols", "Ping"]


@pytest.mark.parametrize(
    ("style", "names"),
    [
        (launch.OptionStyle.POSITIONAL, {"JENKINS_JAVA_OPTS", "JAVA_OPTS"}),
        (launch.OptionStyle.NAMED, {"JENKINS_JAVA_OPTS"}),
    ],
)
def test_jvm_options_of_an_image(style, names):
    """``JAVA_OPTS`` reaches the builds as well, so only where nothing else is known."""
    made = launch.image_environment(inbound(), style=style, jvm_options=("-Xmx64m", "-Xss1m"))
    assert {name for name, value in made.items() if value == "-Xmx64m -Xss1m"} == names


def test_the_variables_of_an_own_program():
    """The secret as a path, under another name than the one that holds secrets."""
    made = launch.own_command(inbound(connection=WEBSOCKET), ("./agent.sh", "--verbose"))
    assert made.argv == ("./agent.sh", "--verbose")
    assert made.env == {
        "JENKINS_URL": "http://localhost:8080/",
        "JENKINS_AGENT_NAME": "tcp-1",
        "JENKINS_AGENT_WORKDIR": "${work}",
        "JENKINS_WEB_SOCKET": "true",
        "JENKINS_SECRET_FILE": "${secrets}/agent-secret",
    }
    direct = launch.command_environment(inbound(connection=DIRECT))
    assert direct["JENKINS_PROTOCOLS"] == "JNLP4-connect,Ping"
    assert direct["JENKINS_URL"] == "http://localhost:8080/"


@pytest.mark.parametrize("style", launch.OptionStyle)
def test_a_jar_cache_is_named_only_where_agents_share_one(style):
    """Without the option the jars lie in the work directory and are gone with it."""
    told = launch.java_command(inbound(), jar="a.jar", style=style, jar_cache="/shared/jars").argv
    assert told[told.index("-jar-cache") + 1] == "/shared/jars"
    assert "-jar-cache" not in command(style).argv


PEM = "-----BEGIN CERTIFICATE-----\nMIIB\nAQ==\n-----END CERTIFICATE-----"
HTTPS = {"url": "https://ci/", "authorities": (PEM, f"{PEM}\n")}


@pytest.mark.parametrize("style", STYLES)
def test_a_private_authority_is_given_to_agent_jar_certificate_by_certificate(style):
    """``-cert @FILE`` does not work from a command line: the option parser opens the file."""
    argv = command(style, **HTTPS).argv
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "-cert"] == [PEM, f"{PEM}\n"]
    image = launch.image_command(inbound(**HTTPS), style=style)
    assert image.argv == ("-cert", PEM, "-cert", f"{PEM}\n")
    own = launch.own_command(inbound(**HTTPS), ("agent",))
    assert (own.argv, own.env["JENKINS_CA_CERTIFICATES"]) == (("agent",), f"{PEM}\n{PEM}\n")


@pytest.mark.parametrize(
    ("style", "changes"),
    [
        (launch.OptionStyle.NAMED, {"url": "http://ci/"}),
        (launch.OptionStyle.NAMED, {"connection": DIRECT}),
        (launch.OptionStyle.POSITIONAL, {"connection": WEBSOCKET}),
    ],
)
def test_where_the_option_would_be_useless_or_refused_it_is_left_out(style, changes):
    assert "-cert" not in command(style, **{**HTTPS, **changes}).argv


def test_by_websocket_the_named_style_takes_it():
    """Since remoting 3184, and that style begins with 3206."""
    assert "-cert" in command(launch.OptionStyle.NAMED, **{**HTTPS, "connection": WEBSOCKET}).argv


def test_a_bundle_is_taken_apart():
    """One option reads one certificate, the first of its text."""
    text = f"# ours\r\n{PEM}\r\nsubject=x\n{PEM}\n"
    assert trust.certificates(text) == (PEM, PEM)
    with pytest.raises(ValueError, match="no certificate"):
        trust.certificates("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")
