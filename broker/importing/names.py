"""Names of ours for what is called as it likes elsewhere. Pure."""

import re
from collections.abc import Collection

_LONGEST = 36
"""Of a template: agents are called OWNER-TEMPLATE-ID, 63 characters at most."""


def fit(text: str, taken: Collection[str], default: str) -> str:
    """Return a name like a text that none of the taken ones is."""
    plain = re.sub(r"\^?\$\{[^}]*\}?", "", text)
    plain = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:_LONGEST].strip("-") or default
    name, number = plain, 2
    while name in taken:
        name = f"{plain[: _LONGEST - 4].strip('-')}-{number}"
        number += 1
    return name
