"""A coroutine that runs in place of a blocking call, and what it ended with."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar, cast

from ragasync.bridge.blocking_calls import BlockingCall, is_marker
from ragasync.bridge.interrupts import Interrupted, pass_notes
from ragasync.bridge.wrong_loop import as_run_async_error
from ragasync.errors import RunAsyncError
from ragasync.foreign_errors import is_a
from ragasync.lazy_task import create_lazy_task

T = TypeVar("T")

_UNSET = object()


class CoroutineCall(Generic[T]):
    """
    An awaitable on its way to a loop, seen from the thread that waits for it.

    Whatever it raises is kept here, and nothing leaves the task: SystemExit would end the loop,
    and with eager tasks it would never come to whoever waits.

    Args:
        awaitable: What to await.
        loop: The loop to await it on.
        timeout: Seconds after which it is cancelled; None for no limit.

    Attributes:
        ended: Whether it has ended, in whatever way.
        withdrawn: Whether it has never begun.
    """

    def __init__(
        self, awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop, timeout: float | None
    ) -> None:
        self.ended = self.withdrawn = False
        self._awaitable = awaitable
        self._loop = loop
        self._timeout = timeout
        self._context = copy_context()
        self._claim = threading.Lock()  # of whoever is first: the task, or a cancellation
        self._task: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None

    def take(self, place: BlockingCall, on_end: Callable[[], None]) -> None:
        """Take its place in the tree of calls; `on_end` is called in the loop's thread."""
        self._place, self._on_end = place, on_end
        if self._timeout is not None:
            place.deadline = time.monotonic() + self._timeout
        self._context.run(place.make_current)

    def start(self) -> asyncio.Task[None]:
        """Make the task, in the loop's thread."""
        return create_lazy_task(self._run(), self._loop, context=self._context)

    def cancel(self) -> None:
        """Withdraw it if it has not begun; otherwise have its loop cancel its task."""
        if self._claim.acquire(blocking=False):
            self.withdrawn = True
            close_unawaited(self._awaitable)
            self._end(asyncio.CancelledError())
        elif asyncio._get_running_loop() is self._loop:
            self._cancel_task()
        else:
            self._loop.call_soon_threadsafe(self._cancel_task)

    def outcome(self) -> T:
        """
        Return its value, or raise what it ended with.

        Raises:
            TimeoutError: If it was cancelled for lack of time.
            Interrupted: If it was cancelled together with a call around it.
            RunAsyncError: If it used an object of another loop.
            BaseException: Whatever else it raised.
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

    def bring_back(self) -> None:
        """Set the context variables that the coroutine changed in the context of its caller."""
        for variable, value in self._context.items():
            if not is_marker(variable) and variable.get(_UNSET) is not value:
                variable.set(value)

    def pass_notes(self, interrupt: BaseException) -> None:
        """Give an interrupt the notes of the cancelled coroutine."""
        error, self._error = self._error, None
        pass_notes(error, interrupt)
        del error

    def _cancellation(self, error: BaseException | None) -> BaseException:
        """Return the error of a call that was cancelled."""
        if self._place.timed_out:
            late = "it was cancelled" if self.ended else "its clean-up takes longer still"
            return TimeoutError(
                f"run_async: not done within timeout={self._timeout} seconds; {late}"
            )
        interrupted = Interrupted("a blocking call was cancelled with the call around it")
        pass_notes(error, interrupted)
        return interrupted

    async def _run(self) -> None:
        """Await it, and keep what it ends with."""
        if not self._claim.acquire(blocking=False):
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
        """Keep the error, and wake whoever waits."""
        self._error = error
        self.ended = True
        self._on_end()

    def _cancel_task(self) -> None:
        """Cancel the task, once, in the loop's thread."""
        task = self._task
        if task is not None and not self._place.stopping and not self.ended:
            self._place.stopping = True
            task.cancel()


def close_unawaited(awaitable: object) -> None:
    """Close a coroutine that will never be awaited, or Python would complain."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def run_on_this_loop(
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
        wait: Returns when the task has ended, or is not to be waited for; the loop runs meanwhile.
        wake: Called from any thread when `wait` should look at the call again.

    Raises:
        BaseException: As `CoroutineCall.outcome`.
    """
    call = CoroutineCall(awaitable, loop, timeout)
    place = BlockingCall(call.cancel, wake=wake)
    call.take(place, on_end=lambda: None)
    timer = None if timeout is None else loop.call_later(timeout, place.run_out_of_time)
    try:
        with place:
            wait(place, call.start())
            return call.outcome()
    except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
        call.pass_notes(interrupt)
        raise
    finally:
        if timer is not None:
            timer.cancel()
        call.bring_back()
