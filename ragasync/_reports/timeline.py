"""The timeline of a run: when items ended, and when their calls worked, waited and backed off."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from ragasync._outcomes.columns import EMPTY, Columns
from ragasync._outcomes.outcome import DONE, FAILED, PENDING, Attempt
from ragasync._outcomes.stats import RunResult, RunStats

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

WORK, LIMITER, BACKOFF = STATES = range(3)
"""The states of an item between its start and its end."""

STATE_COLORS = {WORK: "#4c8dd6", LIMITER: "#9a9a9a", BACKOFF: "#a876d4"}
_STATE_NAMES = {LIMITER: "waiting for the rate limit", BACKOFF: "backing off"}

NOT_FAILED, RETRIED, FAILED_FINALLY = range(3)
"""The end of a call: without an error, with one after which its items were retried, or failed."""

TIME_RESOLUTION = 1e-6
"""Seconds below which a wait is dropped: sums of times are no more exact than that."""

_DTYPES = {"d": "float64", "H": "uint16", "i": "int32"}


# ── bins of equal length ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    Counts of items and of calls in bins of equal length, over all merged runs, end to end.

    Attributes:
        seconds: the length of all bins together.
        done, failed: the number of items that ended in each bin.
        calls: the mean number of concurrent calls in each bin, by state. WORK and LIMITER hold a
            worker, BACKOFF does not.
        state_names: the names of the states.
        noun: what is counted: calls or documents.
        runs: the number of runs that were merged.
    """

    seconds: float
    done: list[int]
    failed: list[int]
    calls: dict[int, list[float]]
    state_names: dict[int, str]
    noun: str
    runs: int

    @property
    def peak(self) -> int:
        """The largest number of items that ended in one bin."""
        return max(map(int.__add__, self.done, self.failed), default=0)

    @property
    def peak_rate(self) -> float:
        """The largest number of items per second, over one bin."""
        return self.peak * len(self.done) / self.seconds

    @property
    def peak_concurrency(self) -> float:
        """The largest number of concurrent calls in any state, averaged over one bin."""
        return max(map(sum, zip(*self.calls.values(), strict=True)), default=0.0)


def build_timeline(result: RunResult, bins: int = 60) -> Timeline | None:
    """Count the ends of items and the states of calls over time, or return None without times."""
    import numpy as np

    items = item_times(result)
    length = run_length(result, items)
    if not length:
        return None
    edges = np.linspace(0.0, length, bins + 1)

    def ends(status: int) -> list[int]:
        """Count the ends of the items of one status in each bin."""
        counts: list[int] = np.histogram(items.end[items.status == status], edges)[0].tolist()
        return counts

    spans = call_spans(result.columns, items)
    calls = {
        state: mean_concurrency(spans.start[chosen], spans.end[chosen], edges).tolist()
        for state in STATES
        for chosen in [spans.state == state]
    }
    return Timeline(
        seconds=length,
        done=ends(DONE),
        failed=ends(FAILED),
        calls=calls,
        state_names=state_names(result.stats),
        noun=call_noun(result.stats),
        runs=result.stats.runs,
    )


def mean_concurrency(start: Array, end: Array, edges: Array) -> Array:
    """Average the number of spans that were open concurrently, between each two edges."""
    import numpy as np

    def integral(instants: Array) -> Array:
        """Sum up, at each edge, the time since every earlier instant."""
        ordered = np.sort(instants)
        before = np.searchsorted(ordered, edges, side="right")
        sums = np.concatenate(([0.0], np.cumsum(ordered)))
        times: Array = edges * before - sums[before]
        return times

    # The time that spans are open before an edge is the time since their starts, less that since
    # their ends; its differences between edges need no loop over spans and bins.
    mean: Array = np.diff(integral(start) - integral(end)) / np.diff(edges)
    return np.maximum(mean, 0.0)


def state_names(stats: RunStats) -> dict[int, str]:
    """The names of the states: a document in a pipeline is in many calls, not in one."""
    return {WORK: "in progress" if stats.stages else "in calls", **_STATE_NAMES}


def call_noun(stats: RunStats) -> str:
    """The noun for the concurrent things of a run: calls, or documents in a pipeline."""
    return "documents" if stats.stages else "calls"


# ── the times of items ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ItemTimes:
    """
    The times of the items that were started, as arrays, in seconds.

    `asked` is when an item first asked the rate limiter, `started` when its first call began, `end`
    when its last call ended. They count from the start of the job; if runs were merged, as if each
    run had started when the one before it ended. Then the items of one run are neighbours, and
    within it those of one batch. Items without times are left out: pending ones, those that never
    fitted into a call, and all items of a result that was not made by a job.
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


def item_times(result: RunResult) -> ItemTimes:
    """
    Read the times of the items that were started.

    The end of an item is its start, plus the time in its calls and, between attempts, in back-off
    and at the rate limiter.
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
        # The items of a group on an executor share the start of the group, but each is called
        # after those before it.
        end[retried] += later + (first.started - columns.started[retried])
    row = np.flatnonzero(known)
    if columns.run_began is not None:
        row = row[np.lexsort((batch[row], _copy(columns, columns.run_began, "d")[row]))]
    return ItemTimes(
        row=row,
        status=status[row],
        asked=asked[row],
        started=started[row],
        seconds=seconds[row],
        worker=_copy(columns, columns.worker, "H")[row].astype("int64"),
        batch=batch[row],
        end=end[row],
    )


