"""
Token buckets as pure arithmetic: the delay until a grant, and the effect of a grant.

A bucket is the generic cell rate algorithm (GCRA, ITU-T I.371): its whole state is the
theoretical arrival time `tat`, the time at which the bucket is full again. A grant of `weight`
moves it by `weight / rate` seconds; a grant is due once `tat` is at most `(burst - weight) / rate`
seconds ahead. Nothing here reads a clock or waits: every method takes the time as an argument.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ragasync.arguments import as_number, short_repr
from ragasync.foreign_errors import text_of

RESOLUTION = 1e-9
"""Seconds by which a grant may come early: asyncio's timers fire early, and floats are rounded."""

_GROUP_WINDOW = 2.5e-3
"""
Seconds that a due waiter may be delayed, to be granted in the same loop iteration as the next.

At 1,000 a second three are granted together, for two thirds of the processor time; below 400 a
second each waiter is granted when it is due.
"""


def smoothest_burst(rate: float) -> float:
    """
    Return the smallest burst that sustains the rate although timers are late.

    asyncio's timers are late by a millisecond, on a loaded machine by tens of milliseconds. Grants
    that became due meanwhile have to go out together, or that part of the rate is lost. So the
    bucket holds 40 ms of the rate, and always a little more than one request. The number of
    granted requests stays within `max(1.05 * rate, rate + 1)` in any half-open second.
    """
    return max(1.0 + 0.02 * rate, 0.04 * rate)


class Bucket:
    """A token bucket that refills at `rate` a second up to `burst`; it starts full."""

    __slots__ = (
        "burst",
        "fast_path_slack",
        "interval",
        "latest",
        "past",
        "paused_until",
        "rate",
        "tat",
    )

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.interval = 1.0 / rate
        self.fast_path_slack = -math.inf  # read by the fast path of RateLimiter.acquire
        self.restart()

    def restart(self) -> None:
        """Reset the bucket to full and not paused, as if nothing had been taken."""
        self.tat = -math.inf
        self.paused_until = -math.inf
        self.latest = -math.inf
        self.past: deque[tuple[float, float]] = deque(maxlen=16)  # (end, rate) of former rates

    def sync_clock(self, now: float) -> None:
        """Reset the bucket if the clock went back: this is another loop with a clock of its own."""
        if now < self.latest:
            self.restart()

    def delay(self, weight: float, now: float) -> float:
        """
        Return the delay in seconds until a grant of `weight` is due; 0 if it is due.

        A weight above the burst is due when the bucket is full. Times are subtracted before
        anything is added, so that large clock values cost no precision.
        """
        wait = self.tat - now if self.tat > now else 0.0
        if weight < self.burst:
            wait -= (self.burst - weight) * self.interval
        if self.paused_until - now > wait:
            wait = self.paused_until - now
        return wait if wait > RESOLUTION else 0.0

    def delay_behind(self, first: float, weight: float, now: float) -> float:
        """Return the delay of `weight` if `first` were granted now."""
        tat = self.tat
        self.tat = max(tat, now) + first * self.interval
        wait = self.delay(weight, now)
        self.tat = tat
        return wait

    def take(self, weight: float, now: float) -> None:
        """Take `weight` from the bucket, due or not; a shortfall becomes a debt."""
        self.tat = max(self.tat, now) + weight * self.interval
        self.latest = now

    def fast_path_slack_at(self, now: float) -> float:
        """
        Return the slack (s) for the lock-only fast path: how far `tat` may be ahead after a grant.

        It is -inf if a grant depends on anything else.
        """
        return self.burst * self.interval if self.paused_until <= now else -math.inf

    def group_delay(self, weights: Sequence[float], wait: float, now: float) -> float:
        """
        Return the delay in seconds after which a group of waiters can be granted together.

        The group takes at most half of the bucket, so that no rate is lost: the other half has
        room for the refill while the timer is late.
        """
        weight, latest = 0.0, wait + _GROUP_WINDOW
        for each in weights:
            weight += each
            delay = self.delay(weight, now)
            if 2.0 * weight > self.burst or delay > latest:
                break
            wait = max(wait, delay)
        return wait

    def try_take(self, weight: float, now: float) -> bool:
        """Take `weight` from the bucket if it is due; return whether it was."""
        self.sync_clock(now)
        if self.delay(weight, now) > 0.0:
            return False
        self.take(weight, now)
        return True

    def refund(self, weight: float, taken: float, now: float) -> None:
        """
        Return a grant made at `taken` to the bucket, except for what may have refilled since.

        Without the grant, the bucket might have been full for some of the time since, and a full
        bucket does not refill. Only the part that has certainly not refilled is returned.
        """
        self.tat -= max(0.0, weight - self._refilled(taken, now)) * self.interval

    def correct(self, weight: float, used: float, now: float) -> None:
        """
        Replace the weight of an earlier grant by what was used.

        The level of the bucket rises by a surplus, at most to the burst, and falls by a shortfall,
        also below zero. So what is taken in a window, with all corrections, is at most the burst
        and the refill; usage exceeds that only by what calls in flight have yet to correct.
        """
        self.sync_clock(now)
        if used > weight:
            self.take(used - weight, now)
        else:
            self.tat -= (weight - used) * self.interval  # before `now`, it means full

    def pause(self, until: float) -> None:
        """Pause grants until `until`; the later of two pauses wins."""
        self.paused_until = max(self.paused_until, until)

    def is_paused(self, now: float) -> bool:
        """Return whether grants are paused, with the same tolerance as `delay`."""
        return self.paused_until - now > RESOLUTION

    def change_rate(self, rate: float, burst: float, now: float) -> None:
        """Change the rate; the amount that has not refilled yet stays the same."""
        interval = 1.0 / rate
        if self.tat > now:
            owed = (self.tat - now) / self.interval if self.interval else 0.0
            self.tat = now + owed * interval
        self.past.append((now, self.rate))
        self.rate, self.burst, self.interval = rate, burst, interval

    def _refilled(self, since: float, now: float) -> float:
        """Return the most that may have refilled since then, at the rates in force."""
        amount, rate = 0.0, self.rate
        for until, before in reversed(self.past):
            if until <= since:
                break
            amount += rate * (now - until) if now > until else 0.0
            now, rate = until, before
        return amount + (rate * (now - since) if now > since else 0.0)


