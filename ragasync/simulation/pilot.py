"""What a pilot run teaches: how long each attempt took, how it ended, and what followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from ragasync.error_text import describe
from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.reports.time_breakdown import time_breakdown
from ragasync.result import BatchResult
from ragasync.retries.classify import default_retry
from ragasync.retries.http import http_status

Fate: TypeAlias = Literal["done", "passing", "lasting"]
"""How an attempt ended: well, with an error worth another attempt, or with one that is not."""

FEW = 10
"""With fewer items than this there is hardly anything to draw from."""


@dataclass(frozen=True, slots=True)
class Tried:
    """
    One attempt of the pilot.

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
    A pilot run as what can be drawn from it.

    Args:
        result: the run.
        calls: each call's attempts in order; one call an item, or one a batch.
        rows: for each call the rows of its items.
        poisoned: for each item whether it failed for good; only of batches, where a call's
            attempts do not tell.
        size: how many items a call had on average.
        source_pace: the items a second of its source, where that held the pilot back.
        notes: what is to be said of it.
    """

    result: BatchResult[Any]
    calls: tuple[tuple[Tried, ...], ...]
    rows: tuple[tuple[int, ...], ...]
    poisoned: tuple[bool, ...]
    size: float
    source_pace: float | None
    notes: tuple[str, ...]

    @property
    def ended(self) -> int:
        """How many items it ended, well or not."""
        return self.result.success_count + self.result.error_count

    @property
    def error_rate(self) -> float:
        """The share of its attempts that failed and might be tried again."""
        every = [tried for tries in self.calls for tried in tries]
        return sum(tried.fate == "passing" for tried in every) / len(every)

    @property
    def was_split(self) -> bool:
        """Whether batches of it were split, so that its calls do not tell all of its time."""
        return any(self.poisoned)

    @property
    def most_attempts(self) -> int:
        """The most attempts that it made for one call."""
        return max(map(len, self.calls))

    @property
    def gave_up_after(self) -> int | None:
        """After how many attempts it gave up on an error worth another one; None: it never did."""
        gave_up = [len(tries) for tries in self.calls if tries[-1].fate == "passing"]
        return max(gave_up, default=None)

    @property
    def knows_limits(self) -> bool:
        """Whether limiters can be made like those that it had."""
        return all(limit.is_known for limit in self.result.stats.settings.limits)

    def item_of(self, call: int, place: int) -> Any:
        """Return the item at some place of a call; of a longer call, its items again."""
        rows = self.rows[call]
        return self.result.columns.item_at(rows[place % len(rows)])


def pilot_of(result: BatchResult[Any]) -> Pilot:
    """
    Return what there is to draw from a pilot.

    Raises:
        TypeError: it is no result.
        ValueError: it is empty, failed altogether, was merged, or does not know its times.
    """
    _check(result)
    batched = bool(result.stats.settings.batch_size)
    rows = list(_rows_of_calls(result.columns, batched=batched))
    tries = [_tries_of(result.columns, each[0], batched=batched) for each in rows]
    calls = list(_settled(tries))
    ended = result.success_count + result.error_count
    held_by_source = _source_pace(result)
    return Pilot(
        result,
        tuple(calls),
        tuple(rows),
        tuple(_poisoned(result.columns)) if batched else (),
        ended / len(calls),
        held_by_source,
        tuple(_notes(result, held_by_source)),
    )


def _check(result: BatchResult[Any]) -> None:
    """Refuse what nothing can be drawn from."""
    if not isinstance(result, BatchResult):
        raise TypeError(
            f"forecast needs the BatchResult of a pilot run, got {result!r}: "
            "result = await processor.process(items, max_items=200)"
        )
    if result.stats.runs > 1:
        raise ValueError(
            f"forecast needs one run, got {result.stats.runs} that were merged: "
            "how long they took together says nothing of one. Pass the pilot's own result"
        )
    if result.stats.stages:
        raise ValueError(
            "forecast draws from the calls of one function, got the result of a pipeline of "
            f"{len(result.stats.stages)} stages: run its slowest stage, which result.explain() "
            "names, over an AsyncBatchProcessor and pass that result"
        )
    if not result.success_count + result.error_count:
        raise ValueError(
            f"forecast needs a pilot that has ended some items, got {result!r}: "
            "run some 200 first, with process(items, max_items=200)"
        )
    if not result.success_count:
        raise ValueError(
            f"forecast needs a pilot in which something succeeded, got {result!r}: "
            "result.errors_dataframe() shows why nothing did"
        )
    if not any(result.columns.attempts) or not result.seconds or not any(result.columns.seconds):
        raise ValueError(
            f"forecast needs to know how long calls took, which {result!r} does not: it was made "
            "by hand, or every outcome came from a journal. Pass a result of process()"
        )


def _rows_of_calls(columns: Columns[Any, Any], *, batched: bool) -> Iterator[tuple[int, ...]]:
    """Yield the rows of each call, those that succeeded before those that failed."""
    ended = (row for row in columns.rows_with(DONE, FAILED) if columns.attempts[row])
    if not batched or columns.batch is None:
        yield from ((row,) for row in ended)
        return
    calls: dict[int, list[int]] = {}
    for row in ended:
        calls.setdefault(columns.batch[row], []).append(row)
    for rows in calls.values():
        yield tuple(sorted(rows, key=lambda row: _failed(columns, row)))


def _tries_of(columns: Columns[Any, Any], row: int, *, batched: bool) -> tuple[Tried, ...]:
    """Return the attempts of an item's call in order."""
    history = columns.history.get(row, ())
    # A batch in halves was not tried again: its first attempt is told by the item at fault.
    split = batched and any(not each.backed_off for each in history)
    last = max(0.0, columns.seconds[row] - sum(each.seconds for each in history))
    tries = [] if split else [Tried(a.seconds, "passing", a.backed_off) for a in history]
    return (*tries, Tried(last, "done" if batched else _fate(columns, row)))


