"""What became of every item, kept in a column for each fact instead of an object for each item."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from typing import Generic, TypeVar

from ragasync.outcomes.outcome import DONE, PENDING, STATUSES, Attempt, Outcome
from ragasync.outcomes.tracebacks import closing_lines

T = TypeVar("T")
R = TypeVar("R")
N = TypeVar("N", int, float)

EMPTY = {"d": (0.0,), "i": (-1,)}
"""What an optional column says of an item that does not use it, by the column's type code."""

MAX_ATTEMPTS = 0xFFFF
"""The attempts column has two bytes an item; a count beyond is shown as this one."""


@dataclass(slots=True)
class Columns(Generic[T, R]):
    """
    The outcomes of a job, a column a fact, all of the same length.

    37 bytes an item for what every item has, the pointers to item and value included; what few
    items have (errors, histories, stages) is kept sparse, and what only some jobs have (waits,
    back-off, batch numbers) gets its column when the first item needs it. The columns only ever
    grow in place, so that the engine's hot loop may hold on to them.
    """

    items: Sequence[T]
    open_ended: bool = False
    """Whether items are still being added; the other columns are then a block ahead of them."""
    origin: Sequence[int] | None = None
    """The index of each row in the job that this one repeats a part of; None: rows are indices."""
    results: list[R | None] = field(default_factory=list)
    status: bytearray = field(default_factory=bytearray)
    attempts: array[int] = field(default_factory=lambda: array("H"))
    started: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    lane: array[int] = field(default_factory=lambda: array("H"))
    waited: array[float] | None = None
    backed_off: array[float] | None = None
    batch: array[int] | None = None
    errors: dict[int, BaseException] = field(default_factory=dict)
    tracebacks: dict[int, str] = field(default_factory=dict)
    stages: dict[int, str] = field(default_factory=dict)
    history: dict[int, tuple[Attempt, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.grow_to(len(self.items))

    @property
    def is_full(self) -> bool:
        """Whether it has no room; it always has."""
        return False

    @property
    def wants_batches(self) -> bool:
        """Whether it keeps which batch an item went in; it has a column for it."""
        return True

    def __len__(self) -> int:
        return len(self.items) if self.open_ended else len(self.status)

    def keep(self, index: int, item: T) -> None:
        """Add the next item of an open-ended input, before anything is known of it."""
        assert isinstance(self.items, list)
        if index >= len(self.status):
            self.grow_to(index + 1024 + index // 8)
        self.items.append(item)

    def close(self, length: int | None = None) -> None:
        """Cut an open-ended input's columns to the items that came, or to all that there are."""
        if not self.open_ended:
            return
        n, self.open_ended = max(len(self.items), length or 0), False
        self.grow_to(n)
        for column in (
            self.results,
            self.status,
            self.attempts,
            self.started,
            self.seconds,
            self.lane,
            self.waited,
            self.backed_off,
            self.batch,
        ):
            if column is not None:
                del column[n:]

    def grow_to(self, length: int) -> None:
        """Lengthen every column, in place, with entries that say `pending`."""
        more = length - len(self.status)
        if more <= 0:
            return
        self.results.extend(repeat(None, more))
        self.attempts.extend(array("H", [1]) * more)
        self.started.frombytes(bytes(8 * more))
        self.seconds.frombytes(bytes(8 * more))
        self.lane.frombytes(bytes(2 * more))
        for optional in (self.waited, self.backed_off):
            if optional is not None:
                optional.frombytes(bytes(8 * more))
        if self.batch is not None:
            self.batch.extend(array("i", [-1]) * more)
        self.status.extend(bytes(more))  # last: a snapshot takes its length from this one

    def recorder(self) -> Callable[[int, R, float, float, int], None]:
        """Return the function that records a success: index, value, started, seconds, lane."""
        results, status, started = self.results, self.status, self.started
        seconds, lanes = self.seconds, self.lane

        def record(index: int, value: R, began: float, took: float, lane: int) -> None:
            results[index] = value
            started[index] = began
            seconds[index] = took
            lanes[index] = lane
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
            lane=self.lane[row],
            traceback=self.traceback_of(row),
            history=self.history.get(row, ()),
        )

    def traceback_of(self, row: int) -> str | None:
        """Return an item's traceback as text: the stack it shares, the message of its own."""
        stack, error = self.tracebacks.get(row), self.errors.get(row)
        if stack is None or error is None:
            return None
        return stack + closing_lines(error)

    def settle(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Write an outcome of any kind; a plain success goes through `recorder` instead."""
        row = outcome.index
        self.results[row] = outcome.value
        self.attempts[row] = min(outcome.attempts, MAX_ATTEMPTS)
        self.started[row], self.seconds[row] = outcome.started, outcome.seconds
        self.lane[row] = outcome.lane or 0
        if outcome.waited:
            self.waited = _written(self.waited, "d", len(self.status), row, outcome.waited)
        if outcome.backed_off:
            self.backed_off = _written(
                self.backed_off, "d", len(self.status), row, outcome.backed_off
            )
        if outcome.batch is not None:
            self.batch = _written(self.batch, "i", len(self.status), row, outcome.batch)
        if outcome.error is not None:
            self.errors[row] = outcome.error
        if stack is not None:
            self.tracebacks[row] = stack
        if outcome.stage is not None:
            self.stages[row] = outcome.stage
        if outcome.history:
            self.history[row] = outcome.history
        self.status[row] = STATUSES.index(outcome.status)

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
            results=self.results[:n],
            status=status,
            attempts=self.attempts[:n],
            started=self.started[:n],
            seconds=self.seconds[:n],
            lane=self.lane[:n],
            waited=None if self.waited is None else self.waited[:n],
            backed_off=None if self.backed_off is None else self.backed_off[:n],
            batch=None if self.batch is None else self.batch[:n],
            errors=_up_to(n, self.errors),
            tracebacks=_up_to(n, self.tracebacks),
            stages=_up_to(n, self.stages),
            history=_up_to(n, self.history),
        )


def _written(column: array[N] | None, code: str, length: int, row: int, value: N) -> array[N]:
    """Write into a column that is made when the first item needs it."""
    if column is None:
        column = array(code, EMPTY[code] * length)  # type: ignore[arg-type]  # ints or floats, by code
    column[row] = value
    return column


def _up_to(length: int, sparse: dict[int, T]) -> dict[int, T]:
    """Copy a sparse column, without the rows that came after its snapshot began."""
    return {row: value for row, value in sparse.copy().items() if row < length}
