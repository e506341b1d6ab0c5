"""Phases of an agent: one table from what is seen to where it is, one of legal changes.

Rules: the phase is derived from facts in every cycle, never stored and never advanced. Whatever
affects a phase is in these tables. An online computer outranks a missing instance (two
witnesses). This module refuses to know numbers: deadlines come in as ``overdue``.

Theory of operation: every prefix of a launch (node, then instance) and of a retirement (cordon,
delete the node, terminate the instance) is one cell below, so a crash at any point needs no code.
"""

import enum
import re
from collections.abc import Mapping
from typing import assert_never

from backends import api as backends_api
from broker.core import model
from broker.core.model import Phase


class InstanceSight(enum.Enum):
    """What the backend shows of a name."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"

    __hash__ = object.__hash__  # as of ``Phase``


class ComputerSight(enum.Enum):
    """What the controller shows of a name."""

    ABSENT = "absent"
    OFFLINE = "offline"
    CORDONED = "cordoned"  # out of service by us, nothing runs
    CHECKED = "checked"  # out of service by us until a check has passed, nothing runs
    HELD = "held"  # out of service by somebody else, nothing runs
    IDLE = "idle"
    BUSY = "busy"
    UNKNOWN = "unknown"

    __hash__ = object.__hash__  # as of ``Phase``


_I = InstanceSight
_C = ComputerSight

TABLE: Mapping[tuple[InstanceSight, ComputerSight], Phase] = {
    (_I.ABSENT, _C.ABSENT): Phase.GONE,
    (_I.ABSENT, _C.OFFLINE): Phase.LOST,
    (_I.ABSENT, _C.CORDONED): Phase.DRAINED,
    (_I.ABSENT, _C.CHECKED): Phase.LOST,
    (_I.ABSENT, _C.HELD): Phase.LOST,
    (_I.ABSENT, _C.IDLE): Phase.IDLE,
    (_I.ABSENT, _C.BUSY): Phase.BUSY,
    (_I.ABSENT, _C.UNKNOWN): Phase.UNKNOWN,
    (_I.STARTING, _C.ABSENT): Phase.ORPHAN,
    (_I.STARTING, _C.OFFLINE): Phase.CONNECTING,
    (_I.STARTING, _C.CORDONED): Phase.DRAINED,
    (_I.STARTING, _C.CHECKED): Phase.CHECKING,
    (_I.STARTING, _C.HELD): Phase.HELD,
    (_I.STARTING, _C.IDLE): Phase.IDLE,
    (_I.STARTING, _C.BUSY): Phase.BUSY,
    (_I.STARTING, _C.UNKNOWN): Phase.UNKNOWN,
    (_I.RUNNING, _C.ABSENT): Phase.ORPHAN,
    (_I.RUNNING, _C.OFFLINE): Phase.CONNECTING,
    (_I.RUNNING, _C.CORDONED): Phase.DRAINED,
    (_I.RUNNING, _C.CHECKED): Phase.CHECKING,
    (_I.RUNNING, _C.HELD): Phase.HELD,
    (_I.RUNNING, _C.IDLE): Phase.IDLE,
    (_I.RUNNING, _C.BUSY): Phase.BUSY,
    (_I.RUNNING, _C.UNKNOWN): Phase.UNKNOWN,
    (_I.ENDED, _C.ABSENT): Phase.GONE,
    (_I.ENDED, _C.OFFLINE): Phase.LOST,
    (_I.ENDED, _C.CORDONED): Phase.DRAINED,
    (_I.ENDED, _C.CHECKED): Phase.LOST,
    (_I.ENDED, _C.HELD): Phase.LOST,
    (_I.ENDED, _C.IDLE): Phase.IDLE,
    (_I.ENDED, _C.BUSY): Phase.BUSY,
    (_I.ENDED, _C.UNKNOWN): Phase.UNKNOWN,
    (_I.UNKNOWN, _C.ABSENT): Phase.UNKNOWN,
    (_I.UNKNOWN, _C.OFFLINE): Phase.UNKNOWN,
    (_I.UNKNOWN, _C.CORDONED): Phase.UNKNOWN,
    (_I.UNKNOWN, _C.CHECKED): Phase.UNKNOWN,
    (_I.UNKNOWN, _C.HELD): Phase.HELD,
    (_I.UNKNOWN, _C.IDLE): Phase.IDLE,
    (_I.UNKNOWN, _C.BUSY): Phase.BUSY,
    (_I.UNKNOWN, _C.UNKNOWN): Phase.UNKNOWN,
}

_ANY = frozenset(Phase)

LEGAL: Mapping[Phase | None, frozenset[Phase]] = {
    None: _ANY,  # first sighting, also after a restart of ours
    Phase.LAUNCHING: _ANY,
    # what others remove while its start is still under way, as one whose answer hangs, is
    # launching once more, wherever it was by then
    Phase.CONNECTING: _ANY,
    Phase.CHECKING: _ANY,
    Phase.IDLE: _ANY,
    Phase.BUSY: _ANY,
    Phase.DRAINED: _ANY,
    Phase.HELD: _ANY,
    Phase.LOST: _ANY,
    # its start is over; its node may come to light again after an old answer of the controller
    Phase.ORPHAN: _ANY - {Phase.LAUNCHING},
    Phase.UNKNOWN: _ANY,
    # a name is never used again (I5); an instance that has ended may go before its start is over
    Phase.GONE: frozenset({Phase.GONE, Phase.UNKNOWN, Phase.LAUNCHING}),
}


def is_legal(old: Phase | None, new: Phase) -> bool:
    """Return whether an agent may be seen in ``new`` after it was seen in ``old``."""
    return new in LEGAL[old]


def see_instance(instance: backends_api.Instance | None, *, synced: bool) -> InstanceSight:
    """Name what a backend shows; a source that is not synced shows nothing."""
    if not synced:
        return InstanceSight.UNKNOWN
    if instance is None:
        return InstanceSight.ABSENT
    match instance.state:
        case backends_api.InstanceState.STARTING:
            return InstanceSight.STARTING
        case backends_api.InstanceState.RUNNING:
            return InstanceSight.RUNNING
        case backends_api.InstanceState.STOPPING | backends_api.InstanceState.EXITED:
            return InstanceSight.ENDED
        case _:
            assert_never(instance.state)


def is_cordoned(computer: model.Computer) -> bool:
    """Return whether we took this computer out of service for good, by offline mark or seal."""
    if model.RETIRED_LABEL in computer.labels:
        return True
    ours = computer.temporarily_offline and computer.offline_cause.startswith(model.CORDON_MARK)
    return ours and check_due(computer) is None


def is_by_order(computer: model.Computer) -> bool:
    """Return whether we took this computer out of service because a person has it held."""
    return computer.temporarily_offline and computer.offline_cause.startswith(model.HOLD_MARK)


def check_due(computer: model.Computer) -> model.Check | None:
    """Return what must pass before a computer, which we took out of service, is brought back."""
    if model.RETIRED_LABEL in computer.labels:
        return None
    words = computer.offline_cause if computer.temporarily_offline else ""
    for check, (begin, label) in _DUE.items():
        if words.startswith(begin) or label in computer.labels:
            return check
    return None


_DUE: Mapping[model.Check, tuple[str, str]] = {
    check: (f"{model.CORDON_MARK} {model.check_slug(check)}:", model.check_label(check))
    for check in model.Check
}
_SLUG = re.compile(re.escape(model.CORDON_MARK) + r" ([a-z0-9-]+):")


def cause_of(computer: model.Computer | None) -> model.Cause:
    """Read why an agent was taken out of service: in its offline message, or in its labels.

    Anybody can write there; what is no cause of ours says nothing.
    """
    if computer is None:
        return model.Cause.DRAINED
    written = _SLUG.match(computer.offline_cause)
    mark = f"{model.RETIRED_LABEL}-"
    slugs = (
        [written[1]]
        if written is not None
        else sorted(t.removeprefix(mark) for t in computer.labels if t.startswith(mark))
    )
    causes = (model.Cause.find(slug) for slug in slugs)
    return next((cause for cause in causes if cause is not None), model.Cause.DRAINED)


def see_computer(  # noqa: PLR0911 -- one sight, one return
    computer: model.Computer | None, *, synced: bool
) -> ComputerSight:
    """Name what the controller shows. Busy outranks everything, then who took it out."""
    if not synced:
        return ComputerSight.UNKNOWN
    if computer is None:
        return ComputerSight.ABSENT
    if not computer.idle:
        return ComputerSight.BUSY
    if check_due(computer) is not None:
        return ComputerSight.CHECKED
    if is_cordoned(computer):
        return ComputerSight.CORDONED
    if computer.temporarily_offline:
        return ComputerSight.HELD
    return ComputerSight.OFFLINE if computer.offline else ComputerSight.IDLE


def classify(
    instance: InstanceSight, computer: ComputerSight, *, launching: bool, overdue: bool
) -> Phase:
    """Derive the phase.

    ``launching``: our own launch is under way or too fresh to be visible. ``overdue``: it is not
    online for longer than its deadline.
    """
    phase = TABLE[instance, computer]
    if launching and phase in {Phase.GONE, Phase.LOST, Phase.ORPHAN} and not _dead(instance):
        return Phase.LAUNCHING
    if overdue and phase in {Phase.CONNECTING, Phase.CHECKING}:
        return Phase.LOST
    return phase


def _dead(instance: InstanceSight) -> bool:
    return instance is InstanceSight.ENDED
