"""From when to when the calls of a run worked, waited for the rate limit, and backed off."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.facts import RunFacts
from ragasync.outcomes.outcome import FAILED, Attempt
from ragasync.reports.timed import Timed

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

WORK, LIMITER, BACKOFF = STATES = range(3)
STATE_COLOURS = {WORK: "#4c8dd6", LIMITER: "#9a9a9a", BACKOFF: "#a876d4"}
_NAMES = {LIMITER: "waiting for the rate limit", BACKOFF: "backing off"}

ANY_LANE = -1
"""The lane of an earlier attempt: only that of an item's last one is recorded."""

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
    lane: Array
    failed: Array

    def __len__(self) -> int:
        return len(self.state)


def spans_of(columns: Columns[Any, Any], items: Timed) -> Spans:
    """
    Return what every call of a run did when, of a plain run and of its retries.

    Args:
        columns: what holds the earlier attempts.
        items: the items that were started, of the same columns.
    """
    import numpy as np

    retried = np.zeros(len(columns), dtype=bool)
    retried[list(columns.history)] = True
    retried = retried[items.row]
    state, start, end, lane, failed = _plain(items, ~retried)
    spans = _of_retried(columns, items, np.flatnonzero(retried))
    if spans:
        more = [np.array(fact) for fact in zip(*spans, strict=True)]
        state, start, end, lane, failed = (
            np.concatenate(both)
            for both in zip((state, start, end, lane, failed), more, strict=True)
        )
    real = (state == WORK) | (end - start > TICK)
    return Spans(state[real], start[real], end[real], lane[real], failed[real])


def names_of(facts: RunFacts) -> dict[int, str]:
    """Return what the states are called: an item of a pipeline is not in one call, but in many."""
    return {WORK: "under way" if facts.stages else "in calls", **_NAMES}


def noun_of(facts: RunFacts) -> str:
    """Return what the stretches of a run are the stretches of."""
    return "documents" if facts.stages else "calls"


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


def _plain(items: Timed, chosen: Array) -> tuple[Array, Array, Array, Array, Array]:
    """
    Return the stretches of the calls that were made once.

    Neighbours in one batch with the same time were one call. With other times they were done one
    after the other, on an executor.
    """
    import numpy as np

    started, seconds, batch = items.started[chosen], items.seconds[chosen], items.batch[chosen]
    together = np.zeros(len(started), dtype=bool)
    together[1:] = (np.diff(batch) == 0) & (batch[1:] >= 0) & (np.diff(started) == 0)
    same = together.copy()
    same[1:] &= np.diff(seconds) == 0
    chosen = np.flatnonzero(chosen)[~same]
    started, seconds, first = started[~same], seconds[~same], ~together[~same]
    passed = np.cumsum(seconds) - seconds
    offset = passed - passed[np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))]
    asked = np.maximum(started - items.waited[chosen], 0.0)
    lane = items.lane[chosen]
    failed = np.where(items.status[chosen] == FAILED, FOR_GOOD, NOT_FAILED)
    return (
        np.repeat((WORK, LIMITER), (len(started), first.sum())),
        np.concatenate((started + offset, asked[first])),
        np.concatenate((started + offset + seconds, started[first])),
        np.concatenate((lane, lane[first])),
        np.concatenate((failed, np.full(first.sum(), NOT_FAILED))),
    )


def _of_retried(columns: Columns[Any, Any], items: Timed, places: Array) -> list[_Span]:
    """Return the stretches of the items that were tried more than once."""
    spans: dict[tuple[int, int, float], _Span] = {}
    chosen = (
        column[places].tolist()
        for column in (items.row, items.batch, items.waited, items.lane, items.status, items.end)
    )
    total = items.seconds[places].tolist()
    for (row, batch, waited, lane, status, end), seconds in zip(
        zip(*chosen, strict=True), total, strict=True
    ):
        history = columns.history[row]
        last = max(0.0, seconds - sum(attempt.seconds for attempt in history))
        tries = [*history, Attempt(max(end - last, _end(history[-1])), last, "", 0.0)]
        for span in _of_one(
            tries, waited / len(tries), lane, FOR_GOOD if status == FAILED else NOT_FAILED
        ):
            # What parts of a batch went through together is there once.
            spans.setdefault((batch if batch >= 0 else ~row, span[0], span[2]), span)
    return list(spans.values())


def _of_one(tries: list[Attempt], wait: float, lane: int, failed: int) -> list[_Span]:
    """Return the stretches of one item: each attempt, and what lay between."""
    first, *_, last = tries
    spans: list[_Span] = [
        (LIMITER, max(0.0, first.started - wait), first.started, ANY_LANE, NOT_FAILED),
        (WORK, last.started, _end(last), lane, failed),
    ]
    for attempt, following in pairwise(tries):
        ended, begins = _end(attempt), following.started
        asked = max(begins - wait, min(begins, ended + attempt.backed_off))
        place = lane if following is last else ANY_LANE
        spans += (
            (WORK, attempt.started, ended, ANY_LANE, TRIED_AGAIN),
            (BACKOFF, ended, asked, lane, NOT_FAILED),
            (LIMITER, asked, begins, place, NOT_FAILED),
        )
    return spans


def _end(attempt: Attempt) -> float:
    """Return when an attempt ended."""
    return attempt.started + attempt.seconds
