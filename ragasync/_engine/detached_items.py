"""Detached items: items of a pipeline in progress without a worker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeAlias, TypeVar

from ragasync._engine.recorder import Recorder
from ragasync._engine.replies import Begun
from ragasync._engine.retry_queue import PendingCall
from ragasync._engine.workers import WorkerPool
from ragasync._outcomes.outcome import RecordSuccess
from ragasync.clock import Clock

T = TypeVar("T")
R = TypeVar("R")

HandleError: TypeAlias = Callable[[PendingCall[T], BaseException, float, int], None]
"""Handles the error of a call that began at an instant, by the worker of this number."""


class DetachedItems(Generic[T, R]):
    """
    The items in progress without a worker, until their callback.

    A worker that only waits for a call that its item shares with others costs more than the item's
    own part of that call. So a pipeline may begin an item and return, and the worker takes the next
    one. Each such item has a worker's number, so that no two share a row of a timeline.

    Args:
        on_error: handles the error of an item.
        on_last: called when no item is left.
        context: the context of the callbacks.
    """

    def __init__(
        self,
        begin: Callable[[T], Begun[R] | None] | None,
        pool: WorkerPool,
        recorder: Recorder[T, R],
        on_error: HandleError[T],
        on_last: Callable[[], None],
        clock: Clock,
        context: Context,
    ) -> None:
        self._begin, self._pool, self._recorder = begin, pool, recorder
        self._on_error, self._on_last = on_error, on_last
        self._clock, self._context = clock, context
        self._recorders: dict[int, RecordSuccess[R]] = {}
        self._open: dict[int, tuple[T, float, int, Begun[R]]] = {}
        self._done: deque[int] = deque()
        self._loop = asyncio.get_running_loop()
        self._empty: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, index: int, item: T, started: float) -> bool:
        """Begin an item, or return False: it needs a worker."""
        assert self._begin is not None  # only called for pipelines
        if (begun := self._begin(item)) is None:
            return False
        self._open[index] = item, started, self._pool.take_number(), begun
        begun.reply.when_done(self._note_done, index)
        return True

    def _note_done(self, index: int) -> None:
        """Have an item finished in the next turn of the loop, with others whose call ends now."""
        self._done.append(index)
        if len(self._done) == 1:
            self._loop.call_soon(self._finish_all, context=self._context)

    def _finish_all(self) -> None:
        """Finish the items that are done."""
        done = self._done
        try:
            while done:
                self._finish(done[0])
                done.popleft()
        finally:
            if done:  # a fault of the engine, reported by the loop, must not hold up the others
                done.popleft()
                self._loop.call_soon(self._finish_all, context=self._context)

    def _finish(self, index: int) -> None:
        """Record the value or the error of an item."""
        if (entry := self._open.pop(index, None)) is None:
            return  # given up
        item, started, worker, begun = entry
        self._pool.release_number(worker)
        try:
            value = begun.finish()
        except BaseException as error:
            call = PendingCall((index,), (item,), started=started)
            if (used := begun.reply.usage) is not None:
                call.add_usage([used])
            self._on_error(call, error, started, worker)
        else:
            if (used := begun.reply.usage) is not None:
                self._recorder.add_usage(index, used)
            if (record := self._recorders.get(worker)) is None:
                record = self._recorders[worker] = self._recorder.fast_recorder(worker)
            record(index, value, started, self._clock())
        if not self._open:
            self._note_empty()

    async def join(self) -> None:
        """Wait until no item is left."""
        if self._open:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty

    def cancel(self) -> None:
        """Give all items up, and record them as cancelled."""
        if not self._open:
            return
        given_up, self._open = self._open, {}
        for index, (item, started, worker, begun) in given_up.items():
            begun.reply.cancel()
            self._pool.release_number(worker)
            call = PendingCall((index,), (item,), started=started)
            call.add_attempt(self._clock() - started)
            self._recorder.record_cancelled(call, worker)
        self._note_empty()

    def _note_empty(self) -> None:
        """Tell who waits for the last item."""
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
        self._on_last()

    def release(self) -> None:
        """Drop the recorders, which refer to the values of the result."""
        self._recorders.clear()
