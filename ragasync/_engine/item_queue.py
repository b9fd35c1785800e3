"""The queue of items that callers push, or that a task or a thread reads from a source."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from ragasync._calls.threads import DaemonThreadPool
from ragasync.cancellation import create_lazy_task
from ragasync.clock import Clock
from ragasync.error_text import add_note
from ragasync.errors import SourceFailed
from ragasync.foreign_errors import is_a, leaves_of

T = TypeVar("T")

BRIEF = 0.005
"""Seconds for which reading one item may block the loop without being counted."""

BLOCK_SECONDS = 0.02
"""Seconds after which a thread delivers what it has read, even if it could read more."""

CLOSING_SECONDS = 1.0
"""Seconds that the end of a run waits for a thread that is reading, which nothing can interrupt."""

MOVED_TO_THREAD = (
    "ragasync: reading this source blocked the event loop, so it was read on a thread from then "
    "on; a source that needs its own thread or loop should be a list or an async generator"
)


class QueuedItems(Generic[T]):
    """
    An ItemSource that is filled by `push` until `end`.

    Args:
        on_item: called with each index and item that is pushed.
        on_change: called after a push, and at the end.
        reader: pushes the items of a source, from `start` on; None if callers push.
        no_more_expected: says whether nothing more will be pushed soon; asked after each push.
        select: takes rows from the queue and returns those that are still wanted.
        first_index: the index of the first item.
        max_wait: the seconds after which `wait_for_more` returns although items keep arriving.

    Attributes:
        items: an iterator over (index, item) that stops when the queue is empty, and goes on when
            more has been pushed.
        pushed: the number of items pushed so far, counted from `first_index`.
    """

    def __init__(
        self,
        on_item: Callable[[int, T], None] | None,
        on_change: Callable[[], None],
        *,
        reader: BackgroundReader[T] | None = None,
        no_more_expected: Callable[[], bool] = lambda: False,
        select: Callable[[list[tuple[int, T]]], list[tuple[int, T]]] | None = None,
        first_index: int = 0,
        max_wait: float = math.inf,
    ) -> None:
        self._on_item, self._on_change, self._reader = on_item, on_change, reader
        self._no_more_expected, self._select = no_more_expected, select
        self._queue: deque[tuple[int, T]] = deque()
        self.pushed = first_index
        self._ended = False
        self._error: BaseException | None = None
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 0
        self._last_push = self._wait_until = 0.0
        self._max_wait = max_wait
        self._timer: asyncio.TimerHandle | None = None
        self.items: Iterator[tuple[int, T]] = self

    # ── filling ───────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the reader, if there is one."""
        if self._reader is not None:
            self._reader.start(self)

    def push(self, *items: T) -> None:
        """Append items; several in one call wake a waiting worker once."""
        rows = tuple(enumerate(items, self.pushed))
        if self._on_item is not None:
            for index, item in rows:
                self._on_item(index, item)
        self._queue.extend(rows)
        self.pushed += len(rows)
        if self._waiter is not None:
            self._last_push = self._loop.time()
            if len(self._queue) >= self._wanted or self._no_more_expected():
                self._wake_waiter()
        self._on_change()

    def expectation_changed(self) -> None:
        """Wake a waiting worker if nothing more is expected now."""
        if self._waiter is not None and self._no_more_expected():
            self._wake_waiter()

    def raise_next(self, error: BaseException) -> None:
        """Raise an error of the source in `take`, after the items that were pushed before it."""
        self._error = error

    def end(self) -> None:
        """Declare that nothing more will be pushed."""
        self._ended = True
        self._wake_waiter()
        self._on_change()

    async def room(self, size: int) -> int:
        """Wait while the queue holds `size` items; return the number of free places."""
        while len(self._queue) >= size:
            self._room.clear()
            await self._room.wait()
        return size - len(self._queue)

    # ── taking ────────────────────────────────────────────────────────────────────────────────

    @property
    def has_ready(self) -> bool:
        """Whether an item, or the source's error, can be taken now."""
        return bool(self._queue) or self._error is not None

    @property
    def exhausted(self) -> bool:
        """Whether everything was taken and nothing more will be pushed."""
        return self._ended and not self.has_ready

    @property
    def no_more_expected(self) -> bool:
        """Whether it is no use to wait for another item."""
        return self.exhausted or self._no_more_expected()

    def on_exhausted(self) -> None:
        """Do nothing: the queue itself knows whether it has ended or is empty for now."""

    def __iter__(self) -> Iterator[tuple[int, T]]:
        return self

    def __next__(self) -> tuple[int, T]:
        for row in self.take(1, 0.0, self._loop.time):
            return row
        raise StopIteration

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:  # noqa: ARG002
        """
        Take up to `wanted` items; this never waits.

        Raises:
            SourceFailed: the source raised, and all items from before that were taken.
        """
        queue, error = self._queue, self._error
        if error is not None and not queue:
            self._error = None
            raise SourceFailed(error)
        self._room.set()
        rows = [queue.popleft() for _ in range(min(wanted, len(queue)))]
        if self._select is not None:
            rows = self._select(rows)
            while (missing := wanted - len(rows)) > 0 and queue:
                more = [queue.popleft() for _ in range(min(missing, len(queue)))]
                rows += self._select(more)
        return rows

    async def wait_for_more(self, wanted: int, patience: float) -> bool:
        """
        Wait until there are `wanted` items, the end, or no push for `patience` seconds.

        Only one caller may wait at a time.

        Returns:
            Whether an item can be taken.
        """
        if self._ended or self._no_more_expected():
            return self.has_ready
        self._waiter, self._wanted = self._loop.create_future(), wanted
        self._last_push = self._loop.time()
        self._wait_until = self._last_push + self._max_wait
        self._wake_when_quiet(patience)
        try:
            await self._waiter
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._waiter = None
        return self.has_ready

    def _wake_waiter(self) -> None:
        """Let the waiting worker check the queue."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _wake_when_quiet(self, patience: float) -> None:
        """Wake the waiting worker `patience` seconds after the last push, or after `max_wait`."""
        # One timer that is extended when it fires costs less than one that each push restarts.
        due = min(self._last_push + patience, self._wait_until)
        if self._loop.time() >= due:
            self._wake_waiter()
        else:
            self._timer = self._loop.call_at(due, self._wake_when_quiet, patience)

    # ── closing ───────────────────────────────────────────────────────────────────────────────

    async def close(self, *, all_were_cancelled: bool = False) -> BaseException | None:
        """Stop the reader and close its source; return the error of closing it."""
        if self._reader is not None:
            return await self._reader.close(all_were_cancelled=all_were_cancelled)
        self._ended = True
        return None

    def clear(self) -> None:
        """Drop the items and the source: the run is over."""
        self._ended = True
        self._queue.clear()
        self._on_item = self._reader = None
        self.items = iter(())


# ── readers that fill the queue ───────────────────────────────────────────────────────────────────


class BackgroundReader(ABC, Generic[T]):
    """
    A task that pushes the items of a source into a queue, and closes the source.

    It runs in a context of its own, and one task both reads and closes the source, because an async
    generator may have opened a timeout or a task group that belongs to its task.

    Args:
        ahead: the maximum number of items in the queue.
        max_items: the number of items to read at most, counted like `QueuedItems.pushed`.
    """

    def __init__(self, *, ahead: int, max_items: int | None, context: Context) -> None:
        self._ahead, self._max_items, self._context = ahead, max_items, context
        self._closing = self._has_read = False
        self._closing_error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _read(self, queue: QueuedItems[T]) -> None:
        """Push items until the source ends, `_is_full` or `_closing`."""

    @abstractmethod
    async def _close_source(self) -> None:
        """Close the source, if it can be closed."""

    def start(self, queue: QueuedItems[T]) -> None:
        """Start to fill a queue, whose owner is complete by now."""
        self._task = create_lazy_task(
            self._read_and_close(queue),
            asyncio.get_running_loop(),
            name="ragasync source",
            context=self._context.copy(),
        )

    async def close(self, *, all_were_cancelled: bool) -> BaseException | None:
        """Cancel the task, wait for it, and return the error of closing it."""
        self._closing = True
        if self._task is not None:
            # A task that is closing the source may go on, and one that asyncio.run has cancelled
            # must not be cancelled a second time, which would interrupt the clean-up.
            is_closing_source = self._has_read
            was_cancelled = all_were_cancelled and self._task.cancelling()
            if not (is_closing_source or was_cancelled):
                self._task.cancel()
            await asyncio.wait([self._task])
        return self._closing_error

    def _is_full(self, queue: QueuedItems[T]) -> bool:
        """Whether all items that are wanted have been read."""
        return queue.pushed == self._max_items

    async def _room(self, queue: QueuedItems[T]) -> int:
        """Wait for room in the queue; return the number of items that may be read."""
        room = await queue.room(self._ahead)
        return room if self._max_items is None else min(room, self._max_items - queue.pushed)

    async def _read_and_close(self, queue: QueuedItems[T]) -> None:
        """Read, then close the source; errors go into the queue, none is raised."""
        try:
            if self._max_items is None or queue.pushed < self._max_items:
                await self._read(queue)
        except BaseException as error:
            if not self._closing:
                queue.raise_next(error)
        self._has_read = True
        try:
            await self._close_source()
        except BaseException as error:
            # A task group in a generator wraps the GeneratorExit that closing it throws in.
            if not all(is_a(leaf, GeneratorExit) for leaf in leaves_of(error)):
                self._closing_error = error
        finally:
            queue.end()


class AsyncReader(BackgroundReader[T]):
    """
    Reads an async iterator.

    An async iterator cannot be asked twice concurrently, and asking with a timeout would end a
    generator. So one task asks, and the workers take from the queue.

    Args:
        on_blocked: called with the seconds for which a step of it blocked the loop.
    """

    def __init__(
        self,
        iterator: AsyncIterator[T],
        on_blocked: Callable[[float], None],
        clock: Clock,
        *,
        ahead: int,
        max_items: int | None,
        context: Context,
    ) -> None:
        super().__init__(ahead=ahead, max_items=max_items, context=context)
        self._iterator, self._on_blocked, self._clock = iterator, on_blocked, clock

    async def _read(self, queue: QueuedItems[T]) -> None:
        iterator = self._iterator
        while not (self._closing or self._is_full(queue)):
            try:
                item = await _TimedAwait(anext(iterator), self._clock, self._on_blocked)
            except StopAsyncIteration:
                return
            queue.push(item)
            await self._room(queue)

    async def _close_source(self) -> None:
        """Close an async generator, or any other iterator that has `aclose`."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class _TimedAwait(Generic[T]):
    """An awaitable that reports the steps in which it blocked the loop for longer than BRIEF."""

    def __init__(
        self, awaited: Awaitable[T], clock: Clock, on_blocked: Callable[[float], None]
    ) -> None:
        self._awaited, self._clock, self._on_blocked = awaited, clock, on_blocked

    def __await__(self) -> Generator[Any, Any, T]:
        steps: Any = self._awaited.__await__()
        step = partial(steps.send, None)
        while True:
            began = self._clock()
            try:
                waits_for = step()
            except StopIteration as end:
                value: T = end.value
                return value
            finally:
                if (took := self._clock() - began) > BRIEF:
                    self._on_blocked(took)
            try:
                step = partial(steps.send, (yield waits_for))
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:
                step = partial(steps.throw, error)


