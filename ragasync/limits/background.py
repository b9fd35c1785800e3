"""The share of calls that fail now and then, told apart from what too many at once make fail."""

from __future__ import annotations

import math

from ragasync.limits.samples import CallEnd, SampleWindow

WINDOW = 20
"""Calls below which nothing is said of a share; a burst of errors need not wait for so many."""

CLEAR = 3.0
"""How many standard deviations above its usual number errors are called more frequent."""

SPARED = 0.25
"""The share of calls that a cut spares."""

HALF = 0.5
"""Where more than so many fail, there is nothing to lose by going down."""

REFUSED = 0.2
"""Where more than so many are refused (429), fewer calls are what the service asks for."""

REMEMBERED = 2_000
"""The calls that the usual share is told by; older ones fade."""


class ErrorBaseline:
    """
    How often calls fail for a reason that fewer of them at once would not take away.

    A refusal (429) is a sign by itself, unless cuts have shown that it comes anyway. An overload
    or a timeout is one only when it comes clearly more often than at the bounds that held.
    """

    __slots__ = ("_calls", "_failed", "_refused")

    def __init__(self) -> None:
        self._calls = self._failed = self._refused = 0.0

    def __repr__(self) -> str:
        return f"<Background: {self._failed:g} of {self._calls:g} calls>"

    def is_exceeded(self, cohort: SampleWindow, how: CallEnd | None = None) -> bool:
        """Return whether a cohort met more of one kind of errors, or of any, than is usual."""
        if how in ("rate_limited", None):
            expected = self._refused * cohort.seen
            if cohort.refused > expected + 2 * math.sqrt(expected):
                return True
        if how in ("overloaded", None):
            usual = (self._failed + 1) / (self._calls + WINDOW)
            expected = usual * max(cohort.seen, WINDOW)
            return cohort.congested > expected + CLEAR * math.sqrt(expected) + 1
        return False

    def held(self, cohort: SampleWindow) -> None:
        """Learn from a cohort whose errors were no sign."""
        if self._calls > REMEMBERED:
            self._calls, self._failed = self._calls / 2, self._failed / 2
        self._calls += cohort.seen
        self._failed += cohort.congested

    def endured(self, before: SampleWindow, after: SampleWindow) -> None:
        """Learn from a cut that brought no relief: what came before it is no guide any more."""
        self._calls = float(before.seen + after.seen)
        self._failed = float(before.congested + after.congested)
        self._refused = max(self._refused, after.refused / max(1, after.seen))


def in_vain(before: SampleWindow, after: SampleWindow) -> bool:
    """
    Return whether a cut brought no relief, and calls fail as they did, but not all of them.

    Were there too many at once, a cut by a quarter would spare a quarter of the calls: of a share
    s that failed, (s - 1/4) / (3/4) would be left. It was of use where it came half way to that.
    Where clearly more fail than before, the bound had not been reached yet, and tells nothing.
    """
    if after.refused:
        most = max(after.share, before.share)
        return most <= REFUSED and after.share > 0.6 * before.share
    spared = max(0.0, (before.share - SPARED) / (1 - SPARED))
    alike = before.share * after.seen
    more = after.share * after.seen > alike + 2 * math.sqrt(alike)
    return after.share <= HALF and 2 * after.share > before.share + spared and not more
