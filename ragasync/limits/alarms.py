"""The timers that wake a line: one on each loop, for the moment when the first there is due."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

_SHORTEST = 1e-9  # seconds; a shorter one might not move the clock, and would ring for ever
_LATE = 1e-6  # seconds by which an alarm may ring late: sums of floats differ


class LoopTimers(dict[asyncio.AbstractEventLoop, tuple[float, asyncio.Handle]]):
    """
    By loop: when it goes off, and its handle, which need not know that: a browser's does not.

    One that goes off early does no harm. `set` and `cancel` are called on their loop.
    """

    __slots__ = ()

    def set(
        self,
        loop: asyncio.AbstractEventLoop,
        wait: float,
        ring: Callable[[asyncio.AbstractEventLoop], None],
    ) -> None:
        """See to it that `ring` is called in `wait` seconds, or sooner."""
        now = loop.time()
        # Far from 0 a float moves in steps that are longer.
        wait = max(wait, _SHORTEST, math.ulp(now))
        when = now + wait
        alarm = self.get(loop)
        if alarm is not None:
            if alarm[0] <= when:
                return
            alarm[1].cancel()
        elif self:
            for stale in [other for other in self if other.is_closed()]:
                del self[stale]
        # Not call_at: a browser's loop refuses a moment that has passed meanwhile.
        self[loop] = when, loop.call_later(wait, ring, loop)

    def cancel(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have none on this loop."""
        if loop in self:
            self.pop(loop)[1].cancel()

    def rings_within(self, wait: float, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether an alarm on this loop rings in `wait` seconds, or sooner."""
        return loop in self and self[loop][0] <= loop.time() + wait + _LATE
