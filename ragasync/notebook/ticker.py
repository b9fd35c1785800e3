"""Something done up to ten times a second beside what a notebook's thread does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context

from ragasync.bridge.loops import background_loop
from ragasync.clock import Clock, running_loop
from ragasync.errors import RunAsyncError
from ragasync.notebook.drawing import INTERVAL

PATIENCE = 0.5
"""Seconds after which a loop that did not come to it counts as blocked."""

SHARE = 0.02
"""The most of a thread's time that ticks may take: on a slow machine they come less often."""


class Refresher:
    """
    Call something up to ten times a second: on the loop of the thread that began it if it is free.

    A cell that computes blocks its loop; the background loop takes over until the cell has ended.
    Not always the background loop, because some front ends show nothing that another thread
    draws, and because the job itself may keep that one busy.

    The calls run in a context of their own: so the kernel takes what they draw for output of the
    cell that runs now, not of the one that began them, which may have ended long ago.

    Args:
        tick: what to call; returns whether to go on. It may be called from two threads at once.
        spent: tells the processor seconds of the thread that asks.
    """

    def __init__(self, tick: Callable[[], bool], spent: Clock = time.thread_time) -> None:
        self._tick = tick
        self._spent = spent
        self._going = True
        self._due_at_home = time.monotonic()

    def __repr__(self) -> str:
        return f"<Ticker {'going' if self._going else 'stopped'}>"

    def begin(self) -> None:
        """Begin, on the loop of this thread if it runs one."""
        home = running_loop()
        if home is None:
            self._due_at_home = float("-inf")
        else:
            home.call_later(INTERVAL, self._at_home, home, context=Context())
        with suppress(RunAsyncError):  # no threads here: then nothing but this loop can draw
            watching = background_loop()
            if watching is not home:
                watching.call_soon_threadsafe(self._beside, watching)

    def stop(self) -> None:
        """Call nothing any more; safe from any thread."""
        self._going = False

    def _at_home(self, home: asyncio.AbstractEventLoop) -> None:
        """Tick on the loop that it began on."""
        before = self._spent()
        if self._going and self._tick():
            pause = max(INTERVAL, (self._spent() - before) / SHARE)
            self._due_at_home = time.monotonic() + pause
            home.call_later(pause, self._at_home, home, context=Context())
        else:
            self._going = False

    def _beside(self, watching: asyncio.AbstractEventLoop) -> None:
        """Tick on the background loop, if the other does not come to it."""
        if not self._going:
            return
        if time.monotonic() - self._due_at_home > PATIENCE and not self._tick():
            self._going = False
            return
        watching.call_later(INTERVAL, self._beside, watching)
