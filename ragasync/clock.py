"""Which clock is in force: the running loop's own where it has one, else time.monotonic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since some fixed instant, never going back."""


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
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


def running_clock() -> Clock:
    """Return the clock of the loop that runs in this thread, or `time.monotonic` without one."""
    try:
        return clock_of(asyncio.get_running_loop())
    except RuntimeError:
        return time.monotonic
