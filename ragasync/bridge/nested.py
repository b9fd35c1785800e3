"""Run a coroutine on the loop that already runs in this thread, by means of nest-asyncio2."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from ragasync.bridge.interrupts import GRACE, DeferredInterrupt, pass_notes
from ragasync.errors import RunAsyncError

T = TypeVar("T")


def run_nested(
    coro: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, context: Context
) -> asyncio.Task[T]:
    """
    Run the coroutine to its end on this running loop, and return its finished task.

    The first call patches asyncio for good: tasks in pure Python, slower, in the whole process.
    An interrupt cancels the coroutine; it gets 5 seconds, or as long as nobody interrupts again.

    Raises:
        RunAsyncError: If the loop is not one of asyncio's own, which alone can be patched.
        KeyboardInterrupt: After an interrupt.
        asyncio.CancelledError: After an interrupt inside a cell that awaits.
    """
    try:
        _make_reentrant(loop)
    except RunAsyncError:
        coro.close()  # or Python would complain that it was never awaited
        raise
    task = loop.create_task(coro, context=context)
    supervision = _Supervision(task, loop)
    ending = loop.create_task(supervision.ended())
    try:
        with DeferredInterrupt(supervision.interrupt, always=True) as sigint:
            try:
                loop.run_until_complete(ending)
            finally:
                task.cancel()  # does nothing to one that has ended
                ending.cancel()
                sigint.hand_on()
    except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
        pass_notes(task, interrupt)
        raise
    return task


class _Supervision:
    """Waits for a task, and cancels it at an interrupt."""

    def __init__(self, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._task = task
        self._loop = loop
        self._interrupts = 0
        self._interrupted = loop.create_future()

    def interrupt(self) -> None:
        """Ask for the end; the second time, in code that may never give way, enforce it."""
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._interrupted.set_result, None)

    async def ended(self) -> None:
        """Wait for the end of the task, after an interrupt for no longer than the grace."""
        await asyncio.wait({self._task, self._interrupted}, return_when="FIRST_COMPLETED")
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=GRACE)


def _make_reentrant(loop: asyncio.AbstractEventLoop) -> None:
    """Patch asyncio and the class of this loop, unless that was done before."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise RunAsyncError(
            f"nested=True needs one of asyncio's own event loops, got {loop!r}, which cannot be "
            "patched (uvloop cannot): `await` the coroutine, or leave nested=True out"
        )
    import nest_asyncio2

    nest_asyncio2.apply(loop)
