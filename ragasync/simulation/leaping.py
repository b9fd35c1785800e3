"""An event loop for what only sleeps: it leaps from timer to timer, a hundred thousand a second."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from typing import TypeVarTuple

from ragasync.simulation.virtual_time import VirtualClockLoop

Ts = TypeVarTuple("Ts")

_A_TURN = 1_000
"""Callbacks after which the loop looks whether it is to stop, though more are ready."""


class FastVirtualLoop(VirtualClockLoop):
    """
    Do what a VirtualClockLoop does, at half the price, but without looking at sockets.

    Nothing but timers and other threads' `call_soon_threadsafe` is heeded while anything is left
    to do. So it runs simulations, whose services only sleep, and no programs that read a network.
    """

    _ready: deque[asyncio.Handle]  # asyncio's own queue of what is to be called

    def __init__(self) -> None:
        super().__init__()
        # Of tuples, because asyncio's own heap compares timers in Python.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call something at an instant of the virtual time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call something in so many virtual seconds."""
        return self.call_at(self._jumping.now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Call what is ready; with nothing ready, leap to the next timer."""
        ready, timers = self._ready, self._timers
        if not ready:
            if not timers or self.threads_at_work:
                super()._run_once()  # type: ignore[misc]  # asyncio's own, which waits for threads
                return
            self._leap()
        for _ in range(_A_TURN):
            if not ready:
                return
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _leap(self) -> None:
        """Move the clock to the first timer, and make ready all that are due then."""
        ready, timers, clock = self._ready, self._timers, self._jumping
        while timers and (timers[0][0] <= clock.now or not ready):
            when, _, timer = heappop(timers)
            if not timer.cancelled():
                clock.now = max(clock.now, when)
                ready.append(timer)
