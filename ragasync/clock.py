"""Which clock is in force: the running loop's own where it has one, else time.monotonic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

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
