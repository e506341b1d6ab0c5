"""How a template writes the ports that it publishes, and that every backend tells what was bound."""

import pytest

from backends import api
from backends.kit import published
from backends.kit.published import Binding
from tests.contract import checks
from tests.contract.harness import Harness


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        ("8080", [Binding(port=8080)]),
        (":8080", [Binding(port=8080)]),
        ("53/udp", [Binding(port=53, protocol="udp")]),
        ("18080:8080", [Binding(port=8080, first=18080, last=18080)]),
        ("8000-8010:8080", [Binding(port=8080, first=8000, last=8010)]),
        ("9000-9001", [Binding(port=9000), Binding(port=9001)]),
        (
            "19000-19001:9000-9001/tcp",
            [
                Binding(port=9000, first=19000, last=19000),
                Binding(port=9001, first=19001, last=19001),
            ],
        ),
        ("127.0.0.1::8080", [Binding(port=8080, address="127.0.0.1")]),
        ("[::1]:18080:80", [Binding(port=80, address="::1", first=18080, last=18080)]),
    ],
)
def test_what_an_entry_publishes(text, bindings):
    """As `docker run --publish` reads it."""
    assert tuple(bindings) == published.read(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http", "allowed: PORT"),
        ("0", "ports from 1 to 65535"),
        ("65536", "ports from 1 to 65535"),
        ("99999:80", "ports from 1 to 65535"),
        ("9001-9000", "ports from 1 to 65535"),
        ("1-65535", "256 ports at most"),
        ("8000-8002:9000-9001", "as many ports of the host"),
        ("8000:9000-9001", "as many ports of the host"),
        ("300.0.0.1::80", "no such address"),
        ("[:::1]::80", "no such address"),
        ("127.0.0.1:80", "allowed: PORT"),
        ("80/icmp", "allowed: PORT"),
    ],
)
def test_what_no_entry_may_be(text, words):
    """A message names what is allowed."""
    with pytest.raises(ValueError, match=words):
        published.read(text)


@pytest.mark.parametrize(
    ("entries", "twice"),
    [
        (("80", "80"), ""),
        (("8000-8010:80", "8000-8010:81"), ""),
        (("8000:80", "8000:80/udp"), ""),
        (("127.0.0.1:8000:80", "127.0.0.2:8000:80"), ""),
        (("8000:80", "8000:81"), "8000:81"),
        (("127.0.0.1:8000:80", "8000:80"), "8000:80"),
        (("8000-8001:80-81", "8001:82"), "8001:82"),
    ],
)
def test_one_agent_cannot_have_a_port_of_the_host_twice(entries, twice):
    """A range that may be anywhere is left to the engine."""
    assert twice == published.clash(entries)


@pytest.mark.needs("ports", "exposure")
async def test_published_ports_are_told_while_it_runs(harness: Harness):
    """The one that was bound, whoever chose it; a broker that is started anew knows it, too."""
    backend = harness.backend()
    await backend.launch(harness.publishing("a"))
    shown = await checks.in_state(
        backend, "a", api.InstanceState.RUNNING, within_s=harness.within_s
    )
    (port,) = shown.ports
    assert (8080, "tcp") == (port.port, port.protocol)
    assert str(port.host_port) in await harness.exposed("a")
    await backend.aclose()
    other = harness.backend()
    shown = await checks.in_state(other, "a", api.InstanceState.RUNNING, within_s=harness.within_s)
    assert (port,) == shown.ports
    await other.terminate("a", grace_s=0)
    await other.aclose()


@pytest.mark.needs("ports")
async def test_a_fixed_port_is_the_one_that_was_asked_for(harness: Harness):
    """What a template names is what an agent gets, or nothing."""
    backend = harness.backend()
    await backend.launch(harness.publishing("a", 31_058))
    shown = await checks.in_state(
        backend, "a", api.InstanceState.RUNNING, within_s=harness.within_s
    )
    assert [(8080, 31_058)] == [(one.port, one.host_port) for one in shown.ports]
    await backend.terminate("a", grace_s=0)
    await backend.aclose()
