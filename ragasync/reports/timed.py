"""The items of a run that were started, and when each of them came to its end."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ragasync.outcomes.columns import EMPTY, Columns
from ragasync.outcomes.outcome import PENDING
from ragasync.outcomes.stats import RunResult

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_TYPES = {"d": "float64", "H": "uint16", "i": "int32"}


@dataclass(frozen=True, slots=True)
class Timed:
    """
    The items that were started, an array a fact; all times in seconds.

    `asked` is when an item first asked for the rate limit, `started` when its first call began,
    `end` when its last one ended. They count from the beginning of the job, and of merged runs as
    if each had begun when the one before it ended; the items of one run, and in it of one batch,
    stand together then. Items that have no times are not there: pending ones, those that could go
    in no call, and all items of a result that no job made.
    """

    row: Array
    status: Array
    asked: Array
    started: Array
    seconds: Array
    worker: Array
    batch: Array
    end: Array

    def __len__(self) -> int:
        return len(self.row)


def timed(result: RunResult) -> Timed:
    """
    Return the items that were started.

    An item ends when it began, plus its time in calls and, from one attempt to the next, in
    back-off and at the rate limit.

    Args:
        result: a BatchResult.
    """
    import numpy as np

    columns = result.columns
    status = np.frombuffer(bytes(columns.status), dtype="uint8")[: len(columns)]
    attempts = _copy(columns, columns.attempts, "H")
    started, seconds = _copy(columns, columns.started, "d"), _copy(columns, columns.seconds, "d")
    known = (status != PENDING) & (attempts > 0)
    if not (started.any() or seconds.any()):
        known[:] = False
    started += _copy(columns, columns.run_began, "d")
    waited, batch = _copy(columns, columns.waited, "d"), _copy(columns, columns.batch, "i")
    asked, end = started - waited, started + seconds + _copy(columns, columns.backed_off, "d")
    for retried, (first, *_) in columns.history.items():
        asked[retried] += (later := waited[retried] - first.waited)
        # In a hop others may have had their turn before, though all of it began together.
        end[retried] += later + (first.started - columns.started[retried])
    row = np.flatnonzero(known)
    if columns.run_began is not None:
        row = row[np.lexsort((batch[row], _copy(columns, columns.run_began, "d")[row]))]
    return Timed(
        row=row,
        status=status[row],
        asked=asked[row],
        started=started[row],
        seconds=seconds[row],
        worker=_copy(columns, columns.worker, "H")[row].astype("int64"),
        batch=batch[row],
        end=end[row],
    )


def length_of(result: RunResult, items: Timed) -> float:
    """Return the seconds that a picture of a run has to span."""
    return max(result.seconds, float(items.end.max(initial=0.0)))


def _copy(columns: Columns[Any, Any], column: array[Any] | None, code: str) -> Array:
    """Copy a column: no view may stay on what a running job would still grow."""
    import numpy as np

    if column is None:
        return np.full(len(columns), EMPTY.get(code, (0,))[0], dtype=_TYPES[code])
    whole: Array = np.frombuffer(column, dtype=_TYPES[code])
    return whole[: len(columns)].copy()
