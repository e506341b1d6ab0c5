"""What is remembered between looks."""

import enum
from collections.abc import Mapping

from attrs import Factory, frozen

from broker.core.model.controller import ItemId, KnownLabel, NodeName
from broker.core.model.fleet import Expectation, Memory
from broker.core.model.wanted import BackendName, TemplateName


class Scope(enum.Enum):
    """What a back-off holds back."""

    CONTROLLER = "controller"  # it refuses to make nodes; ``backend`` is empty
    BACKEND = "backend"
    TEMPLATE = "template"


@frozen(kw_only=True)
class BackoffKey:
    """A whole backend, or one template on one backend."""

    scope: Scope
    backend: BackendName
    template: TemplateName | None = None


@frozen(kw_only=True)
class Backoff:
    """Why and until when something is left alone."""

    failures: int
    until_at: float
    reason: str
    slug: str  # metric label: the error's slug
    revision: str = ""  # of the template: a new definition is tried at once


@frozen(kw_only=True)
class Bucket:
    """Launch budget of a backend: a token bucket as a value."""

    tokens: float
    at: float


@frozen(kw_only=True)
class Ledger:
    """All that is remembered between cycles; a fresh one is always a correct start."""

    expectations: Mapping[NodeName, Expectation] = Factory(dict)
    memories: Mapping[NodeName, Memory] = Factory(dict)
    labels: Mapping[ItemId, KnownLabel] = Factory(dict)
    hooks: Mapping[ItemId, str | None] = Factory(dict)  # pushed labels; the hook comes later
    backoffs: Mapping[BackoffKey, Backoff] = Factory(dict)
    buckets: Mapping[BackendName, Bucket] = Factory(dict)
    session: str = ""  # controller session of the last synced read ...
    session_at: float | None = None  # ... and when it was first seen
    waits: Mapping[ItemId, float] = Factory(dict)  # first time seen blocked by a shared cap
    cycle: int = 0
