"""RateLimiter: a number of calls, or tokens, per second, for any loop and any thread."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

from ragasync._limits.acquire import acquire_all
from ragasync._limits.bucket import Bucket, WindowBucket, check_weight, smoothest_burst
from ragasync._limits.queue import LOCK, WaitQueue
from ragasync.arguments import (
    check_number,
    check_positive,
    check_seconds,
    check_sync,
    explains_arguments,
    short_repr,
)
from ragasync.object_views import object_html

Unit: TypeAlias = Literal["requests", "tokens"]
"""What a limiter counts; one of tokens is corrected by the usage that calls report."""

_DEFAULT_RATE: Final = float("10.0")
"""The default, which differs from a caller's 10.0 by identity and reads 10.0 in the signature."""

_ONE: Final = 1.0
"""The default weight, recognised by identity: it needs no check on the fast path."""

_LONGEST_DEBT: Final = 1e9
"""Seconds (about 30 years) of debt that one grant may leave; more is a mistake."""


class Limiter(Protocol):
    """The part of a rate limiter that a job needs; remote limiters need not have more."""

    @property
    def weight(self) -> Callable[..., float] | None:
        """The weight of one item; None if each call weighs 1."""

    @property
    def max_weight(self) -> float:
        """The most that one `acquire` may ask for."""

    async def acquire(self, weight: float = 1.0) -> None:
        """Wait until `weight` is granted."""

    def pause(self, seconds: float | timedelta) -> None:
        """Pause grants for a number of seconds."""


