"""
The arithmetic of a rate limit: how long until the next grant, and what a grant costs.

A bucket is the generic cell rate algorithm (GCRA, ITU-T I.371): its whole state is the
theoretical arrival time `tat`, the instant at which the bucket is full again. A grant of `weight`
moves it by `weight / rate` seconds; a grant is due once `tat` is at most `(burst - weight) / rate`
seconds ahead. No clock and no waiting in here: every method is told what time it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

RESOLUTION = 1e-9
"""Seconds by which a grant may come early: asyncio's timers do, and floats round."""

_TOGETHER = 2.5e-3
"""
Seconds that one who is due may be kept, to be granted in the same turn of the loop as the next.

At 1,000 a second three go at once, for two thirds of the processor time; below 400 a second
everybody goes when it is due.
"""


def smoothest_burst(rate: float) -> float:
    """
    Return the smallest burst with which timers that are late still keep the rate.

    asyncio's timers are late by a millisecond, on a loaded machine by tens of them, and what has
    become due meanwhile must go at once or is lost. So the bucket holds 40 ms of the rate, and
    never less than the one request it is there for and a little; the admitted stay within
    `max(1.05 * rate, rate + 1)` in any half-open second.
    """
    return max(1.0 + 0.02 * rate, 0.04 * rate)


class Bucket:
    """A bucket that refills at `rate` a second up to `burst`; it starts full."""

    __slots__ = ("burst", "interval", "latest", "leeway", "opens", "past", "rate", "tat")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.interval = 1.0 / rate
        self.leeway = -math.inf  # what the short way of RateLimiter.acquire goes by
        self.restart()

    def restart(self) -> None:
        """Be full and open, as nothing had ever been taken."""
        self.tat = -math.inf
        self.opens = -math.inf
        self.latest = -math.inf
        self.past: deque[tuple[float, float]] = deque(maxlen=16)  # former rates, and until when

    def synchronise(self, now: float) -> None:
        """Start afresh if this clock runs behind the one before: it is another loop's own."""
        if now < self.latest:
            self.restart()

    def delay(self, weight: float, now: float) -> float:
        """
        Return the seconds until a grant of `weight` is due, 0 when it is.

        A weight above the burst is due when the bucket is full. Differences are taken before
        anything is added, so that a clock far from 0 costs no precision.
        """
        wait = self.tat - now if self.tat > now else 0.0
        if weight < self.burst:
            wait -= (self.burst - weight) * self.interval
        if self.opens - now > wait:
            wait = self.opens - now
        return wait if wait > RESOLUTION else 0.0

    def delay_behind(self, first: float, weight: float, now: float) -> float:
        """Return the seconds until `weight` would be due, had `first` been granted now."""
        tat = self.tat
        self.tat = max(tat, now) + first * self.interval
        wait = self.delay(weight, now)
        self.tat = tat
        return wait

    def take(self, weight: float, now: float) -> None:
        """Grant `weight`, due or not; what is not there becomes a debt."""
        self.tat = max(self.tat, now) + weight * self.interval
        self.latest = now

    def leeway_at(self, now: float) -> float:
        """
        Return by how much `tat` may be ahead after a grant, however long until the next one.

        -inf where there is more to look at.
        """
        return self.burst * self.interval if self.opens <= now else -math.inf

    def delay_of_some(self, weights: Sequence[float], wait: float, now: float) -> float:
        """
        Return the seconds until as many of these as hardly have to wait for each other may go.

        They fill at most half of the bucket, so that nothing of the rate is lost: the other half
        takes in what comes when the timer is late.

        Args:
            weights: of the first in line, in their order.
            wait: the seconds until the first of them is due, which is the least returned.
            now: what time it is.
        """
        weight, latest = 0.0, wait + _TOGETHER
        for each in weights:
            weight += each
            delay = self.delay(weight, now)
            if 2.0 * weight > self.burst or delay > latest:
                break
            wait = max(wait, delay)
        return wait

    def try_take(self, weight: float, now: float) -> bool:
        """Grant `weight` if it is due, and say whether it was."""
        self.synchronise(now)
        if self.delay(weight, now) > 0.0:
            return False
        self.take(weight, now)
        return True

    def give_back(self, weight: float, taken: float, now: float) -> None:
        """
        Undo a grant made at `taken`, as far as it still counts.

        Had it not been made, the bucket might have been full for some of the time since, and a
        full bucket takes nothing in. Only the part that has certainly not refilled is undone.
        """
        self.tat -= max(0.0, weight - self._refilled(taken, now)) * self.interval

    def close(self, until: float) -> None:
        """Grant nothing before `until`; the later of two closings holds."""
        self.opens = max(self.opens, until)

    def is_closed(self, now: float) -> bool:
        """Say whether it grants nothing yet; no longer where `delay` takes it for open."""
        return self.opens - now > RESOLUTION

    def change(self, rate: float, burst: float, now: float) -> None:
        """Go on at another rate; what was taken and has not refilled stays taken."""
        interval = 1.0 / rate
        if self.tat > now:
            owed = (self.tat - now) / self.interval if self.interval else 0.0
            self.tat = now + owed * interval
        self.past.append((now, self.rate))
        self.rate, self.burst, self.interval = rate, burst, interval

    def _refilled(self, since: float, now: float) -> float:
        """Return how much may have flowed in since, at the rates of that time."""
        amount, rate = 0.0, self.rate
        for until, before in reversed(self.past):
            if until <= since:
                break
            amount += rate * (now - until) if now > until else 0.0
            now, rate = until, before
        return amount + (rate * (now - since) if now > since else 0.0)


