"""Where the time of a run's workers went: arithmetic only."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED
from ragasync.outcomes.stats import RunResult


@dataclass(frozen=True, slots=True)
class TimeBreakdown:
    """
    What the workers of a run did with their time, in seconds added up over all workers.

    A run of n workers has n seconds of worker time in each second. All parts add up to
    `worker_seconds`, but for `backed_off`: an item between two attempts holds no worker.

    Attributes:
        work: in calls.
        limiter: waiting for the rate limit.
        source: without an item, while the source had not ended.
        retrying: idle while items were in back-off, which would have been something to do.
        tail: idle after the last item had begun.
        idle: the rest.
    """

    worker_seconds: float
    work: float
    limiter: float
    source: float
    retrying: float
    tail: float
    idle: float
    backed_off: float


def account_of(result: RunResult) -> TimeBreakdown:
    """Return where the worker time of a run went, as far as its columns and stats tell."""
    columns, stats = result.columns, result.stats
    work = _worker_time(columns, columns.seconds) if stats.worked is None else stats.worked
    limiter = stats.limiter_waited
    if limiter is None:
        limiter = _worker_time(columns, columns.waited)
    spent = work + limiter + stats.input_waited
    worker_seconds = max(stats.worker_seconds(0.0, result.seconds), spent)
    backed_off = _worker_time(columns, columns.backed_off)
    idle = worker_seconds - spent
    retrying = min(idle, backed_off)
    tail = min(idle - retrying, _tail(result))
    idle -= retrying + tail
    # Lanes are opened as items come: where one had to wait for them, the others were not needed.
    unopened = idle if stats.input_waited else 0.0
    return TimeBreakdown(
        worker_seconds=worker_seconds,
        work=work,
        limiter=limiter,
        source=stats.input_waited + unopened,
        retrying=retrying,
        tail=tail,
        idle=idle - unopened,
        backed_off=0.0 if columns.backed_off is None else sum(columns.backed_off),
    )


def ends_of(columns: Columns[Any, Any]) -> list[float]:
    """Return when each item that was started came to its end, in seconds since the job began."""
    rows = list(columns.rows_with(DONE, FAILED, CANCELLED))
    if columns.backed_off is None:
        return [columns.started[row] + columns.seconds[row] for row in rows]
    return [columns.started[row] + columns.seconds[row] + columns.backed_off[row] for row in rows]


def _worker_time(columns: Columns[Any, Any], times: array[float] | None) -> float:
    """Add up times of items; those that went in one batch took the worker's time together."""
    if times is None:
        return 0.0
    if columns.batch is None:
        return float(sum(times))
    sizes = Counter(columns.batch)
    return sum(
        seconds if batch < 0 else seconds / sizes[batch]
        for seconds, batch in zip(times, columns.batch, strict=True)
    )


def _tail(result: RunResult) -> float:
    """Return the worker time that was idle after the last item had begun."""
    columns = result.columns
    ends = ends_of(columns)
    if not ends:
        return 0.0
    last_start = max(compress(columns.started, columns.mask(DONE, FAILED, CANCELLED)))
    busy = _worker_time(columns, array("d", _parts_after(last_start, columns, ends)))
    return max(0.0, result.stats.worker_seconds(last_start, result.seconds) - busy)


def _parts_after(instant: float, columns: Columns[Any, Any], ends: list[float]) -> Iterator[float]:
    """Yield for each row how long it went on after this instant."""
    end_of = iter(ends)
    for begun in columns.mask(DONE, FAILED, CANCELLED):
        yield max(0.0, next(end_of) - instant) if begun else 0.0
