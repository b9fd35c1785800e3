"""How many calls of a stage were in flight over time, in equal bins."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from ragasync.clock import Clock

BINS = 300
"""The number of bins; when a run outlasts the last one, every two are merged into one."""

FIRST_WIDTH = 0.01
"""The seconds of a bin at the start."""

_Bins: TypeAlias = "tuple[float, array[float], array[float]]"


@dataclass(frozen=True, slots=True)
class Utilization:
    """
    The average number of concurrent calls in each bin of a run.

    Args:
        width: the seconds of a bin.
        steps: for each bin, how many more calls than in the bin before were in flight throughout.
        parts: for each bin, the seconds of calls that were in flight for a part of it, added up.
        began: the start of the first bin, in seconds since the start of the first merged run.
    """

    width: float
    steps: Sequence[float]
    parts: Sequence[float]
    began: float = 0.0

    def concurrency(self) -> list[float]:
        """The average number of concurrent calls in each bin."""
        throughout = accumulate(self.steps)
        pairs = zip(throughout, self.parts, strict=True)
        return [calls + part / self.width for calls, part in pairs]


class ActivityMonitor:
    """
    Records when calls are in flight, in constant time and space, on the loop that makes them.

    Attributes:
        calls: the number of finished calls.
        seconds: the time in finished calls, added up.
        in_flight: the calls that were reported by `call_started` and have not ended.
        extra_slot_seconds: the call time that was allowed beyond the latest limit throughout, or
            below it if negative: 0 if the limit never changed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.calls = 0
        self.seconds = 0.0
        self.in_flight = 0
        self._sum_of_starts = 0.0
        self.restart()

    def restart(self) -> None:
        """Start the first bin now."""
        self._started_at = self._clock()
        self.extra_slot_seconds = 0.0
        self._bins: _Bins = FIRST_WIDTH, _zeros(), _zeros()

    @property
    def seconds_so_far(self) -> float:
        """The time in calls up to now, including the calls in flight."""
        if not self.in_flight:
            return self.seconds
        now = self._clock() - self._started_at
        return self.seconds + self.in_flight * now - self._sum_of_starts

    def limit_changed(self, before: int, after: int) -> None:
        """Record that another number of calls may be in flight from now on."""
        self.extra_slot_seconds += (before - after) * (self._clock() - self._started_at)

    def call_started(self, began: float) -> None:
        """Count a call in flight, until `call_ended`."""
        self.in_flight += 1
        self._sum_of_starts += began - self._started_at

    def call_ended(self, began: float, ended: float) -> None:
        """Record a call that `call_started` has counted."""
        self.in_flight -= 1
        if self.in_flight:
            self._sum_of_starts -= began - self._started_at
        else:
            self._sum_of_starts = 0.0  # rounding errors do not add up
        self.add(began, ended)

    def add_ended_now(self, seconds: float) -> None:
        """Record a call that took some seconds and ends now."""
        now = self._clock()
        self.add(now - seconds, now)

    def add(self, began: float, ended: float) -> None:
        """Record a finished call."""
        self.calls += 1
        self.seconds += ended - began
        start, end = max(0.0, began - self._started_at), ended - self._started_at
        width, steps, parts = self._bins
        while end >= width * BINS:
            width, steps, parts = self._bins = _widened(self._bins)
        first, last = int(start / width), int(end / width)
        if first >= last:
            parts[last] += end - start
            return
        parts[first] += (first + 1) * width - start
        parts[last] += end - last * width
        # In flight throughout the bins between the two; the steps cancel out if there are none.
        steps[first + 1] += 1
        steps[last] -= 1

    def snapshot(self) -> Utilization:
        """Copy the record so far; safe from any thread."""
        width, steps, parts = self._bins
        return Utilization(width, steps[:], parts[:])


def _zeros() -> array[float]:
    """A zero for each bin."""
    return array("d", bytes(8 * BINS))


def _widened(bins: _Bins) -> _Bins:
    """Merge every two bins into one of twice the width."""
    width, steps, parts = bins
    narrow = [width * calls + part for calls, part in zip(accumulate(steps), parts, strict=True)]
    wide = _zeros()
    for i in range(0, BINS, 2):
        wide[i // 2] = narrow[i] + narrow[i + 1]
    return 2 * width, _zeros(), wide