class WindowBucket(Bucket):
    """A bucket that also grants at most `limit` in any half-open window of `per` seconds."""

    __slots__ = ("granted", "limit", "per", "sum")

    def __init__(self, limit: float, per: float) -> None:
        self.limit = limit
        self.per = per
        super().__init__(limit / per, smoothest_burst(limit / per))

    def restart(self) -> None:
        """Be full and open, with an empty log."""
        super().restart()
        self.granted: deque[tuple[float, float]] = deque()
        self.sum = 0.0

    def delay(self, weight: float, now: float) -> float:
        """Return the seconds until a grant of `weight` is due by the rate and by the window."""
        self._forget(now)
        wait = super().delay(weight, now)
        slack = self.limit * RESOLUTION
        # A weight above a limit that was lowered since waits for an empty window.
        excess = self.sum + weight - self.limit
        for when, granted in self.granted:
            if excess <= slack:
                break
            wait = max(wait, self.per - (now - when))
            excess -= granted
        return wait

    def delay_behind(self, first: float, weight: float, now: float) -> float:
        """Return the seconds until `weight` is due if `first` is granted and logged now."""
        self._forget(now)
        before = self.sum
        self.granted.append((now, first))
        self.sum += first
        wait = super().delay_behind(first, weight, now)
        self.granted.pop()
        self.sum = before
        return wait

    def leeway_at(self, now: float) -> float:  # noqa: ARG002
        """Return -inf: there is always the log to look at."""
        return -math.inf

    def delay_of_some(self, weights: Sequence[float], wait: float, now: float) -> float:  # noqa: ARG002
        """Return `wait`: who goes late leaves the window late, and others have to wait for that."""
        return wait

    def take(self, weight: float, now: float) -> None:
        """Grant `weight` and log it."""
        super().take(weight, now)
        self.granted.append((now, weight))
        self.sum += weight

    def give_back(self, weight: float, taken: float, now: float) -> None:
        """Undo a grant made at `taken`."""
        super().give_back(weight, taken, now)
        if (taken, weight) in self.granted:
            self.granted.remove((taken, weight))
            self.sum = sum(weight for _, weight in self.granted)

    def change(self, rate: float, burst: float, now: float) -> None:
        """Go on at another rate, which means another limit for the same window."""
        super().change(rate, burst, now)
        self.limit = rate * self.per

    def _forget(self, now: float) -> None:
        """Drop what has left the window; the sum is exact again whenever the log is empty."""
        while self.granted and now - self.granted[0][0] >= self.per:
            self.sum -= self.granted.popleft()[1]
        if not self.granted:
            self.sum = 0.0
