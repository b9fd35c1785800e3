"""
A pilot run: the time, end and back-off of each attempt, for simulations to draw from.

A Scenario is the settings of a run to forecast: the pilot's own, or the caller's changes to them.
"""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

from ragasync._engine.job_run import limit_of
from ragasync._limits.limiter import Limiter, RateLimiter
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._reports.time_breakdown import time_breakdown
from ragasync._retries.classify import default_retry
from ragasync._retries.http import http_status
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, check_number
from ragasync.error_text import describe
from ragasync.errors import AttemptTimeout
from ragasync.result import BatchResult
from ragasync.settings import as_limiters, as_timeout, check_concurrency
from ragasync.simulation.simulate import copy_limiters, limiter_of

Fate: TypeAlias = Literal["done", "transient", "permanent"]
"""How an attempt ended: with a value, with an error worth a retry, or with one that is not."""

FEW_ITEMS = 10
"""The number of finished items below which a note says that the pilot is small."""


@dataclass(frozen=True, slots=True)
class PilotAttempt:
    """One attempt of a call of the pilot."""

    seconds: float
    fate: Fate = "done"
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Pilot:
    """
    A pilot run, call by call.

    Args:
        calls: the attempts of each call, in order; a call has one item, or one batch.
        rows: for each call, the rows of its items in the result.
        item_failed: for each item, whether it failed; empty unless the function is batched, since
            the attempts of a single item show it.
        items_per_call: the mean number of items in a call.
        source_rate: the items per second of its source, if the source limited the pilot.
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
    def tokens(self) -> list[int]:
        """The tokens of each item that succeeded or failed; empty if none were reported."""
        columns = self.result.columns
        if columns.tokens is None:
            return []
        return [max(0, columns.tokens[row]) for row in columns.rows_with(DONE, FAILED)]

    @property
    def costs(self) -> list[float]:
        """The cost of each of these items; empty if none was reported."""
        columns = self.result.columns
        if columns.cost is None:
            return []
        return [columns.cost[row] for row in columns.rows_with(DONE, FAILED)]

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


DEFAULT_RETRIES = 3
"""The default `retry_count` of a processor."""


class UsePilot(enum.Enum):
    """The type of `USE_PILOT`."""

    USE_PILOT = "as in the pilot"

    def __repr__(self) -> str:
        return "USE_PILOT"


USE_PILOT: Final = UsePilot.USE_PILOT
"""The default of `rate_limiter`, where None means no limiter."""


class TransientError(Exception):
    """The error of a simulated attempt that may be retried after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__("drawn from the pilot")
        self.delay = delay


class PermanentError(ValueError):
    """The error of a simulated attempt that is not retried; as a ValueError it splits a batch."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    The settings of a run to forecast.

    Args:
        limiters: the limiters as given, which are only ever copied.
        batch_size: the maximum number of items in a call; 0 for a function of one item.
        retry: the retry policy; None for the delays of the pilot.
        retry_delay: the base of the back-off after errors that the pilot did not meet, in seconds.
        timeout: seconds for an attempt; None for the pilot's, which its attempts show already.
        error_rate: the share of attempts that fail and may be retried; None for the pilot's.
        error_factor: the factor on the pilot's rate of such errors: 0.5 for half of them.
    """

    max_concurrency: int
    limiters: tuple[Limiter, ...] = ()
    batch_size: int = 0
    max_retries: int = DEFAULT_RETRIES
    retry: AsyncRetry | None = None
    retry_delay: float = 1.0
    timeout: float | None = None
    error_rate: float | None = None
    error_factor: float = 1.0

    @property
    def items_per_call(self) -> int:
        """The maximum number of items in one call."""
        return self.batch_size or 1

    @property
    def strictest_limiter(self) -> Limiter | None:
        """The limiter of calls with the lowest rate; None if no limiter counts calls."""
        of_calls = (limiter for limiter in self.limiters if limiter.weight is None)
        return min(of_calls, key=lambda limiter: limit_of(limiter).rate or 0.0, default=None)

    @property
    def rate(self) -> float | None:
        """The lowest rate of a limiter that counts calls, in calls per second."""
        limiter = self.strictest_limiter
        return None if limiter is None else limit_of(limiter).rate

    def fresh_limiters(
        self, rate_factor: float, adapt: Callable[[Callable[..., float]], Callable[..., float]]
    ) -> tuple[RateLimiter, ...]:
        """
        Copies of the limiters, full and without waiters.

        Args:
            rate_factor: the factor on their rates.
            adapt: turns the `weight` of a limiter into one that takes an item of the simulation.
        """
        copies: list[RateLimiter] = []
        for limiter in self.limiters:
            weight = None if limiter.weight is None else adapt(limiter.weight)
            copies += copy_limiters(limiter, weight)
        if rate_factor != 1.0:
            for copy in copies:
                copy.rate *= rate_factor
        return tuple(copies)

    def retry_policy(self, seed: int) -> AsyncRetry:
        """The retry policy of a simulated run: the one given, or one with the pilot's delays."""
        jitter = random.Random(f"jitter {seed}").random
        if self.retry is None:
            return AsyncRetry(
                self.max_retries, self.retry_delay, retry_on=_delay_of_pilot, _random=jitter
            )
        errors = (TransientError, AttemptTimeout)
        return replace(
            self.retry, retry_on=errors, retry_on_result=None, on_retry=None, _random=jitter
        )


