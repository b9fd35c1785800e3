"""From when to when the calls of a run worked, waited for the rate limit, and backed off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED, Attempt
from ragasync.outcomes.stats import RunStats
from ragasync.reports.timed import Timed

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

WORK, LIMITER, BACKOFF = STATES = range(3)
STATE_COLOURS = {WORK: "#4c8dd6", LIMITER: "#9a9a9a", BACKOFF: "#a876d4"}
_NAMES = {LIMITER: "waiting for the rate limit", BACKOFF: "backing off"}

NOT_FAILED, TRIED_AGAIN, FOR_GOOD = range(3)
"""Whether a call raised, and whether its items were then tried again."""

TICK = 1e-6
"""Seconds that a wait must have taken: sums of times are exact to less than that only."""

_Span = tuple[int, float, float, int, int]


@dataclass(frozen=True, slots=True)
class Spans:
    """
    Stretches of time, an array a fact: what a call did from `start` to `end`, in seconds.

    Items of one batch share a call, and so its stretches. `failed` is one of
    NOT_FAILED, TRIED_AGAIN and FOR_GOOD.
    """

    state: Array
    start: Array
    end: Array
    worker: Array
    failed: Array

    def __len__(self) -> int:
        return len(self.state)


def spans_of(columns: Columns[Any, Any], items: Timed) -> Spans:
    """
    Return what every call of a run did when: first attempts, and then those of its retries.

    Args:
        columns: what holds the log of the attempts.
        items: the items that were started, of the same columns.
    """
    import numpy as np

    retried = np.zeros(len(columns), dtype=bool)
    retried[list(columns.history)] = True
    places = np.flatnonzero(retried[items.row])
    facts = _first_calls(columns, items, places)
    if spans := _later_calls(columns, items, places):
        later = (np.array(fact) for fact in zip(*spans, strict=True))
        facts = tuple(np.concatenate(both) for both in zip(facts, later, strict=True))
    state, start, end, worker, failed = facts
    real = (state == WORK) | (end - start > TICK)
    return Spans(state[real], start[real], end[real], worker[real], failed[real])


def names_of(stats: RunStats) -> dict[int, str]:
    """Return what the states are called: an item of a pipeline is not in one call, but in many."""
    return {WORK: "under way" if stats.stages else "in calls", **_NAMES}


def noun_of(stats: RunStats) -> str:
    """Return what the stretches of a run are the stretches of."""
    return "documents" if stats.stages else "calls"


def occupancy(start: Array, end: Array, edges: Array) -> Array:
    """Return how many of these stretches were open at once, on average, between the edges."""
    import numpy as np

    def integral(instants: Array) -> Array:
        """Return the time since each instant, added up, at each edge."""
        ordered = np.sort(instants)
        before = np.searchsorted(ordered, edges, side="right")
        sums = np.concatenate(([0.0], np.cumsum(ordered)))
        times: Array = edges * before - sums[before]
        return times

    at_once: Array = np.diff(integral(start) - integral(end)) / np.diff(edges)
    return np.maximum(at_once, 0.0)


def _first_calls(columns: Columns[Any, Any], items: Timed, retried: Array) -> tuple[Array, ...]:
    """
    Return the stretches of first attempts, and of the waits for the rate limit before them.

    Neighbours in one batch with the same time were one call. With other times they were done one
    after the other, on an executor.
    """
    import numpy as np

    seconds, worker = items.seconds.copy(), items.worker.copy()
    failed = np.where(items.status == FAILED, FOR_GOOD, NOT_FAILED)
    failed[retried] = TRIED_AGAIN
    for place, row in zip(retried.tolist(), items.row[retried].tolist(), strict=True):
        first = columns.history[row][0]
        seconds[place], worker[place] = first.seconds, first.worker
    together = np.zeros(len(items), dtype=bool)
    together[1:] = (
        (np.diff(items.batch) == 0) & (items.batch[1:] >= 0) & (np.diff(items.started) == 0)
    )
    own = ~together
    own[1:] |= np.diff(seconds) != 0
    opens, calls = ~together[own], np.flatnonzero(own)
    seconds, worker = seconds[calls], worker[calls]
    passed = np.cumsum(seconds) - seconds
    opened = np.maximum.accumulate(np.where(opens, np.arange(len(calls)), 0))
    start = items.started[calls] + passed - passed[opened]
    return (
        np.repeat((WORK, LIMITER), (len(calls), opens.sum())),
        np.concatenate((start, items.asked[calls][opens])),
        np.concatenate((start + seconds, items.started[calls][opens])),
        np.concatenate((worker, worker[opens])),
        np.concatenate((failed[calls], np.full(opens.sum(), NOT_FAILED))),
    )


def _later_calls(columns: Columns[Any, Any], items: Timed, retried: Array) -> list[_Span]:
    """Return the stretches of attempts after the first, and of what lay before each."""
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
            failed = TRIED_AGAIN
            if attempt is last:
                failed = FOR_GOOD if status == FAILED else NOT_FAILED
            for span in _of_one(before, attempt, run_began, failed):
                # What parts of a batch went through together is there once.
                state, _, ended, on, _ = span
                spans.setdefault((batch if batch >= 0 else ~row, state, ended, on), span)
    return list(spans.values())


def _of_one(before: Attempt, attempt: Attempt, run_began: float, failed: int) -> Iterator[_Span]:
    """Yield what lay between an attempt and the one before it, and the attempt."""
    worker, begins = attempt.worker, run_began + attempt.started
    asked = begins - attempt.waited
    yield BACKOFF, run_began + before.started + before.seconds, asked, worker, NOT_FAILED
    yield LIMITER, asked, begins, worker, NOT_FAILED
    yield WORK, begins, begins + attempt.seconds, worker, failed
