"""An event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 1.0
"""Real seconds without news of threads after which one of them may be waiting for a timer here."""

IMPATIENCE = 0.05
"""Real seconds from one timer to the next from then on, until there is news."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that moves the clock on where an ordinary one would sleep."""

    def __init__(self, next_timer: Callable[[], float | None], busy: Callable[[], bool]) -> None:
        super().__init__()
        self.now = 0.0
        self._next_timer = next_timer
        self._busy = busy
        self._patience = PATIENCE

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now; with nothing ready, move the clock to the next timer."""
        if timeout is None:
            # Nothing is scheduled: only another thread can wake the loop.
            return super().select(None)
        busy = self._busy()
        waits = timeout > 0 and busy
        ready = super().select(self._patience if waits else 0)
        if ready or not busy:
            self._patience = PATIENCE
        elif waits:
            self._patience = IMPATIENCE
        if not ready and timeout > 0:
            due = self._next_timer()
            # The instant itself, because times that are added up drift.
            self.now = self.now + timeout if due is None else max(self.now, due)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """
    Run coroutines on a clock of their own that starts at 0 and never waits.

    `asyncio.sleep(3600)` returns at once with `loop.time()` an hour further; the order of events
    is the one that the real clock would give. Work on threads takes no virtual time: the clock
    stands still until it is done.

    Example:
        >>> import asyncio
        >>> from ragasync.simulation import VirtualClockLoop
        >>> with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        ...     runner.run(asyncio.sleep(3600))
        ...     print(runner.get_loop().time())
        3600.0

    Attributes:
        threads_at_work: how many calls run on threads for this loop; pools of threads keep it.
    """

    def __init__(self) -> None:
        self.threads_at_work = 0
        self._jumping = _JumpingSelector(self._next_timer, lambda: self.threads_at_work > 0)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now

    @property
    def _clock_resolution(self) -> float:
        """How early asyncio runs timers: by a step of the clock, which is longer far from 0."""
        return max(1e-9, math.ulp(self._jumping.now))

    @_clock_resolution.setter
    def _clock_resolution(self, _: float) -> None:
        """Ignore what asyncio sets when the loop is made: the resolution of the real clock."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function on an executor, while the clock stands still."""
        future = super().run_in_executor(executor, func, *args)
        self.threads_at_work += 1
        future.add_done_callback(self._returned)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Wait for the threads without a time limit, which would be over at once."""
        await super().shutdown_default_executor()

    def _make_self_pipe(self) -> None:
        """Open what threads wake the loop through; a browser has no threads, nor such sockets."""
        if sys.platform == "emscripten":
            self._ssock = self._csock = None
        else:
            super()._make_self_pipe()  # type: ignore[misc]  # private, and asyncio's only way

    def _close_self_pipe(self) -> None:
        """Close it, where it was opened."""
        if sys.platform != "emscripten":
            super()._close_self_pipe()  # type: ignore[misc]

    def _returned(self, _: asyncio.Future[Any]) -> None:
        """Let the clock go on."""
        self.threads_at_work -= 1

    def _next_timer(self) -> float | None:
        """Return when the first timer is due; asyncio keeps them in a private heap."""
        scheduled: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        return scheduled[0].when() if scheduled else None


def run_virtual(coro: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine to its end on a virtual clock and return its value.

    Example:
        >>> import asyncio
        >>> from ragasync.simulation import run_virtual
        >>> async def slow():
        ...     await asyncio.sleep(3600)
        ...     return "an hour later"
        >>> run_virtual(slow())
        'an hour later'
    """
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(coro)
