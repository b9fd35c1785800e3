"""The time breakdown of a run: where its workers' time went, and statistics of its calls."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED
from ragasync._outcomes.stats import RunResult, RunSettings, StageStats
from ragasync._reports.error_groups import COMPARED_CHARS, error_template
from ragasync._retries.http import http_status
from ragasync.progress_callbacks import RATE_WINDOW

BOTTLENECK = 0.5
"""A stage whose utilization is at least this can be the bottleneck of a pipeline."""

LOAD_AND_CHUNK = "load and chunk"
"""The stage that loads and chunks in one call; its failures are recorded for either stage."""

SAMPLE_INTERVAL = 0.5
"""The least number of seconds between two samples of a pipeline's stages."""

_RATE_LIMITED = r"\b429\b|rate.?limit|too.?many.?requests"


@dataclass(frozen=True, slots=True)
class RunDiagnosis:
    """The facts about a run that advice is based on."""

    workers: int
    seconds: float
    limited: bool
    adaptive: bool
    cpu_cores: float
    breakdown: TimeBreakdown
    calls: CallStatistics
    settings: RunSettings
    tokens_per_second: float
    """As reported by calls; 0 without reports."""

    @property
    def calls_per_second(self) -> float:
        """The calls per second."""
        return self.calls.calls / self.seconds

    @property
    def workers_needed(self) -> int:
        """The number of workers that would have been enough for the calls made, plus one."""
        return min(self.workers, math.ceil(self.breakdown.work / self.seconds) + 1)


def diagnose(result: RunResult) -> RunDiagnosis:
    """Diagnose a run from its columns and stats; at least one item must have ended."""
    stats = result.stats
    breakdown = time_breakdown(result)
    return RunDiagnosis(
        workers=stats.max_concurrency,
        seconds=result.seconds,
        limited=stats.limited,
        adaptive=stats.adapted,
        cpu_cores=0.0 if stats.cpu_seconds is None else stats.cpu_seconds / result.seconds,
        breakdown=breakdown,
        calls=call_statistics(result, breakdown),
        settings=stats.settings,
        tokens_per_second=(stats.usage.tokens - stats.earlier_usage.tokens) / result.seconds,
    )


# ── where the workers' time went ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class TimeBreakdown:
    """
    The time of a run's workers, in seconds added up over all workers.

    A run with n workers has n seconds of worker time per second. The parts add up to
    `worker_seconds`, except `backed_off`: an item between two attempts holds no worker.

    Attributes:
        work: in calls.
        limiter: waiting for the rate limiter.
        source: waiting for the next item, before the source had ended.
        retrying: idle while items were in back-off and nothing else was left to do.
        tail: idle after the last item had started.
        idle: the rest.
        backed_off: the back-off of items.
    """

    worker_seconds: float
    work: float
    limiter: float
    source: float
    retrying: float
    tail: float
    idle: float
    backed_off: float


def time_breakdown(result: RunResult) -> TimeBreakdown:
    """Break down the worker time of a run, as far as its columns and stats record it."""
    columns, stats = result.columns, result.stats
    work = _worker_time(columns, columns.seconds) if stats.worked is None else stats.worked
    limiter = stats.limiter_waited
    if limiter is None:
        limiter = _worker_time(columns, columns.waited)
    accounted = work + limiter + stats.input_waited
    worker_seconds = max(stats.worker_seconds(0.0, result.seconds), accounted)
    idle = worker_seconds - accounted
    retrying = min(idle, _worker_time(columns, columns.backed_off))
    tail = min(idle - retrying, _tail(result))
    idle -= retrying + tail
    # Workers are spawned as items arrive. If one had to wait for items, the unspawned ones are
    # idle because of the source too.
    unspawned = idle if stats.input_waited else 0.0
    return TimeBreakdown(
        worker_seconds=worker_seconds,
        work=work,
        limiter=limiter,
        source=stats.input_waited + unspawned,
        retrying=retrying,
        tail=tail,
        idle=idle - unspawned,
        backed_off=0.0 if columns.backed_off is None else sum(columns.backed_off),
    )


def _worker_time(columns: Columns[Any, Any], times: array[float] | None) -> float:
    """Add up times of items; the items of a batch held one worker together."""
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
    """The worker time that was idle after the last item had started."""
    columns = result.columns
    ends = _item_ends(columns)
    if not ends:
        return 0.0
    last_start = max(compress(columns.started, columns.mask(DONE, FAILED, CANCELLED)))
    busy = _worker_time(columns, array("d", _seconds_after(last_start, columns, ends)))
    return max(0.0, result.stats.worker_seconds(last_start, result.seconds) - busy)


