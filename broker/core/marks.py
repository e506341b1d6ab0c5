"""Owner marks: how anybody can tell, on either side, that a node or an instance is ours.

The node's description and the instance's metadata carry the same facts, so that a broker that
starts with nothing knows every agent again. Pure; knows the wording, refuses to know what follows
from it.
"""

import re
from collections.abc import Mapping

from attrs import frozen

from broker.core import model

_MARK = re.compile(r"\[agent-broker ((?:[a-z]+=[^\s\]]+ ?)+)\]")
_PLACEHOLDER_KIND = "placeholder"


@frozen(kw_only=True)
class Marks:
    """What is written on everything that belongs to one agent."""

    owner: str
    template: model.TemplateName
    backend: model.BackendName
    revision: str
    created_at: float

    def description(self) -> str:
        """Return the node's description, readable for people and for ``from_description``."""
        return (
            "Started and removed by the Jenkins Agent Broker. "
            f"[agent-broker owner={self.owner} template={self.template} backend={self.backend} "
            f"revision={self.revision} created={self.created_at:.0f}]"
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
        }


def from_description(description: str) -> Marks | None:
    """Read the marks of a node; None if it is not a broker's agent."""
    found = _MARK.search(description)
    if found is None:
        return None
    return from_metadata(dict(pair.split("=", 1) for pair in found[1].split()))


def from_metadata(metadata: Mapping[str, str]) -> Marks | None:
    """Read the marks of an instance; None if any is missing."""
    try:
        return Marks(
            owner=metadata["owner"],
            template=model.TemplateName(metadata["template"]),
            backend=model.BackendName(metadata["backend"]),
            revision=metadata["revision"],
            created_at=float(metadata["created"]),
        )
    except (KeyError, ValueError):
        return None


def placeholder_name(owner: str) -> model.NodeName:
    """Return the name of the one never-connected node of an owner."""
    return model.NodeName(f"{owner}-{_PLACEHOLDER_KIND}")


def node_name(owner: str, template: str, suffix: str) -> model.NodeName:
    """Return the name of a new agent; ``suffix`` has never been used before (I5)."""
    return model.NodeName(f"{owner}-{template}-{suffix}")
