"""What the builds of an agent are told of its published ports.

Pure. Named as Marathon names them: ``PORT_8080`` is where port 8080 of the agent is reached, on
``HOST_ADDRESS``. Refuses to know who tells them, and when.
"""

import re
from collections.abc import Mapping

from backends import api as backends_api

HOST = "HOST_ADDRESS"
OURS = re.compile(rf"PORT_\d{{1,5}}(_[A-Z]{{1,8}})?|{HOST}")
"""Names of all variables that may be told."""
_VALUE = re.compile(r"[\x21-\x7e]{1,253}")
_PROTOCOL = re.compile(r"[a-z]{1,8}")


def variables(instance: backends_api.Instance) -> Mapping[str, str]:
    """Return what the ports of an instance are told as; empty: it has none.

    Of a port with several places that of all addresses counts, or the first. The host is the
    address that all of them are bound to, if it is one, or where the machine is reached.
    """
    told: dict[str, str] = {}
    for one in sorted(instance.ports, key=lambda port: (port.address, port.host_port)):
        kind = "" if one.protocol == "tcp" else f"_{one.protocol.upper()}"
        if one.protocol == "tcp" or _PROTOCOL.fullmatch(one.protocol):
            told.setdefault(f"PORT_{one.port}{kind}", str(one.host_port))
    addresses = {one.address for one in instance.ports}
    host = addresses.pop() if len(addresses) == 1 and "" not in addresses else instance.host
    if told and _VALUE.fullmatch(host):
        told[HOST] = host
    return told
