"""What builds are told of the ports of their agent."""

import pytest

from backends import api
from broker.core.fleet import published


def told(*ports, host=""):
    """Return the variables for ports written as (port, host port, address, protocol)."""
    keys = ("port", "host_port", "address", "protocol")
    return published.variables(
        api.Instance(
            name="a",
            state=api.InstanceState.RUNNING,
            host=host,
            ports=tuple(api.Port(**dict(zip(keys, port, strict=False))) for port in ports),
        )
    )


@pytest.mark.parametrize(
    ("ports", "host", "variables"),
    [
        ([], "node-1", {}),
        ([(80, 31000)], "", {"PORT_80": "31000"}),
        ([(80, 31000)], "node-1", {"PORT_80": "31000", "HOST_ADDRESS": "node-1"}),
        ([(53, 53, "", "udp")], "", {"PORT_53_UDP": "53"}),
        ([(80, 1, "127.0.0.1")], "n", {"PORT_80": "1", "HOST_ADDRESS": "127.0.0.1"}),
        ([(80, 1, "10.0.0.2"), (80, 2)], "n", {"PORT_80": "2", "HOST_ADDRESS": "n"}),
        ([(80, 1, "10.0.0.2"), (81, 2, "10.0.0.1")], "", {"PORT_80": "1", "PORT_81": "2"}),
        ([(80, 1, "", "x y")], "n", {}),
        ([(80, 1)], "odd host", {"PORT_80": "1"}),
    ],
)
def test_each_port_has_a_name(ports, host, variables):
    """The host is said where there is no doubt about it."""
    assert variables == told(*ports, host=host)
    assert all(published.OURS.fullmatch(name) for name in variables)
