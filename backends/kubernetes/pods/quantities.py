"""Amounts as Kubernetes writes them, such as 500m, 2Gi or 1203n. Pure."""

import re
from typing import Any

_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3} | {
    f"{prefix}{suffix}": float(base ** (power + 1))
    for suffix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("KMGTPE")
}


def amount(told: Any) -> float | None:
    """Return what a quantity means; None for what is none, or is negative."""
    match = _QUANTITY.fullmatch(told) if isinstance(told, str) else None
    if match is None:
        return None
    return float(match[1]) * _UNITS[match[2] or ""]