@runtime_checkable
class Resumable(Protocol):
    """A limiter whose pause can be read and ended; a remote one need not support it."""

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends; 0.0 without a pause."""

    def resume(self) -> None:
        """End the pause now."""


@runtime_checkable
class Correctable(Protocol):
    """A limiter whose grants can be corrected; a remote one need not support it."""

    @property
    def unit(self) -> Unit:
        """What it counts."""

    def correct(self, weight: float, used: float) -> None:
        """Replace the weight of an earlier grant by what was used."""


@explains_arguments
class RateLimiter:
    """
    Admit at most `burst + rate * T` calls in every window of T seconds.

    A token bucket that starts full and refills steadily. Callers wait in one queue, strictly first
    come, first served: small requests do not overtake a big one, and a cancelled request leaves
    the queue. The limiter belongs to no loop: use the same one from several loops and threads,
    concurrently or in turn.

    Pass it to a processor as `rate_limiter=`, or use it as below. `RateLimiter.per_minute` makes
    the limits of requests and tokens that providers state, and `RateLimiter.at_most` a limit that
    no window exceeds; `RedisRateLimiter` shares one between machines.

    Example:
        >>> from ragasync import RateLimiter, run_async
        >>> limiter = RateLimiter(rate=60, per=60.0, burst_size=2)  # 60 a minute
        >>> limiter.rate  # a second
        1.0
        >>> async def call():
        ...     async with limiter:  # waits until the call is granted
        ...         return "a response"
        >>> run_async(call())
        'a response'
        >>> [limiter.try_acquire() for _ in range(3)]  # one was left of the burst
        [True, False, False]

    Args:
        requests_per_second: The rate.
        burst_size: The weight that can be granted together after an idle time. None means as
            smooth as the rate can be sustained (see `burst`); a larger weight then waits for a
            full bucket and leaves a debt.
        rate: The rate in another unit of time, instead of `requests_per_second`.
        per: That unit, in seconds.
        weight: A function that returns the weight of an item (its tokens, say). A processor takes
            the sum over the items of a call, again for each attempt. Without it a call weighs 1.
            This limits the rate, not the size of a batch: see the processor's `max_batch_weight`.
        unit: "tokens" if it counts tokens and `weight` only estimates them: a processor corrects
            each grant to the tokens that its call reports with `note_usage`, and the bound then
            holds for the actual usage, apart from calls in flight.

    Raises:
        TypeError: One of them is not a number, or `weight` is not a function, or an async one.
        ValueError: A rate, a time or a burst is not positive and finite, two rates are given, or
            the unit is unknown.
    """

    def __init__(
        self,
        requests_per_second: float = _DEFAULT_RATE,
        burst_size: float | None = None,
        *,
        rate: float | None = None,
        per: float | timedelta = 1.0,
        weight: Callable[..., float] | None = None,
        unit: Unit = "requests",
    ) -> None:
        per = check_seconds("per", per, positive=True)
        if rate is None:
            if per != 1.0:
                raise ValueError(_two_forms(f"per={per!r} without rate"))
            rate = check_rate("requests_per_second", requests_per_second)
        elif requests_per_second is not _DEFAULT_RATE:
            raise ValueError(
                _two_forms(f"both {short_repr(requests_per_second)} and {short_repr(rate)}")
            )
        else:
            rate = check_rate("rate / per", check_positive("rate", rate) / per)
        if burst_size is not None:
            burst_size = check_positive("burst_size", burst_size)
        if weight is not None:
            check_sync("weight", weight)
        self._unit = check_unit(unit)
        self._explicit_burst = burst_size
        self._queue = WaitQueue(Bucket(rate, self._burst_at(rate)))
        self._max_weight = sys.float_info.max if burst_size is None else burst_size
        self._weight = weight

    @classmethod
    def per_minute(
        cls,
        *,
        requests: float | None = None,
        tokens: float | None = None,
        weight: Callable[..., float] | None = None,
    ) -> tuple[RateLimiter, ...]:
        """
        Return the limits of a service that allows a number of requests and tokens per minute.

        Pass them to a processor as `rate_limiter`. The limiter of tokens has `unit="tokens"`.

        Example:
            >>> from ragasync import AsyncBatchProcessor, RateLimiter
            >>> limits = RateLimiter.per_minute(
            ...     requests=500, tokens=200_000, weight=lambda text: len(text) / 4
            ... )
            >>> processor = AsyncBatchProcessor(str.upper, rate_limiter=limits)
            >>> [f"{limit.rate:.1f} {limit.unit} per second" for limit in limits]
            ['8.3 requests per second', '3333.3 tokens per second']

        Args:
            requests: The requests per minute; None without such a limit.
            tokens: The tokens per minute; None without such a limit.
            weight: A function that estimates the tokens of an item.

        Raises:
            TypeError: A limit is not a number, or `weight` is not a function.
            ValueError: No limit is given, one is not positive and finite, or only one of `tokens`
                and `weight` is given.
        """
        if requests is None and tokens is None:
            raise ValueError(
                "expected requests=, tokens= or both, got neither: pass the limits that the "
                "service states, such as requests=500, tokens=200_000"
            )
        if (tokens is None) != (weight is None):
            given, missing = ("tokens", "weight") if weight is None else ("weight", "tokens")
            raise ValueError(
                f"{given}= needs {missing}=: pass tokens=, the limit, with weight=, a function "
                "that estimates the tokens of an item, such as lambda text: len(text) / 4"
            )
        limits: list[RateLimiter] = []
        if requests is not None:
            limits.append(cls(rate=check_positive("requests", requests), per=60.0))
        if tokens is not None:
            rate = check_positive("tokens", tokens)
            limits.append(cls(rate=rate, per=60.0, weight=weight, unit="tokens"))
        return tuple(limits)

    @classmethod
    def at_most(
        cls,
        limit: float,
        per: float | timedelta,
        *,
        weight: Callable[..., float] | None = None,
        unit: Unit = "requests",
    ) -> RateLimiter:
        """
        Return a limiter that never grants more than `limit` in any window of `per` seconds.

        For services that count this way and ban clients that exceed it by one. It grants smoothly
        at `limit / per` and keeps a log of the last `per` seconds. Setting `rate` keeps `per` and
        changes the limit to `rate * per`; a waiting request above the new limit then passes alone.

        Args:
            limit: The most in a window, in calls or in the units of `weight`.
            per: The length of the window in seconds, excluding its end.
            weight: The weight of an item, as in `RateLimiter`.
            unit: What it counts, as in `RateLimiter`.

        Raises:
            ValueError: `limit` or `per` is not positive and finite.
        """
        limit, per = check_positive("limit", limit), check_seconds("per", per, positive=True)
        limiter = cls(rate=limit, per=per, weight=weight, unit=unit)
        limiter._queue = WaitQueue(WindowBucket(limit, per))
        limiter._max_weight = limit
        return limiter

    @property
    def rate(self) -> float:
        """The rate per second; if set, waiting callers see it immediately."""
        return self._queue.bucket.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        rate = check_rate("rate", rate)
        self._queue.change_rate(rate, self._burst_at(rate))
        if isinstance(self._queue.bucket, WindowBucket):
            self._max_weight = self._queue.bucket.limit

    @property
    def burst(self) -> float:
        """
        The weight that can be granted together: `burst_size`, or else 40 ms of the rate.

        The latter, `max(1 + 0.02 * rate, 0.04 * rate)`, sustains the rate although timers are late.
        """
        return self._queue.bucket.burst

    @property
    def window(self) -> float | None:
        """The length of the window of `at_most` in seconds; None for other limiters."""
        bucket = self._queue.bucket
        return bucket.per if isinstance(bucket, WindowBucket) else None

    @property
    def weight(self) -> Callable[..., float] | None:
        """The weight of one item; None if each call weighs 1."""
        return self._weight

    @property
    def unit(self) -> Unit:
        """What it counts: "requests", or "tokens", which are corrected by the reported usage."""
        return self._unit

    @property
    def max_weight(self) -> float:
        """The largest weight that can be granted: `burst_size`, or a limit, or unbounded."""
        return self._max_weight

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends, 0.0 without a pause; readable from any thread."""
        return self._queue.paused_for

    async def acquire(self, weight: float = _ONE) -> None:
        """
        Wait until `weight` is granted, behind all earlier callers.

        Args:
            weight: The weight to take from the bucket.

        Raises:
            TypeError: `weight` is not a number.
            ValueError: `weight` is not positive and finite, or can never be granted.
        """
        if weight is not _ONE:
            weight = check_weight(weight, self._max_weight)
        # The fast path: an uncontended grant on the monotonic clock, without any function call
        # but the clock's. Everything else (waiters, a pause, a log of grants, another clock) has
        # set the slack to -inf, and a weight above the burst exceeds the slack.
        bucket = self._queue.bucket
        with LOCK:
            now = monotonic()
            tat = bucket.tat
            if tat < now:
                tat = now
            tat += weight * bucket.interval
            if tat - bucket.fast_path_slack <= now:
                bucket.tat = tat
                return
        claim = self.claim(weight)
        if self._queue.has_pending_wakeup or not self._queue.try_take(weight):
            await acquire_all((claim,))

    def try_acquire(self, weight: float = 1.0) -> bool:
        """
        Take `weight` if it is due and no caller waits; return whether it was taken.

        Args:
            weight: The weight to take from the bucket.

        Raises:
            TypeError: `weight` is not a number.
            ValueError: `weight` is not positive and finite, or can never be granted.
        """
        queue, weight = self.claim(weight)
        return queue.try_take(weight)

    def pause(self, seconds: float | timedelta) -> None:
        """
        Pause all callers, later ones too, for a number of seconds; the later of two pauses wins.

        The bucket refills meanwhile, as in any idle time. `resume` ends the pause earlier.

        Args:
            seconds: The length of the pause, from now.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is negative or not finite.
        """
        self._queue.pause(check_pause(seconds))

    def resume(self) -> None:
        """
        End a pause now, also one that a service asked for with Retry-After.

        Waiting callers are granted in their order, on every loop, at the limiter's rate. Without
        a pause this changes nothing. It may be called from any thread.
        """
        self._queue.resume()

    def correct(self, weight: float, used: float) -> None:
        """
        Replace the weight of an earlier grant by what its call used.

        A surplus is returned to the bucket, never above the burst; a shortfall becomes a debt,
        which later callers wait for. A processor does this for limiters with `unit="tokens"`. It
        may be called from any thread.

        Example:
            >>> from ragasync import RateLimiter
            >>> limiter = RateLimiter(10, burst_size=500)
            >>> limiter.try_acquire(500)  # an estimate
            True
            >>> limiter.correct(500, used=120)
            >>> limiter.try_acquire(380)
            True

        Args:
            weight: The weight that was granted; 0 for a call that was not counted.
            used: The weight that the call turned out to have.

        Raises:
            TypeError: One of them is not a number.
            ValueError: One of them is negative or not finite.
        """
        weight, used = check_number("weight", weight), check_number("used", used)
        self._queue.correct(weight, used)

    def claim(self, weight: float) -> tuple[WaitQueue, float]:
        """Return the claim of a weight, checked: the queue and the weight to take there."""
        weight, bucket = check_weight(weight, self._max_weight), self._queue.bucket
        if weight > bucket.burst and (weight - bucket.burst) * bucket.interval > _LONGEST_DEBT:
            raise ValueError(
                f"a weight of {weight:g} would block the limiter for "
                f"{weight / bucket.rate:.3g} s at {bucket.rate:g} per second. Split the call, "
                "or check the function that computes its weight."
            )
        return self._queue, weight

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        bucket = self._queue.bucket
        state = f"rate={bucket.rate:g}, burst={bucket.burst:g}, waiting={len(self._queue.waiters)}"
        if isinstance(bucket, WindowBucket):
            state = f"at most {bucket.limit:g} in {bucket.per:g} s, {state}"
        if self._unit == "tokens":
            state = f"{state}, unit=tokens"
        pause = self.paused_for
        return f"<RateLimiter {state}{f', paused for {pause:.1f} s' if pause else ''}>"

    def _repr_html_(self) -> str:
        """The settings and the state as a table."""
        bucket = self._queue.bucket
        facts = [
            ("rate", f"{bucket.rate:g} per second"),
            ("burst", f"{bucket.burst:g}"),
            ("weight", self.weight),
            ("waiting", len(self._queue.waiters)),
            ("paused", f"for another {self.paused_for:.1f} s" if self.paused_for else None),
        ]
        return object_html(self, facts)

    def _burst_at(self, rate: float) -> float:
        """Return the burst at a rate."""
        return smoothest_burst(rate) if self._explicit_burst is None else self._explicit_burst


def check_rate(name: str, rate: object) -> float:
    """Return a rate per second as a float, large enough that its interval is finite too."""
    number = float(check_positive(name, rate))
    if 1.0 / number == math.inf:
        raise ValueError(f"{name} must be at least {sys.float_info.min:g}, got {short_repr(rate)}")
    return number


def check_unit(unit: object) -> Unit:
    """Return the unit of a limiter, or raise ValueError."""
    if unit == "requests":
        return "requests"
    if unit == "tokens":
        return "tokens"
    raise ValueError(f'unit must be "requests" or "tokens", got {short_repr(unit)}')


def check_pause(seconds: object) -> float:
    """Return the length of a pause as a float, or raise if it is negative or not finite."""
    return float(check_seconds("seconds", seconds))


def _two_forms(got: str) -> str:
    """Return an error message that shows the two forms of a rate."""
    return (
        f"expected one rate, got {got}. Write RateLimiter(10) for 10 a second, or "
        "RateLimiter(rate=600, per=60) for 600 a minute."
    )
