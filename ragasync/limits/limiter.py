"""Rate limiter: so many calls, or tokens, a second, from any loop and any thread."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, Protocol, runtime_checkable

from ragasync.arguments import as_number, check_positive, check_sync, short_repr
from ragasync.foreign_errors import text_of
from ragasync.limits.bucket import Bucket, WindowBucket, smoothest_burst
from ragasync.limits.queue import LOCK, Line
from ragasync.limits.taking import take_in_turn

_DEFAULT_RATE: Final = float("10.0")
"""Told apart from a 10.0 of the caller's by identity, and still reads 10.0 in the signature."""

_ONE: Final = 1.0
"""The usual weight, known by identity: a free grant of it needs no check."""

_LONGEST_DEBT: Final = 1e9
"""Seconds (some 30 years) of debt that one grant may leave; more is a mistake."""


class Limiter(Protocol):
    """What a job asks of a rate limiter; `RateLimiter` offers more, one kept elsewhere need not."""

    @property
    def weight(self) -> Callable[..., float] | None:
        """What one item weighs; None where a call weighs 1."""

    @property
    def max_weight(self) -> float:
        """The most that one `acquire` may ask for."""

    async def acquire(self, weight: float = 1.0) -> None:
        """Wait until `weight` is granted."""

    def pause(self, seconds: float) -> None:
        """Grant nothing for so long."""


