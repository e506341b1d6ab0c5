"""Waiting with a limit, and groups of tasks, that are alike on every Python from 3.11.0 on.

Faults of the interpreter and its library make a task end as cancelled that nobody has cancelled,
or let an error pass by who waits for it:

* before 3.13 a group whose task fails while the group is being left cancels the parent and never
  takes it back: ``cancelling()`` stays 1 (3.13, asyncio.TaskGroup: "correct preservation of
  cancellation counts");
* before 3.11.4 a limit that is reached under such a count, or in the clean-up of a task that is
  being cancelled, raises CancelledError in the place of TimeoutError (gh-102780);
* before 3.11.4 what is raised in an ``except*`` comes out in a group again (gh-103590).

Libraries set limits with ``asyncio.timeout`` too, so the count is put right as well as the limit.
The linter bans the originals, and a test an ``except*`` that raises. Refuses to know who is waited
for.
"""

import asyncio
import sys
from types import TracebackType
from typing import Any, Self, cast


class _Timeout(asyncio.Timeout):  # type: ignore[misc] # final, where it is not at fault
    """A limit whose end is a TimeoutError, whatever the task's count was before it."""

    _before = 0

    async def __aenter__(self) -> Self:
        self._before = _task().cancelling()
        await super().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reached = self.expired()
        await super().__aexit__(kind, error, trace)
        by_limit = reached and _task().cancelling() <= self._before
        if by_limit and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


if sys.version_info >= (3, 13):
    TaskGroup = asyncio.TaskGroup
else:

    class TaskGroup(asyncio.TaskGroup):
        """A group that leaves its parent's count of cancellations as it was."""

        async def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            # these Pythons get no more changes, so what is private there stays as it is
            state = cast("Any", self)
            in_body = state._parent_cancel_requested  # noqa: SLF001 -- what is taken back by the base
            try:
                await super().__aexit__(kind, error, trace)
            except BaseExceptionGroup:
                task = _task()
                if state._parent_cancel_requested and not in_body:  # noqa: SLF001
                    task.uncancel()
                if task.cancelling():  # somebody else's cancellation: it comes at the next wait
                    task.uncancel()
                    task.cancel()
                raise


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only a task can wait with a limit or for a group")
    return task


def timeout(seconds: float | None) -> asyncio.Timeout:
    """Return ``asyncio.timeout(seconds)`` with the faults above mended; None: no limit yet."""
    if sys.version_info >= (3, 11, 4):
        return asyncio.timeout(seconds)
    when = None if seconds is None else asyncio.get_running_loop().time() + seconds
    return _Timeout(when)


class Ungrouped:
    """Raises what a group of tasks failed with as itself, in the place of the group.

    That is the first error, if all of them are of ``kinds``; else the group goes on as it is.
    """

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, BaseExceptionGroup) and error.split(self._kinds)[1] is None:
            found: BaseException = error
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            raise found from None
