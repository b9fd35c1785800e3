"""The columns of a job: one for each fact, which grow in place while items come."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Generic, TypeVar

from ragasync.error_text import ErrorText
from ragasync.outcomes.outcome import Attempt

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Storage(Generic[T, R]):
    """
    What is kept of the items of a job, a column a fact, all of the same length.

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
    run_began: array[float] | None = None
    """Where runs were merged: the seconds of those before the one that each row is of."""
    results: list[R | None] = field(default_factory=list)
    status: bytearray = field(default_factory=bytearray)
    attempts: array[int] = field(default_factory=lambda: array("H"))
    started: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    worker: array[int] = field(default_factory=lambda: array("H"))
    waited: array[float] | None = None
    backed_off: array[float] | None = None
    batch: array[int] | None = None
    errors: dict[int, BaseException] = field(default_factory=dict)
    tracebacks: dict[int, str] = field(default_factory=dict)
    stages: dict[int, str] = field(default_factory=dict)
    history: dict[int, tuple[Attempt, ...]] = field(default_factory=dict)
    texts: dict[int, ErrorText] = field(default_factory=dict, repr=False, compare=False)
    """What displays said of errors so far: what a row's error says is worked out once."""
    views: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What displays have worked out of all rows, for the next that needs it."""

    def __post_init__(self) -> None:
        self.grow_to(len(self.items))

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
            self.worker,
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
        self.worker.frombytes(bytes(2 * more))
        for optional in (self.waited, self.backed_off):
            if optional is not None:
                optional.frombytes(bytes(8 * more))
        if self.batch is not None:
            self.batch.extend(array("i", [-1]) * more)
        self.status.extend(bytes(more))  # last: a snapshot takes its length from this one
