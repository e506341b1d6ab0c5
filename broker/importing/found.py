"""What was found in a file: clouds as plain trees, whatever the file's format. Values alone."""

from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen


class NotReadable(ValueError):  # noqa: N818 -- what it is
    """The file is in neither format; the words say why."""


@frozen
class Cloud:
    """One cloud: the plugin's word for its kind, and its fields."""

    kind: str
    fields: Mapping[str, Any]


@define(kw_only=True)
class Found:
    """All clouds of a file."""

    clouds: list[Cloud] = field(factory=list)
    url: str = ""  # of the controller, as it says itself
    has_variables: bool = False
    remarks: list[str] = field(factory=list)
