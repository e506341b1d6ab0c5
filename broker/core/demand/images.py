"""Names of images, and the patterns of those that builds may ask for.

``[HOST/]PATH[:TAG][@DIGEST]``. A pattern is taken apart in the same way, and each part stands for
that part alone (``globs``), so that no wildcard lets in what it was not written for:

* A host is meant only where the pattern's first part looks like one, as engines see it (a dot, a
  port, an upper-case letter, ``localhost``), or where the pattern begins with ``**``:
  ``team*/app`` is never ``team.evil.example/app``.
* A digest needs a pattern of a digest: ``golang:*`` is no ``golang:1@sha256:...``, which would be
  whatever has that digest, however old. A path that ends in a wildcard and says no tag stands for
  every tag and digest.
* What an engine takes for the ID of an image, which may be of any registry, is no name of one; a
  short one is none with a tag (``tagged``).

Pure; refuses to know registries, and which one a name without a host means.
"""

import re
from collections.abc import Iterable

from attrs import frozen

from broker.core.demand import globs

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"{_NAME}(?:\.{_NAME})*(?::[0-9]{{1,5}})?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-f]{32,128}"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::{_TAG})?(?:@{_DIGEST})?")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_TAG_ALONE = re.compile(_TAG)
_LATEST = ":latest"
MOST = 255
"""Characters of an image's name that may be asked for."""


@frozen
class _Name:
    """An image, or a pattern of images, taken apart; empty where a part is not there."""

    host: str
    path: str
    tag: str
    digest: str


def is_image(text: str) -> bool:
    """Return whether a text is the name of an image, as engines and registries take it."""
    is_name = len(text) <= MOST and _IMAGE.fullmatch(text) is not None
    return is_name and _ID.fullmatch(text.removesuffix(_LATEST)) is None


def tagged(image: str) -> str:
    """Return a name with the tag that it has without one, so that nobody takes it for an ID."""
    name = _apart(image)
    return image if name.tag or name.digest else image + _LATEST


def is_tag(text: str) -> bool:
    """Return whether a text can be the tag of an image, or a part of one."""
    return _TAG_ALONE.fullmatch(text) is not None


def is_allowed(patterns: Iterable[str], image: str) -> bool:
    """Return whether one of several patterns stands for an image."""
    if not is_image(image):
        return False
    name = _apart(image)
    return any(_stands_for(_apart(pattern), name) for pattern in patterns)


def example(pattern: str) -> str | None:
    """Return an image that a pattern stands for; None if no image has such a name."""
    name, at, digest = pattern.partition("@")
    digests = ("1" * 64, f"sha256:{'1' * 64}") if at else ("",)
    filled = (globs.filled(name, "1") + at + globs.filled(digest, one) for one in digests)
    return next((image for image in filled if is_allowed((pattern,), image)), None)


def form(image: str) -> tuple[bool, bool, bool]:
    """Return which parts the name of an image has: a host, a tag, a digest."""
    name = _apart(image)
    return bool(name.host), bool(name.tag), bool(name.digest)


def _apart(text: str) -> _Name:
    rest, _, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    first, more, path = f"{head}{slash}{last}".partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if more and is_host:
        return _Name(first, path, tag, digest)
    return _Name("", f"{head}{slash}{last}", tag, digest)


def _stands_for(pattern: _Name, image: _Name) -> bool:
    path = image.path
    if pattern.path.startswith("**") and not pattern.host:
        path = f"{image.host}/{path}" if image.host else path
    elif bool(pattern.host) != bool(image.host) or not globs.matches(pattern.host, image.host):
        return False
    if not globs.matches(pattern.path, path):
        return False
    if pattern.path.endswith("*") and not pattern.tag and not pattern.digest:
        return True
    return _fits(pattern.tag, image.tag) and _fits(pattern.digest, image.digest)


def _fits(pattern: str, part: str) -> bool:
    return bool(pattern) == bool(part) and globs.matches(pattern, part)
