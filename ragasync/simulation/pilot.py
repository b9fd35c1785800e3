"""A pilot run: the time, end and back-off of each attempt, for simulations to draw from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._reports.time_breakdown import time_breakdown
from ragasync._retries.classify import default_retry
from ragasync._retries.http import http_status
from ragasync.error_text import describe
from ragasync.result import BatchResult

Fate: TypeAlias = Literal["done", "transient", "permanent"]
"""How an attempt ended: with a value, with an error worth a retry, or with one that is not."""

FEW_ITEMS = 10
"""The number of finished items below which a note says that the pilot is small."""


@dataclass(frozen=True, slots=True)
class PilotAttempt:
    """
    One attempt of a call of the pilot.

    Args:
        seconds: how long it took.
        fate: how it ended.
        delay: the back-off that followed, in seconds.
    """

    seconds: float
    fate: Fate = "done"
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Pilot:
    """
    A pilot run, call by call.

    Args:
        result: the result of the run.
        calls: the attempts of each call, in order; a call has one item, or one batch.
        rows: for each call, the rows of its items in the result.
        item_failed: for each item, whether it failed; empty unless the function is batched, since
            the attempts of a single item show it.
        items_per_call: the mean number of items in a call.
        source_rate: the items per second of its source, if the source limited the pilot.
        notes: remarks about the pilot, for the user.
    """

    result: BatchResult[Any]
    calls: tuple[tuple[PilotAttempt, ...], ...]
    rows: tuple[tuple[int, ...], ...]
    item_failed: tuple[bool, ...]
    items_per_call: float
    source_rate: float | None
    notes: tuple[str, ...]

    @property
    def finished(self) -> int:
        """The number of items that succeeded or failed."""
        return self.result.success_count + self.result.error_count

    @property
    def error_rate(self) -> float:
        """The share of its attempts that failed with a transient error."""
        fates = [attempt.fate for attempts in self.calls for attempt in attempts]
        return fates.count("transient") / len(fates)

    @property
    def was_split(self) -> bool:
        """Whether some of its batches were split, so that its calls do not explain all its time."""
        return any(self.item_failed)

    @property
    def most_attempts(self) -> int:
        """The highest number of attempts at one call."""
        return max(map(len, self.calls))

    @property
    def gave_up_after(self) -> int | None:
        """The attempts after which it gave up on a transient error; None if it never did."""
        ends = ((len(attempts), attempts[-1].fate) for attempts in self.calls)
        return max((count for count, fate in ends if fate == "transient"), default=None)

    @property
    def knows_limits(self) -> bool:
        """Whether its limiters can be rebuilt."""
        return all(limit.is_known for limit in self.result.stats.settings.limits)

    def item_of(self, call: int, place: int) -> Any:
        """The item at a place of a call; past the end of the call, its items start again."""
        rows = self.rows[call]
        return self.result.columns.item_at(rows[place % len(rows)])


def pilot_of(result: BatchResult[Any]) -> Pilot:
    """
    Read a pilot from its result.

    Raises:
        TypeError: the argument is not a result.
        ValueError: nothing finished or succeeded, the result was merged, or it has no times.
    """
    _check(result)
    batched = bool(result.stats.settings.batch_size)
    rows = list(_rows_of_calls(result.columns, batched=batched))
    attempts = [_attempts_of(result.columns, each[0], batched=batched) for each in rows]
    calls = tuple(_reclassified(attempts))
    finished = [_failed(result.columns, row) for row in result.columns.rows_with(DONE, FAILED)]
    source_rate = _source_rate(result)
    return Pilot(
        result,
        calls,
        tuple(rows),
        tuple(finished) if batched else (),
        len(finished) / len(calls),
        source_rate,
        tuple(_notes(result, source_rate)),
    )


def _check(result: BatchResult[Any]) -> None:
    """Raise if nothing can be drawn from a result."""
    if not isinstance(result, BatchResult):
        raise TypeError(
            f"forecast needs the BatchResult of a pilot run, got {result!r}: "
            "result = await processor.process(items, max_items=200)"
        )
    if result.stats.runs > 1:
        raise ValueError(
            f"forecast needs the result of one run, got {result.stats.runs} merged runs: "
            "their times together say nothing about one run. Pass the pilot's own result"
        )
    if result.stats.stages:
        raise ValueError(
            "forecast draws from the calls of one function, got the result of a pipeline of "
            f"{len(result.stats.stages)} stages: run its slowest stage, which result.explain() "
            "names, with an AsyncBatchProcessor and pass that result"
        )
    if not result.success_count + result.error_count:
        raise ValueError(
            f"forecast needs a pilot with finished items, got {result!r}: "
            "run about 200 first, with process(items, max_items=200)"
        )
    if not result.success_count:
        raise ValueError(
            f"forecast needs a pilot with successful items, got {result!r}: "
            "result.errors_dataframe() shows their errors"
        )
    if not any(result.columns.attempts) or not result.seconds or not any(result.columns.seconds):
        raise ValueError(
            f"forecast needs the times of calls, which {result!r} does not have: it was made "
            "by hand, or every outcome came from a journal. Pass a result of process()"
        )


def _rows_of_calls(columns: Columns[Any, Any], *, batched: bool) -> Iterator[tuple[int, ...]]:
    """Yield the rows of each call, successful items first."""
    finished = (row for row in columns.rows_with(DONE, FAILED) if columns.attempts[row])
    if not batched or columns.batch is None:
        yield from ((row,) for row in finished)
        return
    calls: dict[int, list[int]] = {}
    for row in finished:
        calls.setdefault(columns.batch[row], []).append(row)
    for rows in calls.values():
        yield tuple(sorted(rows, key=lambda row: _failed(columns, row)))


def _attempts_of(
    columns: Columns[Any, Any], row: int, *, batched: bool
) -> tuple[PilotAttempt, ...]:
    """The attempts of an item's call, in order."""
    history = columns.history.get(row, ())
    # A half of a split batch is not a retry: the first attempt was that of the item at fault.
    split = batched and any(not each.backed_off for each in history)
    last = max(0.0, columns.seconds[row] - sum(each.seconds for each in history))
    failed = () if split else (PilotAttempt(a.seconds, "transient", a.backed_off) for a in history)
    return (*failed, PilotAttempt(last, "done" if batched else _fate(columns, row)))


