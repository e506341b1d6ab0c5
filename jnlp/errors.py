"""What can go wrong between us and a Jenkins controller, as a closed set.

No HTTP library's types here: callers see these classes only. ``slug`` is the metric label,
``fault`` says who has to act, ``text`` quotes the controller (256 characters at most).
"""

from typing import ClassVar

from outside import text as outside_text


class JenkinsError(Exception):
    """Base of the set."""

    slug: ClassVar[str] = "unexpected"
    fault: ClassVar[str] = "controller"

    def __init__(
        self, text: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        """``retry_after`` in seconds; of ``text`` whatever is not fit for people is taken out."""
        self.text = outside_text.clean(text)
        super().__init__(self.text)
        self.status = status
        self.retry_after = retry_after


class Unreachable(JenkinsError):
    """No answer, or not in time: refused, reset, time-out, cut off, TLS."""

    slug = "unreachable"


class Starting(JenkinsError):
    """The controller answers 503 while it starts or a proxy stands before it."""

    slug = "starting"


class Unauthorized(JenkinsError):
    """401: user or token are wrong."""

    slug = "unauthorized"
    fault = "operator"


class Forbidden(JenkinsError):
    """403: a permission is missing (``permission``, from X-Required-Permission or the text)."""

    slug = "forbidden"
    fault = "operator"

    def __init__(
        self,
        text: str,
        *,
        status: int | None = 403,
        retry_after: float | None = None,
        permission: str = "",
    ) -> None:
        """``permission`` as the controller names it, for example ``Agent/Create``."""
        super().__init__(text, status=status, retry_after=retry_after)
        self.permission = permission


class NotFound(JenkinsError):
    """404: no such node or item."""

    slug = "not-found"
    fault = "nobody"


class NodeExists(JenkinsError):
    """400 with "already exists": the name is taken."""

    slug = "node-exists"
    fault = "nobody"


class BadRequest(JenkinsError):
    """The controller refuses what we sent (400, 500 for JSON it cannot bind)."""

    slug = "bad-request"
    fault = "us"


class Unexpected(JenkinsError):
    """Anything else: a redirect to a login page, HTML for JSON, a 5xx."""

    slug = "unexpected"
