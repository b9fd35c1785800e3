"""DaemonThreadPool: the threads on which a run's sync calls are made, for one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ragasync.bridge.blocking_calls import ThreadScope, cancel_parent_first
from ragasync.foreign_errors import is_a

if TYPE_CHECKING:
    from queue import SimpleQueue


class ThreadFuture(asyncio.Future[Any]):
    """
    The result of one call on a thread.

    Cancelling it abandons the call: the thread goes on, and its late result is dropped.
    """

    __slots__ = (
        *("_argument", "_context", "_error", "_function", "_has_returned", "_on_return"),
        *("_scope", "_value"),
    )

    def __init__(
        self,
        function: Callable[[Any], Any],
        argument: object,
        context: Context,
        scope: ThreadScope,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self._function, self._argument = function, argument
        self._context, self._scope = context, scope
        self._value: object = None
        self._error: BaseException | None = None
        self._has_returned = False
        self._on_return: asyncio.Future[None] | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Abandon the call; a run_async inside it is cancelled, although its thread cannot be."""
        if not super().cancel(msg):
            return False
        self._scope.cancel()
        return True

    async def wait_until_returned(self) -> None:
        """Wait until the thread is free, whether or not the call was abandoned."""
        if not self._has_returned:
            self._on_return = self.get_loop().create_future()
            await self._on_return

    def make_call(self) -> None:
        """Make the call; runs on the thread, and never raises."""
        argument, self._argument = self._argument, None  # the future must not keep the item
        try:
            self._value = self._context.run(self._function, argument)
        except BaseException as error:  # it belongs to the caller, not to this thread
            self._error = _presentable(error)
            del self, argument  # the error's traceback refers to this frame

    def deliver(self) -> None:
        """Set the result or the error of the call that has returned; runs on the loop."""
        self._has_returned = True
        if self._on_return is not None and not self._on_return.done():
            self._on_return.set_result(None)
        value, self._value = self._value, None
        error, self._error = self._error, None
        if self.done():  # abandoned
            return
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(error)
            del error  # its traceback may refer to this frame


class DaemonThreadPool:
    """
    A pool of threads that grows with the calls in flight, and wakes its loop once per batch.

    A result wakes the loop only if no wake-up is scheduled already: threads put their results into
    one queue, and the loop empties it. The threads are daemons, because a thread cannot be killed,
    and a call that hangs must not keep the interpreter from exiting. Calls see the caller's
    context variables.

    Args:
        loop: the loop that submits the calls and gets their results.

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
        while self._returned:
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
