"""Clocks and timers of event loops: what time it is, a heartbeat, and one wake-up for each loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Self, TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since some fixed instant, never going back."""


def loop_clock(loop: asyncio.AbstractEventLoop) -> Clock:
    """
    Choose the clock that a loop's timers follow.

    asyncio's own loops follow `time.monotonic`, which is returned bare because it costs half of
    `loop.time`. A loop that overrides `time` (a virtual clock) is asked; loops in C (uvloop)
    follow `time.monotonic` too, rounded to a millisecond.
    """
    method = getattr(type(loop), "time", None)
    if isinstance(loop, asyncio.BaseEventLoop) and method is not asyncio.BaseEventLoop.time:
        return loop.time
    return time.monotonic


_monotonic_loops: set[type] = set()
"""The classes of loops known to follow `time.monotonic`: finding out costs more than a grant."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Get the loop that runs in this thread, or None."""
    return asyncio._get_running_loop()  # no error is raised and caught, which would cost more


def current_clock() -> Clock:
    """Choose the clock of the loop that runs in this thread, or else `time.monotonic`."""
    loop = running_loop()
    if loop is None or type(loop) in _monotonic_loops:
        return time.monotonic
    clock = loop_clock(loop)
    if clock is time.monotonic:
        _monotonic_loops.add(type(loop))
    return clock


def current_time() -> float:
    """Read the current clock, in seconds."""
    return current_clock()()


HEARTBEAT = 0.1
"""Seconds between two beats: an idle loop notices a stop button only when something wakes it."""


class Heartbeat:
    """
    A context in which the running loop wakes ten times a second.

    Interrupting a cell that awaits cancels its task, but a sleeping loop sees the cancellation only
    when it wakes for another reason, which may be seconds later or never. The heartbeat wakes it.

    Args:
        beat: called at each beat.
    """

    def __init__(self, beat: Callable[[], None] | None = None) -> None:
        self._beat = beat
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEARTBEAT, self._tick, loop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the next beat first, because the callback may raise."""
        self._timer = loop.call_later(HEARTBEAT, self._tick, loop)
        if self._beat is not None:
            self._beat()


_SHORTEST = 1e-9  # seconds; a shorter timer might not advance the clock, and would fire for ever
_TOLERANCE = 1e-6  # seconds by which a timer may be late: sums of floats differ


class LoopTimers(dict[asyncio.AbstractEventLoop, tuple[float, asyncio.Handle]]):
    """
    One timer for each loop, set for the earliest time at which something there is due.

    Each entry has the time at which the timer fires, because the handle of a browser's loop does
    not say, and the handle. A timer that fires early does no harm. `set` and `cancel` must be
    called on the loop in question.
    """

    __slots__ = ()

    def set(
        self,
        loop: asyncio.AbstractEventLoop,
        wait: float,
        callback: Callable[[asyncio.AbstractEventLoop], None],
    ) -> None:
        """Make sure that the callback is called in `wait` seconds, or sooner."""
        now = loop.time()
        # Far from 0 the steps between neighbouring floats are longer than that.
        wait = max(wait, _SHORTEST, math.ulp(now))
        when = now + wait
        timer = self.get(loop)
        if timer is not None:
            if timer[0] <= when:
                return
            timer[1].cancel()
        elif self:
            for closed in [other for other in self if other.is_closed()]:
                del self[closed]
        # Not call_at: a browser's loop refuses a time that has passed meanwhile.
        self[loop] = when, loop.call_later(wait, callback, loop)

    def cancel(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the timer of a loop, if it has one."""
        if loop in self:
            self.pop(loop)[1].cancel()

    def due_within(self, wait: float, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the timer of a loop fires in `wait` seconds, or sooner."""
        return loop in self and self[loop][0] <= loop.time() + wait + _TOLERANCE
