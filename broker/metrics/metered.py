"""Count and time calls to the outside, without the callee's knowledge.

``metered`` decorates the backend contract, ``called`` wraps one request to the controller. Both
pass every result and error through unchanged. Refuse to retry, log or limit anything.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from backends import api as backends_api
from broker.metrics import values
from broker.metrics.recorder import Recorder
from jnlp import errors as jnlp_errors


@contextlib.contextmanager
def called(recorder: Recorder, kind: str) -> Iterator[None]:
    """Record one request to the controller; ``kind`` is one of ``values.CALL_KINDS``."""
    with _timed(lambda outcome, seconds: recorder.controller_call(kind, outcome, seconds)):
        yield


def metered(backend: backends_api.Backend, name: str, recorder: Recorder) -> backends_api.Backend:
    """Return the same backend, each call of which is recorded under the backend's name."""
    return _Metered(backend, name, recorder)


class _Metered:
    def __init__(self, backend: backends_api.Backend, name: str, recorder: Recorder) -> None:
        self._backend = backend
        self._name = name
        self._recorder = recorder
        self.kind = backend.kind

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

    def work_dir(self, name: str) -> str | None:
        return self._backend.work_dir(name)

    async def aclose(self) -> None:
        await self._backend.aclose()

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
