"""CoroutineCall: an awaitable that runs on a loop while a thread waits for its outcome."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar, cast

from ragasync._bridge.blocking_calls import BlockingCall, is_tree_variable
from ragasync._bridge.interrupts import Interrupted, copy_notes
from ragasync.cancellation import create_lazy_task
from ragasync.clock import running_loop
from ragasync.error_text import show_in_one_line
from ragasync.errors import RunAsyncError, as_run_async_error
from ragasync.foreign_errors import is_a, notes_of

T = TypeVar("T")

_UNSET = object()


class CoroutineCall(Generic[T]):
    """
    An awaitable that runs as a task of a loop, seen from the thread that waits for it.

    Its error is kept here and never leaves the task: SystemExit would end the loop, and with eager
    tasks it would not reach the waiting thread.

    Args:
        place: Its place in the tree of blocking calls.
        on_end: Called in the loop's thread when it has ended.

    Attributes:
        ended: Whether it has ended, in whatever way.
        withdrawn: Whether it was cancelled before it began.
    """

    def __init__(
        self,
        awaitable: Awaitable[T],
        loop: asyncio.AbstractEventLoop,
        timeout: float | None,
        place: BlockingCall,
        on_end: Callable[[], None],
    ) -> None:
        self.ended = self.withdrawn = False
        self._awaitable = awaitable
        self._loop = loop
        self._timeout = timeout
        self._place, self._on_end = place, on_end
        self._context = copy_context()
        self._context.run(place.make_current)
        if timeout is not None:
            place.deadline = time.monotonic() + timeout
        self._started = threading.Lock()  # taken by the task or by a cancellation, for good
        self._task: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None

    def start(self) -> asyncio.Task[None]:
        """Create the task, in the loop's thread."""
        return create_lazy_task(self._run(), self._loop, context=self._context)

    def cancel(self) -> None:
        """Withdraw the awaitable if its task has not begun; otherwise cancel the task."""
        if self._started.acquire(blocking=False):
            self.withdrawn = True
            close_unawaited(self._awaitable)
            self._end(asyncio.CancelledError())
        elif running_loop() is self._loop:
            self._cancel_task()
        else:
            self._loop.call_soon_threadsafe(self._cancel_task)

    def outcome(self) -> T:
        """
        Return the awaitable's value, or raise its error.

        Raises:
            TimeoutError: If it was cancelled for lack of time.
            Interrupted: If it was cancelled together with a call around it.
            RunAsyncError: If it used an object of another loop.
            BaseException: Any other error that it raised.
        """
        error, self._error = self._error, None  # its traceback will hold this call
        place = self._place
        try:
            if not self.ended or (is_a(error, asyncio.CancelledError) and place.cancel_requested):
                raise self._cancellation(error) from None
            if error is None:
                return cast("T", self._value)
            if is_a(error, (RuntimeError, ValueError)) and not is_a(error, RunAsyncError):
                explained = as_run_async_error(error)
                if explained is not None:
                    raise explained from error
            raise error
        finally:
            del error

    def copy_context_back(self) -> None:
        """Set the context variables that the coroutine has changed in the caller's context."""
        for variable, value in self._context.items():
            if not is_tree_variable(variable) and variable.get(_UNSET) is not value:
                variable.set(value)

    def copy_notes_to(self, interrupt: BaseException) -> None:
        """Add the notes of the cancelled coroutine to an interrupt, which IPython shows alone."""
        error, self._error = self._error, None
        copy_notes(error, interrupt)
        del error
        if is_a(interrupt, (KeyboardInterrupt, Interrupted)):
            said = str(interrupt) or "run_async was interrupted, and its coroutine was cancelled"
            show_in_one_line(interrupt, "; ".join(notes_of(interrupt)) or said)

    def _cancellation(self, error: BaseException | None) -> BaseException:
        """Make the error of a call that was cancelled."""
        if self._place.timed_out:
            late = "it was cancelled" if self.ended else "its clean-up is still running"
            return TimeoutError(
                f"run_async: not done within timeout={self._timeout} seconds; {late}"
            )
        interrupted = Interrupted("a blocking call was cancelled with the call around it")
        copy_notes(error, interrupted)
        return interrupted

    async def _run(self) -> None:
        """Await the awaitable, and keep its value or error."""
        if not self._started.acquire(blocking=False):
            return  # it was withdrawn
        self._task = self._place.task = asyncio.current_task()
        raised: BaseException | None = None
        try:
            self._value = await self._awaitable
        except BaseException as error:
            raised = error
        self._end(raised)
        del raised

    def _end(self, error: BaseException | None) -> None:
        """Keep the error, and wake the waiting thread."""
        self._error = error
        self.ended = True
        self._on_end()

    def _cancel_task(self) -> None:
        """Cancel the task, once, in the loop's thread."""
        task = self._task
        if task is not None and not self._place.cancel_delivered and not self.ended:
            self._place.cancel_delivered = True
            task.cancel()


def close_unawaited(awaitable: object) -> None:
    """Close a coroutine that will never be awaited, so that Python does not warn about it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
