"""The secret with which an agent proves its name to the controller.

Pure. Knows how to take it out of what the controller serves and how to keep it out of ``repr``,
logs and messages; refuses to know who asks for it.
"""

import hashlib
import hmac
import re
from typing import final

from outside import counts

# Always the first argument, since long before 2.263 (recording ``agent/01-jnlp-files``).
_BEGIN, _END = "<argument>", "</argument>"
_SECRET = re.compile(r"[0-9a-f]{64}")  # hex HMAC-SHA256 of the node's name


@final
class Secret:
    """A text that shows itself only to ``reveal``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself, for the place that needs it and nobody else."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(
            self._value.encode(), other._value.encode()
        )

    def __hash__(self) -> int:
        return hash(hashlib.sha256(self._value.encode()).digest())

    def __reduce__(self) -> str:
        msg = "a Secret is not written anywhere"
        raise TypeError(msg)


def from_jnlp(xml: str) -> Secret:
    """Take the secret out of ``slave-agent.jnlp`` (or ``jenkins-agent.jnlp``).

    Raises ``ValueError``, which never quotes the file: it may hold the secret in another place.
    """
    begin = xml.find(_BEGIN)
    end = xml.find(_END, begin)
    if begin < 0 or end < 0:
        raise ValueError("the agent's JNLP file has no <argument>")
    return _checked(
        xml[begin + len(_BEGIN) : end].strip(),
        "the first <argument> of the agent's JNLP file",
    )


def from_text(text: str) -> Secret:
    """Take the secret out of the plain answer of ``agent-secret``; raises ``ValueError``."""
    return _checked(text.strip(), "the answer of agent-secret")


def _checked(found: str, where: str) -> Secret:
    if not _SECRET.fullmatch(found):
        raise ValueError(
            f"{where} is not a secret: {counts.told(len(found), 'character')}, 64 hexadecimal "
            "digits expected"
        )
    return Secret(found)
