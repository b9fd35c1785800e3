"""max_concurrency="auto": a concurrency limit that follows the latency and errors of the calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ragasync._limits.samples import (
    MIN_CALLS,
    CallEnd,
    CallSample,
    Decrease,
    ErrorBaseline,
    Latency,
    SampleWindow,
    made_no_difference,
)
from ragasync._retries.classify import congestion
from ragasync.clock import Clock

V = TypeVar("V")

FIRST = 4
"""The initial limit."""

MOST = 1_024
"""The highest limit."""

DECREASE = 0.75
"""The factor of a decrease."""

FULL = 0.9
"""The share of the limit in flight from which a call has reached it."""

SAMPLED = 0.75
"""The share of the limit in flight from which a call is sampled."""

TOLERANCE = 1.12
"""The factor by which latency may exceed that of a low limit, beyond chance."""

CONGESTED = 1.25
"""The factor above which latency causes a decrease, also if the limit has not grown."""

RELIEF = 0.9
"""The share of its former value that latency must fall below for a decrease to have helped."""

NEAR = 0.06
"""The distance from the ceiling, as a share, at which the search ends."""

KNEE_MARGIN = 1.1
"""The factor above the estimated knee at which the ceiling is set."""

REST, LONGEST_REST = 8, 64
"""Windows between two attempts to exceed the ceiling; doubled after each one that fails."""

LOOK_EVERY = 48
"""Windows after which the latency of a lower limit is measured again."""


class ConcurrencyLimit:
    """
    A limit on concurrent calls that adapts to the service's latency and errors.

    Report the beginning and end of each call, and read `bound`. It reads no clock and never waits.
    The rules, each decided after a window of at least as many calls as the limit:

    - Increase while latency holds: double per window until the first sign of congestion, then go
      half way to the ceiling (the limit that was too high, or the knee estimated from its
      latency). Near the ceiling, rest; then increase again, by a tenth at first.
    - Decrease by a quarter, once per event: a 429, more 503s and timeouts than usual, or latency
      well above that of a lower limit. Calls that began before the last decrease do not count.
    - Undo an increase that only made calls slower.
    - Undo a decrease that did not help: the service is slower now, or fails at any concurrency.
    - Never increase while the limit is not reached: then it is not the bottleneck.

    The decrease and increase are TCP's (additive increase, multiplicative decrease), the way back
    is BIC's (Xu, Harfoush, Rhee 2004: a binary search for the last limit that held).

        limit = ConcurrencyLimit()
        sample = limit.begin(in_flight=3)
        limit.end(sample, 0.2, "success")

    Attributes:
        bound: The number of concurrent calls to allow now.
    """

    def __init__(self, first: int = FIRST, most: int = MOST) -> None:
        self.bound = min(first, most)
        self._most = most
        self._base: Latency | None = None  # latency at a low limit
        self._good = 0  # the highest limit that held
        self._ceiling: int | None = None  # the lowest limit that was too high
        self._step = 1.0  # the increase as a share of the limit
        self._rest, self._patience = REST, REST
        self._since_look = 0
        self._baseline = ErrorBaseline()
        self._decreases = self._times_full = 0
        self._steady: Latency | None = None  # at the present limit, near the ceiling
        self._pending: Decrease | None = None  # while the effect of a decrease is measured
        self._window = SampleWindow(self.bound)

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {self.bound}, {self._good} held, {self._ceiling} did not>"

    def begin(self, in_flight: int) -> CallSample:
        """Record that a call begins; `in_flight` includes it."""
        # A call that begins while few are in flight says nothing about the limit. But after a
        # decrease every call is sampled, so that the decrease is always evaluated.
        is_sampled = self._pending is not None or in_flight >= SAMPLED * self.bound
        window = self._window if is_sampled and self._window.begin() else None
        sample = CallSample(window, self._decreases, self._times_full)
        self._times_full += in_flight >= FULL * self.bound
        return sample

    def end(self, sample: CallSample, seconds: float, how: CallEnd) -> None:
        """Record the end of a call, and change the limit if it is time to."""
        window = self._window
        if sample.window is not None:
            sample.window.end(seconds, how, saw_limit=self._times_full > sample.times_full)
        if sample.decreases != self._decreases:
            if self._pending is not None and sample.decreases == self._decreases - 1:
                self._pending.window.count(how)  # it belongs to the time before the decrease
            return
        window.count(how)
        is_congested = how in ("rate_limited", "overloaded") and self._pending is None
        if is_congested and self._baseline.is_exceeded(window, how):
            self._decrease(None)
        elif window.is_complete:
            self._evaluate(window)

    # ── evaluating a window ────────────────────────────────────────────────────────────────────

    def _evaluate(self, window: SampleWindow) -> None:
        """Change the limit according to a complete window."""
        self._since_look += 1
        if self._pending is not None:
            decrease, self._pending = self._pending, None
            self._evaluate_decrease(window, decrease)
            return
        self._baseline.add(window)
        if (latency := window.latency) is None:
            self._set(self.bound)  # most calls failed: the window says nothing about latency
        elif self._base is None:
            self._base = latency
            self._increase(window, latency)
        elif not latency.above(self._base, TOLERANCE):
            if self._step >= 1.0 and self._ceiling is None:
                self._base = self._base.joined(latency)
            self._increase(window, latency)
        elif 0 < self._good < self.bound:
            # If calls take r times as long, the knee is at most the limit divided by the square
            # root of r for a service whose latency grows with the square of the load, or by r for
            # one that queues. So there is no need to search above the former.
            knee = self.bound * math.sqrt(self._base.seconds / latency.seconds)
            above_knee = max(self._good + 1, math.ceil(KNEE_MARGIN * knee))
            self._set_ceiling(min(self.bound, above_knee))
            self._set(self._good)
        elif latency.above(self._base, CONGESTED):
            self._decrease(latency)
        else:
            self._set(self.bound)

    def _increase(self, window: SampleWindow, latency: Latency) -> None:
        """Increase a limit that held, if it was the bottleneck."""
        if not window.is_limited:
            self._set(self.bound)
            return
        self._good = max(1, self.bound)
        if self._ceiling is None:
            up = max(1, round(self.bound * self._step))
            if self._step < 1.0:
                self._step = min(1.0, 2 * self._step)
            self._patience = REST
            self._set(self.bound + up)
        elif (gap := self._ceiling - self._good) > max(1, NEAR * self._good):
            self._set(self._good + gap // 2)
        else:
            self._stay(latency)

    def _stay(self, latency: Latency) -> None:
        """Stay just below the ceiling; now and then measure a lower limit, or try a higher one."""
        self._rest -= 1
        self._steady = latency if self._steady is None else self._steady.joined(latency)
        if self._base is not None and self._steady.above(self._base, TOLERANCE):
            self._decrease(self._steady)  # significant over all windows, though not over one
        elif self._since_look >= LOOK_EVERY:
            self._decrease(self._window.latency, is_look=True)
        elif self._rest <= 0:
            self._rest = self._patience = min(2 * self._patience, LONGEST_REST)
            self._ceiling, self._step = None, 0.1
            self._set(self.bound + max(1, self.bound // 10))
        else:
            self._set(self.bound)

    def _set_ceiling(self, too_high: int) -> None:
        """Set the ceiling to a limit that was too high."""
        self._ceiling = too_high
        self._step = 0.1
        if self._good >= too_high:
            self._good = 0

    # ── decreases, and whether they helped ──────────────────────────────────────────────────

    def _decrease(self, latency: Latency | None, *, is_look: bool = False) -> None:
        """Decrease the limit by a quarter, and start to measure the effect."""
        self._pending = Decrease(self.bound, self._step, self._window, latency)
        if not is_look:
            self._set_ceiling(self.bound)
        self._decreases += 1
        self._since_look = 0
        self._set(max(1, math.floor(DECREASE * self.bound)))

    def _evaluate_decrease(self, window: SampleWindow, decrease: Decrease) -> None:
        """Keep a decrease that helped, decrease further if it was not enough, or undo it."""
        latency, before = window.latency, decrease.latency
        is_congested = decrease.window.congested_share and window.congested_share
        if is_congested and made_no_difference(decrease.window, window):
            self._baseline.replace(decrease.window, window)
            self._undo(decrease)
            return
        if self._baseline.is_exceeded(window):
            self._decrease(latency)
            return
        self._baseline.add(window)
        if latency is None or self._base is None:
            self._good = self.bound
            self._set(self.bound)
        elif before is not None and latency.seconds > RELIEF * before.seconds:
            self._base = latency.joined(before)
            self._undo(decrease)
        elif latency.above(self._base, CONGESTED):
            self._decrease(latency)
        else:
            if not latency.above(self._base, TOLERANCE):
                self._base = self._base.joined(latency)
            self._good = max(self._good, self.bound)
            self._set(self._good)

    def _undo(self, decrease: Decrease) -> None:
        """Return to the limit before a decrease, which was not too high."""
        self._good = decrease.bound
        if self._ceiling == decrease.bound:
            self._ceiling, self._step = None, decrease.step
        self._set(decrease.bound)

    def _set(self, bound: int) -> None:
        """Set the limit, and start a new window."""
        bound = max(1, min(bound, self._most))
        if bound != self.bound:
            self.bound, self._steady = bound, None
        if self._pending is not None and self._pending.window.overloaded:
            size = max(MIN_CALLS, 2 * self.bound)
        elif self._ceiling is None and self._step >= 1.0:
            size = max(4, self.bound // 3)
        else:
            size = max(8, 2 * self.bound)
        self._window = SampleWindow(size)


class ConcurrencyController:
    """
    Measures the calls of a run and sets its concurrency to the limit.

    Args:
        resize: Called with the new concurrency whenever it changes.
    """

    def __init__(self, first: int, clock: Clock, resize: Callable[[int], None]) -> None:
        self._limit = ConcurrencyLimit(first)
        self._clock, self._resize = clock, resize
        self._in_flight = 0
        self._closed = False
        self._applied = first
        self._apply()

    def close(self) -> None:
        """Stop resizing: the calls still in flight belong to a concurrency set by the user."""
        self._closed = True

    def __repr__(self) -> str:
        return f"<ConcurrencyController {self._limit!r}, {self._in_flight} in flight>"

    async def watch(self, call: Coroutine[Any, Any, V]) -> V:
        """Await a call, and record its latency and its error."""
        self._in_flight += 1
        sample, started = self._limit.begin(self._in_flight), self._clock()
        how: CallEnd = "error"
        try:
            value = await call
            how = "success"
            return value
        except Exception as error:
            how = congestion(error) or "error"
            raise
        finally:
            self._in_flight -= 1
            self._limit.end(sample, self._clock() - started, how)
            self._apply()

    def _apply(self) -> None:
        """Resize the run if the limit has changed."""
        bound = self._limit.bound
        if bound != self._applied and not self._closed:
            self._applied = bound
            self._resize(bound)
