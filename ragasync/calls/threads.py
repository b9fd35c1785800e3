"""Daemon threads that run sync calls for one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from ragasync.bridge.blocking_calls import ThreadScope, cancel_parent_first
from ragasync.foreign_errors import is_a

if TYPE_CHECKING:
    from queue import SimpleQueue


class ThreadFuture:
    """
    One call on a thread: awaiting it gives its value; `returned` says whether the thread is free.

    It is a future as far as a task needs one, but resumes its task in the same turn of the loop.
    An ordinary future does so in the next one, and between two turns the loop lets go of the
    interpreter's lock and gets in line for it again, behind all threads that have just returned.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_error",
        "_loop",
        "_outcome",
        "_resume",
        "_scope",
        "_value",
        "done",
        "on_return",
        "returned",
        "work",
    )

    def __init__(
        self, work: Callable[[], object], loop: asyncio.AbstractEventLoop, scope: ThreadScope
    ) -> None:
        self._scope = scope
        self._asyncio_future_blocking = False  # by this name a task knows what it can wait for
        self._loop = loop
        self._resume: tuple[Callable[[ThreadFuture], object], Context | None] | None = None
        self._outcome: tuple[object, BaseException | None] = None, None
        self._value: object = None
        self._error: BaseException | None = None
        self.work = work
        self.done = False
        self.returned = False
        self.on_return: asyncio.Future[None] | None = None

    async def wait_until_returned(self) -> None:
        """Wait for the thread, whoever still wants the value."""
        if not self.returned:
            self.on_return = self._loop.create_future()
            await self.on_return

    def make(self) -> None:
        """Make the call; this runs on the thread, and never raises."""
        work, self.work = self.work, _nothing  # it refers to the item
        try:
            self._outcome = work(), None
        except BaseException as error:  # it belongs to the caller, not to this thread
            self._outcome = None, _presentable(error)

    def has_returned(self) -> None:
        """Resume the task with what came of the call, unless it has given the call up."""
        self.returned = True
        if self.on_return is not None and not self.on_return.done():
            self.on_return.set_result(None)
        if not self.done:  # else the late result is dropped
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

    # ── what a task asks of a future ────────────────────────────────────────────────────────

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that submitted the call."""
        return self._loop

    def add_done_callback(
        self, resume: Callable[[ThreadFuture], object], *, context: Context | None = None
    ) -> None:
        """Keep what resumes the one task that awaits this."""
        self._resume = resume, context

    def cancel(self, msg: str | None = None) -> bool:
        """Give the call up: the task goes on without it when the loop next turns."""
        if self.done:
            return False
        self.done = True
        self._scope.cancel()  # a run_async in it can be cancelled, if the thread cannot
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        if self._resume is not None:
            resume, context = self._resume
            self._loop.call_soon(resume, self, context=context)
        return True

    def result(self) -> object:
        """Return the value; raise the error, once."""
        if self._error is None:
            return self._value  # for the task that is resumed, and for its coroutine
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error  # or its traceback, this frame and it would hold each other


class DaemonThreadPool:
    """
    A pool of threads that grows with the calls in flight and wakes its loop once a batch.

    A result costs a wake-up of the loop only where none is under way: threads put what they have
    into one queue, and the loop empties it. The threads are daemons, because a thread cannot be
    killed: a call that hangs must not keep the interpreter from leaving. Context variables of the
    caller are seen by the call.

    Args:
        loop: the loop that submits the calls and gets their values.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from queue import SimpleQueue  # where there are no threads, nobody comes here

        cancel_parent_first()
        self._loop = loop
        self._work: SimpleQueue[ThreadFuture | None] = SimpleQueue()
        self._finished: deque[ThreadFuture] = deque()
        self._waking = False
        self._threads = 0
        self._stops_the_clock = hasattr(loop, "threads_at_work")
        self.running = 0

    def submit(self, function: Callable[[Any], Any], argument: object) -> ThreadFuture:
        """Run `function(argument)` on a thread, a new one if all are busy."""
        context, scope = copy_context(), ThreadScope()
        context.run(scope.make_current)
        call = ThreadFuture(partial(context.run, function, argument), self._loop, scope)
        self._count(+1)
        if self.running > self._threads:
            self._start_thread()
        self._work.put(call)
        return call

    def close(self) -> None:
        """Let every thread end after its present call."""
        for _ in range(self._threads):
            self._work.put(None)

    def _count(self, more: int) -> None:
        """Count the calls that run, also for a loop whose clock stands still meanwhile."""
        self.running += more
        if self._stops_the_clock:
            self._loop.threads_at_work += more  # type: ignore[attr-defined]  # a virtual loop

    def _start_thread(self) -> None:
        """Add a thread to the pool."""
        import threading

        self._threads += 1
        threading.Thread(target=self._serve, name=f"ragasync-{self._threads}", daemon=True).start()

    def _serve(self) -> None:
        """Run calls until the pool is closed; this is a thread's whole life."""
        while (call := self._work.get()) is not None:
            call.make()
            self._finished.append(call)
            del call  # an idle thread keeps nothing alive
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits for a late result
                    return

    def _deliver(self) -> None:
        """Hand over what has finished; runs on the loop."""
        self._waking = False  # before counting: what comes later than this wakes the loop anew
        count = len(self._finished)
        if count > 1:
            # For the rest, should a task that is resumed nest a loop in this one, or raise an
            # interrupt; and what finishes meanwhile need not wake the loop.
            self._waking = True
            self._loop.call_soon(self._deliver)
        while count and self._finished:  # no more than that, or the loop might never turn
            count -= 1
            self._count(-1)
            # Without a name for it: the frames of errors that are kept refer to this one.
            self._finished.popleft().has_returned()


def _nothing() -> None:
    """Stand for the work of a call that has begun, so that the call does not keep its argument."""


def _presentable(error: BaseException) -> BaseException:
    """Return the error as a task can get it: a bare StopIteration would end its awaiter."""
    if not is_a(error, StopIteration):
        return error
    replacement = RuntimeError("the function raised StopIteration")
    replacement.__cause__ = error
    return replacement
