"""Items that come when they like: pushed by callers, or read ahead from a source."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterator
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from ragasync.clock import Clock
from ragasync.errors import SourceFailed
from ragasync.foreign_errors import is_a, leaves_of
from ragasync.lazy_task import create_lazy_task

T = TypeVar("T")

BRIEF = 0.005
"""Seconds that reading one item may take on the loop, and nobody minds."""


class QueuedItems(Generic[T]):
    """
    Draws from a buffer that somebody else fills, by `push` until `end`.

    Args:
        keep: called with each index and item.
        on_change: called when an item has come, and at the end.
        nothing_soon: says whether waiting for a further item is in vain; asked when one came.
    """

    def __init__(
        self,
        on_item: Callable[[int, T], None] | None,
        on_change: Callable[[], None],
        no_more_expected: Callable[[], bool] = lambda: False,
    ) -> None:
        self._keep = on_item
        self._on_change = on_change
        self._no_more_expected = no_more_expected
        self._buffer: deque[tuple[int, T]] = deque()
        self.pushed = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 0
        self._loop = asyncio.get_running_loop()
        self._came_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.items: Iterator[tuple[int, T]] = self

    @property
    def exhausted(self) -> bool:
        """Whether nothing more will come and everything was drawn."""
        return self._ended and not self.has_ready

    @property
    def has_ready(self) -> bool:
        """Whether an item waits to be drawn."""
        return bool(self._buffer)

    @property
    def no_more_expected(self) -> bool:
        """Whether waiting for a further item is in vain."""
        return self.exhausted or self._no_more_expected()

    def start(self) -> None:
        """Do nothing: whoever pushes has begun by itself."""

    def raise_next(self, error: BaseException) -> None:
        """Raise an error of the source when more is asked for: what came before it is drawn."""

    def on_exhausted(self) -> None:
        """Do nothing: the buffer itself knows."""

    def __iter__(self) -> Iterator[tuple[int, T]]:
        return self

    def __next__(self) -> tuple[int, T]:
        if not self._buffer:
            raise StopIteration
        return self._buffer.popleft()

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:  # noqa: ARG002
        """Draw up to so many items; it takes no time."""
        buffer = self._buffer
        return [buffer.popleft() for _ in range(min(wanted, len(buffer)))]

    def push(self, *items: T) -> None:
        """Add items; several at once cost one waking."""
        rows = tuple(enumerate(items, self.pushed))
        if self._keep is not None:
            for index, item in rows:
                self._keep(index, item)
        self._buffer.extend(rows)
        self.pushed += len(rows)
        if self._waiter is not None:
            self._came_at = self._loop.time()
            if len(self._buffer) >= self._wanted or self._no_more_expected():
                self._wake_waiter()
        self._on_change()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self._wake_waiter()
        self._on_change()

    async def more(self, wanted: int, linger: float) -> bool:
        """Wait for so many items, the end, or a pause; only one may wait at a time."""
        if self._ended or self._no_more_expected():
            return self.has_ready
        self._waiter, self._wanted = self._loop.create_future(), wanted
        self._came_at = self._loop.time()
        self._watch_for_a_pause(linger)
        try:
            await self._waiter
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._waiter = None
        return self.has_ready

    async def close(self, *, all_were_cancelled: bool = False) -> BaseException | None:  # noqa: ARG002
        """
        Take no more; return what closing the source raised.

        Args:
            all_were_cancelled: whether somebody has cancelled all tasks of the loop.
        """
        self._ended = True
        return None

    def clear(self) -> None:
        """Drop the items and the source: the run is over."""
        self._ended = True
        self._buffer.clear()
        self._keep = None
        self.items = iter(())

    def _wake_waiter(self) -> None:
        """Let the one who waits for more look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch_for_a_pause(self, linger: float) -> None:
        """Wake the waiter when nothing has come for so long: looked at once, not at each item."""
        over_at = self._came_at + linger
        if self._loop.time() >= over_at:
            self._wake_waiter()
        else:
            self._timer = self._loop.call_at(over_at, self._watch_for_a_pause, linger)


class RequestQueue(QueuedItems[T]):
    """Draws what was ordered, but for what nobody waits for any more."""

    def __init__(
        self,
        wanted_of: Callable[[list[tuple[int, T]]], list[tuple[int, T]]],
        on_item: Callable[[int, T], None] | None,
        on_change: Callable[[], None],
        no_more_expected: Callable[[], bool],
    ) -> None:
        super().__init__(on_item, on_change, no_more_expected)
        self._wanted_of = wanted_of

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """Draw up to so many items that somebody waits for."""
        rows: list[tuple[int, T]] = []
        while (missing := wanted - len(rows)) and self.has_ready:
            rows += self._wanted_of(super().take(missing, patience, clock))
        return rows

    def __next__(self) -> tuple[int, T]:
        for row in self.take(1, 0.0, self._loop.time):
            return row
        raise StopIteration


