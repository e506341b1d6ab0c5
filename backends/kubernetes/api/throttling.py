"""Whom the API server asked to wait, and until when.

Why: a refusal with ``Retry-After`` is about one of the server's priority levels (API priority and
fairness), not about us: lists may be too many while leases go through. The level of a request is
known from earlier answers to its like; where the server tells none, each sort of request counts
for itself. Pure; ``now`` is an argument, in seconds of any clock. Refuses to know requests.
"""

from collections.abc import Mapping

_LEVEL = "X-Kubernetes-Pf-Prioritylevel-Uid"

Sort = tuple[str, str]  # verb and resource, as in RBAC


class Throttle:
    """What is remembered of one API server's wishes."""

    def __init__(self) -> None:
        self._levels: dict[Sort, str] = {}
        self._until: dict[str, float] = {}

    def wait_s(self, sort: Sort, *, now: float) -> float:
        """Return for how many seconds such a request is not welcome, 0 if it is."""
        level = self._levels.get(sort)
        return 0.0 if level is None else max(0.0, self._until.get(level, now) - now)

    def learn(
        self, sort: Sort, headers: Mapping[str, str], retry_after: float | None, *, now: float
    ) -> None:
        """Take in an answer; ``retry_after`` in seconds, None for one that asks for nothing."""
        level = headers.get(_LEVEL) or " ".join(sort)
        self._levels[sort] = level
        if retry_after is not None:
            self._until[level] = now + retry_after
