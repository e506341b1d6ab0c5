"""Whose fault it is when a manager refuses: pure, by its words.

A swarm hides what it means behind gRPC: without a leader it answers 404 to a service with network
host, an unknown network is 500, a secret in use 400. So words come before the status.
"""

import re
from collections.abc import Collection

from attrs import frozen

from backends import api
from backends.docker.engine import answers

_PLACE, _TEMPLATE = api.Reach.PLACE, api.Reach.TEMPLATE
_GRPC = re.compile(r"rpc error: code = \w+ desc = ", re.IGNORECASE)


class NoQuorumError(api.Unavailable):
    """The managers cannot agree; it is of the swarm, whoever says it."""


@frozen
class _Row:
    words: str
    kind: type[api.BackendError]
    reach: api.Reach
    meaning: str


_ROWS = (
    _Row(r"does not have a leader|lost leader status|node is not the leader|no elected"
         r"|raft: |quorum", NoQuorumError, _PLACE, "the swarm has no quorum of managers"),
    _Row(r"Manager is being prepared|context deadline|connection is closing|transport is closing"
         r"|connection error", api.Unavailable, _PLACE, "the manager is not ready"),
    _Row(r"update out of sequence", api.Unavailable, api.Reach.LAUNCH,
         "somebody else has changed it meanwhile"),
    _Row(r"needs to be unlocked|swarm is encrypted", api.Unauthorized, _PLACE,
         "the manager is locked; hint: docker swarm unlock there"),
    _Row(r"certificates have expired", api.Unauthorized, _PLACE,
         "its certificates have expired; hint: docker swarm ca there"),
    _Row(r"is not a swarm manager|not part of a swarm|worker nodes can.t be used",
         api.Unauthorized, _PLACE, "no manager of a swarm; hint: `managers` of the backend"),
    _Row(r"network \S{1,80} (not found|cannot be used)|could not find the corresponding .{0,20}"
         r"network|only networks scoped to the swarm", api.Rejected, _TEMPLATE,
         "hint: `networks` of the template"),
    _Row(r"constraint expected", api.Rejected, _TEMPLATE, "hint: `constraints` of the template"),
    _Row(r"secret|config (not found|reference)", api.Rejected, _TEMPLATE, "its secrets"),
    _Row(r"InvalidArgument|invalid", api.Rejected, _TEMPLATE, ""),
)  # fmt: skip
"""What a manager's words mean, whatever the status beside them; the first that fits."""


def refused(
    status: int, words: str, *, named: Collection[str] = (), retry_after: float | None = None
) -> api.BackendError:
    """Map an answer that is no success; ``words`` are clean.

    ``named``: what was asked for, which says nothing of the fault whatever it is called.
    """
    if status in {401, 403}:
        return api.Unauthorized(f"the manager says {status}: {words}", reach=_PLACE)
    told = _GRPC.sub("", words)
    judged = words
    for name in named:
        judged = judged.replace(name, "it")
    for row in _ROWS:
        if re.search(row.words, judged, re.IGNORECASE):
            if not row.meaning or row.meaning.startswith("hint: "):
                hint = f"; {row.meaning}" if row.meaning else ""
                return row.kind(f"the manager refuses: {told}{hint}", reach=row.reach)
            return row.kind(f"{row.meaning}: {told}", reach=row.reach)
    if status == 404:
        return api.NotFound(told)
    if status in {400, 409}:
        return api.Rejected(f"the manager refuses: {told}")
    return answers.refusal(status, words, retry_after=retry_after)


def refused_creation(status: int, words: str, *, named: Collection[str] = ()) -> api.BackendError:
    """Map a refused creation of a service: what is not there is what the template names."""
    error = refused(status, words, named=named)
    if isinstance(error, api.NotFound):
        return api.Rejected(f"the manager refuses: {error.reason}; hint: the template names it")
    return error


def is_gone_elsewhere(error: api.BackendError) -> bool:
    """Tell whether another manager may do what this one does not."""
    return error.reach in {_PLACE, api.Reach.BACKEND} and isinstance(
        error, api.Unavailable | api.Unauthorized
    )
