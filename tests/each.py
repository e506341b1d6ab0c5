"""One test of a whole table: every row is asked, and each that fails is told by its name.

For rows that are many, cheap and share nothing. Several milliseconds go by around each test, in
collecting it by every worker and in telling of it; what a row asks takes a tenth of that. Rows that
need a folder, a log or a platform of their own are tests of their own (``parametrize``).
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from outside import secrets

_MOST_TOLD = 20


def each(
    names: str | Sequence[str],
    rows: Iterable[Any],
    *,
    ids: Callable[[Any], object] | Sequence[str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Ask a test for each row of a table; arguments as those of ``pytest.mark.parametrize``."""
    keys = [one.strip() for one in names.split(",")] if isinstance(names, str) else [*names]
    table = [_row(keys, row) for row in rows]
    assert table, "a table without rows shows nothing"
    if ids is not None and not callable(ids):
        table = [(str(name), row) for name, (_, row) in zip(ids, table, strict=True)]
    told = ids if callable(ids) else _shown

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        left = [one for one in signature.parameters.values() if one.name not in keys]

        def judge(failed: list[Exception]) -> None:
            if failed:
                which = f"{len(failed)} of {len(table)} rows of {function.__name__}"
                raise ExceptionGroup(which, failed[:_MOST_TOLD])

        @functools.wraps(function)
        def test(**fixtures: Any) -> None:
            failed: list[Exception] = []
            for name, row in table:
                secrets.forget()
                try:
                    function(**fixtures, **row)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append(_named(error, name or _name(row, told)))
            judge(failed)

        @functools.wraps(function)
        async def test_in_loop(**fixtures: Any) -> None:
            failed: list[Exception] = []
            for name, row in table:
                secrets.forget()
                try:
                    await function(**fixtures, **row)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append(_named(error, name or _name(row, told)))
            judge(failed)

        made = test_in_loop if inspect.iscoroutinefunction(function) else test
        made.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return made

    return decorate


def _row(keys: list[str], row: Any) -> tuple[str, dict[str, Any]]:
    """Return a row by the names of its columns, and what it is called."""
    name = None
    if isinstance(row, type(pytest.param())):
        assert not row.marks, "a row with a mark is a test of its own"
        row, name = row.values if len(keys) > 1 else row.values[0], row.id
    return str(name or ""), dict(zip(keys, row if len(keys) > 1 else [row], strict=True))


def _name(row: Mapping[str, Any], told: Callable[[Any], object]) -> str:
    return ", ".join(f"{key}={told(value)}"[:200] for key, value in row.items())


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"one of {type(value).__name__}"


def _named(error: BaseException, name: str) -> Exception:
    """Return an error that says of which row it is."""
    told = error if isinstance(error, Exception) else AssertionError(str(error))
    told.add_note(f"row: {name}")
    return told
