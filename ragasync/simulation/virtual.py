"""An event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that moves the clock on where an ordinary one would sleep."""

    now = 0.0
    next_timer: Callable[[], float | None] = staticmethod(lambda: None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now; with nothing ready, move the clock by `timeout` seconds."""
        if timeout is None:
            # Nothing is scheduled: only another thread can wake the loop.
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            due = self.next_timer()
            # The instant itself, because times that are added up drift.
            self.now = self.now + timeout if due is None else max(self.now, due)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """
    Run coroutines on a clock of their own that starts at 0 and never waits.

    `asyncio.sleep(3600)` returns at once with `loop.time()` an hour further; the order of events
    is the one that the real clock would give. Work in other threads takes no virtual time.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._jumping.next_timer = self._next_timer

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now

    def _next_timer(self) -> float | None:
        """Return when the first timer is due; asyncio keeps them in a private heap."""
        scheduled: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        return scheduled[0].when() if scheduled else None


def run_virtual(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a virtual clock and return its value."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(coro)
