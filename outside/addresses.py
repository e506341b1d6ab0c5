"""Addresses of machines, as others tell them. Pure; refuses to know what is reached there."""

import ipaddress
from typing import Any

_LAST = 65_535
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- as platforms call all of their own


def plain(told: str) -> str:
    """Return an IP address as it is usually written; "" for what is none."""
    try:
        return str(ipaddress.ip_address(told))
    except ValueError:
        return ""


def port(told: Any) -> int | None:
    """Return the number of a port; None for what is none."""
    is_port = isinstance(told, int) and not isinstance(told, bool) and 0 < told <= _LAST
    return told if is_port else None


def own(address: str) -> str:
    """Return the address that something is bound to; "": all of its machine's."""
    return "" if address in _EVERYWHERE else address