def run_length(result: RunResult, items: ItemTimes) -> float:
    """The seconds that the time axis of a run spans."""
    return max(result.seconds, float(items.end.max(initial=0.0)))


def _copy(columns: Columns[Any, Any], column: array[Any] | None, code: str) -> Array:
    """Copy a column: a view would forbid a running job to let its buffer grow."""
    import numpy as np

    if column is None:
        return np.full(len(columns), EMPTY.get(code, (0,))[0], dtype=_DTYPES[code])
    whole: Array = np.frombuffer(column, dtype=_DTYPES[code])
    return whole[: len(columns)].copy()


# ── the spans of calls ──────────────────────────────────────────────────────────────────────────

_Span = tuple[int, float, float, int, int]


@dataclass(frozen=True, slots=True)
class CallSpans:
    """
    The spans of calls, as arrays: one of STATES, and its start and end in seconds.

    The items of a batch share a call, and so its spans. `failed` is one of NOT_FAILED, RETRIED and
    FAILED_FINALLY.
    """

    state: Array
    start: Array
    end: Array
    worker: Array
    failed: Array

    def __len__(self) -> int:
        return len(self.state)


def call_spans(columns: Columns[Any, Any], items: ItemTimes) -> CallSpans:
    """List the spans of every call: of all first attempts, then of retries."""
    import numpy as np

    retried = np.zeros(len(columns), dtype=bool)
    retried[list(columns.history)] = True
    places = np.flatnonzero(retried[items.row])
    arrays = _first_attempts(columns, items, places)
    if spans := _retries(columns, items, places):
        later = (np.array(values) for values in zip(*spans, strict=True))
        arrays = tuple(np.concatenate(both) for both in zip(arrays, later, strict=True))
    state, start, end, worker, failed = arrays
    real = (state == WORK) | (end - start > TIME_RESOLUTION)
    return CallSpans(state[real], start[real], end[real], worker[real], failed[real])


def _first_attempts(
    columns: Columns[Any, Any], items: ItemTimes, retried: Array
) -> tuple[Array, ...]:
    """
    List the spans of first attempts, and of the waits at the rate limiter before them.

    Neighbours in one batch with equal times shared a call. With different times they were called
    one after the other, as a group on an executor.
    """
    import numpy as np

    seconds, worker = items.seconds.copy(), items.worker.copy()
    failed = np.where(items.status == FAILED, FAILED_FINALLY, NOT_FAILED)
    failed[retried] = RETRIED
    for place, row in zip(retried.tolist(), items.row[retried].tolist(), strict=True):
        first = columns.history[row][0]
        seconds[place], worker[place] = first.seconds, first.worker
    continues = np.zeros(len(items), dtype=bool)
    continues[1:] = (
        (np.diff(items.batch) == 0) & (items.batch[1:] >= 0) & (np.diff(items.started) == 0)
    )
    is_call = ~continues
    is_call[1:] |= np.diff(seconds) != 0
    is_first, calls = ~continues[is_call], np.flatnonzero(is_call)
    seconds, worker = seconds[calls], worker[calls]
    # Calls of one group follow each other: each starts after the seconds of those before it, which
    # is a running sum that begins again at the first call of each group.
    passed = np.cumsum(seconds) - seconds
    first_of_group = np.maximum.accumulate(np.where(is_first, np.arange(len(calls)), 0))
    start = items.started[calls] + passed - passed[first_of_group]
    return (
        np.repeat((WORK, LIMITER), (len(calls), is_first.sum())),
        np.concatenate((start, items.asked[calls][is_first])),
        np.concatenate((start + seconds, items.started[calls][is_first])),
        np.concatenate((worker, worker[is_first])),
        np.concatenate((failed[calls], np.full(is_first.sum(), NOT_FAILED))),
    )


def _retries(columns: Columns[Any, Any], items: ItemTimes, retried: Array) -> list[_Span]:
    """List the spans of the attempts after the first, and of the back-off and wait before each."""
    spans: dict[tuple[int, int, float, int], _Span] = {}
    chosen = (
        column[retried].tolist()
        for column in (items.row, items.batch, items.worker, items.status, items.started, items.end)
    )
    for row, batch, worker, status, started, end in zip(*chosen, strict=True):
        run_began, history = started - columns.started[row], columns.history[row]
        seconds = columns.seconds[row] - sum(attempt.seconds for attempt in history)
        waited = columns.waited[row] if columns.waited is not None else 0.0
        waited -= sum(attempt.waited for attempt in history)
        last = Attempt(end - run_began - seconds, seconds, "", 0.0, waited, worker)
        for before, attempt in pairwise((*history, last)):
            failed = RETRIED
            if attempt is last:
                failed = FAILED_FINALLY if status == FAILED else NOT_FAILED
            for span in _retry_spans(before, attempt, run_began, failed):
                # The items of a batch share its calls: each span is listed once.
                state, _, ended, on, _ = span
                spans.setdefault((batch if batch >= 0 else ~row, state, ended, on), span)
    return list(spans.values())


def _retry_spans(
    before: Attempt, attempt: Attempt, run_began: float, failed: int
) -> Iterator[_Span]:
    """Yield the back-off and the wait between two attempts, and the second attempt."""
    worker, begins = attempt.worker, run_began + attempt.started
    asked = begins - attempt.waited
    yield BACKOFF, run_began + before.started + before.seconds, asked, worker, NOT_FAILED
    yield LIMITER, asked, begins, worker, NOT_FAILED
    yield WORK, begins, begins + attempt.seconds, worker, failed
