"""What the loop had before it when it failed, kept as a file that can be replayed.

A bug, a change of phase that is not in the table, an order beyond what was wanted: each leaves the
last of its kind in the state directory (``failure-KIND.jsonl``, in the format of ``recording``),
at most one a minute. ``plan --world`` reads it, on any machine. Refuses to fail: what cannot be
written is logged.
"""

import enum
import logging
from collections.abc import Callable, Sequence

from attrs import define, field

from broker.core import model
from broker.core.fleet import ledger as ledgers
from outside import text as texts

_LOG = logging.getLogger("broker.black_box")
_PAUSE_S = 60.0
_LIMIT_BYTES = 8 << 20


class Breakdown(enum.Enum):
    """What has gone wrong with us."""

    BUG = "bug"
    PHASE = "phase"
    OVERSHOOT = "overshoot"


@define(kw_only=True)
class BlackBox:
    """Keeps the last failure of each kind."""

    save: Callable[[str, str], None]  # a key and its text, durably; raises OSError
    _kept_at: dict[Breakdown, float] = field(factory=dict)

    def keep(
        self,
        failure: Breakdown,
        text: str,
        world: model.World,
        policy: model.Policy,
        outcomes: Sequence[ledgers.Outcome] = (),
    ) -> None:
        """Write down the world that a turn was given, and how the last orders ended."""
        before = self._kept_at.get(failure)
        if before is not None and world.now < before + _PAUSE_S:
            return
        self._kept_at[failure] = world.now
        try:
            self.save(f"failure-{failure.value}.jsonl", _told(text, world, policy, outcomes))
        except Exception as error:  # noqa: BLE001 -- it is for people; the loop goes on
            _LOG.warning("failure not kept", extra={"reason": repr(error)[:256]})
        else:
            _LOG.warning("failure kept", extra={"file": f"failure-{failure.value}.jsonl"})


def _told(
    text: str,
    world: model.World,
    policy: model.Policy,
    outcomes: Sequence[ledgers.Outcome],
) -> str:
    from broker import recording  # noqa: PLC0415 -- only a failure pays for it

    lines: list[str] = []
    writer = recording.Writer(lines.append, limit_bytes=_LIMIT_BYTES)
    writer.begin(at=world.now)
    writer.add(recording.Note(at=world.now, text=texts.clean(text, 500)))
    writer.add(recording.RecordedWorld(at=world.now, world=world, policy=policy))
    for outcome in reversed(outcomes):  # the newest are not what is left out
        writer.add(recording.RecordedOutcome(at=outcome.at, outcome=outcome))
    return "".join(lines)
