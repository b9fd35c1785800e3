"""The timers that wake a line: one on each loop, for the moment when the first there is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_SHORTEST = 1e-9  # seconds; a shorter one might not move the clock, and would ring for ever


class Alarms(dict[asyncio.AbstractEventLoop, tuple[float, asyncio.Handle]]):
    """
    By loop: when it goes off, and its handle, which need not know that: a browser's does not.

    One that goes off early does no harm. All methods are called on their loop.
    """

    __slots__ = ()

    def set(
        self,
        loop: asyncio.AbstractEventLoop,
        wait: float,
        ring: Callable[[asyncio.AbstractEventLoop], None],
    ) -> None:
        """See to it that `ring` is called in `wait` seconds, or sooner."""
        when = loop.time() + max(wait, _SHORTEST)
        alarm = self.get(loop)
        if alarm is not None:
            if alarm[0] <= when:
                return
            alarm[1].cancel()
        elif self:
            for stale in [other for other in self if other.is_closed()]:
                del self[stale]
        # Not call_at: a browser's loop refuses a moment that has passed meanwhile.
        self[loop] = when, loop.call_later(max(wait, _SHORTEST), ring, loop)

    def cancel(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have none on this loop."""
        if loop in self:
            self.pop(loop)[1].cancel()
