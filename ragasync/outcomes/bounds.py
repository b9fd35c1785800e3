"""How many calls at once were allowed, and from when on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

Bounds: TypeAlias = tuple[tuple[float, int], ...]
"""Bounds in order, each with the seconds since the run began from which on it was in force."""

MOST_KEPT = 512


class LimitHistory:
    """
    Keeps how a bound moved, in at most MOST_KEPT steps.

    Args:
        first: the bound that the run begins with.
    """

    def __init__(self, first: int) -> None:
        self._steps: list[tuple[float, int]] = [(0.0, first)]

    def __repr__(self) -> str:
        return f"<LimitHistory of {len(self._steps)} steps>"

    def note(self, seconds: float, bound: int) -> None:
        """Note a bound that is in force from now on."""
        if self._steps[-1][0] >= seconds:
            self._steps.pop()
        self._steps.append((seconds, bound))
        if len(self._steps) > MOST_KEPT:
            del self._steps[1 : MOST_KEPT // 2 : 2]  # the older half, thinned: its ends stay

    def told(self) -> Bounds:
        """Return the steps, or nothing where the bound never moved."""
        return tuple(self._steps) if len(self._steps) > 1 else ()


def worker_seconds(bounds: Sequence[tuple[float, int]], begin: float, end: float) -> float:
    """Return the worker seconds (workers times seconds) allowed between two instants."""
    whole = [*bounds, (max(end, bounds[-1][0]), 0)]
    return sum(
        bound * max(0.0, min(later, end) - max(since, begin))
        for (since, bound), (later, _) in pairwise(whole)
    )


def shifted(bounds: Bounds, otherwise: int, seconds: float) -> Bounds:
    """Return the bounds of a run that began so late; of one that never moved, the one it had."""
    return tuple((since + seconds, bound) for since, bound in bounds or ((0.0, otherwise),))
