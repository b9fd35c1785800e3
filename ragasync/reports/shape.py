"""The calls of a run in a few numbers: how many, how long, how full, how often in vain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.reports.error_groups import COMPARED, error_template
from ragasync.reports.time_breakdown import TimeBreakdown
from ragasync.retries.http import http_status

_REFUSED = r"\b429\b|rate.?limit|too.?many.?requests"


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """
    The calls of a run in a few numbers; times are in seconds.

    Attributes:
        items: the items that ended, well or not.
        done: those that ended well.
        calls: the calls made, retries among them.
        mean: how long a call took.
        typical, late: the median, and what 95 of 100 calls that succeeded do not exceed.
        slowest, slowest_index: the longest, and the item whose it was.
        overlapped: whether two calls were ever under way at the same time.
        wasted: the time of calls that failed, added up.
        retried: the items that were tried again.
        cause: what most failed calls failed of, or an empty text.
        refused: whether that was too many requests.
    """

    items: int
    done: int
    calls: float
    mean: float
    typical: float
    late: float
    slowest: float
    slowest_index: int
    overlapped: bool
    wasted: float
    retried: int
    cause: str
    refused: bool


def shape_of(result: RunResult, account: TimeBreakdown) -> CallStatistics:
    """Return what the calls of a run were like; it must have ended an item."""
    columns = result.columns
    sizes = _sizes(result)
    ended = columns.mask(DONE, FAILED)
    calls = _calls(columns, sizes)
    took = sorted(_seconds_of_successes(columns)) or [0.0]
    slowest = max(compress(columns.seconds, ended), default=0.0)
    slowest_row = columns.seconds.index(slowest) if slowest else 0
    cause = _commonest(_causes(columns))
    return CallStatistics(
        items=ended.count(1),
        done=columns.status.count(DONE),
        calls=calls,
        mean=account.work / calls if calls else 0.0,
        typical=took[len(took) // 2],
        late=took[int(0.95 * (len(took) - 1))],
        slowest=slowest,
        slowest_index=columns.index_of(slowest_row),
        overlapped=_overlapped(columns),
        wasted=sum(
            seconds / _size(columns, sizes, row) for row, seconds in _seconds_in_vain(columns)
        ),
        retried=len(columns.history),
        cause=cause,
        refused=_is_refusal(columns, cause),
    )


def _calls(columns: Columns[Any, Any], sizes: Counter[int]) -> float:
    """Return how many calls were made for the items that ended."""
    ended = columns.mask(DONE, FAILED)
    if not sizes:
        return float(sum(compress(columns.attempts, ended)))
    rows = compress(range(len(columns)), ended)
    return sum(columns.attempts[row] / _size(columns, sizes, row) for row in rows)


def _sizes(result: RunResult) -> Counter[int]:
    """Return how many items went in each call, where several could; by the call's number."""
    batch = result.columns.batch
    chunked = result.stats.settings.where == "executor" and not result.stats.settings.batch_size
    return Counter() if batch is None or chunked else Counter(batch)


def _size(columns: Columns[Any, Any], sizes: Counter[int], row: int) -> int:
    """Return how many items shared the call of this one."""
    number = -1 if columns.batch is None else columns.batch[row]
    return max(1, sizes[number]) if number >= 0 else 1


def _commonest(causes: Iterable[str]) -> str:
    """Return the first of the commonest kind, or an empty text where there is none."""
    first_of: dict[str, str] = {}
    patterns: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for cause in causes:
        pattern = patterns.get(cause)
        if pattern is None:
            pattern = patterns[cause] = error_template(cause[:COMPARED])
            first_of.setdefault(pattern, cause)
        counts[pattern] += 1
    return first_of[counts.most_common(1)[0][0]] if counts else ""


def _causes(columns: Columns[Any, Any]) -> Iterator[str]:
    """Yield what each failed attempt failed of."""
    for history in columns.history.values():
        yield from (attempt.error for attempt in history)
    yield from (_named(columns, row) for row in columns.rows_with(FAILED))


def _named(columns: Columns[Any, Any], row: int) -> str:
    """Return the type and the message of a row's error, as the log of attempts has them."""
    kind, message, _ = columns.error_text(row)
    return f"{kind}: {message}" if message else kind


def _seconds_of_successes(columns: Columns[Any, Any]) -> Iterator[float]:
    """Yield how long the calls took that succeeded, without those before them that failed."""
    if not columns.history:
        yield from compress(columns.seconds, columns.mask(DONE))
        return
    for row in columns.rows_with(DONE):
        in_vain = sum(attempt.seconds for attempt in columns.history.get(row, ()))
        yield max(0.0, columns.seconds[row] - in_vain)


def _seconds_in_vain(columns: Columns[Any, Any]) -> Iterator[tuple[int, float]]:
    """Yield the rows that had failed attempts, and how long these took."""
    failed = columns.mask(FAILED)
    for row, history in columns.history.items():
        if not failed[row]:
            yield row, sum(attempt.seconds for attempt in history)
    yield from ((row, columns.seconds[row]) for row in columns.rows_with(FAILED))


def _is_refusal(columns: Columns[Any, Any], cause: str) -> bool:
    """Return whether the commonest error says that there were too many requests."""
    if re.search(_REFUSED, cause, re.IGNORECASE):
        return True
    alike = (row for row in columns.rows_with(FAILED) if _named(columns, row) == cause)
    return bool(cause) and any(http_status(columns.errors[row]) == 429 for row in alike)


def _overlapped(columns: Columns[Any, Any]) -> bool:
    """Return whether two calls were ever under way at the same time."""
    begun, batch = columns.mask(DONE, FAILED, CANCELLED), columns.batch
    spans: Iterable[tuple[float, ...]]
    if batch is None:
        spans = compress(zip(columns.started, columns.seconds, strict=False), begun)
    else:  # a call of many items is to stand here once
        numbers = (at if number < 0 else number for at, number in enumerate(batch))
        columns_of = zip(columns.started, columns.seconds, numbers, strict=False)
        spans = set(compress(columns_of, begun))
    end = 0.0
    for start, seconds, *_ in sorted(spans):
        if start < end - 1e-6:
            return True
        end = max(end, start + seconds)
    return False
