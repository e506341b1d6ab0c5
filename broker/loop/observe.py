"""Read everything once, at the same time, and freeze it.

Each source is read on its own: one that fails becomes "not synced" with the reason in words, and
the others are used. Refuses to decide and to try again: the next cycle is the retry.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
from attrs import frozen

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import withheld
from jnlp import errors as jnlp_errors
from outside import waits

_LOG = logging.getLogger("broker.observe")


class ControllerReader(Protocol):
    """The read side of the controller, as far as a cycle needs it."""

    async def read(
        self, now: Callable[[], float], *, to_order: bool = False
    ) -> model.ControllerView:
        """Return a synced view, or raise ``JenkinsError``.

        ``to_order``: of an item that becomes a build meanwhile nothing is seen twice; else
        nothing is missed.
        """

    async def peek(self) -> frozenset[tuple[int, bool]]:
        """Return id and buildable of every item, or raise ``JenkinsError``."""

    async def takes_work(self, names: Sequence[str]) -> Mapping[model.NodeName, bool]:
        """Return of idle nodes whether they are given work, or raise ``JenkinsError``."""


@frozen(kw_only=True)
class Observation:
    """What one look showed, and which error stood in the way of which source."""

    controller: model.ControllerView
    backends: Mapping[model.BackendName, model.BackendView]


async def observe(
    reader: ControllerReader,
    backends: Mapping[model.BackendName, backends_api.Backend],
    *,
    now: Callable[[], float],
    time_limit_s: float,
) -> Observation:
    """Read the controller and all backends at the same time."""
    async with waits.TaskGroup() as group:
        controller = group.create_task(
            read_controller(reader, now=now, to_order=True), name="read controller"
        )
        tasks = {
            name: group.create_task(
                read_backend(backend, now=now, time_limit_s=time_limit_s), name=f"list {name}"
            )
            for name, backend in backends.items()
        }
    return Observation(
        controller=controller.result(),
        backends={name: task.result() for name, task in tasks.items()},
    )


async def read_controller(
    reader: ControllerReader, *, now: Callable[[], float], to_order: bool = False
) -> model.ControllerView:
    """Read the controller; a failure is a view that is not synced."""
    began = now()
    try:
        return await reader.read(now, to_order=to_order)
    except jnlp_errors.JenkinsError as error:
        return model.ControllerView(read_at=began, error=f"{error.slug}: {error.text}")


async def ask_suspects(
    reader: ControllerReader, view: model.ControllerView, ledger: model.Ledger, *, at: float
) -> model.ControllerView:
    """Ask about those that look free and are given nothing; without an answer nothing is known."""
    names = withheld.suspects(view, ledger, now=at) if view.synced else ()
    if not names:
        return view
    with contextlib.suppress(jnlp_errors.JenkinsError):
        return attrs.evolve(view, takes_work=await reader.takes_work(names))
    return view


async def read_backend(
    backend: backends_api.Backend, *, now: Callable[[], float], time_limit_s: float
) -> model.BackendView:
    """List a backend; a failure or too long a wait is a view that is not synced."""
    began = now()
    try:
        async with waits.timeout(time_limit_s):
            instances, hidden, odd = await _listed(backend)
            capacity = await backend.capacity()
    except backends_api.BackendError as error:
        return model.BackendView(read_at=began, error=f"{error.slug}: {error.reason}")
    except TimeoutError:
        text = f"unavailable: no answer within {time_limit_s:g} s"
        return model.BackendView(read_at=began, error=text)
    except Exception as error:  # noqa: BLE001 -- a bug must not blind the loop to the other sources
        _LOG.exception("listing failed by a bug")
        return model.BackendView(read_at=began, error=f"bug: {error!r}"[:256])
    return model.BackendView(
        synced=True,
        read_at=began,
        instances=tuple(instances),
        capacity=capacity,
        hidden=hidden,
        odd=odd,
    )


async def _listed(
    backend: backends_api.Backend,
) -> tuple[Sequence[backends_api.Instance], str, str]:
    """Return what a backend sees, why it does not see all, and why it cannot read all."""
    try:
        return await backend.list(), "", ""
    except backends_api.Partial as error:
        return error.seen, "" if error.odd else error.reason, error.reason if error.odd else ""
