"""Daemon threads that run sync calls for one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queue import SimpleQueue


class ThreadCall:
    """One call on a thread: `value` is its future; `returned` says whether the thread is free."""

    __slots__ = ("on_return", "returned", "value", "work")

    def __init__(self, work: Callable[[], object], value: asyncio.Future[Any]) -> None:
        self.work = work
        self.value = value
        self.returned = False
        self.on_return: asyncio.Future[None] | None = None

    async def wait_until_returned(self) -> None:
        """Wait for the thread, whoever still wants the value."""
        if not self.returned:
            self.on_return = self.value.get_loop().create_future()
            await self.on_return


class CallThreads:
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

        self._loop = loop
        self._work: SimpleQueue[ThreadCall | None] = SimpleQueue()
        self._finished: deque[tuple[ThreadCall, object, BaseException | None]] = deque()
        self._waking = False
        self._threads = 0
        self._stops_the_clock = hasattr(loop, "threads_at_work")
        self.running = 0

    def submit(self, function: Callable[[Any], Any], argument: object) -> ThreadCall:
        """Run `function(argument)` on a thread, a new one if all are busy."""
        context = copy_context()
        call = ThreadCall(lambda: context.run(function, argument), self._loop.create_future())
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
            value: object = None
            error: BaseException | None = None
            try:
                value = call.work()
            except BaseException as raised:  # it belongs to the caller, not to this thread
                error = raised
            self._finished.append((call, value, error))
            del call, value, error  # an idle thread keeps nothing alive
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits for a late result
                    return

    def _deliver(self) -> None:
        """Hand over what has finished; runs on the loop."""
        self._waking = False  # before looking: what comes later than this wakes the loop anew
        while self._finished:
            call, value, error = self._finished.popleft()
            self._count(-1)
            call.returned = True
            if call.on_return is not None and not call.on_return.done():
                call.on_return.set_result(None)
            if call.value.done():  # abandoned: the late result is dropped
                continue
            if error is None:
                call.value.set_result(value)
            else:
                call.value.set_exception(_presentable(error))


def _presentable(error: BaseException) -> BaseException:
    """Return the error as a future can carry it: a bare StopIteration would end its awaiter."""
    if not isinstance(error, StopIteration):
        return error
    replacement = RuntimeError("the function raised StopIteration")
    replacement.__cause__ = error
    return replacement
