"""The columns of outcomes: one array per field instead of one object per item."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from typing import Any, Generic, TypeVar, cast

from ragasync._outcomes.outcome import (
    CANCELLED,
    DONE,
    FAILED,
    PENDING,
    STATUSES,
    Attempt,
    CallSuccess,
    Outcome,
    RecordSuccess,
)
from ragasync.dataframe_items import DataFrameRows, Labels
from ragasync.error_text import ErrorText, closing_lines, error_text
from ragasync.usage import Usage

T = TypeVar("T")
R = TypeVar("R")
N = TypeVar("N", int, float)

UNREPORTED = -1
"""The tokens of an item for which none were reported."""

EMPTY = {"d": (0.0,), "i": (-1,), "q": (UNREPORTED,)}
"""The default of an optional column, by its type code."""

_IMMUTABLE = (range, tuple, DataFrameRows)
"""Types of items that a snapshot need not copy."""

MAX_ATTEMPTS = 0xFFFF
"""The largest value of the attempts column (two bytes per item); more attempts show as this."""


@dataclass(slots=True)
class Columns(Generic[T, R]):
    """
    The outcomes of a job, as the engine writes them and results and reports read them.

    All columns have the same length. What every item has takes 37 bytes per item, including the
    pointers to item and value. Fields that few items have (errors, histories, stages) are sparse,
    and a column that only some jobs need (waits, back-off, batches, usage) is created with the
    first item that needs it. Columns grow only in place, because the engine's fast path keeps
    references to them.

    A row's status is written last, so another thread that reads "done" finds all other fields.
    """

    items: Sequence[T]
    open_ended: bool = False
    """Whether items are still being added; the other columns are then a block ahead of `items`."""
    source_index: Sequence[int] | None = None
    """The index of each row in the job that this one repeats a part of; None: the row itself."""
    run_began: array[float] | None = None
    """After a merge, when the run of each row began: the total seconds of the runs before it."""
    labels: Labels | None = None
    """The labels of all items of the job, by index; None if its items have none."""
    results: list[R | None] = field(default_factory=list)
    status: bytearray = field(default_factory=bytearray)
    attempts: array[int] = field(default_factory=lambda: array("H"))
    started: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    worker: array[int] = field(default_factory=lambda: array("H"))
    waited: array[float] | None = None
    backed_off: array[float] | None = None
    batch: array[int] | None = None
    tokens: array[int] | None = None
    cost: array[float] | None = None
    errors: dict[int, BaseException] = field(default_factory=dict)
    tracebacks: dict[int, str] = field(default_factory=dict)
    stages: dict[int, str] = field(default_factory=dict)
    history: dict[int, tuple[Attempt, ...]] = field(default_factory=dict)
    texts: dict[int, ErrorText] = field(default_factory=dict, repr=False, compare=False)
    """A cache of the errors' display texts; all snapshots share it."""
    views: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """A cache of what reports compute from all rows."""
    finished_cost: float = field(default=0.0, repr=False, compare=False)
    """The sum of `cost` while the outcomes are recorded; adding up all rows would be slow."""

    def __post_init__(self) -> None:
        self.grow_to(len(self.items))

    @classmethod
    def from_sequences(
        cls, results: Sequence[R | None], errors: Iterable[BaseException | None], done: int
    ) -> Columns[None, R]:
        """
        Build the columns of a result that no job made.

        Args:
            results: a value per item, or None.
            errors: an error per item, or None.
            done: the number of items that succeeded. If it is the number of items without an
                error, None counts as a value; else items without value and error are pending.
        """
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

    def __len__(self) -> int:
        return len(self.items) if self.open_ended else len(self.status)

    # ── growing ───────────────────────────────────────────────────────────────────────────────

    def append(self, index: int, item: T) -> None:
        """Add the next item of an open-ended input; its row says `pending`."""
        assert isinstance(self.items, list)
        if index >= len(self.status):
            self.grow_to(index + 1024 + index // 8)
        self.items.append(item)

    def close(self, length: int | None = None) -> None:
        """
        End an open-ended input.

        Args:
            length: the number of items of the whole input, if it is known; items that were never
                read get pending rows.
        """
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
            self.worker,
            self.waited,
            self.backed_off,
            self.batch,
            self.tokens,
            self.cost,
        ):
            if column is not None:
                del column[n:]

    def grow_to(self, length: int) -> None:
        """Extend every column in place with pending rows."""
        more = length - len(self.status)
        if more <= 0:
            return
        self.results.extend(repeat(None, more))
        self.attempts.extend(array("H", [1]) * more)
        self.started.frombytes(bytes(8 * more))
        self.seconds.frombytes(bytes(8 * more))
        self.worker.frombytes(bytes(2 * more))
        optional: tuple[Any, ...] = self.waited, self.backed_off, self.batch, self.tokens, self.cost
        for column in optional:
            if column is not None:
                column.extend(array(column.typecode, EMPTY[column.typecode]) * more)
        self.status.extend(bytes(more))  # last: a snapshot takes its length from this column

    # ── writing: an OutcomeSink of the engine ─────────────────────────────────────────────────

    @property
    def is_full(self) -> bool:
        """Always False: columns have no bound."""
        return False

    @property
    def has_success(self) -> bool:
        """Whether any item is done."""
        return DONE in self.status

    def unfinished(self, limit: int | None) -> int:
        """Count the pending and cancelled rows among the first `limit` rows, or among all."""
        rows = len(self) if limit is None else min(limit, len(self))
        return self.status.count(PENDING, 0, rows) + self.status.count(CANCELLED, 0, rows)

    def fast_recorder(self, worker: int, started_at: float) -> RecordSuccess[R]:
        """Make the recorder of one worker, for the fast path."""
        # A closure over the columns: at a microsecond per item, attribute look-ups would show.
        results, status, started = self.results, self.status, self.started
        seconds, workers = self.seconds, self.worker

        def record(index: int, value: R, began: float, ended: float) -> None:
            results[index] = value
            started[index] = began - started_at
            seconds[index] = ended - began
            workers[index] = worker
            status[index] = DONE  # last: another thread that reads "done" finds all other fields

        return record

    def add_usage(self, index: int, usage: Usage) -> None:
        """Write the usage of one item, whose other fields follow."""
        if usage.tokens or usage.cost:
            self._write_usage(index, usage.tokens, usage.cost)

    def _write_usage(self, row: int, tokens: int, cost: float) -> None:
        """Write tokens and cost, in columns that are created if they are missing."""
        if self.tokens is None or self.cost is None:
            length = len(self.status)
            self.cost = array("d", (0.0,)) * length
            self.tokens = array("q", (UNREPORTED,)) * length
        self.finished_cost += cost - self.cost[row]
        self.tokens[row], self.cost[row] = tokens, cost

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Write the outcome of one item."""
        row = outcome.index
        self.results[row] = outcome.value
        self.attempts[row] = min(outcome.attempts, MAX_ATTEMPTS)
        self.started[row], self.seconds[row] = outcome.started, outcome.seconds
        self.worker[row] = outcome.worker or 0
        self._write_optional(slice(row, row + 1), 1, outcome)
        if outcome.tokens or outcome.cost:
            self._write_usage(row, outcome.tokens, outcome.cost)
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
        """Write the outcomes of a call's items: a slice of each column, not row by row."""
        rows = call.rows
        if rows is None or call.history or call.usage is not None:
            for outcome in call.outcomes():
                self.record(outcome)
            return
        n, seconds = len(call.indices), call.seconds
        self.results[rows] = call.values
        if call.attempts > 1:
            self.attempts[rows] = array("H", (min(call.attempts, MAX_ATTEMPTS),)) * n
        self.started[rows] = array("d", (call.started,)) * n
        self.seconds[rows] = (
            array("d", (seconds,)) * n if isinstance(seconds, float) else array("d", seconds)
        )
        self.worker[rows] = array("H", (call.worker,)) * n
        self._write_optional(rows, n, call)
        self.status[rows] = bytes((DONE,)) * n

    def _write_optional(
        self, rows: slice, count: int, source: Outcome[T, R] | CallSuccess[T, R]
    ) -> None:
        """Write the optional columns of some rows, if `source` has a value for them."""
        length = len(self.status)
        if source.waited:
            self.waited = _filled(self.waited, "d", length, rows, count, source.waited)
        if source.backed_off:
            self.backed_off = _filled(self.backed_off, "d", length, rows, count, source.backed_off)
        if source.batch is not None:
            self.batch = _filled(self.batch, "i", length, rows, count, source.batch)

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    def index_of(self, row: int) -> int:
        """The item's index in the original job."""
        return row if self.source_index is None else self.source_index[row]

    def label_of(self, row: int) -> Any:
        """The item's label in the DataFrame or Series that it came from; None if there is none."""
        return None if self.labels is None else self.labels.at(self.index_of(row))

    def item_at(self, row: int) -> T | None:
        """The item of a row, or None if it was never read from its source."""
        return self.items[row] if row < len(self.items) else None

    def outcome(self, row: int) -> Outcome[T, R]:
        """The outcome of a row, as one value."""
        status = self.status[row]
        index, item = self.index_of(row), self.item_at(row)
        if status == PENDING and row not in self.history:
            return Outcome(index, item, "pending", label=self.label_of(row))
        batch = -1 if self.batch is None else self.batch[row]
        tokens = 0 if self.tokens is None else max(0, self.tokens[row])
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
            batch=None if batch < 0 else batch,
            stage=self.stages.get(row),
            worker=self.worker[row],
            traceback=self.traceback_of(row),
            history=self.history.get(row, ()),
            label=self.label_of(row),
            tokens=tokens,
            cost=self.cost[row] if self.cost is not None else 0.0,
        )

    def traceback_of(self, row: int) -> str | None:
        """The traceback of an item's error as text: a shared stack, and its own message."""
        stack, error = self.tracebacks.get(row), self.errors.get(row)
        if stack is None or error is None:
            return None
        return stack + closing_lines(error, self.error_text(row).own)

    def error_text(self, row: int) -> ErrorText:
        """The display text of an item's error, which is computed once."""
        text = self.texts.get(row)
        if text is None:
            text = self.texts[row] = error_text(self.errors[row])
        return text

    def rows_with(self, *statuses: int) -> Iterator[int]:
        """Yield the rows that have one of these statuses now, in order."""
        return compress(range(len(self)), self.mask(*statuses))

    def mask(self, *statuses: int) -> bytes:
        """A byte per row: 1 if it has one of these statuses, else 0."""
        table = bytes(code in statuses for code in range(256))
        return bytes(self.status.translate(table)[: len(self)])

    def snapshot(self) -> Columns[T, R]:
        """
        Copy the columns; safe from any thread while the job runs.

        The status column is copied first, and rows write it last: so every row that is done in the
        copy has its value. Columns that grow meanwhile are cut to the length of the copy.
        """
        n = len(self)
        status = self.status[:n]
        return Columns(
            items=self.items if isinstance(self.items, _IMMUTABLE) else list(self.items[:n]),
            source_index=self.source_index,
            run_began=self.run_began,
            labels=self.labels,
            results=self.results[:n],
            status=status,
            attempts=self.attempts[:n],
            started=self.started[:n],
            seconds=self.seconds[:n],
            worker=self.worker[:n],
            waited=None if self.waited is None else self.waited[:n],
            backed_off=None if self.backed_off is None else self.backed_off[:n],
            batch=None if self.batch is None else self.batch[:n],
            tokens=None if self.tokens is None else self.tokens[:n],
            cost=None if self.cost is None else self.cost[:n],
            errors=_up_to(n, self.errors),
            tracebacks=_up_to(n, self.tracebacks),
            stages=_up_to(n, self.stages),
            history=_up_to(n, self.history),
            texts=self.texts,  # the text of an error never changes
        )


def _filled(
    column: array[N] | None, code: str, length: int, rows: slice, count: int, value: N
) -> array[N]:
    """Write a value to some rows of an optional column, which is created if it is missing."""
    if column is None:
        made: Any = array(code, EMPTY[code]) * length
        column = cast("array[N]", made)
    column[rows] = array(code, (value,)) * count
    return column


def _up_to(length: int, sparse: dict[int, T]) -> dict[int, T]:
    """Copy the rows of a sparse column that existed when the snapshot began."""
    return {row: value for row, value in sparse.copy().items() if row < length}
