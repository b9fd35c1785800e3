"""run_async: the bridge from sync code to a coroutine."""

from __future__ import annotations

import asyncio
import inspect
import sys
import warnings
from collections.abc import Awaitable
from typing import TypeVar

from ragasync.arguments import check_positive
from ragasync.bridge.blocking_calls import blocked_loops
from ragasync.bridge.browser import run_in_browser
from ragasync.bridge.coroutine_call import CoroutineCall
from ragasync.bridge.in_place import run_nested
from ragasync.bridge.interrupts import InterruptibleWait
from ragasync.bridge.loops import loop_threads
from ragasync.bridge.wrong_loop import WAYS_OUT, refuse_blocked_future, waits_for_blocked

T = TypeVar("T")

_Loops = tuple[asyncio.AbstractEventLoop, ...]

_DEADLOCK = (
    "deadlock: the coroutine given to run_async waits for tasks of the loop that run_async blocks. "
    f"Interrupt it. {WAYS_OUT}"
)

# A deadlock is looked for after a second, because most calls are over by then; then rarely.
_FIRST_LOOK, _NEXT_LOOK = 1.0, 30.0


def run_async(coro: Awaitable[T], *, timeout: float | None = None, nested: bool = False) -> T:
    """
    Run an awaitable from sync code and return its value, whether or not a loop runs here.

    It runs on one loop in a thread of its own, which lives as long as the process: a client made
    in one call still works in the next. The calling thread blocks meanwhile, and with it the loop
    that may run there, so objects that belong to that loop need `nested=True`. In a cell, a plain
    `await` is better still.

    Context variables go in and come back. An interrupt (Ctrl-C, the stop button) or the end of the
    time cancels the coroutine, gives it up to 5 seconds for its clean-up, or until the next
    interrupt, and goes on up. Where calls of run_async are nested, on loops or on threads, the
    innermost is cancelled first; then each in turn, as those inside it end. A thread belongs to
    the call that started it if it carries the context, as asyncio.to_thread does.

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
            which patches asyncio for the whole process. Without a running loop it changes nothing.

    Returns:
        What the awaitable returns.

    Raises:
        TimeoutError: If the time is up.
        RunAsyncError: If an object belongs to another loop than the one it is used on.
        KeyboardInterrupt: After an interrupt.
        asyncio.CancelledError: After an interrupt inside a cell that awaits, or if the coroutine
            was cancelled by somebody else.
        TypeError: If there is nothing to await, or a coroutine that was awaited before; if the
            timeout is no number.
        ValueError: If the timeout is not positive and finite.
    """
    if timeout is not None:
        check_positive("timeout", timeout)
    running = asyncio._get_running_loop()
    on_this_loop = nested or sys.platform == "emscripten"
    blocked = blocked_loops()
    if running is not None and not on_this_loop:
        blocked = (*blocked, running)
    _check(coro, blocked)
    if sys.platform == "emscripten":
        return run_in_browser(coro, timeout)
    if nested and running is not None:
        return run_nested(coro, running, timeout)
    return _run_in_thread(coro, timeout, blocked)


def _check(awaitable: object, blocked: _Loops) -> None:
    """Refuse what cannot be awaited here."""
    if inspect.iscoroutine(awaitable):
        if inspect.getcoroutinestate(awaitable) != inspect.CORO_CREATED:
            raise TypeError(
                f"run_async expects a coroutine that was not awaited before, got {awaitable!r}, "
                "which was: call its function again to get a new one"
            )
    elif inspect.isawaitable(awaitable):
        refuse_blocked_future(awaitable, blocked)
    else:
        hint = "; call it: run_async(function())" if callable(awaitable) else ""
        raise TypeError(f"run_async expects a coroutine or awaitable, got {awaitable!r}{hint}")


def _run_in_thread(awaitable: Awaitable[T], timeout: float | None, blocked: _Loops) -> T:
    """Run the awaitable on the first loop that is not blocked, and wait in this thread."""
    loop = loop_threads().outside(blocked)
    call = CoroutineCall(awaitable, loop, timeout)
    waiting = InterruptibleWait(call.cancel)
    call.take(waiting.call, waiting.done)
    try:
        with waiting:
            loop.call_soon_threadsafe(call.start)
            patience = _FIRST_LOOK if blocked else None
            while not waiting.wait(patience) and not waiting.call.cancel_requested:
                patience = _NEXT_LOOK
                task = waiting.call.task
                if task is not None and waits_for_blocked(task, blocked):
                    warnings.warn(_DEADLOCK, RuntimeWarning, stacklevel=3)
                    patience = None
            return call.outcome()
    except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
        call.pass_notes(interrupt)
        raise
    finally:
        if call.withdrawn or not call.ended:
            loop_threads().set_aside_if_stuck(loop)
        call.bring_back()
