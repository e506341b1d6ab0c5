"""Count and time calls to the outside, without the callee's knowledge.

``metered`` decorates the backend contract, ``MeteredNodes`` the write side of the controller and
``called`` wraps one other request to it. All pass every result and error through unchanged.
Refuse to retry, log or limit anything.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence

from backends import api as backends_api
from broker.controller import reading
from broker.core import model
from broker.core.fleet import published
from broker.metrics import values
from broker.metrics.recorder import Recorder
from jnlp import client as jnlp_client
from jnlp import errors as jnlp_errors
from jnlp import node as jnlp_node
from jnlp import secret as jnlp_secret
from jnlp import state as jnlp_state


@contextlib.contextmanager
def called(recorder: Recorder, kind: str) -> Iterator[None]:
    """Record one request to the controller; ``kind`` is one of ``values.CALL_KINDS``."""
    with _timed(lambda outcome, seconds: recorder.controller_call(kind, outcome, seconds)):
        yield


def metered(backend: backends_api.Backend, name: str, recorder: Recorder) -> backends_api.Backend:
    """Return the same backend, each call of which is recorded under the backend's name."""
    return _Metered(backend, name, recorder)


class MeteredNodes:
    """``jnlp.client.NodeClient``, as far as the broker uses it, with every call recorded."""

    def __init__(self, nodes: jnlp_client.NodeClient, recorder: Recorder) -> None:
        self._nodes = nodes
        self._recorder = recorder

    async def create(self, definition: jnlp_node.NodeDefinition) -> None:
        """Create a node; ``NodeExists`` if the name is taken."""
        with called(self._recorder, "create-node"):
            await self._nodes.create(definition)

    async def secret(self, name: str) -> jnlp_secret.Secret:
        """Return the secret of a node."""
        with called(self._recorder, "secret"):
            return await self._nodes.secret(name)

    async def read(self, name: str) -> jnlp_state.NodeState:
        """Return the live state of a node."""
        with called(self._recorder, "read-node"):
            return await self._nodes.read(name)

    async def cordon(self, name: str, message: str) -> None:
        """Mark a node temporarily offline, or change its message."""
        with called(self._recorder, "cordon"):
            await self._nodes.cordon(name, message)

    async def uncordon(self, name: str) -> None:
        """Bring a node back online."""
        with called(self._recorder, "uncordon"):
            await self._nodes.uncordon(name)

    async def seal(self, name: str, *labels: str, busy: bool) -> None:
        """Let a node take nothing more and leave it labels that nobody asks for."""
        with called(self._recorder, "seal"):
            await self._nodes.seal(name, *labels, busy=busy)

    async def unseal(self, name: str, *labels: str, exclusive: bool = True) -> None:
        """Let a node take items again."""
        with called(self._recorder, "unseal"):
            await self._nodes.unseal(name, *labels, exclusive=exclusive)

    async def tell_builds(self, name: str, variables: Mapping[str, str]) -> None:
        """Set what the builds on a node are told of its agent's ports, if it differs."""
        with called(self._recorder, "tell-builds"):
            await self._nodes.tell_builds(name, variables, ours=published.OURS)

    async def delete(self, name: str) -> None:
        """Delete a node; ``NotFound`` if it is gone."""
        with called(self._recorder, "delete-node"):
            await self._nodes.delete(name)

    async def release(self, name: str) -> None:
        """Delete a node so that Pipeline's steps on it end; ``NotFound`` if it is gone."""
        with called(self._recorder, "release-node"):
            await self._nodes.release(name)


class MeteredReader:
    """The read side of the controller with every look recorded."""

    def __init__(self, reader: reading.Reader, recorder: Recorder) -> None:
        self._reader = reader
        self._recorder = recorder

    async def read(
        self, now: Callable[[], float], *, to_order: bool = False
    ) -> model.ControllerView:
        """Return a synced view, or raise ``JenkinsError``."""
        with called(self._recorder, "look"):
            return await self._reader.read(now, to_order=to_order)

    async def peek(self) -> frozenset[tuple[int, bool]]:
        """Return id and buildable of every item, or raise ``JenkinsError``."""
        with called(self._recorder, "peek"):
            return await self._reader.peek()

    async def at_work(self) -> Mapping[model.NodeName, bool]:
        """Return who works just now, and whether a build shows, or raise ``JenkinsError``."""
        with called(self._recorder, "glance"):
            return await self._reader.at_work()

    async def takes_work(self, names: Sequence[str]) -> Mapping[model.NodeName, bool]:
        """Return of idle nodes whether they are given work, or raise ``JenkinsError``."""
        with called(self._recorder, "idle-executors"):
            return await self._reader.takes_work(names)

    async def ask_item(self, item: int) -> reading.ItemOutcome:
        """Return what became of an item, or raise ``JenkinsError``."""
        with called(self._recorder, "item"):
            return await self._reader.item_outcome(item)

    async def cancel_item(self, item: int) -> None:
        """Cancel an item, or raise ``JenkinsError``."""
        with called(self._recorder, "cancel-item"):
            await self._reader.cancel_item(item)

    async def ask_result(self, url: str) -> reading.BuildResult:
        """Return what came of a build, or raise ``JenkinsError``."""
        with called(self._recorder, "build"):
            return await self._reader.build_result(url)


class _Metered:
    def __init__(self, backend: backends_api.Backend, name: str, recorder: Recorder) -> None:
        self._backend = backend
        self._name = name
        self._recorder = recorder
        self.kind = backend.kind

    async def reserve(self, spec: backends_api.InstanceSpec) -> None:
        with self._timed("reserve"):
            await self._backend.reserve(spec)

    async def launch(self, spec: backends_api.InstanceSpec) -> None:
        with self._timed("launch"):
            await self._backend.launch(spec)

    async def list(self) -> Sequence[backends_api.Instance]:
        with self._timed("list"):
            return await self._backend.list()

    def watch(self) -> AsyncIterator[None]:
        return self._backend.watch()

    async def terminate(self, name: str, *, grace_s: float) -> None:
        with self._timed("terminate"):
            await self._backend.terminate(name, grace_s=grace_s)

    async def capacity(self) -> backends_api.Capacity | None:
        with self._timed("capacity"):
            return await self._backend.capacity()

    async def logs(self, name: str, *, tail: int) -> str:
        with self._timed("logs"):
            return await self._backend.logs(name, tail=tail)

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> backends_api.Ran:
        with self._timed("run"):
            return await backends_api.run(self._backend, name, argv, within_s=within_s)

    def work_dir(self, name: str) -> str | None:
        return self._backend.work_dir(name)

    async def aclose(self) -> None:
        await self._backend.aclose()

    async def depart(self) -> None:
        await backends_api.depart(self._backend)

    async def tell_idle(self, names: Collection[str]) -> bool:
        return await backends_api.tell_idle(self._backend, names)

    def _timed(self, verb: str) -> contextlib.AbstractContextManager[None]:
        return _timed(
            lambda outcome, seconds: self._recorder.backend_call(
                self._name, verb, outcome, seconds
            )
        )


@contextlib.contextmanager
def _timed(record: Callable[[str, float], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()  # its clock, so that simulated time is measured as such
    began = loop.time()
    outcome = "bug"
    try:
        yield
        outcome = values.OK
    except (backends_api.BackendError, jnlp_errors.JenkinsError) as error:
        outcome = error.slug
        raise
    except TimeoutError:
        outcome = "timeout"
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"  # also a time limit of the caller's
        raise
    finally:
        record(outcome, loop.time() - began)
