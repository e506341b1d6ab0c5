"""Names of images: what is one, at which registry it is, and which of its tags. Pure.

The grammar is that of distribution/reference, which every engine applies: a name that it refuses
is refused when the configuration is read. Refuses to know registries and logins.
"""

import re
from collections.abc import Iterator

from outside import counts, quotes

_LONGEST = 4096
_NAME_LONGEST = 255
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_DOMAIN = re.compile(
    r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9a-fA-F:]+\])(:[0-9]+)?"
)
_PART = re.compile(r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*")
_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")
_ALLOWED = "[REGISTRY[:PORT]/]NAME[:TAG][@DIGEST]"

PUBLIC = "docker.io"
"""The registry of names without one."""


def problem(image: str) -> str | None:
    """Say why a text is no name of an image, or None."""
    return next(_problems(image), None)


def _problems(image: str) -> Iterator[str]:
    shown = quotes.shown(image)
    if len(image) > _LONGEST:
        yield f"the image {shown} has {counts.told(len(image), 'character')}"
        return
    if _ID.fullmatch(image):
        return
    if "://" in image:
        yield f"the image {shown} has a scheme; allowed: {_ALLOWED}"
    name, tag, digest = _parts(image)
    registry, path = _split(name)
    if digest is not None and not _DIGEST.fullmatch(digest):
        yield f"the image {shown} has no digest behind '@'; allowed: sha256:…"
    if tag is not None and not _TAG.fullmatch(tag):
        yield f"the image {shown} has no tag behind ':'; allowed: letters, digits, '_', '.', '-'"
    if registry is not None and not _DOMAIN.fullmatch(registry):
        yield f"the image {shown} is at no registry; allowed: {_ALLOWED}"
    if path != path.lower():
        yield f"the image {shown} has upper case letters; hint: {quotes.shown(path.lower())}"
    if not all(_PART.fullmatch(part) for part in path.split("/")):
        yield f"the image {shown} is not the name of an image; allowed: {_ALLOWED}"
    if len(name) > _NAME_LONGEST:
        yield (
            f"the name of the image {shown} has {counts.told(len(name), 'character')}; "
            "allowed: 255"
        )


def registry_of(image: str) -> str:
    """Return the host of the registry, with its port where one is given."""
    registry, _ = _split(_parts(image)[0])
    return PUBLIC if registry in {None, f"index.{PUBLIC}"} else str(registry)


def to_pull(image: str) -> tuple[str, str]:
    """Return repository, and tag or digest, as the engine's API wants them; no tag is latest."""
    name, tag, digest = _parts(image)
    return name, digest or tag or "latest"


def moves(image: str) -> bool:
    """Tell whether a name may stand for another image tomorrow: one without id and digest."""
    return _ID.fullmatch(image) is None and _parts(image)[2] is None


def with_digest(image: str, digest: str) -> str:
    """Return the image's name with the digest in place of its tag."""
    return f"{_parts(image)[0]}@{digest}"


def _parts(image: str) -> tuple[str, str | None, str | None]:
    """Return name, tag and digest."""
    named, at, digest = image.partition("@")
    name, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:  # that was a port
        name, colon, tag = named, "", ""
    return name, tag if colon else None, digest if at else None


def _split(name: str) -> tuple[str | None, str]:
    """Return the registry, None for the public one, and the rest."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first, rest
    return None, name
