"""Columns made of what a result is given when no job made it: values, errors and two counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import DONE, FAILED

R = TypeVar("R")


def columns_of(
    results: Sequence[R | None], errors: Iterable[BaseException | None], done: int
) -> Columns[None, R]:
    """Return the columns of results and errors that came without any, `done` of them succeeded."""
    columns: Columns[None, R] = Columns(items=())
    columns.grow_to(len(results))
    columns.results[:] = results
    columns.errors = {row: error for row, error in enumerate(errors) if error is not None}
    all_done = done == len(results) - len(columns.errors)
    for row, value in enumerate(results):
        if row in columns.errors:
            columns.status[row] = FAILED
        elif all_done or value is not None:
            columns.status[row] = DONE
    return columns


def check_counts(columns: Columns[Any, Any], success_count: int, error_count: int) -> None:
    """
    Check that two counts are those of the columns.

    Raises:
        ValueError: they are not.
    """
    done, failed = columns.status.count(DONE), columns.status.count(FAILED)
    if (done, failed) != (success_count, error_count):
        raise ValueError(
            f"the counts must fit the entries: got success_count={success_count!r} and "
            f"error_count={error_count!r} for {done} values and {failed} errors"
        )
