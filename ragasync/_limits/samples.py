"""The samples by which a concurrency limit is judged: windows of calls, latencies, error shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

CallEnd: TypeAlias = Literal["success", "rate_limited", "overloaded", "error"]
"""The outcome of a call; fewer concurrent calls may avoid `rate_limited` (429) and `overloaded`."""

ENOUGH = 0.6
"""The share of a window's calls that must have ended; the rest counts as slower than all."""

USED = 0.5
"""The share of calls that must have seen the limit reached for it to be the bottleneck."""

SIGMAS = 1.5
"""The standard deviations beyond chance by which a latency must be higher to count as higher."""

MIN_CALLS = 20
"""The number of calls below which an error share means nothing; a burst of errors needs fewer."""

ERROR_SIGMAS = 3.0
"""The standard deviations above the usual number of errors that count as more errors."""

SPARED = 0.25
"""The share of calls that a decrease of the limit avoids."""

HALF = 0.5
"""If a larger share than this fails, decreasing further loses nothing."""

RATE_LIMITED = 0.2
"""If a larger share than this is rate limited, the service asks for fewer calls."""

MEMORY = 2_000
"""The number of calls that the usual error share is averaged over; older calls fade."""


class SampleWindow:
    """
    A window of calls that began under one limit, up to a number of calls.

    It is judged when six in ten of them have ended, and the others count as slower than those:
    the first calls to *end* are the fast ones, and would make the limit look better than it is.

    Attributes:
        begun: The number of its calls that have begun.
        seen: The number of calls that ended during the window, whether they belong to it or not.
        overloaded: The number of those that were overloaded.
        rate_limited: The number of those that were rate limited.
    """

    __slots__ = (
        *("_ended", "_saw_limit", "_seconds"),
        *("begun", "overloaded", "rate_limited", "seen", "size"),
    )

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = self.seen = self.overloaded = self.rate_limited = 0
        self._saw_limit = self._ended = 0
        self._seconds: list[float] = []

    def begin(self) -> bool:
        """Count a call that begins; return whether it belongs to the window."""
        if self.begun >= self.size:
            return False
        self.begun += 1
        return True

    def end(self, seconds: float, how: CallEnd, *, saw_limit: bool) -> None:
        """Add the sample of a call that ended; only successes have a latency."""
        self._ended += 1
        self._saw_limit += saw_limit
        if how == "success":
            self._seconds.append(seconds)

    def count(self, how: CallEnd) -> None:
        """Count a call that ended during the window, whether or not it belongs to it."""
        self.seen += 1
        if how == "rate_limited":
            self.rate_limited += 1
        elif how == "overloaded":
            self.overloaded += 1

    @property
    def is_complete(self) -> bool:
        """Whether enough of its calls have ended."""
        return self._ended >= ENOUGH * self.size

    @property
    def is_limited(self) -> bool:
        """Whether the limit was the bottleneck of its calls."""
        return self._saw_limit >= USED * self._ended

    @property
    def congested_share(self) -> float:
        """The share of calls that were overloaded or rate limited."""
        return (self.overloaded + self.rate_limited) / max(1, self.seen)

    @property
    def latency(self) -> Latency | None:
        """The latency of the successful calls, or None if most calls failed."""
        if 2 * len(self._seconds) < self._ended:
            return None
        return Latency.of(self._seconds, unended=self.size - self._ended)