def _fate(columns: Columns[Any, Any], row: int) -> Fate:
    """The fate of an item's last attempt, judged by its own error alone."""
    if not _failed(columns, row):
        return "done"
    error, history = columns.errors[row], columns.history.get(row, ())
    was_retried = bool(history) and history[-1].error == describe(error)
    is_transient = isinstance(error, Exception) and default_retry(error) is True
    return "transient" if was_retried or is_transient else "permanent"


def _reclassified(calls: list[tuple[PilotAttempt, ...]]) -> Iterator[tuple[PilotAttempt, ...]]:
    """Yield the calls, with an error called permanent if others were retried more often."""
    most = max((len(each) for each in calls if each[-1].fate == "transient"), default=0)
    for attempts in calls:
        if attempts[-1].fate == "transient" and len(attempts) < most:
            yield (*attempts[:-1], replace(attempts[-1], fate="permanent"))
        else:
            yield attempts


def _failed(columns: Columns[Any, Any], row: int) -> bool:
    """Whether an item failed."""
    return bool(columns.status[row] == FAILED)


def _source_rate(result: BatchResult[Any]) -> float | None:
    """The items per second of a source that limited a run; None if it did not."""
    times = time_breakdown(result)
    if times.source <= max(times.work, times.limiter, times.retrying, times.tail, times.idle):
        return None
    return (result.success_count + result.error_count) / result.seconds


def _notes(result: BatchResult[Any], source_rate: float | None) -> Iterator[str]:
    """Yield remarks about a pilot, for the user."""
    finished = result.success_count + result.error_count
    if finished < FEW_ITEMS:
        yield f"Only {finished} items of the pilot finished; 200 would give a better forecast."
    if source_rate is not None:
        yield (
            f"The pilot was limited by its source, at {source_rate:.3g} items per second, and so "
            "is the forecast."
        )
    if result.stopped_because is not None:
        yield "The pilot was stopped early: its finished items are assumed to be typical."
    statuses = Counter(map(http_status, result.columns.errors.values()))
    logged = sum("429" in a.error for each in result.columns.history.values() for a in each)
    if rate_limited := statuses[429] + logged:
        yield (
            f"The service responded 429 {rate_limited:,} times. Its limit is unknown, so the "
            "forecast assumes the same share of 429s; it would be more reliable with a "
            "rate_limiter below that limit."
        )
