"""What an API server's refusals mean, and whose fault they are.

Pure; made from recorded answers. Kubernetes answers 403 ``Forbidden`` for six different things
(missing rights, quota, limit ranges, Pod Security, a namespace that goes away, a missing service
account or priority class), and only the words tell them apart. The words are cut, cleaned and
freed of secrets before anything else. Refuses to know who asked and why.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from backends import api
from outside import secrets, text, typed

_WORDS = 1024  # characters of the server's words that are looked at
_WHOLE = 1 << 17  # more than the part of a refusal that is read
_QUOTA = re.compile(r"exceeded quota: ([^,]{1,253}), (requested: .*)")
_RIGHTS = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\S+) resource "(?P<what>[^"]+)" in API group '
    r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_PODS = re.compile(r"requested: (count/)?pods=")
_WEBHOOK = re.compile(r"failed calling webhook|failed to call webhook")
_LONG_S = 120.0
_SECONDS = re.compile(r"[0-9]{1,9}")

# Finer than the contract's errors and only for this package: ``contract`` takes them back.


class Expired(api.Unavailable):
    """The resource version is too old: list again."""


class NoRight(api.Unauthorized):
    """A right is missing (RBAC)."""


class Lost(api.Unavailable):
    """The connection broke or stood still; what was asked may have been done."""


class Outdated(api.Unavailable):
    """What was to be replaced has changed since it was read."""


class OddAnswer(api.Unavailable):
    """Something that the server sends is not what it ought to be."""


class Large(api.Unavailable):
    """An answer is larger than any honest one, or cannot be unpacked."""


@frozen(kw_only=True)
class ErrorAnswer:
    """A refusal as it came: status, headers, body (text when it is not JSON)."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = Factory(dict)

    @property
    def message(self) -> str:
        """The server's words, fit to be shown."""
        return text.clean(self.words, _WORDS)

    @property
    def words(self) -> str:
        """The server's words as they came: may hold what we sent."""
        if isinstance(self.body, Mapping):
            said = typed.words(self.body.get("message"), _WHOLE)
            return said or typed.words(self.body.get("reason"), _WHOLE)
        return typed.words(self.body, _WHOLE).strip()

    @property
    def reason(self) -> str:
        """The server's word for machines, such as ``AlreadyExists``."""
        return typed.words(self.body.get("reason"), 64) if isinstance(self.body, Mapping) else ""

    @property
    def details(self) -> Mapping[str, Any]:
        """What the server says about the object."""
        details = self.body.get("details") if isinstance(self.body, Mapping) else None
        return details if isinstance(details, Mapping) else {}

    @property
    def retry_after(self) -> float | None:
        """Seconds until the server wants to be asked again."""
        told = self.headers.get("Retry-After") or self.details.get("retryAfterSeconds")
        if isinstance(told, str):
            told = int(told) if _SECONDS.fullmatch(told) else None
        return typed.number(told, 0.0, _LONG_S)


def mapped(
    verb: str, what: str, answer: ErrorAnswer, *, hide: Iterable[str] = ()
) -> api.BackendError:
    """Return the contract's error for a refusal of ``verb`` (as in RBAC) on ``what`` (``pods``).

    ``hide``: secrets that are not registered, blanked out of the server's words.
    """
    words = text.clean(secrets.without(answer.words, *hide), _WORDS)
    status, again_s = answer.status, answer.retry_after
    match status:
        case 401:
            error: api.BackendError = api.Unauthorized(
                f"the API server does not accept our credentials: {words}"
            )
        case 403:
            error = _forbidden(verb, what, answer, words)
        case 404:
            error = _not_found(answer, words)
        case 409:
            error = _conflict(verb, answer, words)
        case 410:
            error = Expired(words)
        case 429:
            error = api.Unavailable(f"the API server is busy: {words}", retry_after=again_s)
        case _ if status < 400:
            error = api.Unavailable(f"the API server redirects ({status}); hint: correct `server`")
        case _ if status < 500:
            error = api.Rejected(f"cannot {verb} {what}: {words or status}")
        case _:
            # a webhook is asked about some pods; which, only its configuration tells
            asked = verb == "create" and _WEBHOOK.search(words) is not None
            error = api.Unavailable(
                f"the API server fails ({status}): {words}",
                retry_after=again_s,
                reach=api.Reach.TEMPLATE if asked else api.Reach.BACKEND,
            )
    return error


def _forbidden(verb: str, what: str, answer: ErrorAnswer, words: str) -> api.BackendError:
    rights = _RIGHTS.search(words)
    if rights is not None:
        where = f" in namespace {rights['namespace']}" if rights["namespace"] else ""
        return NoRight(
            f"{rights['user']} is not allowed to {rights['verb']} {rights['what']}{where}; "
            "hint: the rights in docs/backends/kubernetes.md"
        )
    quota = _QUOTA.search(words)
    if quota is not None:
        # one more pod is as much for any template; memory and cores are not
        everybody = _PODS.match(quota[2]) is not None
        return api.NoCapacity(
            f"quota {quota[1]} is used up: {quota[2]}",
            reach=api.Reach.BACKEND if everybody else api.Reach.TEMPLATE,
        )
    causes = answer.details.get("causes")
    listed = causes if isinstance(causes, list) else []
    kinds = [c.get("reason") for c in listed if isinstance(c, Mapping)]
    if "NamespaceTerminating" in kinds:
        return api.Unauthorized(words)
    if verb == "create":  # admission: Pod Security, limit ranges, what the pod refers to
        return api.Rejected(words)
    return api.Unauthorized(f"not allowed to {verb} {what}: {words}")


def _not_found(answer: ErrorAnswer, words: str) -> api.BackendError:
    if answer.details.get("kind") == "namespaces":
        return api.Unauthorized(f"{words}; hint: create it, or correct `namespace`")
    return api.NotFound(words)


def _conflict(verb: str, answer: ErrorAnswer, words: str) -> api.BackendError:
    if answer.reason == "AlreadyExists":
        return api.AlreadyExists(words)
    if verb == "delete":  # a precondition: what we meant is gone, another has its name
        return api.NotFound(words)
    if verb in {"update", "patch"}:
        return Outdated(words)
    # two writers met, such as two pods under one quota: the next try finds what is there now
    return api.Unavailable(words, reach=api.Reach.LAUNCH)


@contextlib.contextmanager
def contract() -> Iterator[None]:
    """Let only the contract's own classes out."""
    try:
        yield
    except (Expired, Lost, Outdated, OddAnswer, Large) as error:
        raise _as(api.Unavailable, error) from error
    except NoRight as error:
        raise _as(api.Unauthorized, error) from error


def _as(kind: type[api.BackendError], error: api.BackendError) -> api.BackendError:
    made = kind(error.reason, retry_after=error.retry_after, reach=error.reach, place=error.place)
    made.nothing_left = error.nothing_left
    return made