class ThreadReader(BackgroundReader[T]):
    """Reads a sync iterator on a thread, in blocks."""

    def __init__(
        self, iterator: Iterator[T], *, ahead: int, max_items: int | None, context: Context
    ) -> None:
        super().__init__(ahead=ahead, max_items=max_items, context=context)
        self._iterator = iterator
        self._threads = DaemonThreadPool(asyncio.get_running_loop())

    async def _read(self, queue: QueuedItems[T]) -> None:
        ended = False
        run, iterator = self._context.run, self._iterator
        while not (ended or self._closing or self._is_full(queue)):
            room = await self._room(queue)
            items, error, ended = await self._threads.submit(
                lambda most: run(self._next_block, iterator, most), room
            )
            queue.push(*items)
            if error is not None:
                add_note(error, MOVED_TO_THREAD)
                raise error

    def _next_block(
        self, iterator: Iterator[T], room: int
    ) -> tuple[Sequence[T], BaseException | None, bool]:
        """Read the next items, the error after them, and whether the source has ended."""
        items: list[T] = []
        deliver_at = time.monotonic() + BLOCK_SECONDS
        try:
            for item in iterator:
                items.append(item)
                if len(items) == room or self._closing or time.monotonic() > deliver_at:
                    return items, None, False
        except BaseException as error:  # the source's, not this thread's
            return items, error, True
        finally:
            if self._closing:
                close_generator(iterator)  # only the thread that reads a generator can close it
        return items, None, True

    async def _close_source(self) -> None:
        """Close the source on a thread: now, or when the thread that reads it has its item."""
        closing = asyncio.ensure_future(self._close_on_thread())
        await asyncio.wait([closing], timeout=CLOSING_SECONDS)
        self._threads.close()
        if closing.done():
            closing.result()
            return
        closing.cancel()
        await asyncio.wait([closing])

    async def _close_on_thread(self) -> None:
        """Close the source; a generator that is being read is left to the thread that reads."""

        def close(iterator: Iterator[T]) -> None:
            try:
                self._context.copy().run(close_generator, iterator)
            except ValueError as error:
                if "already executing" not in str(error):
                    raise

        await self._threads.submit(close, self._iterator)


def close_generator(iterator: Iterator[Any]) -> None:
    """Close a generator; any other iterator, such as a file, is left to its owner."""
    if isinstance(iterator, Generator):
        iterator.close()
