"""Validators that the settings of every backend share; ValueError names what is allowed.

Pure. Refuses to know any platform.
"""

from typing import Any

from attrs import Attribute


def between(low: float, high: float) -> Any:
    """Return a validator: a number between ``low`` and ``high``, or None where that is a value."""

    def check(_: object, attribute: "Attribute[Any]", value: float | None) -> None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"{attribute.name}: {value} is not between {low:g} and {high:g}")

    return check


def absolute(_: object, attribute: "Attribute[Any]", value: str | None) -> None:
    """Refuse a path that does not begin with a slash; None is left alone."""
    if value is not None and not value.startswith("/"):
        raise ValueError(
            f"{attribute.name}: {value!r} is not an absolute path; hint: begin it with '/'"
        )
