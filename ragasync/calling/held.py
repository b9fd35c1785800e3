"""Slots that are held by calls past their time, which nobody can interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from ragasync.calling.calls import Returning


class HeldSlots:
    """
    Counts the slots that threads hold after their timeout, and stops the run when all do.

    A thread cannot be killed. Its slot stays taken until it returns, or else the function would
    run more often at once than was allowed. If every slot is so held for a further `timeout`,
    nothing will ever go on, and the run says so instead of waiting.

    Args:
        timeout: seconds for one attempt.
        slots: the slots that are open.
        stop: called with the reason when all have been held for too long.
    """

    def __init__(
        self, timeout: float | None, slots: Collection[object], stop: Callable[..., None]
    ) -> None:
        self._timeout = timeout or 0.0
        self._slots = slots
        self._stop = stop
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    async def until_returned(self, call: Returning | None) -> None:
        """Hold a slot until this call has returned; nothing to hold where it was interrupted."""
        if call is None:
            return
        self._held += 1
        if self._held == len(self._slots):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout, self._give_up)
        try:
            await call.wait_until_returned()
        finally:
            self._held -= 1
            if self._timer is not None:
                self._timer.cancel()

    def _give_up(self) -> None:
        """Stop the run."""
        self._stop(
            f"all {self._held} slots are held by calls that outlived timeout={self._timeout:g} s "
            f"and cannot be interrupted",
            cancel=True,
        )
