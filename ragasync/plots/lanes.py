"""On which lane each stretch of time is drawn."""

from __future__ import annotations

from bisect import bisect, insort
from typing import Any, TypeAlias

import numpy as np

from ragasync.reports.spans import ANY_LANE, LIMITER, WORK, Spans

Array: TypeAlias = "np.ndarray[Any, Any]"


class _Taken:
    """
    What lanes are busy with, as ordered stretches, and which of them has room.

    Args:
        most: how many lanes there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lanes: list[list[tuple[float, float]]] = []

    def take(self, lane: int, start: float, end: float) -> None:
        """Note that a lane is busy."""
        while len(self._lanes) <= lane:
            self._lanes.append([])
        insort(self._lanes[lane], (start, end))

    def find(self, start: float, end: float) -> int:
        """Return the first lane with room from start to end, or that with the most of it."""
        best, least = 0, float("inf")
        for lane, stretches in enumerate(self._lanes):
            place = bisect(stretches, (start, end))
            overlap = 0.0
            if place:
                overlap += max(0.0, stretches[place - 1][1] - start)
            if place < len(stretches):
                overlap += max(0.0, end - stretches[place][0])
            if overlap < least:
                best, least = lane, overlap
            if not overlap:
                break
        if least and len(self._lanes) < self._most:
            return len(self._lanes)
        return best


def lanes_of(spans: Spans, most: int) -> Array:
    """
    Return the lane of each stretch.

    Where an earlier attempt ran is not recorded. It is drawn on a lane that was free then, which
    there must have been, with its wait for the rate limit before it.

    Args:
        spans: the stretches of a run.
        most: how many lanes the run had.
    """
    lane: Array = spans.lane.copy()
    holds = (spans.state == WORK) | (spans.state == LIMITER)
    taken = _Taken(most)
    for place in np.flatnonzero(holds & (lane != ANY_LANE)).tolist():
        taken.take(int(lane[place]), float(spans.start[place]), float(spans.end[place]))
    waits: dict[float, list[int]] = {}
    for place in np.flatnonzero((lane == ANY_LANE) & (spans.state == LIMITER)).tolist():
        waits.setdefault(float(spans.end[place]), []).append(place)
    unplaced = np.flatnonzero((lane == ANY_LANE) & (spans.state == WORK))
    for place in unplaced[np.argsort(spans.start[unplaced], kind="stable")].tolist():
        start, end = float(spans.start[place]), float(spans.end[place])
        wait = waits[start].pop() if waits.get(start) else place
        start = float(spans.start[wait])
        lane[[place, wait]] = found = taken.find(start, end)
        taken.take(found, start, end)
    return np.maximum(lane, 0)
