"""Slots that are held by calls past their time, which nobody can interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ragasync.calls.calls import AbandonedCall


class StuckCalls:
    """
    Counts the slots that threads hold after their timeout, and stops the run when all do.

    A thread cannot be killed. Its slot stays taken until it returns, or else the function would
    run more often at once than was allowed. If nothing else can go on beside such calls, because
    they hold every slot or are the last of all, the run waits a further `timeout` for them, and
    then says so instead of waiting for ever.

    Args:
        timeout: seconds for one attempt.
        goes_on_beside: says whether anything can still happen while so many slots are held.
        stop: called with the reason when they have been held for too long.
    """

    def __init__(
        self,
        timeout: float | None,
        goes_on_beside: Callable[[int], bool],
        stop: Callable[..., None],
    ) -> None:
        self._timeout = timeout or 0.0
        self._goes_on_beside = goes_on_beside
        self._stop = stop
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    async def until_returned(self, call: AbandonedCall | None) -> None:
        """Hold a slot until this call has returned; nothing to hold where it was interrupted."""
        if call is None:
            return
        self._held += 1
        self._wait_on()
        try:
            await call.wait_until_returned()
        finally:
            self._held -= 1

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait_on(self) -> None:
        """Look again after a further `timeout`."""
        self.close()
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._look)

    def _look(self) -> None:
        """Stop the run if nothing can go on; look again later while any slot is held."""
        if not self._held:
            return
        if self._goes_on_beside(self._held):
            self._wait_on()
            return
        held = "the one slot in use is held by a call"
        if self._held > 1:
            held = f"all {self._held} slots in use are held by calls"
        self._stop(
            f"{held} that outlived timeout={self._timeout:g} s and cannot be interrupted",
            cancel=True,
        )