def _item_ends(columns: Columns[Any, Any]) -> list[float]:
    """The end of each item that was started, in seconds since the job began."""
    rows = list(columns.rows_with(DONE, FAILED, CANCELLED))
    if columns.backed_off is None:
        return [columns.started[row] + columns.seconds[row] for row in rows]
    return [columns.started[row] + columns.seconds[row] + columns.backed_off[row] for row in rows]


def _seconds_after(
    instant: float, columns: Columns[Any, Any], ends: list[float]
) -> Iterator[float]:
    """Yield the seconds of each item that lie after an instant."""
    next_end = iter(ends)
    for started in columns.mask(DONE, FAILED, CANCELLED):
        yield max(0.0, next(next_end) - instant) if started else 0.0


# ── statistics of calls ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CallError:
    """
    An error that calls of a run had in common.

    Attributes:
        text: its type and message, or an empty text if no call failed.
        rate_limited: whether it means too many requests.
    """

    text: str
    rate_limited: bool


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """
    Statistics of the calls of a run; times are in seconds.

    Attributes:
        items: the items that ended, done or failed.
        done: the items that are done.
        calls: the calls made, including retries.
        mean: the mean time of a call.
        median, p95: percentiles of the time of calls that succeeded.
        slowest, slowest_index: the time of the slowest item, and its index.
        overlapped: whether any two calls ran concurrently.
        failed_seconds: the time of calls that failed, added up.
        retried: the items that were retried.
        error: the most common error of a failed call.
        slowest_error: the error of the failed calls that took the most time, added up.
    """

    items: int
    done: int
    calls: float
    mean: float
    median: float
    p95: float
    slowest: float
    slowest_index: int
    overlapped: bool
    failed_seconds: float
    retried: int
    error: CallError
    slowest_error: CallError


