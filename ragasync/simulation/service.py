"""A scripted service: exact rates of errors, latencies, limits and outages, from a seed."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Awaitable, Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import TypeVar, cast

from ragasync._limits.bucket import Bucket
from ragasync.arguments import check_count, check_number, check_positive, check_seconds
from ragasync.simulation.latency import (
    LatencyLike,
    as_latency,
    key_of,
    key_of_batch,
    random_bits,
    scramble,
    unit_interval,
)

T = TypeVar("T")

_SETTINGS = (
    *("_quantile", "_error_rates", "_permanent_error_rate", "_rate", "_capacity", "_slow_start"),
    *("_outages", "_may_refuse", "_may_fail", "_is_steady"),
)
"""The attributes of a ScriptedService that its copies share."""

REFUSAL_SECONDS = 0.01
"""Seconds that a service takes to refuse a call without serving it."""

COLD_FACTOR = 3.0
"""How many times the usual latency the first call of a slow start takes."""

DEFAULT_STATUS = 503
"""The status of a transient error, if `error_rate` names none."""


@dataclass(frozen=True, slots=True)
class Response:
    """
    The HTTP response behind a ServiceError.

    Attributes:
        status_code: the HTTP status.
        headers: its headers, such as Retry-After.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)


class ServiceError(Exception):
    """
    An error response of a scripted service.

    It carries a `response` with `status_code` and `headers`, as the errors of HTTP clients do, so
    retries classify it by its status.

    Example:
        >>> from ragasync.simulation import ServiceError
        >>> error = ServiceError(429, {"retry-after": "5"})
        >>> print(error)
        429 Too Many Requests
        >>> error.response.headers["retry-after"]
        '5'
    """

    def __init__(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, headers)
        self.response = Response(status, headers or {})

    def __str__(self) -> str:
        status = self.response.status_code
        return f"{status} {HTTPStatus(status).phrase}"


