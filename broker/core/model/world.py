"""One observation, frozen."""

from collections.abc import Mapping

from attrs import Factory, frozen

from broker.core.model.controller import ControllerView
from broker.core.model.fleet import BackendView
from broker.core.model.ledger import Ledger
from broker.core.model.wanted import BackendName


@frozen(kw_only=True)
class World:
    """One observation, frozen."""

    now: float
    controller: ControllerView
    backends: Mapping[BackendName, BackendView]
    ledger: Ledger = Factory(Ledger)
    fresh_ids: tuple[str, ...] = ()  # unused random suffixes for new names
    jitter: float = 0.0  # 0 to 1, rolled by the shell: spreads what is retried
