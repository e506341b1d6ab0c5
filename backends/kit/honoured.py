"""What a kind leaves unheard of the settings that a template has for every kind, and why.

Why: a limit that nothing keeps is worse than none, because somebody relies on it. A kind says so
once, beside its settings: from there `check-config` tells it, and the manual's table has it. Pure.
Refuses to know any platform.
"""

from collections.abc import Callable, Collection
from typing import Any

from attrs import frozen


@frozen(kw_only=True)
class Circumstances:
    """What of a template and its backend decides whether a setting is heard."""

    settings: Any = None  # of the backend; None: its kind's defaults
    options: Any = None  # the template's for the kind; None: its kind's defaults
    injects: bool = False  # Java is brought into the image
    told: Collection[str] = ()  # settings that the template gives


def _never(_: Circumstances) -> bool:
    return False


@frozen(kw_only=True)
class Unheard:
    """One setting, as the file has it (``resources.cpu_limit``), that a kind does not honour.

    ``heard``: whether it does all the same; ``unless`` says in words when. ``refused``: a template
    that is for this kind alone cannot have it.
    """

    setting: str
    why: str
    unless: str = ""
    heard: Callable[[Circumstances], bool] = _never
    hint: str = "leave it out, or choose other backends for this template"
    refused: bool = False


BY_IMAGE = (
    Unheard(
        setting="java",
        why="the image starts its agent, with its own Java",
        hint="leave it out; JAVA_HOME in `environment`, if the image goes by it",
    ),
    Unheard(
        setting="reconnect_for",
        why="the image starts its agent, and older ones know no such option",
        unless="with `inject`",
        heard=lambda one: one.injects,
        hint="leave it out: such an agent tries for as long as its container is there",
    ),
)
"""Of kinds whose agents are started by the entry points of their images."""
