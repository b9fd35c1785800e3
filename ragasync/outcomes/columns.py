"""What became of every item, kept in a column for each fact instead of an object for each item."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeVar, cast

from ragasync.error_text import ErrorText, closing_lines, error_text
from ragasync.outcomes.outcome import (
    CANCELLED,
    DONE,
    PENDING,
    STATUSES,
    CallSuccess,
    Outcome,
    RecordSuccess,
)
from ragasync.outcomes.storage import Storage

T = TypeVar("T")
R = TypeVar("R")
N = TypeVar("N", int, float)

EMPTY = {"d": (0.0,), "i": (-1,)}
"""What an optional column says of an item that does not use it, by the column's type code."""

MAX_ATTEMPTS = 0xFFFF
"""The attempts column has two bytes an item; a count beyond is shown as this one."""


@dataclass(slots=True)
class Columns(Storage[T, R]):
    """
    The outcomes of a job, as the engine writes them and as everybody reads them.

    A row's status is written last: another thread that reads "done" finds all the rest.
    """

    @property
    def is_full(self) -> bool:
        """Whether it has no room; it always has."""
        return False

    @property
    def has_success(self) -> bool:
        """Whether any item is done."""
        return DONE in self.status

    def unfinished(self, limit: int | None) -> int:
        """Return how many of the items that were to run have no outcome, or a cancelled one."""
        rows = len(self) if limit is None else min(limit, len(self))
        return self.status.count(PENDING, 0, rows) + self.status.count(CANCELLED, 0, rows)

    def fast_recorder(self, worker: int, started_at: float) -> RecordSuccess[R]:
        """Return what records a success: index, value, and when its call began and ended."""
        results, status, started = self.results, self.status, self.started
        seconds, workers = self.seconds, self.worker

        def record(index: int, value: R, began: float, ended: float) -> None:
            results[index] = value
            started[index] = began - started_at
            seconds[index] = ended - began
            workers[index] = worker
            status[index] = DONE  # last: another thread that reads "done" finds all the rest

        return record

    def index_of(self, row: int) -> int:
        """Return the item's index in the original job."""
        return row if self.origin is None else self.origin[row]

    def item_at(self, row: int) -> T | None:
        """Return the item, or None where it was never pulled from its source."""
        return self.items[row] if row < len(self.items) else None

    def outcome(self, row: int) -> Outcome[T, R]:
        """Return one row as a value."""
        status = self.status[row]
        index, item = self.index_of(row), self.item_at(row)
        if status == PENDING:
            return Outcome(index, item, "pending")
        return Outcome(
            index=index,
            item=item,
            status=STATUSES[status],
            value=self.results[row],
            error=self.errors.get(row),
            attempts=self.attempts[row],
            started=self.started[row],
            seconds=self.seconds[row],
            waited=self.waited[row] if self.waited is not None else 0.0,
            backed_off=self.backed_off[row] if self.backed_off is not None else 0.0,
            batch=self._batch_of(row),
            stage=self.stages.get(row),
            worker=self.worker[row],
            traceback=self.traceback_of(row),
            history=self.history.get(row, ()),
        )

    def traceback_of(self, row: int) -> str | None:
        """Return an item's traceback as text: the stack it shares, the message of its own."""
        stack, error = self.tracebacks.get(row), self.errors.get(row)
        if stack is None or error is None:
            return None
        return stack + closing_lines(error, self.error_text(row).own)

    def error_text(self, row: int) -> ErrorText:
        """Return what displays say of the error of an item that has one; worked out once."""
        text = self.texts.get(row)
        if text is None:
            text = self.texts[row] = error_text(self.errors[row])
        return text

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Write an outcome of any kind; a plain success goes through `fast_recorder` instead."""
        row = outcome.index
        self.results[row] = outcome.value
        self.attempts[row] = min(outcome.attempts, MAX_ATTEMPTS)
        self.started[row], self.seconds[row] = outcome.started, outcome.seconds
        self.worker[row] = outcome.worker or 0
        here, all_rows = slice(row, row + 1), len(self.status)
        if outcome.waited:
            self.waited = _filled(self.waited, "d", all_rows, here, 1, outcome.waited)
        if outcome.backed_off:
            self.backed_off = _filled(self.backed_off, "d", all_rows, here, 1, outcome.backed_off)
        if outcome.batch is not None:
            self.batch = _filled(self.batch, "i", all_rows, here, 1, outcome.batch)
        if outcome.error is not None:
            self.errors[row] = outcome.error
        if stack is not None:
            self.tracebacks[row] = stack
        if outcome.stage is not None:
            self.stages[row] = outcome.stage
        if outcome.history:
            self.history[row] = outcome.history
        self.status[row] = STATUSES.index(outcome.status)

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Write what became of all items of a call: a slice of each column instead of rows."""
        rows = call.rows
        if rows is None or call.history:
            for outcome in call.outcomes():
                self.record(outcome)
            return
        n, seconds, all_rows = len(call.indices), call.seconds, len(self.status)
        self.results[rows] = call.values
        if call.attempts > 1:
            self.attempts[rows] = array("H", (min(call.attempts, MAX_ATTEMPTS),)) * n
        self.started[rows] = array("d", (call.started,)) * n
        self.seconds[rows] = (
            array("d", (seconds,)) * n if isinstance(seconds, float) else array("d", seconds)
        )
        self.worker[rows] = array("H", (call.worker,)) * n
        if call.waited:
            self.waited = _filled(self.waited, "d", all_rows, rows, n, call.waited)
        if call.backed_off:
            self.backed_off = _filled(self.backed_off, "d", all_rows, rows, n, call.backed_off)
        if call.batch is not None:
            self.batch = _filled(self.batch, "i", all_rows, rows, n, call.batch)
        self.status[rows] = bytes((DONE,)) * n

    def _batch_of(self, row: int) -> int | None:
        """Return the number of the batch that this row went in, if it went in one."""
        number = -1 if self.batch is None else self.batch[row]
        return None if number < 0 else number

    def rows_with(self, *statuses: int) -> Iterator[int]:
        """Yield the rows that have one of these statuses now, in order."""
        return compress(range(len(self)), self.mask(*statuses))

    def mask(self, *statuses: int) -> bytes:
        """Return a byte for each row: 1 where it has one of these statuses, else 0."""
        table = bytes(code in statuses for code in range(256))
        return bytes(self.status.translate(table)[: len(self)])

    def snapshot(self) -> Columns[T, R]:
        """
        Return a copy that no longer changes; safe from any thread while the job runs.

        The status is copied first and written last, so that every row that the copy calls done
        has its value; columns that grew meanwhile are cut to its length.
        """
        n = len(self)
        status = self.status[:n]
        return Columns(
            items=self.items if isinstance(self.items, (range, tuple)) else list(self.items[:n]),
            origin=self.origin,
            run_began=self.run_began,
            results=self.results[:n],
            status=status,
            attempts=self.attempts[:n],
            started=self.started[:n],
            seconds=self.seconds[:n],
            worker=self.worker[:n],
            waited=None if self.waited is None else self.waited[:n],
            backed_off=None if self.backed_off is None else self.backed_off[:n],
            batch=None if self.batch is None else self.batch[:n],
            errors=_up_to(n, self.errors),
            tracebacks=_up_to(n, self.tracebacks),
            stages=_up_to(n, self.stages),
            history=_up_to(n, self.history),
            texts=self.texts,  # an error that is there says the same in every snapshot
        )


def _filled(
    column: array[N] | None, code: str, length: int, rows: slice, count: int, value: N
) -> array[N]:
    """Write a value for some rows into a column that is made when the first item needs it."""
    if column is None:
        made: Any = array(code, EMPTY[code]) * length
        column = cast("array[N]", made)
    column[rows] = array(code, (value,)) * count
    return column


def _up_to(length: int, sparse: dict[int, T]) -> dict[int, T]:
    """Copy a sparse column, without the rows that came after its snapshot began."""
    return {row: value for row, value in sparse.copy().items() if row < length}
