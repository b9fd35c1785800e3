"""A service that follows a script: so slow, so unreliable, so soon too busy, on any clock."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Awaitable, Iterable, Mapping, MutableSequence
from typing import TypeVar, cast

from ragasync.limits.bucket import Bucket
from ragasync.simulation.chance import draw, key_of, key_of_all, scrambled, share
from ragasync.simulation.latency import LatencyLike
from ragasync.simulation.replies import ServiceError
from ragasync.simulation.script import Script

T = TypeVar("T")

REFUSAL_SECONDS = 0.01
"""Seconds that a service needs to refuse a call without looking at it."""

COLD = 3.0
"""How many times the usual latency the first call of a slow start takes."""


class ScriptedService:
    """
    An async function that fares as a script says, for trying settings out.

    It takes an item, or a list of them as one batched call, sleeps on the clock of the running
    loop and returns what it was given; or it raises a ServiceError, which retries judge as they
    do an HTTP error. What an item meets hangs on the seed, the item and on how often it has
    failed before, not on who else calls: runs with different settings can be compared.

        >>> from ragasync import run_async
        >>> from ragasync.simulation import ScriptedService
        >>> service = ScriptedService(latency=0.001)
        >>> run_async(service("a text"))
        'a text'
        >>> service
        <ScriptedService 1 call, 0 failed, 0 in flight>

    A call is refused after 10 ms in an outage (503), above `rate` (429), and when twice `capacity`
    are being served (503). Else it takes its latency, and then fails by `permanent_error_rate`
    (400) or by `error_rate`, or succeeds.

    Args:
        latency: seconds a call takes: a number, a `Latency`, measured seconds to draw from, or a
            function of a random.Random.
        error_rate: the share of calls that fail though another attempt may succeed, with status
            503; or shares by status, as {503: 0.02, 429: 0.01}.
        permanent_error_rate: the share of items that fail each time, and every batch that
            they are in, with status 400.
        rate: calls a second it allows, a second's worth at once; beyond, it answers 429 with the
            seconds in Retry-After.
        capacity: calls at once that it serves at full speed. With c above that, a call that begins
            takes (c / capacity)**2 times as long, so that more calls at once get less done; twice
            as many are its end.
        slow_start: seconds until it is warm: from three times its latency at the first call down
            to its own, evenly.
        outages: pairs of seconds since the first call, from when until when it refuses all.
        seed: the same seed, the same fates.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range.

    Attributes:
        calls: how many calls came, those refused and failed included.
        failed: how many of these failed.
        refused: how many of these were refused without being served.
        in_flight: how many are in flight now.
        most_in_flight: the most that were at once.
        started: when each call came, in seconds since the first.
    """

    calls: int
    failed: int
    refused: int
    in_flight: int
    most_in_flight: int
    started: MutableSequence[float]
    _zero: float
    _latest: float

    def __init__(
        self,
        latency: LatencyLike = 1.0,
        error_rate: float | Mapping[int, float] = 0.0,
        *,
        permanent_error_rate: float = 0.0,
        rate: float | None = None,
        capacity: int | None = None,
        slow_start: float = 0.0,
        outages: Iterable[tuple[float, float]] = (),
        seed: int = 0,
    ) -> None:
        self._script = Script.of(
            latency, error_rate, permanent_error_rate, rate, capacity, slow_start, outages
        )
        self._begin(seed)

    def fresh(self, seed: int | None = None) -> ScriptedService:
        """Return a service with the same script, nothing behind it, and another seed if given."""
        other = object.__new__(type(self))
        other._script = self._script
        other._begin(self._seed if seed is None else seed)
        return other

    async def __call__(self, item: T) -> T:
        """
        Serve an item, or a list of items in one call, and return it.

        Raises:
            ServiceError: as the script says.
        """
        now = asyncio.get_running_loop().time()
        if now < self._latest:  # the first call, or the clock of another loop, behind the last
            self._begin_time(now)
        self._latest = now
        self.started.append(now - self._zero)
        self.calls += 1
        self.in_flight += 1
        if self.in_flight > self.most_in_flight:
            self.most_in_flight = self.in_flight
        key = key_of_all(item) if isinstance(item, list) else key_of(item)
        try:
            if self._may_refuse:
                await self._pass(now)
            bits = draw(self._call_seed, key, self._failures.get(key, 0) if self._failures else 0)
            await self._serve(bits, now)
            if self._may_fail:
                self._raise_if_failed(item, bits)
        except BaseException:
            # One that was cancelled, at its timeout, counts too: the next attempt fares anew.
            self.failed += 1
            self._failures[key] = self._failures.get(key, 0) + 1
            raise
        finally:
            self.in_flight -= 1
        return item

    def is_poison(self, item: object) -> bool:
        """Return whether an item fails each time."""
        rate = self._script.permanent_error_rate
        return rate > 0.0 and share(draw(self._poison_seed, key_of(item))) < rate

    def calls_over_time(self, width: float = 1.0) -> list[int]:
        """Return how many calls came in each stretch of `width` seconds since the first."""
        if not (math.isfinite(width) and width > 0):
            raise ValueError(f"width must be positive and finite, got {width!r}")
        counts = [0] * (int(max(self.started, default=-width) / width) + 1)
        for at in self.started:
            counts[int(at / width)] += 1
        return counts

    def __repr__(self) -> str:
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        return f"<ScriptedService {calls}, {self.failed:,} failed, {self.in_flight:,} in flight>"

    def _begin(self, seed: int) -> None:
        """Have nothing behind."""
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed must be a whole number, got {seed!r}")
        self._seed = seed
        self._call_seed = scrambled(2 * seed)
        self._poison_seed = scrambled(2 * seed + 1)
        rate = self._script.rate
        self._bucket = None if rate is None else Bucket(rate, max(1.0, rate))
        # Looked at in every call of a million.
        self._quantile = self._script.latency.quantile
        self._may_refuse, self._may_fail = self._script.may_refuse, self._script.may_fail
        self._is_steady = self._script.is_steady
        self._zero = self._latest = math.inf
        self._serving = 0
        self._failures: dict[int, int] = {}  # by key; most items have none
        self.calls = self.failed = self.refused = 0
        self.in_flight = self.most_in_flight = 0
        self.started = array("d")

    def _begin_time(self, now: float) -> None:
        """Count seconds from now."""
        self._zero = now
        if self._bucket is not None:
            self._bucket.restart()

    async def _pass(self, now: float) -> None:
        """Raise at once, but for what a refusal takes, if a call is refused unseen."""
        if (refusal := self._refusal(now, now - self._zero)) is not None:
            self.refused += 1
            await asyncio.sleep(REFUSAL_SECONDS)
            raise refusal

    def _serve(self, bits: int, now: float) -> Awaitable[None]:
        """Return what takes the time of a call."""
        seconds = self._quantile(share(bits))
        if self._is_steady:
            return asyncio.sleep(seconds)
        return self._serve_counted(seconds, now - self._zero)

    async def _serve_counted(self, seconds: float, since: float) -> None:
        """Take the time of a call that slows others down, or is slowed down by them."""
        self._serving += 1
        try:
            await asyncio.sleep(seconds * self._slowness(since))
        finally:
            self._serving -= 1

    def _refusal(self, now: float, since: float) -> ServiceError | None:
        """Return what a call is refused with before it is looked at, or None."""
        script = self._script
        if any(begin <= since < end for begin, end in script.outages):
            return ServiceError(503)
        if self._bucket is not None and not self._bucket.try_take(1.0, now):
            wait = math.ceil(self._bucket.delay(1.0, now) * 1000) / 1000
            return ServiceError(429, {"Retry-After": f"{wait:.3f}"})
        if script.capacity is not None and self._serving >= 2 * script.capacity:
            return ServiceError(503)
        return None

    def _slowness(self, since: float) -> float:
        """Return how many times its latency a call takes that begins now."""
        script, slowness = self._script, 1.0
        if script.capacity is not None and self._serving > script.capacity:
            slowness = (self._serving / script.capacity) ** 2
        if since < script.slow_start:
            slowness *= COLD - (COLD - 1.0) * since / script.slow_start
        return slowness

    def _raise_if_failed(self, item: object, bits: int) -> None:
        """Raise what a call that was served ends with, unless it succeeds."""
        items = cast("list[object]", item) if isinstance(item, list) else [item]
        if any(map(self.is_poison, items)):
            raise ServiceError(400)
        chance = share(scrambled(bits))
        for status, rate in self._script.error_rates:
            if chance < rate:
                raise ServiceError(status)
            chance -= rate