def _delay_of_pilot(error: Exception) -> bool | float:
    """The delay that followed this error in the pilot; whether to retry an error without one."""
    return error.delay if isinstance(error, TransientError) else isinstance(error, AttemptTimeout)


def scenario_of(
    pilot: Pilot,
    *,
    max_concurrency: int | None,
    rate_limiter: Limiter | Sequence[Limiter] | UsePilot | None,
    batch_size: int | None,
    retry: AsyncRetry | None,
    error_rate: float | None,
    timeout: float | timedelta | None,
) -> Scenario:
    """
    Combine the pilot's settings with the caller's changes.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, or one that the pilot cannot supply.
    """
    settings, stats = pilot.result.stats.settings, pilot.result.stats
    workers = stats.max_concurrency if max_concurrency is None else max_concurrency
    if not workers and max_concurrency is None:
        raise ValueError("the concurrency of the pilot is not known: pass max_concurrency=")
    check_concurrency(workers)
    if retry is not None and not isinstance(retry, AsyncRetry):
        raise TypeError(f"retry must be an AsyncRetry, got {retry!r}: pass AsyncRetry(3)")
    timeout = as_timeout(timeout)
    if error_rate is not None:
        check_number("error_rate", error_rate)
        if error_rate > 1:
            raise ValueError(f"error_rate must be a share between 0 and 1, got {error_rate!r}")
    return Scenario(
        workers,
        _limiters(pilot, rate_limiter),
        _batch_size(pilot, batch_size),
        _retries(pilot) if retry is None else retry.max_retries,
        retry,
        settings.retry_delay,
        None if timeout == settings.timeout else timeout,
        error_rate,
    )


def _limiters(
    pilot: Pilot, given: Limiter | Sequence[Limiter] | UsePilot | None
) -> tuple[Limiter, ...]:
    """The limiters given, or those of the pilot."""
    if given is USE_PILOT:
        limits = pilot.result.stats.settings.limits
        if not pilot.knows_limits:
            raise ValueError(
                "the pilot had a rate limiter whose rate, or whose weight of an item, is no longer "
                "known: pass rate_limiter= (it is copied, never used), or rate_limiter=None"
            )
        return tuple(limiter_of(limit, limit.weight) for limit in limits)
    limiters = tuple(as_limiters(given))
    copy_limiters(limiters, weight=lambda _: 1.0)  # raises if the rate of one is not known
    return limiters


def _batch_size(pilot: Pilot, given: int | None) -> int:
    """The maximum number of items in a call; 0 for a function of one item."""
    settings = pilot.result.stats.settings
    if given is None:
        if settings.bounded_by_weight:
            return max(1, round(pilot.items_per_call))
        return settings.batch_size
    check_count("batch_size", given, at_least=1)
    if not settings.batch_size:
        raise ValueError(
            f"batch_size={given!r} has no effect on a function of one item, as in this pilot: "
            "run a pilot with batched=True"
        )
    return given


def _retries(pilot: Pilot) -> int:
    """After how many retries the pilot gave up; the default if it never did."""
    if (gave_up := pilot.gave_up_after) is not None:
        return gave_up - 1
    return max(DEFAULT_RETRIES, pilot.most_attempts - 1)