def call_statistics(result: RunResult, breakdown: TimeBreakdown) -> CallStatistics:
    """Compute the statistics of a run's calls; at least one item must have ended."""
    columns = result.columns
    sizes = _batch_sizes(result)
    ended = columns.mask(DONE, FAILED)
    calls = _call_count(columns, sizes)
    times = sorted(_successful_seconds(columns)) or [0.0]
    slowest = max(compress(columns.seconds, ended), default=0.0)
    slowest_row = columns.seconds.index(slowest) if slowest else 0
    errors = list(_attempt_errors(columns))
    return CallStatistics(
        items=ended.count(1),
        done=columns.status.count(DONE),
        calls=calls,
        mean=breakdown.work / calls if calls else 0.0,
        median=times[len(times) // 2],
        p95=times[int(0.95 * (len(times) - 1))],
        slowest=slowest,
        slowest_index=columns.index_of(slowest_row),
        overlapped=_calls_overlapped(columns),
        failed_seconds=sum(
            seconds / _batch_size(columns, sizes, row) for row, seconds in _failed_seconds(columns)
        ),
        retried=len(columns.history),
        error=_common_error(columns, ((text, 1.0) for text, _ in errors)),
        slowest_error=_common_error(columns, errors),
    )


def _call_count(columns: Columns[Any, Any], sizes: Counter[int]) -> float:
    """Count the calls that were made for the items that ended."""
    ended = columns.mask(DONE, FAILED)
    if not sizes:
        return float(sum(compress(columns.attempts, ended)))
    rows = compress(range(len(columns)), ended)
    return sum(columns.attempts[row] / _batch_size(columns, sizes, row) for row in rows)


def _batch_sizes(result: RunResult) -> Counter[int]:
    """Count the items of each batched call, by its number; empty if calls take one item."""
    batch, settings = result.columns.batch, result.stats.settings
    in_groups = settings.where == "executor" and not settings.batch_size
    return Counter() if batch is None or in_groups else Counter(batch)


def _batch_size(columns: Columns[Any, Any], sizes: Counter[int], row: int) -> int:
    """The number of items that shared this item's call."""
    number = -1 if columns.batch is None else columns.batch[row]
    return max(1, sizes[number]) if number >= 0 else 1


def _common_error(columns: Columns[Any, Any], errors: Iterable[tuple[str, float]]) -> CallError:
    """The first error of the template with the largest sum of weights, which come with errors."""
    first_of: dict[str, str] = {}
    templates: dict[str, str] = {}
    sums: defaultdict[str, float] = defaultdict(float)
    for error, weight in errors:
        template = templates.get(error)
        if template is None:
            template = templates[error] = error_template(error[:COMPARED_CHARS])
            first_of.setdefault(template, error)
        sums[template] += weight
    text = first_of[max(sums, key=sums.__getitem__)] if sums else ""
    return CallError(text, _is_rate_limit(columns, text))


def _attempt_errors(columns: Columns[Any, Any]) -> Iterator[tuple[str, float]]:
    """Yield the error and the time of each failed attempt."""
    for history in columns.history.values():
        yield from ((attempt.error, attempt.seconds) for attempt in history)
    for row in columns.rows_with(FAILED):
        earlier = sum(attempt.seconds for attempt in columns.history.get(row, ()))
        yield _error_text(columns, row), max(0.0, columns.seconds[row] - earlier)


def _error_text(columns: Columns[Any, Any], row: int) -> str:
    """Write the type and the message of a row's error, as the log of attempts has them."""
    kind, message, _ = columns.error_text(row)
    return f"{kind}: {message}" if message else kind


def _successful_seconds(columns: Columns[Any, Any]) -> Iterator[float]:
    """Yield the time of each successful call, without the failed attempts before it."""
    if not columns.history:
        yield from compress(columns.seconds, columns.mask(DONE))
        return
    for row in columns.rows_with(DONE):
        failed = sum(attempt.seconds for attempt in columns.history.get(row, ()))
        yield max(0.0, columns.seconds[row] - failed)


def _failed_seconds(columns: Columns[Any, Any]) -> Iterator[tuple[int, float]]:
    """Yield each row with failed attempts, and the time of these."""
    failed = columns.mask(FAILED)
    for row, history in columns.history.items():
        if not failed[row]:
            yield row, sum(attempt.seconds for attempt in history)
    yield from ((row, columns.seconds[row]) for row in columns.rows_with(FAILED))


def _is_rate_limit(columns: Columns[Any, Any], error: str) -> bool:
    """Whether an error means too many requests, by its text or by its HTTP status."""
    if re.search(_RATE_LIMITED, error, re.IGNORECASE):
        return True
    equal = (row for row in columns.rows_with(FAILED) if _error_text(columns, row) == error)
    return bool(error) and any(http_status(columns.errors[row]) == 429 for row in equal)


def _calls_overlapped(columns: Columns[Any, Any]) -> bool:
    """Whether any two calls ran concurrently."""
    started, batch = columns.mask(DONE, FAILED, CANCELLED), columns.batch
    spans: Iterable[tuple[float, ...]]
    if batch is None:
        spans = compress(zip(columns.started, columns.seconds, strict=False), started)
    else:  # the items of a batch share one call, which counts once
        numbers = (at if number < 0 else number for at, number in enumerate(batch))
        with_numbers = zip(columns.started, columns.seconds, numbers, strict=False)
        spans = set(compress(with_numbers, started))
    end = 0.0
    for start, seconds, *_ in sorted(spans):
        if start < end - 1e-6:
            return True
        end = max(end, start + seconds)
    return False


# ── utilization of a pipeline's stages ──────────────────────────────────────────────────────────


def utilization(stage: StageStats, seconds: float) -> float:
    """The share of a stage's call slots that were in use, in calls or at the rate limiter."""
    slots = stage.slot_seconds(seconds)
    return min(1.0, (stage.worked + stage.limiter_waited) / slots) if slots > 0 else 0.0


def bottleneck(stages: Sequence[StageStats], seconds: float) -> StageStats | None:
    """Find the stage that limits a pipeline, or None if no stage is busy enough for that."""
    busiest = max(stages, key=lambda stage: utilization(stage, seconds), default=None)
    if busiest is None or utilization(busiest, seconds) < BOTTLENECK:
        return None
    return busiest


class StageMeter:
    """
    Measures the stages of a pipeline over the last RATE_WINDOW seconds of its run.

    A setting may have changed since the run began, so the whole run would not show which stage
    limits it now.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, tuple[StageStats, ...]]] = deque([(0.0, ())])

    def __repr__(self) -> str:
        return f"<StageMeter of {len(self._samples)} samples>"

    def is_due(self, seconds: float) -> bool:
        """Whether the next sample is due, at this second of the run."""
        return seconds - self._samples[-1][0] >= SAMPLE_INTERVAL

    def update(self, stages: tuple[StageStats, ...], seconds: float) -> None:
        """Record the statistics of the run so far, at this second of it."""
        self._samples.append((seconds, stages))
        # The oldest sample kept is the last one outside the window.
        while len(self._samples) > 2 and self._samples[1][0] < seconds - RATE_WINDOW:
            self._samples.popleft()

    def recent(
        self, stages: Sequence[StageStats], seconds: float
    ) -> tuple[tuple[StageStats, ...], float]:
        """The statistics of the last seconds, given those of the run so far; and these seconds."""
        then, samples = self._samples[0]
        earlier = {stage.name: stage for stage in samples}
        unused = StageStats("", 0, 0.0)
        recent = (stage.since(earlier.get(stage.name, unused), then) for stage in stages)
        return tuple(recent), seconds - then


def stage_index(name: str, stages: Sequence[str]) -> int | None:
    """Find the stage of a failure by the name that the failure recorded, or return None."""
    if name in stages:
        return stages.index(name)
    if name in ("load", "chunk") and LOAD_AND_CHUNK in stages:
        return stages.index(LOAD_AND_CHUNK)
    return None
