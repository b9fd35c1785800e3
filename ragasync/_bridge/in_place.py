"""Blocking calls in place: a coroutine on the loop of this very thread, nested or in a browser."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from typing import TypeVar

from ragasync._bridge.blocking_calls import BlockingCall, carry_context_to_threads
from ragasync._bridge.coroutine_call import CoroutineCall, close_unawaited
from ragasync._bridge.interrupts import (
    GRACE,
    LONGEST_WAIT,
    SLACK,
    DeferredInterrupt,
    is_main_thread,
)
from ragasync.cancellation import create_lazy_task
from ragasync.errors import RunAsyncError

T = TypeVar("T")


def run_nested(
    awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop, timeout: float | None
) -> T:
    """
    Run an awaitable on this running loop by means of nest-asyncio2, and return its value.

    The first call patches asyncio for the whole process and for good: its tasks are then in pure
    Python, and slower. An interrupt cancels the coroutine, which then gets 5 seconds for its
    clean-up, or until the next interrupt.

    Raises:
        RunAsyncError: If the loop is not one of asyncio's own, because no other can be patched.
        KeyboardInterrupt: After an interrupt.
        asyncio.CancelledError: After an interrupt inside a cell that awaits.
        BaseException: Any error of the awaitable.
    """
    try:
        _make_reentrant(loop)
    except RunAsyncError:
        close_unawaited(awaitable)
        raise
    wait = _NestedWait(loop)
    return _run_on_this_loop(awaitable, loop, timeout, wait.until_ended, wait.wake)


def run_in_browser(awaitable: Awaitable[T], timeout: float | None) -> T:
    """
    Run an awaitable on the browser's own loop, under Pyodide, and return its value.

    The browser puts the calling Python stack aside meanwhile (JavaScript Promise Integration).

    Raises:
        RunAsyncError: If this browser cannot do that.
        BaseException: Any error of the awaitable.
    """
    from pyodide.ffi import can_run_sync, run_sync  # type: ignore[import-not-found]

    if not can_run_sync():
        close_unawaited(awaitable)
        raise RunAsyncError(
            "run_async cannot block in this browser, which has no threads and no promise "
            "integration: `await` the coroutine instead"
        )
    loop = asyncio.get_running_loop()
    return _run_on_this_loop(
        awaitable, loop, timeout, lambda _, task: run_sync(asyncio.wait({task}))
    )


def _run_on_this_loop(
    awaitable: Awaitable[T],
    loop: asyncio.AbstractEventLoop,
    timeout: float | None,
    wait: Callable[[BlockingCall, asyncio.Task[None]], None],
    wake: Callable[[], None] | None = None,
) -> T:
    """
    Run an awaitable on the loop that runs in this thread, and return its value.

    Args:
        awaitable: What to await.
        loop: The running loop.
        timeout: Seconds after which it is cancelled; None for no limit.
        wait: Runs the loop until the task has ended, or is to be left alone.
        wake: Called from any thread when `wait` should look at the call again.

    Raises:
        BaseException: As `CoroutineCall.outcome`.
    """
    place = BlockingCall(lambda: call.cancel(), wake=wake)
    call = CoroutineCall(awaitable, loop, timeout, place, on_end=lambda: None)
    timer = None if timeout is None else loop.call_later(timeout, place.time_out)
    try:
        with place:
            wait(place, call.start())
            return call.outcome()
    except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
        call.copy_notes_to(interrupt)
        raise
    finally:
        if timer is not None:
            timer.cancel()
        call.copy_context_back()


class _NestedWait:
    """Runs a loop inside itself until a task has ended, and cancels the task at an interrupt."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._interrupts = 0
        self._woken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Look at the call again; safe from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._woken.set)

    def until_ended(self, place: BlockingCall, task: asyncio.Task[None]) -> None:
        """Run the loop until the task has ended, or its clean-up takes too long."""
        ended = create_lazy_task(self._until_over(place, task), self._loop)
        if is_main_thread():
            self._keep_awake()
        interrupt = partial(self._interrupt, place.outermost_in_this_thread())
        with DeferredInterrupt(interrupt) as sigint, _as_many_ready(self._loop):
            try:
                self._loop.run_until_complete(ended)
            finally:
                if not task.done():
                    place.cancel()
                ended.cancel()
                if self._timer is not None:
                    self._timer.cancel()
                sigint.deliver()

    def _keep_awake(self) -> None:
        """Wake the loop now and then, because some interrupts do not."""
        self._timer = self._loop.call_later(LONGEST_WAIT, self._keep_awake)

    def _interrupt(self, outermost: BlockingCall) -> None:
        """Cancel the calls at the first interrupt, and leave them at the second."""
        self._interrupts += 1
        if self._interrupts > 1:
            # The code may never return to the loop, so the exception has to be raised right here.
            outermost.abandon()
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(outermost.cancel)

    async def _until_over(self, place: BlockingCall, task: asyncio.Task[None]) -> None:
        """Wait for the task, but after a cancellation no longer than a clean-up may take."""
        while not place.abandoned and not (task.done() and not place.has_cancelled_children):
            grace = None
            if place.cancel_requested:
                grace = GRACE + (SLACK if place.children else 0)
            cancelled_at = place.last_cancelled_at()
            self._woken.clear()
            woken = asyncio.ensure_future(self._woken.wait())
            waited_for = {woken} if task.done() else {woken, task}
            done, _ = await asyncio.wait(
                waited_for, timeout=grace, return_when=asyncio.FIRST_COMPLETED
            )
            woken.cancel()
            if not done and place.last_cancelled_at() == cancelled_at:
                return


@contextmanager
def _as_many_ready(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """
    Keep as many callbacks ready in a loop as before, by adding some that do nothing.

    The turn of the loop that makes its first nested call was begun by asyncio's own code. That has
    counted the callbacks of the turn and will take as many, even if the nested run has called them.
    """
    ready: deque[asyncio.Handle] = getattr(loop, "_ready")  # noqa: B009  # private, untyped
    before = len(ready)
    try:
        yield
    finally:
        for _ in range(before - len(ready)):
            loop.call_soon(int, context=Context())


def _make_reentrant(loop: asyncio.AbstractEventLoop) -> None:
    """Patch asyncio and the class of this loop, unless that has been done."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise RunAsyncError(
            f"nested=True needs one of asyncio's own event loops, got {loop!r}, which cannot be "
            "patched (uvloop cannot): `await` the coroutine, or leave nested=True out"
        )
    import nest_asyncio2

    nest_asyncio2.apply(loop)
    carry_context_to_threads(loop)
