"""What a kind's settings say about themselves once they are read: doors left open, and worse.

A settings class, or a template's settings class, may have a method ``remarks``; where a mistake
needs one value only, its declaration (``setting``) is the place. ``check-config`` prints warnings,
the broker logs them at its start; what is ``wrong`` refuses the configuration. Pure. Refuses to
know any platform, and what is done about a remark.

    class EngineSettings:
        def remarks(self) -> Iterator[remarks.Remark]: ...
    class EngineTemplate:
        def remarks(self, common: remarks.Common) -> Iterator[remarks.Remark]: ...
        def shares(self, common: remarks.Common) -> Iterator[sharing.Shared]: ...

``shares`` names the places outside an agent in which its builds would work (``sharing.find``).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, frozen

from backends import api
from backends.kit import workspaces


@frozen(kw_only=True)
class Remark:
    """One thing that a person should know, or must change.

    ``path`` leads from the section of the settings to the value, in the words of the file
    (``("hosts", 0, "url")``); ``common``: from the template, of what it says to all kinds.
    ``text`` never quotes a secret.
    """

    text: str
    path: tuple[str | int, ...] = ()
    common: bool = False
    hint: str = ""
    wrong: bool = False


@frozen(kw_only=True)
class Common:
    """What a template says to all kinds, as far as a kind's own settings are judged by it."""

    settings: Any  # of the backend that the template is for
    name: str = ""  # of the template
    remote_fs: str | None = None  # None: the backend's own
    pipelines: api.DockerPipelines | None = None  # an engine for the builds
    image: str | None = None
    asks_image: bool = False  # builds may ask for one of their own
    injects: bool = False  # Java is brought into the image
    inherits: tuple[str, ...] = ()  # parts of the backend's settings that a build asks for
    environment: Mapping[str, str] = Factory(dict)
    # variables that are the broker's to give: what to set instead
    reserved: Mapping[str, str] = Factory(dict)
    alone: bool = False  # there is never more than one agent of it: its cap is 1
    sole: bool = False  # every backend of the template is of this kind


def of_settings(settings: Any) -> Iterable[Remark]:
    """Return what a backend's settings say about themselves."""
    found: Iterable[Remark] = settings.remarks() if hasattr(settings, "remarks") else ()
    return found


def of_template(options: Any, common: Common) -> Iterable[Remark]:
    """Return what a template's settings for a kind say about themselves."""
    found: Iterable[Remark] = options.remarks(common) if hasattr(options, "remarks") else ()
    return found


def shares(options: Any, common: Common) -> Iterable[workspaces.Shared]:
    """Return where agents of a template would work together."""
    found: Iterable[workspaces.Shared] = (
        options.shares(common) if hasattr(options, "shares") else ()
    )
    return found
