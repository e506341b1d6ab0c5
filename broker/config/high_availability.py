"""The section ``high_availability``: what several brokers of one owner need, and what bars them.

Problems are collected. Refuses to know how a leader is elected.
"""

from collections.abc import Mapping
from typing import Any

from backends.kit import remarks
from broker.config import collector, exposure, reading, shape, values
from broker.config.settings import BackendSettings, HighAvailability, KindClasses
from broker.core import election, model

_PATH = ("high_availability",)
_MARGIN = 1.5  # of the lease over the deadline: for what is under way, and for unequal clocks
_PROMISED_S = 13.0  # of the 15 s that a fail-over may take; the rest is for looking and ordering


def high_availability(
    section: Any,
    kinds: Mapping[str, KindClasses],
    notes: collector.Notes,
    *,
    owner: str,
    backends: Mapping[model.BackendName, BackendSettings],
) -> HighAvailability | None:
    """Return the checked section; None when there is none, or when it has problems."""
    if section is None:
        return None
    if not isinstance(section, dict):
        notes.bad(_PATH, f"found {values.shown(section)}; allowed: a section of settings")
        return None
    _check_backends(kinds, notes, backends)
    kind, own_class = next(
        ((name, k.lease) for name, k in kinds.items() if k.lease is not None), ("", None)
    )
    if own_class is None:
        notes.bad(_PATH, "no kind of backend that is known here holds a lease")
        return None
    shared, own = reading.read_both(
        shape.HighAvailability, own_class, section, _PATH, notes.problems
    )
    if shared is None or own is None:
        return None
    _check_durations(shared, notes)
    notes.remarks(_PATH, remarks.of_settings(own))
    exposure.check_secret_files(notes, _PATH, own)
    name = f"agent-broker-{owner}" if shared.name is None else shared.name
    if not values.NAME.fullmatch(name):
        notes.bad((*_PATH, "name"), f"found {values.shown(name)}; allowed: {values.NAME_WORDS}")
    identity = shared.identity
    if identity is not None and not values.NAME.fullmatch(identity):
        notes.bad(
            (*_PATH, "identity"),
            f"found {values.shown(identity)}; allowed: {values.NAME_WORDS}",
        )
    return HighAvailability(
        kind=kind,
        settings=own,
        name=name,
        identity=identity,
        terms=election.Terms(
            lease_s=int(shared.lease_s),
            renew_deadline_s=shared.renew_deadline_s,
            retry_s=shared.retry_s,
        ),
    )


def _check_backends(
    kinds: Mapping[str, KindClasses],
    notes: collector.Notes,
    backends: Mapping[model.BackendName, BackendSettings],
) -> None:
    """Whoever takes over must be able to reach the agents of the one before."""
    for name, entry in backends.items():
        why = kinds[entry.kind].alone
        if why:
            notes.bad(
                ("backends", name),
                f"kind {entry.kind} cannot be with high_availability: {why}",
                "leave out high_availability; a broker that is started again finds its agents",
            )


def _check_durations(told: shape.HighAvailability, notes: collector.Notes) -> None:
    lease, deadline, retry = told.lease_s, told.renew_deadline_s, told.retry_s
    if lease != int(lease):
        notes.bad((*_PATH, "lease"), f"found {lease:g}s; allowed: whole seconds")
    if deadline < 2 * retry:
        notes.bad(
            (*_PATH, "renew_deadline"),
            f"found {deadline:g}s; allowed: twice high_availability.retry ({retry:g}s) or more",
            "with less, one lost answer ends the leadership",
        )
    if lease < _MARGIN * deadline:
        notes.bad(
            (*_PATH, "lease"),
            f"found {lease:g}s; allowed: {_MARGIN:g} times high_availability.renew_deadline "
            f"({deadline:g}s) or more",
            "the other broker may start only well after this one has stopped",
        )
    elif lease + retry > _PROMISED_S:
        notes.warn(_PATH, f"a fail-over may take {lease + retry:g} s and more (lease and retry)")
