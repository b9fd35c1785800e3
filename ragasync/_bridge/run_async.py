"""
run_async: from sync code to a coroutine, on a persistent event loop in a background thread.

With nested=True, and in a browser, the coroutine runs in place: on the loop of this very thread.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from datetime import timedelta
from functools import partial
from typing import TypeVar

from ragasync._bridge.blocking_calls import BlockingCall, blocked_loops, carry_context_to_threads
from ragasync._bridge.coroutine_call import CoroutineCall, close_unawaited
from ragasync._bridge.interrupts import (
    GRACE,
    LONGEST_WAIT,
    SLACK,
    DeferredInterrupt,
    InterruptibleWait,
    is_main_thread,
)
from ragasync.arguments import check_seconds, explains_arguments
from ragasync.cancellation import create_lazy_task
from ragasync.clock import running_loop
from ragasync.errors import ADVICE, RunAsyncError

T = TypeVar("T")

_Loops = tuple[asyncio.AbstractEventLoop, ...]

_DEADLOCK = (
    "deadlock: the coroutine given to run_async waits for tasks of the loop that run_async blocks. "
    f"Interrupt it. {ADVICE}"
)

# Most calls end within a second, so the first check for a deadlock comes then; later ones are rare.
_FIRST_CHECK, _NEXT_CHECK = 1.0, 30.0


@explains_arguments
def run_async(
    coro: Awaitable[T], *, timeout: float | timedelta | None = None, nested: bool = False
) -> T:
    """
    Run an awaitable from sync code and return its value, whether or not a loop runs here.

    It runs on an event loop in a background thread that lives as long as the process: a client
    made in one call still works in the next. The calling thread blocks meanwhile, and so does a
    loop that runs in it, so objects that belong to that loop need `nested=True`. In a notebook
    cell, a plain `await` is better still.

    Context variables are copied in, and changes are copied back. An interrupt (Ctrl-C, the stop
    button) or the timeout cancels the coroutine, which then gets up to 5 seconds for its clean-up,
    or until the next interrupt; then the error propagates. Of nested calls of run_async, on loops
    or on threads, the innermost is cancelled first, and each outer one when those inside it have
    ended. A thread belongs to the call that started it if it carries the context, as
    asyncio.to_thread does.

    Example:
        >>> import asyncio
        >>> from ragasync import run_async
        >>> async def embed(text):
        ...     await asyncio.sleep(0.01)
        ...     return [text.index("a"), len(text)]
        >>> run_async(embed("a text"), timeout=30)
        [0, 6]

    Args:
        coro: A coroutine, or anything else that can be awaited.
        timeout: Seconds after which it is cancelled; its clean-up is waited for, as after an
            interrupt. None: no limit.
        nested: Run it on the loop that already runs in this thread, by means of nest-asyncio2,
            which patches asyncio for the whole process. Without a running loop it has no effect.

    Returns:
        The value of the awaitable.

    Raises:
        TimeoutError: If the timeout has passed.
        RunAsyncError: If an object belongs to another loop than the one it is used on.
        KeyboardInterrupt: After an interrupt.
        asyncio.CancelledError: After an interrupt inside a cell that awaits, or if other code has
            cancelled the coroutine.
        TypeError: If `coro` cannot be awaited or has been awaited before, or the timeout is not a
            number.
        ValueError: If the timeout is not positive and finite.
    """
    if timeout is not None:
        timeout = check_seconds("timeout", timeout, positive=True)
    running = running_loop()
    in_place = nested or sys.platform == "emscripten"
    blocked = blocked_loops()
    if running is not None and not in_place:
        blocked = (*blocked, running)
    _check(coro, blocked)
    if sys.platform == "emscripten":
        return run_in_browser(coro, timeout)
    if nested and running is not None:
        return run_nested(coro, running, timeout)
    return _run_in_thread(coro, timeout, blocked)


def _run_in_thread(awaitable: Awaitable[T], timeout: float | None, blocked: _Loops) -> T:
    """Run the awaitable on the first background loop that is not blocked, and wait for it."""
    threads = loop_threads()
    loop = threads.loop_excluding(blocked)
    wait = InterruptibleWait(lambda: call.cancel())
    call = CoroutineCall(awaitable, loop, timeout, wait.call, wait.done)
    try:
        with wait:
            loop.call_soon_threadsafe(call.start)
            patience = _FIRST_CHECK if blocked else None
            while not wait.wait(patience) and not wait.call.cancel_requested:
                patience = _NEXT_CHECK
                task = wait.call.task
                if task is not None and _waits_for_blocked(task, blocked):
                    warnings.warn(_DEADLOCK, RuntimeWarning, stacklevel=4)
                    patience = None
            return call.outcome()
    except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
        call.copy_notes_to(interrupt)
        raise
    finally:
        if call.withdrawn or not call.ended:
            threads.set_aside_if_stuck(loop)
        call.copy_context_back()


# ── checks ────────────────────────────────────────────────────────────────────────────────────


def _check(awaitable: object, blocked: _Loops) -> None:
    """
    Refuse an argument that cannot be awaited here.

    Raises:
        TypeError: If it cannot be awaited at all, or was awaited before.
        RunAsyncError: If it is a future of a loop that is blocked until this future is done.
    """
    if inspect.iscoroutine(awaitable):
        if inspect.getcoroutinestate(awaitable) != inspect.CORO_CREATED:
            raise TypeError(
                f"run_async expects a coroutine that was not awaited before, got {awaitable!r}, "
                "which was: call its function again to get a new one"
            )
    elif not inspect.isawaitable(awaitable):
        hint = "; call it: run_async(function())" if callable(awaitable) else ""
        raise TypeError(f"run_async expects a coroutine or awaitable, got {awaitable!r}{hint}")
    elif asyncio.isfuture(awaitable) and not awaitable.done() and awaitable.get_loop() in blocked:
        raise RunAsyncError(
            f"{awaitable!r} can never finish here: it belongs to the loop that this call blocks. "
            f"{ADVICE}"
        )


def _waits_for_blocked(task: asyncio.Task[object], blocked: _Loops) -> bool:
    """
    Whether a task waits for futures of blocked loops only, which is a deadlock.

    asyncio itself refuses to await a future of another loop, except in `asyncio.wait`, which
    hangs; so the chain of awaits is searched for that. False means that nothing is known.
    """
    coro: object = task.get_coro()
    while (inner := getattr(coro, "cr_await", None)) is not None:
        frame = getattr(coro, "cr_frame", None)
        if frame is not None and frame.f_code is _WAIT and frame.f_locals.get("timeout") is None:
            pending = [future for future in frame.f_locals.get("fs", ()) if not future.done()]
            return bool(pending) and all(future.get_loop() in blocked for future in pending)
        coro = inner
    return False


_WAIT = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]


# ── background loops ──────────────────────────────────────────────────────────────────────────


def background_loop() -> asyncio.AbstractEventLoop:
    """
    Get the loop that run_async and background jobs use, and start it at the first use.

    It runs in a daemon thread until the process ends; use `call_soon_threadsafe` to reach it.

    Raises:
        RunAsyncError: If Python has no threads (Pyodide).
    """
    if sys.platform == "emscripten":
        raise RunAsyncError(
            "a background loop needs a thread, and Python in a browser has none: "
            "`await` the coroutine, or run the job with on_current_loop=True"
        )
    return loop_threads().loop_excluding(())


_PATIENCE = 0.1
"""Seconds in which a loop must complete a turn, or it counts as stuck."""


class LoopThreads:
    """
    The background loops of one process, made as they are needed and kept until it ends.

    The first serves everybody, so that a client made in one call still works in the next. The
    others serve calls from inside a background loop, which is blocked until they return.
    """

    def __init__(self) -> None:
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._stuck: set[asyncio.AbstractEventLoop] = set()
        self._lock = threading.Lock()

    def loop_excluding(
        self, blocked: Container[asyncio.AbstractEventLoop]
    ) -> asyncio.AbstractEventLoop:
        """Get the first loop that is neither blocked nor stuck; start one if there is none."""
        with self._lock:
            for loop in self._loops:
                if loop not in blocked and loop not in self._stuck:
                    return loop
            loop = _start_loop(f"ragasync-loop-{len(self._loops)}")
            self._loops.append(loop)
            return loop

    def set_aside_if_stuck(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Use other loops instead of this one until it turns again, if it does not turn now.

        A coroutine was cancelled there and did not end, or did not begin, in time. Perhaps
        something blocks the loop, and later calls must not wait for that.
        """
        turned = threading.Event()

        def turn() -> None:
            turned.set()
            self._stuck.discard(loop)

        loop.call_soon_threadsafe(turn)
        if not turned.wait(_PATIENCE):
            self._stuck.add(loop)
            if turned.is_set():  # between these two lines
                self._stuck.discard(loop)


_by_process: dict[int, LoopThreads] = {}


def loop_threads() -> LoopThreads:
    """
    Get the background loops of this process.

    A forked child starts without any, because threads do not survive a fork. The parent's loops
    are kept but not used: closing them would take the parent's sockets out of its selector.
    """
    threads = _by_process.get(os.getpid())
    return threads or _by_process.setdefault(os.getpid(), LoopThreads())


def _start_loop(name: str) -> asyncio.AbstractEventLoop:
    """Start a new loop in a daemon thread of this name."""
    loop = asyncio.new_event_loop()
    carry_context_to_threads(loop)
    threading.Thread(target=_run_for_good, args=(loop,), name=name, daemon=True).start()
    return loop


def _run_for_good(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop in this thread, whatever its coroutines raise."""
    while True:
        # sys.exit() in a coroutine ends run_forever too; its task carries it to the caller.
        with suppress(KeyboardInterrupt, SystemExit):
            loop.run_forever()


# ── in place ──────────────────────────────────────────────────────────────────────────────────


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

    `wait` runs the loop until the task has ended or is to be left alone; `wake`, called from any
    thread, makes it look at the call again.

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