class ScriptedService:
    """
    A fake service with given latencies, errors and limits, for trying out settings.

    It is an async function. It takes an item, or a list of items as one batched call, sleeps on
    the clock of the running loop, and returns its argument; or it raises a ServiceError, which
    retries classify like an HTTP error. The fate of a call depends on the seed, the item and the
    number of its failures so far, not on other calls, so runs with different settings are
    comparable.

        >>> from ragasync import run_async
        >>> from ragasync.simulation import ScriptedService
        >>> service = ScriptedService(latency=0.001)
        >>> run_async(service("a text"))
        'a text'
        >>> service
        <ScriptedService 1 call, 0 failed, 0 in flight>

    A call is refused after 10 ms during an outage (503), above `rate` (429), and while twice
    `capacity` are being served (503). Otherwise it takes its latency, and then fails with the
    probability `permanent_error_rate` (400) or `error_rate`, or succeeds.

    Args:
        latency: seconds per call: a number, a `Latency`, measured seconds to draw from, or a
            function of a random.Random.
        error_rate: the share of calls that fail with the transient error 503; or shares by
            status, as in {503: 0.02, 429: 0.01}.
        permanent_error_rate: the share of items whose calls always fail, with status 400, as does
            every batch that contains one of them.
        rate: the calls per second that it allows, with a burst of one second; above this rate it
            responds 429, with the delay in Retry-After.
        capacity: the number of concurrent calls that it serves at full speed. With c calls above
            that, a new call takes (c / capacity)**2 times as long, so higher concurrency lowers
            the throughput; at twice the capacity it refuses calls.
        slow_start: seconds of warm-up, in which its latency falls linearly from three times to
            once the usual one.
        outages: pairs of seconds since the first call, the start and end of each outage.
        seed: the seed of all random numbers.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range.

    Attributes:
        calls: the number of calls, including those that were refused or failed.
        failed: the number of calls that failed, including those that were refused.
        refused: the number of calls that were refused without being served.
        in_flight: the number of calls in flight now.
        most_in_flight: the highest number of calls in flight so far.
        started: when each call started, in seconds since the first.
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
        slow_start: float | timedelta = 0.0,
        outages: Iterable[tuple[float | timedelta, float | timedelta]] = (),
        seed: int = 0,
    ) -> None:
        if rate is not None:
            check_positive("rate", rate)
        if capacity is not None:
            check_count("capacity", capacity, at_least=1)
        self._quantile = as_latency(latency).quantile
        self._error_rates = _error_rates(error_rate)
        self._permanent_error_rate = _check_share("permanent_error_rate", permanent_error_rate)
        self._rate, self._capacity = rate, capacity
        self._slow_start = check_seconds("slow_start", slow_start)
        self._outages = tuple(map(_outage, outages))
        # The questions that each call asks are answered here, once.
        self._may_refuse = bool(self._outages) or rate is not None or capacity is not None
        self._may_fail = bool(self._error_rates) or self._permanent_error_rate > 0.0
        self._is_steady = capacity is None and not slow_start
        self._reset(seed)

    def fresh(self, seed: int | None = None) -> ScriptedService:
        """A service with the same settings that has had no calls, and with this seed if given."""
        other = object.__new__(type(self))
        for name in _SETTINGS:  # not copy(): attributes of an object whose dict was read are slower
            setattr(other, name, getattr(self, name))
        other._reset(self._seed if seed is None else seed)
        return other

    async def __call__(self, item: T) -> T:
        """
        Serve an item, or a list of items in one call, and return it.

        Raises:
            ServiceError: the call was refused, or failed.
        """
        now = asyncio.get_running_loop().time()
        if now < self._latest:  # the first call, or a loop whose clock is behind the last one's
            self._zero = now
            if self._bucket is not None:
                self._bucket.restart()
        self._latest = now
        self.started.append(now - self._zero)
        self.calls += 1
        self.in_flight += 1
        if self.in_flight > self.most_in_flight:
            self.most_in_flight = self.in_flight
        key = key_of_batch(item) if isinstance(item, list) else key_of(item)
        try:
            if self._may_refuse:
                await self._raise_if_refused(now)
            bits = random_bits(
                self._call_seed, key, self._failures.get(key, 0) if self._failures else 0
            )
            await self._serve(bits, now)
            if self._may_fail:
                self._raise_if_failed(item, bits)
        except BaseException:
            # A call cancelled by its timeout counts too, so the next attempt draws a new fate.
            self.failed += 1
            self._failures[key] = self._failures.get(key, 0) + 1
            raise
        finally:
            self.in_flight -= 1
        return item

    def always_fails(self, item: object) -> bool:
        """Whether every call with this item fails."""
        rate = self._permanent_error_rate
        return rate > 0.0 and unit_interval(random_bits(self._permanent_seed, key_of(item))) < rate

    def calls_over_time(self, width: float | timedelta = 1.0) -> list[int]:
        """The number of calls that started in each bin of `width` seconds since the first."""
        seconds = check_seconds("width", width, positive=True)
        counts = [0] * (int(max(self.started, default=-seconds) / seconds) + 1)
        for started in self.started:
            counts[int(started / seconds)] += 1
        return counts

    def __repr__(self) -> str:
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        return f"<ScriptedService {calls}, {self.failed:,} failed, {self.in_flight:,} in flight>"

    def _reset(self, seed: int) -> None:
        """Forget all calls."""
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed must be a whole number, got {seed!r}")
        self._seed = seed
        self._call_seed = scramble(2 * seed)
        self._permanent_seed = scramble(2 * seed + 1)
        rate = self._rate
        self._bucket = None if rate is None else Bucket(rate, max(1.0, rate))
        self._zero = self._latest = math.inf
        self._serving = 0
        self._failures: dict[int, int] = {}  # by key; most items have no entry
        self.calls = self.failed = self.refused = 0
        self.in_flight = self.most_in_flight = 0
        self.started = array("d")

    async def _raise_if_refused(self, now: float) -> None:
        """Take the time of a refusal and raise its error, if the call is refused."""
        if (refusal := self._refusal(now, now - self._zero)) is not None:
            self.refused += 1
            await asyncio.sleep(REFUSAL_SECONDS)
            raise refusal

    def _serve(self, bits: int, now: float) -> Awaitable[None]:
        """The awaitable that takes the latency of a call."""
        seconds = self._quantile(unit_interval(bits))
        if self._is_steady:
            return asyncio.sleep(seconds)
        return self._serve_counted(seconds, now - self._zero)

    async def _serve_counted(self, seconds: float, since: float) -> None:
        """Take the latency of a call that depends on the load or on the warm-up."""
        self._serving += 1
        try:
            await asyncio.sleep(seconds * self._slowness(since))
        finally:
            self._serving -= 1

    def _refusal(self, now: float, since: float) -> ServiceError | None:
        """The error with which a call is refused, or None."""
        if any(start <= since < end for start, end in self._outages):
            return ServiceError(503)
        if self._bucket is not None and not self._bucket.try_take(1.0, now):
            wait = math.ceil(self._bucket.delay(1.0, now) * 1000) / 1000
            return ServiceError(429, {"Retry-After": f"{wait:.3f}"})
        if self._capacity is not None and self._serving >= 2 * self._capacity:
            return ServiceError(503)
        return None

    def _slowness(self, since: float) -> float:
        """The factor on the latency of a call that starts now."""
        slowness = 1.0
        if self._capacity is not None and self._serving > self._capacity:
            slowness = (self._serving / self._capacity) ** 2
        if since < self._slow_start:
            slowness *= COLD_FACTOR - (COLD_FACTOR - 1.0) * since / self._slow_start
        return slowness

    def _raise_if_failed(self, item: object, bits: int) -> None:
        """Raise the error of a call that was served, unless it succeeds."""
        items = cast("list[object]", item) if isinstance(item, list) else [item]
        if any(map(self.always_fails, items)):
            raise ServiceError(400)
        drawn = unit_interval(scramble(bits))
        for status, rate in self._error_rates:
            if drawn < rate:
                raise ServiceError(status)
            drawn -= rate


def _check_share(name: str, value: float) -> float:
    """Check that a rate is a share between 0 and 1."""
    check_number(name, value)
    if value > 1:
        raise ValueError(f"{name} must be a share between 0 and 1 (0.05 for 5%), got {value!r}")
    return value


def _error_rates(given: float | Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    """Check error rates by status, and leave out those that are 0."""
    if not isinstance(given, Mapping):
        given = {DEFAULT_STATUS: _check_share("error_rate", given)}
    for status, rate in given.items():
        if type(status) is not int or not 400 <= status <= 599:
            raise ValueError(
                f"the keys of error_rate must be HTTP statuses from 400 to 599, as in "
                f"{{503: 0.02}}, got {status!r}"
            )
        _check_share(f"error_rate of {status}", rate)
    if sum(given.values()) > 1:
        raise ValueError(f"the rates in error_rate must add up to at most 1, got {given!r}")
    return tuple((status, rate) for status, rate in given.items() if rate)


def _outage(given: tuple[float | timedelta, float | timedelta]) -> tuple[float, float]:
    """Check the start and end of an outage."""
    try:
        start, end = given
    except (TypeError, ValueError):
        raise TypeError(
            f"an outage must be a pair of seconds, its start and its end, got {given!r}"
        ) from None
    first = check_seconds("the start of an outage", start)
    last = check_seconds("the end of an outage", end)
    return float(first), float(check_number("the end of an outage", last, at_least=first))