@runtime_checkable
class Resumable(Protocol):
    """A limiter whose pause can be read and ended; one kept elsewhere need not be."""

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends; 0.0 without one."""

    def resume(self) -> None:
        """End the pause now."""


class RateLimiter:
    """
    Admit at most `burst + rate * T` calls in every window of T seconds.

    A bucket that starts full and refills steadily. Callers stand in one line, strictly first
    come, first served: a big request is not overtaken by small ones, and one that is cancelled
    gives its place back. The limiter belongs to no loop: use the same one from several loops and
    threads, at once or one after the other.

    Example:
        >>> from ragasync import RateLimiter, run_async
        >>> limiter = RateLimiter(rate=60, per=60.0, burst_size=2)  # 60 a minute
        >>> limiter.rate  # a second
        1.0
        >>> async def call():
        ...     async with limiter:  # waits until it is admitted
        ...         return "an answer"
        >>> run_async(call())
        'an answer'
        >>> [limiter.try_acquire() for _ in range(3)]  # one was left of the burst
        [True, False, False]

    Args:
        requests_per_second: The rate.
        burst_size: How much may go at once after a rest. None is as smooth as the rate can be
            kept (see `burst`); a larger weight then waits for a full bucket and leaves a debt.
        rate: The rate in another unit of time, instead of `requests_per_second`.
        per: That unit, in seconds.
        weight: What an item weighs (its tokens, say). A processor takes the sum over the items of a
            call, again for each attempt; without it a call weighs 1.

    Raises:
        TypeError: One of them is not a number, or `weight` is not a function, or an async one.
        ValueError: A rate, unit or burst is not positive and finite, or two rates are given.
    """

    def __init__(
        self,
        requests_per_second: float = _DEFAULT_RATE,
        burst_size: float | None = None,
        *,
        rate: float | None = None,
        per: float = 1.0,
        weight: Callable[..., float] | None = None,
    ) -> None:
        per = check_positive("per", per)
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
        self._explicit_burst = burst_size
        self._line = Line(Bucket(rate, self._burst_at(rate)))
        self._max_weight = sys.float_info.max if burst_size is None else burst_size
        self._weight = weight

    @classmethod
    def at_most(
        cls, limit: float, per: float, *, weight: Callable[..., float] | None = None
    ) -> RateLimiter:
        """
        Return a limiter that never lets more than `limit` through in any window of `per` seconds.

        For services that count so, and ban who is over by one. It admits smoothly at
        `limit / per` and keeps a log of the last `per` seconds. Setting `rate` keeps `per` and
        makes the limit `rate * per`; who then stands in line with more than that passes alone.

        Args:
            limit: The most, in calls or in what `weight` counts.
            per: The length of the window in seconds, its end not included.
            weight: What an item weighs, as in `RateLimiter`.

        Raises:
            ValueError: `limit` or `per` is not positive and finite.
        """
        limit, per = check_positive("limit", limit), check_positive("per", per)
        limiter = cls(rate=limit, per=per, weight=weight)
        limiter._line = Line(WindowBucket(limit, per))
        limiter._max_weight = limit
        return limiter

    @property
    def rate(self) -> float:
        """The rate a second; set it while others wait, and they see it at once."""
        return self._line.bucket.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        rate = check_rate("rate", rate)
        self._line.change_rate(rate, self._burst_at(rate))
        if isinstance(self._line.bucket, WindowBucket):
            self._max_weight = self._line.bucket.limit

    @property
    def burst(self) -> float:
        """
        How much may go at once: `burst_size`, or as much as keeps the rate when timers are late.

        The latter is `max(1 + 0.02 * rate, 0.04 * rate)`: 40 ms of the rate.
        """
        return self._line.bucket.burst

    @property
    def window(self) -> float | None:
        """The length of the window of `at_most`, in seconds; None for a limiter without one."""
        bucket = self._line.bucket
        return bucket.per if isinstance(bucket, WindowBucket) else None

    @property
    def weight(self) -> Callable[..., float] | None:
        """What an item weighs; None where a call weighs 1."""
        return self._weight

    @property
    def max_weight(self) -> float:
        """The most that can be granted at once: a `burst_size`, or a limit; else no bound."""
        return self._max_weight

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends; 0.0 without one. It may be read in any thread."""
        return self._line.closed_for

    async def acquire(self, weight: float = _ONE) -> None:
        """
        Wait until `weight` is granted, behind everybody who came before.

        Args:
            weight: How much to take from the bucket.

        Raises:
            TypeError: `weight` is not a number.
            ValueError: `weight` is not positive and finite, or can never be granted.
        """
        if weight is not _ONE:
            weight = check_weight(weight, self._max_weight)
        # The short way: a free grant, on the usual clock, without a single call into the
        # arithmetic. Whatever is out of the ordinary (a line, a pause, a log, another clock)
        # has set the leeway to -inf; it is below what a weight that is too high would need.
        bucket = self._line.bucket
        with LOCK:
            now = monotonic()
            tat = bucket.tat
            if tat < now:
                tat = now
            tat += weight * bucket.interval
            if tat - bucket.leeway <= now:
                bucket.tat = tat
                return
        place = self.place(weight)
        if self._line.wakes_somebody or not self._line.try_take(weight):
            await take_in_turn((place,))

    def try_acquire(self, weight: float = 1.0) -> bool:
        """
        Take `weight` if it is due and nobody stands in line; return whether it was.

        Args:
            weight: How much to take from the bucket.

        Raises:
            TypeError: `weight` is not a number.
            ValueError: `weight` is not positive and finite, or can never be granted.
        """
        line, weight = self.place(weight)
        return line.try_take(weight)

    def pause(self, seconds: float) -> None:
        """
        Hold all callers, newcomers too, for so long; the later of two pauses wins.

        The bucket refills meanwhile, as in any other rest. `resume` ends the pause earlier.

        Args:
            seconds: How long from now.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is negative or not finite.
        """
        self._line.close(check_pause(seconds))

    def resume(self) -> None:
        """
        End a pause now, also one that a service asked for with Retry-After.

        Waiters go on in their order, on every loop, at the limiter's rate. Without a pause this
        changes nothing. It may be called from any thread.
        """
        self._line.reopen()

    def place(self, weight: float) -> tuple[Line, float]:
        """Return the line and the weight, checked, for a grant by several limiters in one step."""
        weight, bucket = check_weight(weight, self._max_weight), self._line.bucket
        if weight > bucket.burst and (weight - bucket.burst) * bucket.interval > _LONGEST_DEBT:
            raise ValueError(
                f"a weight of {weight:g} would keep the limiter busy for "
                f"{weight / bucket.rate:.3g} s at {bucket.rate:g} per second. Split the call, "
                "or check the function that computes its weight."
            )
        return self._line, weight

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        bucket = self._line.bucket
        state = f"rate={bucket.rate:g}, burst={bucket.burst:g}, waiting={len(self._line.waiters)}"
        if isinstance(bucket, WindowBucket):
            state = f"at most {bucket.limit:g} in {bucket.per:g} s, {state}"
        pause = self.paused_for
        return f"<RateLimiter {state}{f', paused for {pause:.1f} s' if pause else ''}>"

    def _burst_at(self, rate: float) -> float:
        """Return the bound in force at a rate."""
        return smoothest_burst(rate) if self._explicit_burst is None else self._explicit_burst


