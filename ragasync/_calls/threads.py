"""DaemonThreadPool: the threads on which a run's sync calls are made, for one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ragasync._bridge.blocking_calls import ThreadScope, cancel_parent_first
from ragasync.foreign_errors import is_a

if TYPE_CHECKING:
    from queue import SimpleQueue


class ThreadFuture:
    """
    The result of one call on a thread, which resumes the awaiting task without another loop turn.

    An asyncio.Future resumes its task in the next turn of the loop. Between two turns the loop
    releases the GIL, and gets it back only after the threads that have just returned. For quick
    functions that costs a quarter of the time: 14.0 µs per item instead of 10.7 on four threads.
    So this class has the methods of a future that a task uses, and calls the task directly.

    Cancelling it abandons the call: the thread goes on, and its late result is dropped.
    """

    __slots__ = (
        *("_argument", "_asyncio_future_blocking", "_context", "_error", "_function"),
        *("_has_returned", "_loop", "_on_return", "_outcome", "_resume", "_scope", "_value"),
        "done",
    )

    def __init__(
        self,
        function: Callable[[Any], Any],
        argument: object,
        context: Context,
        scope: ThreadScope,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._function, self._argument = function, argument
        self._context: Context | None = context
        self._scope, self._loop = scope, loop
        self._asyncio_future_blocking = False  # by this attribute a task recognizes a future
        self._resume: tuple[Callable[[ThreadFuture], object], Context | None] | None = None
        self._outcome: tuple[object, BaseException | None] = None, None  # as the thread leaves it
        self._value: object = None
        self._error: BaseException | None = None
        self._has_returned = False
        self._on_return: asyncio.Future[None] | None = None
        self.done = False

    async def wait_until_returned(self) -> None:
        """Wait until the thread is free, whether or not the call was abandoned."""
        if not self._has_returned:
            self._on_return = self._loop.create_future()
            await self._on_return

    def make_call(self) -> None:
        """Make the call; runs on the thread, and never raises."""
        argument, self._argument = self._argument, None  # the future must not keep the item
        # Nor the context, a copy of the worker's: one that is left looks like a task left behind.
        context, self._context = self._context, None
        assert context is not None  # a call is made once
        try:
            self._outcome = context.run(self._function, argument), None
        except BaseException as error:  # it belongs to the caller, not to this thread
            self._outcome = None, _presentable(error)

    def deliver(self) -> None:
        """Resume the task with the outcome, unless it has abandoned the call; runs on the loop."""
        self._has_returned = True
        if self._on_return is not None and not self._on_return.done():
            self._on_return.set_result(None)
        if not self.done:  # otherwise the late result is dropped
            self._value, self._error = self._outcome
        self._outcome = None, None
        if self.done:
            return
        self.done = True
        if self._resume is not None:
            resume, context = self._resume
            resume(self) if context is None else context.run(resume, self)

    def __await__(self) -> Generator[ThreadFuture, None, Any]:
        if not self.done:
            self._asyncio_future_blocking = True
            yield self
        value = self.result()
        self._value = None
        return value

    # ── the methods of a future that a task uses ────────────────────────────────────────────────

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that submitted the call."""
        return self._loop

    def add_done_callback(
        self, resume: Callable[[ThreadFuture], object], *, context: Context | None = None
    ) -> None:
        """Keep the callback that resumes the one task that awaits this future."""
        self._resume = resume, context

    def cancel(self, msg: str | None = None) -> bool:
        """Abandon the call; a run_async inside it is cancelled, although its thread cannot be."""
        if self.done:
            return False
        self.done = True
        self._scope.cancel()
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        if self._resume is not None:
            resume, context = self._resume
            self._loop.call_soon(resume, self, context=context)
        return True

    def result(self) -> object:
        """Return the value, or raise the error, once."""
        if self._error is None:
            return self._value  # both for the task that is resumed and for its coroutine
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error  # or its traceback, this frame and it would hold each other


class DaemonThreadPool:
    """
    A pool of threads that grows with the calls in flight, and wakes its loop once per batch.

    A result wakes the loop only if no wake-up is scheduled already: threads put their results into
    one queue, and the loop empties it. The threads are daemons, because a thread cannot be killed,
    and a call that hangs must not keep the interpreter from exiting. Calls see the caller's
    context variables.

    Attributes:
        running: how many calls are being made, or wait for a thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from queue import SimpleQueue  # not at import: Pyodide has no threads

        cancel_parent_first()
        self._loop = loop
        self._work: SimpleQueue[ThreadFuture | None] = SimpleQueue()
        self._returned: deque[ThreadFuture] = deque()
        self._wake_scheduled = False
        self._threads = 0
        self._stops_the_clock = hasattr(loop, "threads_at_work")
        self.running = 0

    def submit(self, function: Callable[[Any], Any], argument: object) -> ThreadFuture:
        """Call `function(argument)` on a thread, a new one if all are busy."""
        context, scope = copy_context(), ThreadScope()
        context.run(scope.make_current)
        future = ThreadFuture(function, argument, context, scope, self._loop)
        self._count(+1)
        if self.running > self._threads:
            self._start_thread()
        self._work.put(future)
        return future

    def close(self) -> None:
        """Let every thread end after its current call."""
        for _ in range(self._threads):
            self._work.put(None)

    def _count(self, more: int) -> None:
        """Count the calls in progress, also for a virtual clock, which must not advance."""
        self.running += more
        if self._stops_the_clock:
            self._loop.threads_at_work += more  # type: ignore[attr-defined]  # a virtual loop

    def _start_thread(self) -> None:
        """Add a thread to the pool."""
        import threading

        self._threads += 1
        threading.Thread(
            target=self._make_calls, name=f"ragasync-{self._threads}", daemon=True
        ).start()

    def _make_calls(self) -> None:
        """Make calls until the pool is closed; this is a thread's whole life."""
        while (future := self._work.get()) is not None:
            future.make_call()
            self._returned.append(future)
            del future  # an idle thread keeps nothing alive
            # Without a lock: at worst the loop is woken twice, and the second time for nothing.
            if not self._wake_scheduled:
                self._wake_scheduled = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits for a late result
                    return

    def _deliver(self) -> None:
        """Deliver the results of the calls that have returned; runs on the loop."""
        self._wake_scheduled = False  # first: a result that comes later wakes the loop again
        count = len(self._returned)
        if count > 1:
            # A task that is resumed here may nest a loop in this one, or raise an interrupt: then
            # the next turn delivers the rest. Results that come meanwhile need not wake the loop.
            self._wake_scheduled = True
            self._loop.call_soon(self._deliver)
        while count and self._returned:  # no more than that, or the loop might never turn
            count -= 1
            self._count(-1)
            # Without a local name for it: the frames of errors that are kept refer to this one.
            self._returned.popleft().deliver()


def _presentable(error: BaseException) -> BaseException:
    """Replace StopIteration, which no future can hold and no coroutine can raise."""
    if not is_a(error, StopIteration):
        return error
    replacement = RuntimeError("the function raised StopIteration")
    replacement.__cause__ = error
    return replacement
