"""Clocks: the running loop's own or time.monotonic, and the heartbeat that keeps a loop awake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self, TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since some fixed instant, never going back."""


def loop_clock(loop: asyncio.AbstractEventLoop) -> Clock:
    """
    Return the clock that this loop's timers follow.

    asyncio's own loops follow `time.monotonic`, which is returned bare because it is half the
    price of `loop.time`. A loop that overrides `time` (a virtual clock) is asked; loops in C
    (uvloop) follow `time.monotonic` too, rounded to a millisecond.
    """
    method = getattr(type(loop), "time", None)
    if isinstance(loop, asyncio.BaseEventLoop) and method is not asyncio.BaseEventLoop.time:
        return loop.time
    return time.monotonic


_monotonic_loops: set[type] = set()
"""The classes of loops known to follow `time.monotonic`: to find out costs more than a grant."""


def loop_here() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def current_clock() -> Clock:
    """Return the clock of the loop that runs in this thread, else `time.monotonic`."""
    loop = loop_here()
    if loop is None or type(loop) in _monotonic_loops:
        return time.monotonic
    clock = loop_clock(loop)
    if clock is time.monotonic:
        _monotonic_loops.add(type(loop))
    return clock


def current_time() -> float:
    """Return the time on that clock."""
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
