"""The items of a run that were started, and when each of them came to its end."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ragasync.outcomes.columns import EMPTY, Columns
from ragasync.outcomes.facts import Finished
from ragasync.outcomes.outcome import PENDING

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_TYPES = {"d": "float64", "H": "uint16", "i": "int32"}


@dataclass(frozen=True, slots=True)
class Timed:
    """
    The items that were started, an array a fact; `end` in seconds since the job began.

    Items that have no times are not among them: pending ones, those that could go in no call,
    and all items of a result that no job made.
    """

    row: Array
    status: Array
    started: Array
    seconds: Array
    waited: Array
    lane: Array
    batch: Array
    end: Array

    def __len__(self) -> int:
        return len(self.row)


def timed(result: Finished) -> Timed:
    """
    Return the items that were started.

    An item ends when it began, plus its time in calls and, from one attempt to the next, in
    back-off and at the rate limit. Of its waits for the limit each attempt counts an equal part,
    because only their sum is recorded, but none that would outlast the run.

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
    row = np.flatnonzero(known)
    attempts = attempts[row].astype("int64")
    again = attempts > 1  # what is parked before its first attempt waits for a pause to end
    waited = _copy(columns, columns.waited, "d")[row]
    least = started[row] + seconds[row] + again * _copy(columns, columns.backed_off, "d")[row]
    latest = np.maximum(least, result.seconds)
    return Timed(
        row=row,
        status=status[row],
        started=started[row],
        seconds=seconds[row],
        waited=waited,
        lane=_copy(columns, columns.lane, "H")[row].astype("int64"),
        batch=_copy(columns, columns.batch, "i")[row],
        end=np.minimum(least + waited * (attempts - 1) / attempts, latest),
    )


def length_of(result: Finished, items: Timed) -> float:
    """
    Return the seconds that a picture of a run has to span.

    The times of merged runs count from the beginning of each, so their sum would leave it empty
    to the right.
    """
    last = float(items.end.max(initial=0.0))
    return last if result.facts.runs > 1 and last else max(result.seconds, last)


def _copy(columns: Columns[Any, Any], column: array[Any] | None, code: str) -> Array:
    """Copy a column: no view may stay on what a running job would still grow."""
    import numpy as np

    if column is None:
        return np.full(len(columns), EMPTY.get(code, (0,))[0], dtype=_TYPES[code])
    whole: Array = np.frombuffer(column, dtype=_TYPES[code])
    return whole[: len(columns)].copy()
