"""Tables asked in one test: no row is left out, and what fails is told by its name."""

import pytest

from tests.each import each


def test_every_row_is_asked_and_each_that_fails_is_told():
    """Also those behind the first that fails, and one that fails by ``pytest.raises``."""
    asked = []

    @each(("number", "word"), [(1, "a"), pytest.param(2, "b", id="second"), (3, "c"), (4, "d")])
    def table(number, word):
        asked.append((number, word))
        assert number != 2
        with pytest.raises(ZeroDivisionError):
            number / (number - 3 and 1)

    with pytest.raises(ExceptionGroup, match="3 of 4 rows of table") as failed:
        table()

    assert asked == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    told = [note for error in failed.value.exceptions for note in error.__notes__]
    assert told == ["row: number=1, word='a'", "row: second", "row: number=4, word='d'"]


@each("low", [1, 2])
@each("high", [3, 4], ids=str)
async def test_tables_are_crossed_and_take_fixtures(tmp_path, low, high):
    """As parameters are; in the loop of one test."""
    assert tmp_path.is_dir()
    assert low < high


def test_a_table_without_rows_is_refused():
    """It would pass, and show nothing."""
    with pytest.raises(AssertionError, match="without rows"):
        each("x", [])
