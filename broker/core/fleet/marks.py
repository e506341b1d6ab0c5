"""Owner marks: how anybody can tell, on either side, that a node or an instance is ours.

The node's description and the instance's metadata carry the same facts, so that a broker that
starts with nothing knows every agent again. Pure; knows the wording, refuses to know what follows
from it.
"""

import functools
import math
import re
from collections.abc import Mapping

from attrs import frozen

from broker.core import model

_BEGIN, _END = "[agent-broker ", "]"
_MARK_LENGTH = 512  # from its beginning to its end
_LOOKED_AT = 4096  # characters of a description, whose writer may be anybody
_VALUE_LENGTH = 128
_LATEST = 253402300799.0  # end of the year 9999
_KEYS = ("owner", "template", "backend", "revision", "created")
_SLOT = re.compile(r"[0-9]{1,6}")
_KEPT = 8192  # marks that are not read again at every look
_PLACEHOLDER_KIND, _QUESTION_KIND = "placeholder", "claim"
SINGLE_USE = " use=once"
"""At the end of the marks of a node; the hook's script has it as well."""
TRIED = model.TemplateName("doctor.try")
"""The template of an agent that a person has tried; none can be configured that is called so."""
_QUESTION = re.compile(r"[0-9a-f]{12}")


@frozen(kw_only=True)
class Marks:
    """What is written on everything that belongs to one agent."""

    owner: str
    template: model.TemplateName
    backend: model.BackendName
    revision: str
    created_at: float
    slot: int | None = None  # of the template, which nobody else has while it lives

    def description(self, *, single_use: bool = False) -> str:
        """Return the node's description, readable for people and for ``from_description``.

        ``single_use``: the push hook reads it in the queue's lock, and closes the agent then.
        """
        use = SINGLE_USE if single_use else ""
        return (
            "Started and removed by the Jenkins Agent Broker. "
            f"[agent-broker owner={self.owner} template={self.template} backend={self.backend} "
            f"revision={self.revision} created={self.created_at:.0f}"
            f"{'' if self.slot is None else f' slot={self.slot}'}{use}]"
        )

    def metadata(self, name: str) -> dict[str, str]:
        """Return the instance's metadata, read back by ``from_metadata``."""
        return {
            "owner": self.owner,
            "template": self.template,
            "backend": self.backend,
            "revision": self.revision,
            "node": name,
            "created": f"{self.created_at:.0f}",
            **({} if self.slot is None else {"slot": str(self.slot)}),
        }


def from_description(description: str) -> Marks | None:
    """Read the marks of a node; None if it is not a broker's agent.

    Takes no longer the longer a text is: whoever may describe a node could stop the loop.
    """
    text = description[:_LOOKED_AT]
    at = text.find(_BEGIN)
    while at >= 0:
        begin = at + len(_BEGIN)
        end = text.find(_END, begin, begin + _MARK_LENGTH)
        if end >= 0:
            marks = _from_words(text[begin:end])
            if marks is not None:
                return marks
        at = text.find(_BEGIN, begin)
    return None


def from_metadata(metadata: Mapping[str, str]) -> Marks | None:
    """Read the marks of an instance; None if any is missing, or cannot be ours."""
    values = [metadata.get(key, "") for key in _KEYS]
    if not all(values) or max(map(len, values)) > _VALUE_LENGTH:
        return None
    return _from_values(*values, metadata.get("slot", ""))


@functools.lru_cache(maxsize=_KEPT)
def _from_words(text: str) -> Marks | None:
    """Read what stands between the brackets: at most ``_MARK_LENGTH`` characters."""
    pairs = (pair.partition("=") for pair in text.split(" "))
    return from_metadata({key: value for key, _, value in pairs})


@functools.lru_cache(maxsize=_KEPT)
def _from_values(
    owner: str, template: str, backend: str, revision: str, created: str, slot: str
) -> Marks | None:
    created_at = _moment(created)
    if created_at is None:
        return None
    return Marks(
        owner=owner,
        template=model.TemplateName(template),
        backend=model.BackendName(backend),
        revision=revision,
        created_at=created_at,
        slot=int(slot) if _SLOT.fullmatch(slot) else None,
    )


def _moment(text: str) -> float | None:
    """Return POSIX seconds; None for what is no time since 1970."""
    try:
        at = float(text[:32])
    except ValueError:
        return None
    return at if math.isfinite(at) and 0.0 <= at <= _LATEST else None


def placeholder_name(owner: str) -> model.NodeName:
    """Return the name of the one never-connected node of an owner."""
    return model.NodeName(f"{owner}-{_PLACEHOLDER_KIND}")


def question_name(owner: str, question: str) -> model.NodeName:
    """Return the name of a node by which a broker asks whether another one of its owner lives."""
    return model.NodeName(f"{owner}-{_QUESTION_KIND}-{question}")


def question_of(owner: str, name: str) -> str | None:
    """Return which question a node is; None if it is none. An agent's suffix is shorter."""
    begin = f"{owner}-{_QUESTION_KIND}-"
    question = name.removeprefix(begin)
    is_one = name.startswith(begin) and _QUESTION.fullmatch(question) is not None
    return question if is_one else None


def node_name(owner: str, template: str, suffix: str) -> model.NodeName:
    """Return the name of a new agent; ``suffix`` has never been used before (I5)."""
    return model.NodeName(f"{owner}-{template}-{suffix}")