class WeightError(ValueError):
    """The caller's function for weights raised an error, which is the cause of this one."""


def check_rate(name: str, rate: object) -> float:
    """Return a rate per second as a float, so high that its interval is finite too."""
    number = float(check_positive(name, rate))
    if 1.0 / number == math.inf:
        raise ValueError(f"{name} must be at least {sys.float_info.min:g}, got {short_repr(rate)}")
    return number


def check_weight(weight: object, highest: float) -> float:
    """
    Return a weight as a plain number, or raise an error that says why it can never be granted.

    A float32 of numpy would turn the bucket's times into its own.
    """
    number = as_number("weight", weight)
    if 0.0 < number <= highest:
        return number
    if not 0.0 < number <= sys.float_info.max:
        raise ValueError(f"weight must be positive and finite, got {short_repr(weight)}")
    raise ValueError(
        f"a weight of {short_repr(weight)} can never be granted: at most {highest:g} fits. "
        "Split the call, or give the limiter a larger burst_size (or limit)."
    )


def check_pause(seconds: object) -> float:
    """Return a length of time as a float that is finite and not negative."""
    number = as_number("seconds", seconds)
    if not 0.0 <= number <= sys.float_info.max:
        raise ValueError(f"seconds must be finite and not negative, got {short_repr(seconds)}")
    return float(number)


def total_weight(weight: Callable[..., float], items: Iterable[object]) -> float:
    """
    Return what items weight together, as the caller's function counts them.

    Raises:
        WeightError: The function raises.
        ValueError: It returns no finite number of at least 0. A WeightError is a ValueError too, so
            that the item is found by splitting its batch, and fails alone.
    """
    try:
        return math.fsum([_weight_of(weight, item) for item in items])
    except OverflowError:
        return math.inf


def _weight_of(weight: Callable[..., float], item: object) -> float:
    """Return what one item weighs, checked."""
    try:
        got: object = weight(item)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # also what extensions in other languages panic with
        said = f"{type(error).__name__}: {text_of(error)}"
        raise WeightError(f"weight= raised {said}. Check {short_repr(weight)}") from error
    number = _as_count(weight, got)
    if not 0.0 <= number <= sys.float_info.max:
        raise ValueError(
            f"what weight= returns must be finite and not negative, got {short_repr(got)}. "
            f"Check {short_repr(weight)}"
        )
    return number


def _as_count(weight: Callable[..., float], got: object) -> float:
    """Return what a function counted as a float, if it is a number."""
    if inspect.iscoroutine(got):
        got.close()  # else Python warns that nobody awaited it
    try:
        return as_number("what weight= returns", got)
    except TypeError as error:
        raise ValueError(f"{error}. Check {short_repr(weight)}") from None


def _two_forms(got: str) -> str:
    """Say that a rate is given in one of two forms."""
    return (
        f"expected one rate, got {got}. Write RateLimiter(10) for 10 a second, or "
        "RateLimiter(rate=600, per=60) for 600 a minute."
    )
