"""When the calls of a stage were under way: how many at once, in equal stretches of a run."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from ragasync.clock import Clock

BINS = 300
"""How many there are; when a run goes on beyond the last, two of them become one."""

NARROW = 0.01
"""Seconds of a stretch in the beginning."""

_Bins: TypeAlias = "tuple[float, array[float], array[float]]"


@dataclass(frozen=True, slots=True)
class Utilization:
    """
    How many calls were under way at once, on average over each stretch of a run.

    Args:
        width: the seconds of a stretch.
        steps: how many more calls than in the stretch before were under way all through it.
        parts: seconds of the calls that were under way for a part of it, added up.
        began: when the first stretch begins, in seconds since the start; of a run that was merged
            to an earlier one, since the start of that.
    """

    width: float
    steps: Sequence[float]
    parts: Sequence[float]
    began: float = 0.0

    def at_once(self) -> list[float]:
        """Return how many calls were under way at once, a number a stretch."""
        throughout = accumulate(self.steps)
        pairs = zip(throughout, self.parts, strict=True)
        return [calls + part / self.width for calls, part in pairs]


class ActivityMonitor:
    """
    Notes when calls were under way, in constant time and space, on the loop that makes them.

    Args:
        clock: the clock that they are made by.

    Attributes:
        calls: how many have ended.
        seconds: how long these took, added up.
        under_way: those that have begun since, as far as that is told.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.calls = 0
        self.seconds = 0.0
        self.under_way = 0
        self._begun_at = 0.0
        self.restart()

    def restart(self) -> None:
        """Count time from now on."""
        self._zero = self._clock()
        self._bins: _Bins = NARROW, _zeros(), _zeros()

    @property
    def seconds_so_far(self) -> float:
        """How long calls took up to now, those that are under way included."""
        if not self.under_way:
            return self.seconds
        return self.seconds + self.under_way * (self._clock() - self._zero) - self._begun_at

    def begins(self, began: float) -> None:
        """Note that a call begins; `ends` is to tell of its end."""
        self.under_way += 1
        self._begun_at += began - self._zero

    def ends(self, began: float, ended: float) -> None:
        """Note the end of a call whose beginning was told."""
        self.under_way -= 1
        self._begun_at = self._begun_at - (began - self._zero) if self.under_way else 0.0
        self.note(began, ended)

    def ended(self, took: float) -> None:
        """Note a call that ends now and took so long."""
        now = self._clock()
        self.note(now - took, now)

    def note(self, began: float, ended: float) -> None:
        """Note a call that has ended."""
        self.calls += 1
        self.seconds += ended - began
        start, end = max(0.0, began - self._zero), ended - self._zero
        width, steps, parts = self._bins
        while end >= width * BINS:
            width, steps, parts = self._bins = _wider(self._bins)
        first, last = int(start / width), int(end / width)
        if first >= last:
            parts[last] += end - start
            return
        parts[first] += (first + 1) * width - start
        parts[last] += end - last * width
        steps[first + 1] += 1  # takes itself back where there is no stretch in between
        steps[last] -= 1

    def snapshot(self) -> Utilization:
        """Return what was noted so far; from any thread."""
        width, steps, parts = self._bins
        return Utilization(width, steps[:], parts[:])


def _zeros() -> array[float]:
    """Return a number for each stretch."""
    return array("d", bytes(8 * BINS))


def _wider(bins: _Bins) -> _Bins:
    """Return the same in stretches of twice the width."""
    width, steps, parts = bins
    narrow = [width * calls + part for calls, part in zip(accumulate(steps), parts, strict=True)]
    wide = _zeros()
    for place in range(0, BINS, 2):
        wide[place // 2] = narrow[place] + narrow[place + 1]
    return 2 * width, _zeros(), wide