def _fate(columns: Columns[Any, Any], row: int) -> Fate:
    """Return how the last attempt of an item ended, as far as its own error tells."""
    if not _failed(columns, row):
        return "done"
    error, history = columns.errors[row], columns.history.get(row, ())
    again = bool(history) and history[-1].error == describe(error)  # it was worth that before
    passes = isinstance(error, Exception) and default_retry(error) is True
    return "passing" if again or passes else "lasting"


def _settled(calls: list[tuple[Tried, ...]]) -> Iterator[tuple[Tried, ...]]:
    """Yield the calls; an error that was given up on before others were is one that lasts."""
    most = max((len(tries) for tries in calls if tries[-1].fate == "passing"), default=0)
    for tries in calls:
        if tries[-1].fate == "passing" and len(tries) < most:
            yield (*tries[:-1], replace(tries[-1], fate="lasting"))
        else:
            yield tries


def _failed(columns: Columns[Any, Any], row: int) -> bool:
    """Return whether an item failed."""
    return bool(columns.status[row] == FAILED)


def _poisoned(columns: Columns[Any, Any]) -> Iterator[bool]:
    """Yield for each item that ended whether it failed."""
    return (_failed(columns, row) for row in columns.rows_with(DONE, FAILED))


def _source_pace(result: BatchResult[Any]) -> float | None:
    """Return the items a second of a source that held a run back, or None where it did not."""
    account = time_breakdown(result)
    others = (account.work, account.limiter, account.retrying, account.tail, account.idle)
    if account.source <= max(others):
        return None
    return (result.success_count + result.error_count) / result.seconds


def _notes(result: BatchResult[Any], source_pace: float | None) -> Iterator[str]:
    """Yield what is to be said of a pilot."""
    ended = result.success_count + result.error_count
    if ended < FEW:
        yield f"The pilot ended {ended} items only: some 200 would say more."
    if source_pace is not None:
        yield (
            f"The pilot was held back by its source, which gave {source_pace:.3g} items a second: "
            "so is the forecast."
        )
    if result.stopped_because is not None:
        yield "The pilot was stopped early: what came before is taken for the whole."
    statuses = Counter(map(http_status, result.columns.errors.values()))
    logged = sum("429" in a.error for tries in result.columns.history.values() for a in tries)
    if refused := statuses[429] + logged:
        yield (
            f"The service said 429 {refused:,} times: the forecast knows nothing of its limit "
            "but that share of refusals. A rate_limiter below it would be surer."
        )
