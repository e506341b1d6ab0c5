"""Ports of an agent that are reached from outside: how a template writes them.

Pure. ``[ADDRESS:][HOST:]PORT[/PROTOCOL]`` as ``docker run --publish`` has it, with ranges
``FIRST-LAST``. Refuses to know any platform, and which port is free: whoever binds it knows.

    8080                   any free port of the host
    18080:8080             this one; an agent beside it cannot have it, too
    8000-8010:8080         the first free one of these
    9000-9003              four ports, each at any free port
    19000-19003:9000-9003  four ports, one by one
    127.0.0.1::8080        any free port, of this address only; IPv6 in brackets: [::1]::8080
"""

import ipaddress
import re
from collections.abc import Iterator

from attrs import frozen

from outside import quotes

_NUMBERS = r"\d{1,5}(?:-\d{1,5})?"
PATTERN = re.compile(
    r"(?:(?P<address>\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\]):"
    rf"(?P<own>(?:{_NUMBERS})?):|(?P<host>(?:{_NUMBERS})?):)?"
    rf"(?P<inside>{_NUMBERS})(?:/(?P<protocol>tcp|udp|sctp))?"
)
WORDS = (
    "PORT, HOST_PORT:PORT or ADDRESS:[HOST_PORT]:PORT, each PORT also as FIRST-LAST, with /tcp "
    "or /udp"
)
_LAST = 65_535
_MOST = 256
"""Of one entry: each is a rule, and often a process, of the host for each agent."""


@frozen(kw_only=True)
class Binding:
    """One port of the container, and where it may be bound on the host."""

    port: int
    protocol: str = "tcp"
    address: str = ""  # of the host, without brackets; "": all of them
    first: int | None = None  # of the ports that may be taken; None: any free one
    last: int | None = None  # the same as ``first``: that one only

    @property
    def is_fixed(self) -> bool:
        """Whether only one agent of a host can have it."""
        return self.first is not None and self.first == self.last


def read(text: str) -> tuple[Binding, ...]:
    """Return what an entry publishes. Raises ValueError, in the words of a setting."""
    parts = PATTERN.fullmatch(text)
    if parts is None:
        raise ValueError(f"ports: found {quotes.shown(text)}; allowed: {WORDS}")
    inside = _range(text, parts["inside"])
    told = parts["own"] or parts["host"]
    outside = _range(text, told) if told else None
    address = (parts["address"] or "").strip("[]")
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(f"ports: found {quotes.shown(text)}: no such address") from None
    if outside is not None and len(inside) > 1 and len(outside) != len(inside):
        raise ValueError(
            f"ports: found {quotes.shown(text)}; allowed: as many ports of the host as inside"
        )
    paired = outside is not None and len(inside) == len(outside)
    return tuple(
        Binding(
            port=port,
            protocol=parts["protocol"] or "tcp",
            address=address,
            first=None if outside is None else outside[number if paired else 0],
            last=None if outside is None else outside[number if paired else -1],
        )
        for number, port in enumerate(inside)
    )


def clash(entries: tuple[str, ...]) -> str:
    """Return the first entry that wants a port of the host that another one has; "": none does."""
    taken: list[Binding] = []
    for text in entries:
        for one in read(text):
            if one.is_fixed and any(_clashes(one, other) for other in taken):
                return text
            taken += [one] if one.is_fixed else []
    return ""


def _clashes(one: Binding, other: Binding) -> bool:
    return (one.first, one.protocol) == (other.first, other.protocol) and (
        one.address == other.address or "" in {one.address, other.address}
    )


def bindings(entries: tuple[str, ...]) -> Iterator[Binding]:
    """Yield what all entries of a template publish. Raises ValueError."""
    for text in entries:
        yield from read(text)


def _range(text: str, told: str) -> range:
    first, _, last = told.partition("-")
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= _LAST:
        raise ValueError(f"ports: found {quotes.shown(text)}; allowed: ports from 1 to {_LAST}")
    if high - low >= _MOST:
        raise ValueError(f"ports: found {quotes.shown(text)}; allowed: {_MOST} ports at most")
    return range(low, high + 1)
