import pytest

from jnlp import tunnel
from tests.each import each

IDENTITY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"
TCP, WEBSOCKET, DIRECT = (
    tunnel.Transport.TCP,
    tunnel.Transport.WEBSOCKET,
    tunnel.Transport.DIRECT,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tunnel.example.com:50443", "tunnel.example.com", 50443),
        ("localhost:", "localhost", None),
        (":50443", "", 50443),
        ("10.0.0.7:1", "10.0.0.7", 1),
        ("my_host:65535", "my_host", 65535),
        ("[fe80::1]:50000", "fe80::1", 50000),
        ("  localhost:50443  ", "localhost", 50443),
    ],
)
def test_tunnels_that_agents_understand(text, host, port):
    """HOST:PORT, HOST:, :PORT and [IPv6]:PORT, as agent.jar splits them."""
    assert tunnel.parse_tunnel(text) == tunnel.Tunnel(host=host, port=port)


@each(
    ("text", "hint"),
    [
        ("localhost", "a colon is missing"),
        ("50443", "a colon is missing"),
        ("", "a colon is missing"),
        (":", "neither host nor port"),
        ("localhost:0", "1 to 65535"),
        ("localhost:65536", "1 to 65535"),
        ("localhost:" + "9" * 5000, "1 to 65535"),
        ("localhost:-1", "1 to 65535"),
        ("localhost:٥٠", "1 to 65535"),
        ("localhost:http", "1 to 65535"),
        ("fe80::1", r"\[ADDRESS\]:PORT"),
        ("fe80::1:50000", r"\[ADDRESS\]:PORT"),
        ("http://localhost:50443", "a URL is not allowed"),
        ("[fe80::1]", "after a bracket"),
        ("[fe80::1]:", "after a bracket"),
        ("[localhost]:50443", "after a bracket"),
        ("[fe80::1:50443", "after a bracket"),
        ("local host:50443", "not a host name"),
        ("-evil:50443", "not a host name"),
        ("@file:50443", "not a host name"),
    ],
)
def test_tunnels_that_are_refused(text, hint):
    """The message says where, what was found, what is allowed, and a hint."""
    with pytest.raises(tunnel.ConnectionSettingError, match=hint) as raised:
        tunnel.parse_tunnel(text)
    error = raised.value
    assert error.field == "tunnel"
    assert text[:80] in error.found
    assert len(error.found) <= 256
    assert "HOST:PORT" in error.allowed or "[IPv6]:PORT" in error.allowed
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, tunnel.Connection()),
        ({"tunnel": " :50443"}, tunnel.Connection(tunnel=":50443")),
        ({"transport": WEBSOCKET}, tunnel.Connection(transport=WEBSOCKET)),
        (
            {
                "transport": DIRECT,
                "direct": "ci:50000",
                "instance_identity": IDENTITY + "\n",
                "protocols": ["JNLP4-connect"],
            },
            tunnel.Connection(
                transport=DIRECT,
                direct="ci:50000",
                instance_identity=IDENTITY,
                protocols=("JNLP4-connect",),
            ),
        ),
    ],
)
def test_connections_that_work(settings, expected):
    """Each transport with what it needs."""
    assert tunnel.connection(**settings) == expected


@each(
    ("settings", "field"),
    [
        ({"transport": WEBSOCKET, "tunnel": "localhost:50443"}, "tunnel"),
        ({"transport": WEBSOCKET, "direct": "ci:50000"}, "direct"),
        ({"transport": WEBSOCKET, "instance_identity": IDENTITY}, "instance_identity"),
        ({"transport": WEBSOCKET, "protocols": ("JNLP4-connect",)}, "protocols"),
        ({"transport": TCP, "direct": "ci:50000"}, "direct"),
        ({"transport": TCP, "instance_identity": IDENTITY}, "instance_identity"),
        ({"transport": TCP, "protocols": ("JNLP4-connect",)}, "protocols"),
        ({"transport": TCP, "tunnel": "localhost"}, "tunnel"),
        ({"transport": DIRECT}, "direct"),
        ({"transport": DIRECT, "direct": "ci:50000"}, "instance_identity"),
        (
            {"transport": DIRECT, "direct": "ci:50000", "instance_identity": " "},
            "instance_identity",
        ),
        ({"transport": DIRECT, "direct": "ci:", "instance_identity": IDENTITY}, "direct"),
        ({"transport": DIRECT, "direct": ":50000", "instance_identity": IDENTITY}, "direct"),
        (
            {"transport": DIRECT, "direct": "ci:50000", "instance_identity": "not base64!"},
            "instance_identity",
        ),
        (
            {
                "transport": DIRECT,
                "direct": "ci:50000",
                "instance_identity": IDENTITY,
                "tunnel": "a:1",
            },
            "tunnel",
        ),
        (
            {
                "transport": DIRECT,
                "direct": "ci:50000",
                "instance_identity": IDENTITY,
                "protocols": ("-secret",),
            },
            "protocols",
        ),
    ],
)
def test_impossible_pairs(settings, field):
    """What agent.jar answers with its usage and exit status 0 is refused before."""
    with pytest.raises(tunnel.ConnectionSettingError) as raised:
        tunnel.connection(**settings)
    assert raised.value.field == field
    assert raised.value.allowed in str(raised.value)
    assert raised.value.hint in str(raised.value)


def test_the_identity_is_not_shown():
    """The key is public but long; a repr stays readable."""
    made = tunnel.connection(DIRECT, direct="ci:50000", instance_identity=IDENTITY)
    assert IDENTITY not in repr(made)