class WindowBucket(Bucket):
    """A token bucket that also grants at most `limit` in any half-open window of `per` seconds."""

    __slots__ = ("granted", "limit", "per", "sum")

    def __init__(self, limit: float, per: float) -> None:
        self.limit = limit
        self.per = per
        super().__init__(limit / per, smoothest_burst(limit / per))

    def restart(self) -> None:
        """Reset the bucket, with an empty log."""
        super().restart()
        self.granted: deque[tuple[float, float]] = deque()
        self.sum = 0.0

    def delay(self, weight: float, now: float) -> float:
        """Return the delay in seconds until `weight` is due by the rate and by the window."""
        self._drop_expired(now)
        wait = super().delay(weight, now)
        slack = self.limit * RESOLUTION
        # If the limit was lowered, a weight above it waits for an empty window.
        excess = self.sum + weight - self.limit
        for when, granted in self.granted:
            if excess <= slack:
                break
            wait = max(wait, self.per - (now - when))
            excess -= granted
        return wait

    def delay_behind(self, first: float, weight: float, now: float) -> float:
        """Return the delay of `weight` if `first` were granted and logged now."""
        self._drop_expired(now)
        before = self.sum
        self.granted.append((now, first))
        self.sum += first
        wait = super().delay_behind(first, weight, now)
        self.granted.pop()
        self.sum = before
        return wait

    def fast_path_slack_at(self, now: float) -> float:  # noqa: ARG002
        """Return -inf: a grant always depends on the log."""
        return -math.inf

    def group_delay(self, weights: Sequence[float], wait: float, now: float) -> float:  # noqa: ARG002
        """Return `wait`: a grant that is delayed also leaves the window later."""
        return wait

    def take(self, weight: float, now: float) -> None:
        """Take `weight` from the bucket and log it."""
        super().take(weight, now)
        self.granted.append((now, weight))
        self.sum += weight

    def refund(self, weight: float, taken: float, now: float) -> None:
        """Return a grant made at `taken` to the bucket and delete it from the log."""
        super().refund(weight, taken, now)
        if (taken, weight) in self.granted:
            self.granted.remove((taken, weight))
            self.sum = sum(weight for _, weight in self.granted)

    def correct(self, weight: float, used: float, now: float) -> None:
        """
        Replace the weight of a grant in the log, and log a shortfall as granted now.

        Of several grants with the weight the oldest is replaced: it leaves the window first. One
        that has left it frees nothing.
        """
        super().correct(weight, used, now)  # which logs a shortfall
        if used >= weight:
            return
        for place, (when, granted) in enumerate(self.granted):
            if granted == weight:
                self.granted[place] = (when, used)
                self.sum -= weight - used
                return

    def change_rate(self, rate: float, burst: float, now: float) -> None:
        """Change the rate, and with it the limit for the same window."""
        super().change_rate(rate, burst, now)
        self.limit = rate * self.per

    def _drop_expired(self, now: float) -> None:
        """Delete expired grants from the log; the sum is exact again when the log is empty."""
        while self.granted and now - self.granted[0][0] >= self.per:
            self.sum -= self.granted.popleft()[1]
        if not self.granted:
            self.sum = 0.0


class WeightError(ValueError):
    """The user's `weight=` function raised the error that is the cause of this one."""


def check_weight(weight: object, highest: float) -> float:
    """
    Return a weight as a Python number, or raise ValueError if it can never be granted.

    A numpy float32 would turn the bucket's times into float32 too.
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


def total_weight(weight: Callable[..., float], items: Iterable[object]) -> float:
    """
    Return the total weight of items, by the user's function.

    Raises:
        WeightError: The function raises.
        ValueError: It returns no finite number of at least 0. A WeightError is a ValueError too, so
            that splitting the batch finds the item, which then fails alone.
    """
    try:
        return math.fsum([_weight_of(weight, item) for item in items])
    except OverflowError:
        return math.inf


def _weight_of(weight: Callable[..., float], item: object) -> float:
    """Return the weight of one item, checked."""
    try:
        got: object = weight(item)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a PyO3 panic, say
        problem = f"{type(error).__name__}: {text_of(error)}"
        raise WeightError(f"weight= raised {problem}. Check {short_repr(weight)}") from error
    number = _as_count(weight, got)
    if not 0.0 <= number <= sys.float_info.max:
        raise ValueError(
            f"what weight= returns must be finite and not negative, got {short_repr(got)}. "
            f"Check {short_repr(weight)}"
        )
    return number


def _as_count(weight: Callable[..., float], got: object) -> float:
    """Return the result of a weight function as a float, if it is a number."""
    if inspect.iscoroutine(got):
        got.close()  # avoids the "never awaited" warning
    try:
        return as_number("what weight= returns", got)
    except TypeError as error:
        raise ValueError(f"{error}. Check {short_repr(weight)}") from None
