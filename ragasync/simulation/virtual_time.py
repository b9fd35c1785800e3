"""A virtual clock: an event loop that moves its clock to the next timer instead of waiting."""

from __future__ import annotations

import asyncio
import itertools
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import Context
from heapq import heappop, heappush
from typing import Any, TypeVar, TypeVarTuple

from ragasync._bridge.interrupts import InterruptibleWait

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 1.0
"""Real seconds without news from threads after which one of them may be waiting for a timer."""

IMPATIENCE = 0.05
"""Real seconds between timers from then on, until a thread reports."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose clock starts at 0 and never waits for a timer.

    `asyncio.sleep(3600)` returns immediately, with `loop.time()` an hour later; events happen in
    the order in which they would on the real clock. Work on threads takes no virtual time: the
    clock stands still until the thread is done. Sockets are polled between timers.

    Example:
        >>> import asyncio
        >>> from ragasync.testing import VirtualClockLoop
        >>> with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        ...     runner.run(asyncio.sleep(3600))
        ...     print(runner.get_loop().time())
        3600.0

    Attributes:
        threads_at_work: how many calls run on threads for this loop; thread pools update it.
    """

    # asyncio's own, which its type stubs leave out.
    _ready: deque[asyncio.Handle]
    _selector: selectors.BaseSelector
    _signal_handlers: dict[int, asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        self.threads_at_work = 0
        self._now = 0.0
        self._patience = PATIENCE
        # Tuples, because asyncio's own heap compares timers in Python, which takes longer than
        # all the rest of a turn. The number keeps timers of one instant in their order.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        super().__init__()
        self._watched = self._selector.get_map()
        self._own_sockets = len(self._watched)

    def time(self) -> float:
        """The virtual time in seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a callback at a virtual time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function on an executor while the clock stands still."""
        future = super().run_in_executor(executor, func, *args)
        self.threads_at_work += 1
        future.add_done_callback(self._thread_returned)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Join the executor's threads without a timeout, which would expire immediately."""
        await super().shutdown_default_executor()

    def _run_once(self) -> None:
        """Run the callbacks that are ready; with none ready, move the clock to the next timer."""
        ready, timers = self._ready, self._timers
        # Other threads append to `ready` themselves, so a program that only sleeps, as a
        # simulation does, never polls.
        is_watching = len(self._watched) > self._own_sockets or self._signal_handlers
        has_news = False
        if self.threads_at_work or is_watching or not (ready or timers):
            has_news = self._poll()
        if timers and not has_news and not self._stopping:
            self._expire_timers()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _poll(self) -> bool:
        """Poll the sockets, and wait for threads while they work; return whether any reported."""
        is_busy = self.threads_at_work > 0
        if self._ready or self._stopping:
            timeout: float | None = 0.0
        elif not self._timers:
            timeout = None  # only another thread or a socket can wake the loop
        else:
            timeout = self._patience if is_busy else 0.0
        events = self._selector.select(timeout)
        if events or not is_busy:
            self._patience = PATIENCE
        elif timeout:
            self._patience = IMPATIENCE
        self._process_events(events)  # type: ignore[attr-defined]
        return bool(events)

    def _expire_timers(self) -> None:
        """Make the timers ready that are due; with nothing else ready, those that are due next."""
        ready, timers = self._ready, self._timers
        while timers and (timers[0][0] <= self._now or not ready):
            when, _, timer = heappop(timers)
            if not timer.cancelled():
                self._now = max(self._now, when)
                ready.append(timer)

    def _make_self_pipe(self) -> None:
        """Open the sockets by which threads wake the loop; a browser has neither."""
        if sys.platform == "emscripten":
            self._ssock = self._csock = None
        else:
            super()._make_self_pipe()  # type: ignore[misc]  # private, and asyncio's only way

    def _close_self_pipe(self) -> None:
        """Close these sockets, where they were opened."""
        if sys.platform != "emscripten":
            super()._close_self_pipe()  # type: ignore[misc]

    def _thread_returned(self, _: asyncio.Future[Any]) -> None:
        """Let the clock move again."""
        self.threads_at_work -= 1


def run_on_virtual_clock(coro: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine to its end on a virtual clock and return its value.

    It may be called anywhere: where an event loop runs in this thread, as in a notebook's cell,
    the coroutine runs in a thread of its own while this one waits. An interrupt cancels the
    coroutine and is raised here.

    Example:
        >>> import asyncio
        >>> from ragasync.testing import run_on_virtual_clock
        >>> async def slow():
        ...     await asyncio.sleep(3600)
        ...     return "an hour later"
        >>> run_on_virtual_clock(slow())
        'an hour later'

    Raises:
        BaseException: what the coroutine raises, or the interrupt.
    """
    if sys.platform == "emscripten" or asyncio._get_running_loop() is None:
        return _run_here(coro)
    return _run_in_thread(coro)


def _run_here(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock in this thread."""
    # A browser has no other thread, so there the loop that runs in this one stands still.
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            return runner.run(coro)
    finally:
        asyncio._set_running_loop(outer)


def _run_in_thread(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock in a thread of its own, and wait for it."""
    loop = VirtualClockLoop()
    task = loop.create_task(coro)

    def cancel() -> None:
        with suppress(RuntimeError):  # the loop is closed: the coroutine has just ended
            loop.call_soon_threadsafe(task.cancel)

    with InterruptibleWait(cancel) as waiting:

        def run() -> None:
            try:
                # What it raises stays with the task.
                with suppress(BaseException), asyncio.Runner(loop_factory=lambda: loop) as runner:
                    runner.get_loop().run_until_complete(task)
            finally:
                waiting.done()

        threading.Thread(target=run, name="ragasync-simulation", daemon=True).start()
        waiting.wait()
    return task.result()
