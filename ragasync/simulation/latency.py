"""
The latency of a service: a named distribution, measured samples, or a function.

Random numbers are computed without a generator's state: the same seed, key and attempt give the
same bits.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import NormalDist
from typing import TypeAlias

from ragasync.arguments import check_number, check_seconds

_STANDARD_NORMAL = NormalDist()
_MASK = (1 << 64) - 1
_ITEM = 0x9E3779B97F4A7C15  # odd numbers, so that neighbouring keys land far apart
_ATTEMPT = 0xD1342543DE82EF95


@dataclass(frozen=True, slots=True)
class Latency:
    """
    A distribution of seconds per call, made by one of its class methods.

    It answers one question, `quantile(share)`: which latency is that share of the calls below? It
    has no random numbers of its own; a caller draws a share from (0, 1).

        >>> from ragasync.simulation import Latency
        >>> Latency.lognormal(median=0.8, sigma=0.5).quantile(0.5)
        0.8
        >>> Latency.uniform(1.0, 3.0).quantile(0.25)
        1.5

    Attributes:
        name: the distribution in words.
        quantile: returns the latency that a share of the calls is below, in seconds.
    """

    name: str
    quantile: Callable[[float], float] = field(repr=False, compare=False)

    @classmethod
    def constant(cls, seconds: float | timedelta) -> Latency:
        """The same latency for every call."""
        seconds = check_seconds("seconds", seconds)
        return cls(f"{seconds:g} s", lambda _: seconds)

    @classmethod
    def uniform(cls, low: float | timedelta, high: float | timedelta) -> Latency:
        """Latencies distributed uniformly between `low` and `high` seconds."""
        first = check_seconds("low", low)
        last = check_number("high", check_seconds("high", high), at_least=first)
        return cls(f"uniform({first:g}, {last:g})", lambda share: first + (last - first) * share)

    @classmethod
    def normal(cls, mean: float | timedelta, sd: float | timedelta) -> Latency:
        """Latencies with a mean and a standard deviation, in seconds; never below 0."""
        middle, spread = check_seconds("mean", mean), check_seconds("sd", sd)
        at = _STANDARD_NORMAL.inv_cdf
        return cls(
            f"normal({middle:g}, {spread:g})", lambda share: max(0.0, middle + spread * at(share))
        )

    @classmethod
    def lognormal(cls, median: float | timedelta, sigma: float) -> Latency:
        """
        Latencies with a long tail of slow calls, which is typical of services.

        Args:
            median: the median latency in seconds.
            sigma: the standard deviation of the logarithm: at 0.5 one call in forty takes longer
                than 2.7 medians, at 1.0 longer than 7.
        """
        middle = check_seconds("median", median, positive=True)
        check_number("sigma", sigma)
        at, exp = _STANDARD_NORMAL.inv_cdf, math.exp
        return cls(
            f"lognormal({middle:g}, {sigma:g})", lambda share: middle * exp(sigma * at(share))
        )

    @classmethod
    def exponential(cls, mean: float | timedelta) -> Latency:
        """Latencies with a mean in seconds: most calls are fast, a few are slow."""
        length = check_seconds("mean", mean, positive=True)
        return cls(f"exponential({length:g})", lambda share: -length * math.log1p(-share))

    @classmethod
    def samples(cls, seconds: Iterable[float | timedelta]) -> Latency:
        """Measured latencies in seconds, drawn with equal probability."""
        measured = tuple(float(check_seconds("each of the samples", each)) for each in seconds)
        if not measured:
            raise ValueError("samples must be at least one time in seconds, got none")
        count = len(measured)
        return cls(f"one of {count:,} samples", lambda share: measured[int(share * count)])

    @classmethod
    def drawn_by(cls, function: Callable[[random.Random], float]) -> Latency:
        """Latencies drawn by a function, which gets a freshly seeded Random for each call."""

        def quantile(share: float) -> float:
            seconds = function(random.Random(share))
            check_number("what the function of latency returns", seconds)
            return seconds

        quantile(0.5)
        return cls(getattr(function, "__qualname__", repr(function)), quantile)


LatencyLike: TypeAlias = (
    float | timedelta | Latency | Iterable[float | timedelta] | Callable[[random.Random], float]
)
"""Seconds, a distribution, samples to draw from, or a function that draws with a Random."""


def as_latency(given: LatencyLike) -> Latency:
    """
    Turn an argument into a Latency.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a negative or infinite latency, or an empty sequence of samples.
    """
    if isinstance(given, Latency):
        return given
    if isinstance(given, int | float | timedelta):
        return Latency.constant(float(check_seconds("latency", given)))
    if callable(given):
        return Latency.drawn_by(given)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | dict):
        return Latency.samples(given)
    raise TypeError(
        f"latency must be seconds, a Latency such as Latency.lognormal(1.0, 0.5), a sequence of "
        f"measured seconds, or a function of a random.Random; got {given!r}"
    )


def key_of(item: object) -> int:
    """The key of an item, the same on every machine."""
    if type(item) is int:
        return item
    text = item if isinstance(item, str) else repr(item)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())


def key_of_batch(items: list[object]) -> int:
    """The key of a batch, which depends on the order of its items."""
    key = len(items)
    for item in items:
        key = scramble(key + key_of(item))
    return key


def random_bits(seed: int, key: int, attempt: int = 0) -> int:
    """64 random bits for an attempt at a key."""
    return scramble(seed + key * _ITEM + attempt * _ATTEMPT)


def scramble(number: int) -> int:
    """
    Turn a number into 64 bits that look random.

    The finaliser of SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014.
    """
    number &= _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def unit_interval(bits: int) -> float:
    """64 bits as a number strictly between 0 and 1."""
    return ((bits >> 11) + 0.5) * 2.0**-53
