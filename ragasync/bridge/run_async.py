"""run_async: the bridge from sync code to a coroutine."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Generic, TypeVar

from ragasync.arguments import check_positive
from ragasync.bridge.browser import run_in_browser
from ragasync.bridge.interrupts import InterruptibleWait, pass_notes
from ragasync.bridge.loops import loop_threads
from ragasync.bridge.nested import run_nested
from ragasync.bridge.wrong_loop import (
    WAYS_OUT,
    explain_wrong_loop,
    refuse_blocked_future,
    waits_for_blocked,
)
from ragasync.errors import RunAsyncError

T = TypeVar("T")

_Loops = tuple[asyncio.AbstractEventLoop, ...]

_blocked: ContextVar[_Loops] = ContextVar("ragasync_blocked_loops", default=())
"""The loops that stand still until the present call of run_async returns."""

_UNSET = object()

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

    Context variables go in and come back. An interrupt (Ctrl-C, the stop button) cancels the
    coroutine, gives it up to 5 seconds for its clean-up, or until the next interrupt, and goes on
    up.

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
        timeout: Seconds after which it is cancelled; its clean-up is waited for. None: no limit.
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
    blocked = _blocked.get()
    if running is not None and not nested and sys.platform != "emscripten":
        blocked = (*blocked, running)
    _check(coro, blocked)
    body = _as_coroutine(coro, timeout)
    context = contextvars.copy_context()
    if blocked:
        context.run(_blocked.set, blocked)
    try:
        if sys.platform == "emscripten":
            return _value(run_in_browser(body, context))
        if nested and running is not None:
            return _value(run_nested(body, running, context))
        return _value(_run_in_thread(body, blocked, context))
    finally:
        _bring_back(context)


def blocked_loops() -> _Loops:
    """Return the loops that stand still until the present call of run_async returns."""
    return _blocked.get()


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


def _as_coroutine(awaitable: Awaitable[T], timeout: float | None) -> Coroutine[Any, Any, T]:
    """Return a coroutine for this awaitable, within the timeout; a task takes nothing else."""
    if timeout is not None:
        return _within(awaitable, timeout)
    return awaitable if inspect.iscoroutine(awaitable) else _awaited(awaitable)


async def _awaited(awaitable: Awaitable[T]) -> T:
    """Await what is not a coroutine."""
    return await awaitable


async def _within(awaitable: Awaitable[T], seconds: float) -> T:
    """Await with a limit in seconds, and say so when it is reached."""
    try:
        async with asyncio.timeout(seconds) as scope:
            return await awaitable
    except TimeoutError:
        if not scope.expired():
            raise  # the awaitable's own
        raise TimeoutError(
            f"run_async: not done within timeout={seconds} seconds; it was cancelled"
        ) from None


def _run_in_thread(
    body: Coroutine[Any, Any, T], blocked: _Loops, context: Context
) -> asyncio.Task[T]:
    """Run the coroutine on the first loop that is not blocked, and return its ended task."""
    call = _Call(body, loop_threads().outside(blocked), context)
    try:
        with InterruptibleWait(call.cancel) as waiting:
            call.start(waiting.done)
            patience = _FIRST_LOOK if blocked else None
            while not waiting.wait(patience):
                patience = _NEXT_LOOK
                if call.task is not None and waits_for_blocked(call.task, blocked):
                    warnings.warn(_DEADLOCK, RuntimeWarning, stacklevel=3)
                    patience = None
    except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
        pass_notes(call.task, interrupt)
        raise
    assert call.task is not None, "what is done has started"
    return call.task


class _Call(Generic[T]):
    """A coroutine on its way to another loop, seen from the thread that waits for it."""

    def __init__(
        self, body: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, context: Context
    ) -> None:
        self.task: asyncio.Task[T] | None = None
        self._body = body
        self._loop = loop
        self._context = context

    def start(self, done: Callable[[], None]) -> None:
        """Have the loop run it, and call `done` in the loop's thread at its end."""
        self._done = done
        self._loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Have the loop cancel it."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _start(self) -> asyncio.Task[T]:
        """Make the task, in the loop's thread."""
        self.task = self._loop.create_task(self._body, context=self._context)
        self.task.add_done_callback(self._end)
        return self.task

    def _end(self, _: asyncio.Task[T]) -> None:
        """Wake the waiting thread, and let go of it: it refers to this call."""
        done = self._done
        del self._done
        done()

    def _cancel(self) -> None:
        """Cancel the task, in the loop's thread; make it first if the interrupt was that early."""
        (self.task or self._start()).cancel()


def _value(task: asyncio.Task[T]) -> T:
    """Return the value of an ended task, or raise its error, explained where it needs to be."""
    try:
        return task.result()
    except (RuntimeError, ValueError) as error:
        explained = explain_wrong_loop(error)
        if explained is None or isinstance(error, RunAsyncError):
            raise
        raise explained from error
    finally:
        del task  # the error's traceback holds this frame, and the task holds the error


def _bring_back(context: Context) -> None:
    """Set the variables that the coroutine changed in the context of its caller."""
    for variable, value in context.items():
        if variable is not _blocked and variable.get(_UNSET) is not value:
            variable.set(value)