class ReadAhead(QueuedItems[T], ABC):
    """
    Reads a source by a task of its own, a bounded number of items ahead.

    The task begins with `start`, when everything that it reports to is complete. It reads in a
    copy of the context that the run began in, and closes the source itself: an async generator
    may have opened a timeout or a group that belongs to its task.

    Args:
        max_items: how many items to draw at most; None for all.
        keep: called with each index and item.
        ahead: how many items may wait in the buffer.
        on_change: called when an item has come, and when the source has ended or failed.
        context: what the source sees of context variables.
    """

    def __init__(
        self,
        max_items: int | None,
        on_item: Callable[[int, T], None] | None,
        *,
        ahead: int,
        on_change: Callable[[], None],
        context: Context,
    ) -> None:
        super().__init__(on_item, on_change)
        self._limit, self._ahead = max_items, ahead
        self._context = context
        self._error: BaseException | None = None
        self._closing = self._has_read = False
        self._closing_error: BaseException | None = None
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    def raise_next(self, error: BaseException) -> None:
        """Raise an error of the source when more is asked for: what came before it is drawn."""
        self._error = error

    @abstractmethod
    async def _read(self) -> None:
        """Push what the source gives, until its end or the limit."""

    @abstractmethod
    async def _close_source(self) -> None:
        """Close the source, if it can be closed."""

    def start(self) -> None:
        """Begin to read."""
        reading, context = self._read_to_the_end(), self._context.copy()
        self._reader = create_lazy_task(
            reading, self._loop, name="ragasync source", context=context
        )

    @property
    def has_ready(self) -> bool:
        """Whether an item, or the source's error, waits to be drawn."""
        return bool(self._buffer) or self._error is not None

    def __next__(self) -> tuple[int, T]:
        for row in self.take(1, 0.0, self._loop.time):
            return row
        raise StopIteration

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """
        Draw up to so many items.

        Raises:
            SourceFailed: the source raised, and all items from before that were drawn.
        """
        if not self._buffer and self._error is not None:
            error, self._error = self._error, None
            raise SourceFailed(error)
        self._room.set()
        return super().take(wanted, patience, clock)

    async def close(self, *, all_were_cancelled: bool = False) -> BaseException | None:
        """Cancel the task that reads, and wait for it; return what closing the source raised."""
        self._closing = True
        if self._reader is not None:
            is_closing = self._has_read  # the source, which is to go on
            if not (is_closing or (all_were_cancelled and self._reader.cancelling())):
                self._reader.cancel()
            await asyncio.wait([self._reader])
        return self._closing_error

    async def _read_to_the_end(self) -> None:
        """Read, and close the source; this is the task's life, and it never raises."""
        try:
            if self._limit is None or self.pushed < self._limit:
                await self._read()
        except BaseException as error:
            if not self._closing:
                self._error = error
        self._has_read = True
        try:
            await self._close_source()
        except BaseException as error:
            # A group of a generator wraps the GeneratorExit that closing it throws in.
            if not all(is_a(leaf, GeneratorExit) for leaf in leaves_of(error)):
                self._closing_error = error
        finally:
            self.end()

    async def _wait_for_room(self) -> int:
        """Wait until the buffer may take a further item; return how many it may take."""
        while len(self._buffer) >= self._ahead and not self._closing:
            self._room.clear()
            await self._room.wait()
        room = self._ahead - len(self._buffer)
        return room if self._limit is None else min(room, self._limit - self.pushed)


class Timed(Generic[T]):
    """
    Awaits something, and tells of the steps for which it kept the loop from everything else.

    Args:
        awaited: what to await.
        clock: measures the steps.
        held_up: called with the seconds of a step that was not brief.
    """

    def __init__(
        self, awaited: Awaitable[T], clock: Clock, held_up: Callable[[float], None]
    ) -> None:
        self._awaited, self._clock, self._held_up = awaited, clock, held_up

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
                    self._held_up(took)
            try:
                step = partial(steps.send, (yield waits_for))
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:
                step = partial(steps.throw, error)


class AsyncIterableItems(ReadAhead[T]):
    """
    Draws from an async iterable.

    An async iterator cannot be asked twice at once, and asking with a time limit would end a
    generator: so one task asks, and workers take from its buffer. The time for which it blocks the
    loop, in which no call can go on, is told.
    """

    def __init__(
        self,
        source: AsyncIterable[T],
        max_items: int | None,
        on_item: Callable[[int, T], None] | None,
        *,
        ahead: int,
        on_change: Callable[[], None],
        context: Context,
        clock: Clock,
        held_up: Callable[[float], None],
    ) -> None:
        super().__init__(max_items, on_item, ahead=ahead, on_change=on_change, context=context)
        self._clock, self._held_up = clock, held_up
        self._iterator = aiter(source)

    async def _read(self) -> None:
        """Push item after item, while there is room."""
        iterator = self._iterator
        while not self._closing and self.pushed != self._limit:
            try:
                item = await Timed(anext(iterator), self._clock, self._held_up)
            except StopAsyncIteration:
                return
            self.push(item)
            await self._wait_for_room()

    def clear(self) -> None:
        """Drop the items and the source: the run is over."""
        super().clear()
        del self._iterator

    async def _close_source(self) -> None:
        """Close an async generator, or whatever else has `aclose`."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
