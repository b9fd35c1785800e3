"""Run a coroutine on the loop that already runs in this thread, by means of nest-asyncio2."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import TypeVar

from ragasync.bridge.blocking_calls import BlockingCall
from ragasync.bridge.coroutine_call import close_unawaited, run_on_this_loop
from ragasync.bridge.interrupts import (
    GRACE,
    LONGEST_WAIT,
    SLACK,
    DeferredInterrupt,
    is_main_thread,
)
from ragasync.bridge.thread_scopes import carry_context_to_threads
from ragasync.errors import RunAsyncError
from ragasync.lazy_task import create_lazy_task

T = TypeVar("T")


def run_nested(
    awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop, timeout: float | None
) -> T:
    """
    Run an awaitable to its end on this running loop, and return its value.

    The first call patches asyncio for good: tasks in pure Python, slower, in the whole process.
    An interrupt cancels the coroutine; it gets 5 seconds, or as long as nobody interrupts again.

    Raises:
        RunAsyncError: If the loop is not one of asyncio's own, which alone can be patched.
        KeyboardInterrupt: After an interrupt.
        asyncio.CancelledError: After an interrupt inside a cell that awaits.
        BaseException: Whatever the awaitable raises.
    """
    try:
        _make_reentrant(loop)
    except RunAsyncError:
        close_unawaited(awaitable)
        raise
    supervision = _Supervision(loop)
    return run_on_this_loop(awaitable, loop, timeout, supervision.wait, supervision.wake)


class _Supervision:
    """Waits for the task of a nested call, and cancels it at an interrupt."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._interrupts = 0
        self._woken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Look at the call again; safe from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._woken.set)

    def wait(self, place: BlockingCall, task: asyncio.Task[None]) -> None:
        """Run the loop until the task has ended, or is not to be waited for any longer."""
        self._outermost = place.outermost_in_this_thread()
        ended = create_lazy_task(self._until_over(place, task), self._loop)
        if is_main_thread():
            self._keep_awake()
        with DeferredInterrupt(self._interrupt) as sigint, _as_much_ready(self._loop):
            try:
                self._loop.run_until_complete(ended)
            finally:
                if not task.done():
                    place.cancel()
                ended.cancel()
                if self._timer is not None:
                    self._timer.cancel()
                sigint.hand_on()

    def _keep_awake(self) -> None:
        """Have the loop turn now and then, for the sake of interrupts that did not wake it."""
        self._timer = self._loop.call_later(LONGEST_WAIT, self._keep_awake)

    def _interrupt(self) -> None:
        """Ask for the end; the second time, in code that may never give way, enforce it."""
        self._interrupts += 1
        if self._interrupts > 1:
            self._outermost.abandon()
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._outermost.cancel)

    async def _until_over(self, place: BlockingCall, task: asyncio.Task[None]) -> None:
        """Wait for the end, but after a cancellation no longer than a clean-up may take."""
        while not place.abandoned and not (task.done() and not place.is_cancelled_inside):
            grace = None
            if place.cancel_requested:
                grace = GRACE + (SLACK if place.children else 0)
            told = place.last_told()
            self._woken.clear()
            woken = asyncio.ensure_future(self._woken.wait())
            waited_for = {woken} if task.done() else {woken, task}
            done, _ = await asyncio.wait(
                waited_for, timeout=grace, return_when=asyncio.FIRST_COMPLETED
            )
            woken.cancel()
            if not done and place.last_told() == told:
                return


@contextmanager
def _as_much_ready(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """
    Leave at least as many callbacks ready as there were, by adding some that do nothing.

    The round in which a loop makes its first nested call began in asyncio's own code. That has
    counted the callbacks of the round and takes so many, also if the nested run has called them.
    """
    ready: deque[asyncio.Handle] = getattr(loop, "_ready")  # noqa: B009  # private, untyped
    before = len(ready)
    try:
        yield
    finally:
        for _ in range(before - len(ready)):
            loop.call_soon(int, context=Context())


def _make_reentrant(loop: asyncio.AbstractEventLoop) -> None:
    """Patch asyncio and the class of this loop, unless that was done before."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise RunAsyncError(
            f"nested=True needs one of asyncio's own event loops, got {loop!r}, which cannot be "
            "patched (uvloop cannot): `await` the coroutine, or leave nested=True out"
        )
    import nest_asyncio2

    nest_asyncio2.apply(loop)
    carry_context_to_threads(loop)