class Latency:
    """
    The latency of a number of calls: their median and spread.

    Args:
        spread: The mean distance of a call from the median, as a logarithm; 0.0 if all are equal.
    """

    __slots__ = ("calls", "seconds", "spread")

    def __init__(self, seconds: float, calls: int, spread: float) -> None:
        self.seconds, self.calls, self.spread = seconds, calls, spread

    @classmethod
    def of(cls, seconds: Sequence[float], *, unended: int = 0) -> Latency:
        """Return the latency of ended calls, and of `unended` others that take longer."""
        ordered = sorted(max(each, 1e-9) for each in seconds)
        median = ordered[min((len(ordered) + unended - 1) // 2, len(ordered) - 1)]
        spread = math.fsum(abs(math.log(each / median)) for each in ordered) / len(ordered)
        return cls(median, len(ordered), spread)

    def chance(self, other: Latency) -> float:
        """
        Return the factor by which two medians of the same distribution may differ by chance.

        A median of n calls has 1.25 times the standard error of their mean (of logarithms, which
        are about normal for heavy-tailed latencies), and the standard deviation is 1.25 times the
        mean distance.
        """
        spread = 1.25 * max(self.spread, other.spread)
        return math.exp(SIGMAS * 1.25 * spread * math.sqrt(1 / self.calls + 1 / other.calls))

    def above(self, other: Latency, times: float) -> bool:
        """Return whether the median is more than `times` the other one, beyond chance."""
        return self.seconds > times * other.seconds * self.chance(other)

    def joined(self, other: Latency, most: int = 400) -> Latency:
        """Return both latencies averaged by their numbers of calls; earlier calls fade."""
        calls = min(self.calls, most)
        weight = other.calls / (calls + other.calls)
        return Latency(
            self.seconds * (other.seconds / self.seconds) ** weight,
            calls + other.calls,
            self.spread + (other.spread - self.spread) * weight,
        )


class ErrorBaseline:
    """
    The usual share of errors, which a lower limit would not avoid.

    A rate-limited call (429) is a sign of congestion by itself, unless decreases have shown that
    it comes anyway. An overloaded call is one only if there are clearly more than usual.
    """

    __slots__ = ("_calls", "_overloaded", "_rate_limited")

    def __init__(self) -> None:
        self._calls = self._overloaded = self._rate_limited = 0.0

    def is_exceeded(self, window: SampleWindow, how: CallEnd | None = None) -> bool:
        """Return whether a window had more errors than usual, of one kind or of any."""
        if how in ("rate_limited", None):
            expected = self._rate_limited * window.seen
            if window.rate_limited > expected + 2 * math.sqrt(expected):
                return True
        if how in ("overloaded", None):
            usual = (self._overloaded + 1) / (self._calls + MIN_CALLS)
            expected = usual * max(window.seen, MIN_CALLS)
            return window.overloaded > expected + ERROR_SIGMAS * math.sqrt(expected) + 1
        return False

    def add(self, window: SampleWindow) -> None:
        """Add a window whose errors were not a sign of congestion."""
        if self._calls > MEMORY:
            self._calls, self._overloaded = self._calls / 2, self._overloaded / 2
        self._calls += window.seen
        self._overloaded += window.overloaded

    def replace(self, before: SampleWindow, after: SampleWindow) -> None:
        """Replace the baseline by the windows around a decrease that did not help."""
        self._calls = float(before.seen + after.seen)
        self._overloaded = float(before.overloaded + after.overloaded)
        share = after.rate_limited / max(1, after.seen)
        self._rate_limited = max(self._rate_limited, share)


def made_no_difference(before: SampleWindow, after: SampleWindow) -> bool:
    """
    Return whether a decrease had no effect: about the same share of calls fails, but not most.

    If there were too many concurrent calls, a decrease by a quarter avoids a quarter of the calls:
    of a share s that failed, (s - 1/4) / (3/4) would remain. It helped if the share came half way
    to that. If clearly more fail than before, the limit had not been reached yet, and the window
    says nothing.
    """
    if after.rate_limited:
        most = max(after.congested_share, before.congested_share)
        return most <= RATE_LIMITED and after.congested_share > 0.6 * before.congested_share
    remaining = max(0.0, (before.congested_share - SPARED) / (1 - SPARED))
    same = before.congested_share * after.seen
    more = after.congested_share * after.seen > same + 2 * math.sqrt(same)
    did_not_help = 2 * after.congested_share > before.congested_share + remaining
    return after.congested_share <= HALF and did_not_help and not more


class CallSample(NamedTuple):
    """The state of the limit when a call began."""

    window: SampleWindow | None
    decreases: int
    times_full: int


class Decrease(NamedTuple):
    """The state before a decrease of the limit, while its effect is measured."""

    bound: int
    step: float
    window: SampleWindow
    latency: Latency | None
