"""The loop that runs in this thread, and the time on its clock."""

from __future__ import annotations

import asyncio
import time

from ragasync.clock import Clock, clock_of

_monotonic_loops: set[type] = set()
"""The classes of loops known to follow `time.monotonic`: to find out costs more than a grant."""


def loop_here() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def clock_here() -> Clock:
    """Return the clock of the loop that runs in this thread, else `time.monotonic`."""
    loop = loop_here()
    if loop is None or type(loop) in _monotonic_loops:
        return time.monotonic
    clock = clock_of(loop)
    if clock is time.monotonic:
        _monotonic_loops.add(type(loop))
    return clock


def time_here() -> float:
    """Return the time on that clock."""
    return clock_here()()
