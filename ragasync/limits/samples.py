"""The calls by which a bound is judged: begun one after the other, and told by their medians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

CallEnd: TypeAlias = Literal["success", "rate_limited", "overloaded", "error"]
"""How a call ended: refused (429), or by another congestion, which fewer at once may spare it."""

ENOUGH = 0.6
"""The share of a cohort that must have ended; the rest counts as longer than all."""

USED = 0.5
"""The share of calls that must have seen the bound reached for it to be what holds back."""

SURE = 1.5
"""How many standard deviations above chance a latency must be to be called higher."""


class SampleWindow:
    """
    The calls that were begun while a bound was in force, up to a number.

    It is judged when six in ten of them have ended, and the others count as longer than those:
    the first calls to *end* would be the short ones, and the bound would look better than it is.

    Args:
        size: how many calls belong to it.

    Attributes:
        begun: how many of them have begun.
        seen: how many calls, of it or beside it, have ended.
        congested: how many of these met congestion, but for a refusal.
        refused: how many of these were refused.
    """

    __slots__ = (
        "_ended",
        "_found_full",
        "_seconds",
        "begun",
        "congested",
        "refused",
        "seen",
        "size",
    )

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = self.seen = self.congested = self.refused = 0
        self._found_full = self._ended = 0
        self._seconds: list[float] = []

    def begin(self) -> bool:
        """Count a call that begins; return whether it belongs to the cohort."""
        if self.begun >= self.size:
            return False
        self.begun += 1
        return True

    def end(self, seconds: float, how: CallEnd, *, full: bool) -> None:
        """Count a call of the cohort that ended; only what succeeded tells of latency."""
        self._ended += 1
        self._found_full += full
        if how == "success":
            self._seconds.append(seconds)

    def count(self, how: CallEnd) -> None:
        """Count a call that ended in its time, whether or not it belongs to the cohort."""
        self.seen += 1
        if how == "rate_limited":
            self.refused += 1
        elif how == "overloaded":
            self.congested += 1

    @property
    def is_complete(self) -> bool:
        """Whether enough of it have ended."""
        return self._ended >= ENOUGH * self.size

    @property
    def is_full(self) -> bool:
        """Whether the bound held its calls back, and nothing else did."""
        return self._found_full >= USED * self._ended

    @property
    def share(self) -> float:
        """The share of calls that met congestion, refused or not."""
        return (self.congested + self.refused) / max(1, self.seen)

    @property
    def latency(self) -> Latency | None:
        """What the calls that succeeded took, or None where they are too few to tell."""
        if 2 * len(self._seconds) < self._ended:
            return None
        return Latency.of(self._seconds, unended=self.size - self._ended)


class Latency:
    """
    The latency of some calls: a median, how many told it, and how far they lie apart.

    Args:
        seconds: the median.
        calls: how many calls it is of.
        spread: the mean distance of a call from it, as a logarithm: 0.0 where all are equal.
    """

    __slots__ = ("calls", "seconds", "spread")

    def __init__(self, seconds: float, calls: int, spread: float) -> None:
        self.seconds, self.calls, self.spread = seconds, calls, spread

    @classmethod
    def of(cls, seconds: Sequence[float], *, unended: int = 0) -> Latency:
        """Return the latency of calls that took so long, and of some that took longer."""
        ordered = sorted(max(each, 1e-9) for each in seconds)
        median = ordered[min((len(ordered) + unended - 1) // 2, len(ordered) - 1)]
        spread = math.fsum(abs(math.log(each / median)) for each in ordered) / len(ordered)
        return cls(median, len(ordered), spread)

    def chance(self, other: Latency) -> float:
        """
        Return the factor that two medians of the same distribution may lie apart by chance.

        A median of n calls has 1.25 times the standard error of their mean (of logarithms, which
        are about normal where latencies have a heavy tail), and the standard deviation is 1.25
        times the mean distance.
        """
        spread = 1.25 * max(self.spread, other.spread)
        return math.exp(SURE * 1.25 * spread * math.sqrt(1 / self.calls + 1 / other.calls))

    def above(self, other: Latency, times: float) -> bool:
        """Return whether it is more than so many times the other, beyond chance."""
        return self.seconds > times * other.seconds * self.chance(other)

    def joined(self, other: Latency, most: int = 400) -> Latency:
        """Return both as one, by their numbers of calls; what came first fades."""
        calls = min(self.calls, most)
        weight = other.calls / (calls + other.calls)
        return Latency(
            self.seconds * (other.seconds / self.seconds) ** weight,
            calls + other.calls,
            self.spread + (other.spread - self.spread) * weight,
        )

    def __repr__(self) -> str:
        return f"<Latency {self.seconds:g} s of {self.calls} calls>"


class Began(NamedTuple):
    """What is noted of a call when it begins."""

    cohort: SampleWindow | None
    cuts: int
    fills: int


class Cut(NamedTuple):
    """What was before a cut, while it is judged."""

    bound: int
    step: float
    cohort: SampleWindow
    latency: Latency | None
