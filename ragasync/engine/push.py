"""Items that come when they like: pushed by callers, or drawn ahead from an async source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Generic, TypeVar

from ragasync.clock import Clock

T = TypeVar("T")


class PushFeed(Generic[T]):
    """
    Draws from a buffer that somebody else fills, by `push` until `end`.

    Args:
        keep: called with each index and item.
        on_change: called when an item has come, and at the end.
        nothing_soon: says whether waiting for a further item is in vain; asked when one came.
    """

    def __init__(
        self,
        keep: Callable[[int, T], None] | None,
        on_change: Callable[[], None],
        nothing_soon: Callable[[], bool] = lambda: False,
    ) -> None:
        self._keep = keep
        self._on_change = on_change
        self._nothing_soon = nothing_soon
        self._buffer: deque[tuple[int, T]] = deque()
        self.pushed = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 0
        self._loop = asyncio.get_running_loop()
        self._came_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.fresh: Iterator[tuple[int, T]] = self

    @property
    def exhausted(self) -> bool:
        """Whether nothing more will come and everything was drawn."""
        return self._ended and not self.at_hand

    @property
    def at_hand(self) -> bool:
        """Whether an item waits to be drawn."""
        return bool(self._buffer)

    def ran_dry(self) -> None:
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
            if len(self._buffer) >= self._wanted or self._nothing_soon():
                self._wake_waiter()
        self._on_change()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self._wake_waiter()
        self._on_change()

    async def more(self, wanted: int, linger: float) -> bool:
        """Wait for so many items, the end, or a pause; only one may wait at a time."""
        if self._ended or self._nothing_soon():
            return self.at_hand
        self._waiter, self._wanted = self._loop.create_future(), wanted
        self._came_at = self._loop.time()
        self._watch_for_a_pause(linger)
        try:
            await self._waiter
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._waiter = None
        return self.at_hand

    async def close(self) -> None:
        """Take no more."""
        self._ended = True

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


class WantedFeed(PushFeed[T]):
    """Draws what was ordered, but for what nobody waits for any more."""

    def __init__(
        self,
        wanted_of: Callable[[list[tuple[int, T]]], list[tuple[int, T]]],
        keep: Callable[[int, T], None] | None,
        on_change: Callable[[], None],
        nothing_soon: Callable[[], bool],
    ) -> None:
        super().__init__(keep, on_change, nothing_soon)
        self._wanted_of = wanted_of

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """Draw up to so many items that somebody waits for."""
        rows: list[tuple[int, T]] = []
        while (missing := wanted - len(rows)) and self.at_hand:
            rows += self._wanted_of(super().take(missing, patience, clock))
        return rows

    def __next__(self) -> tuple[int, T]:
        for row in self.take(1, 0.0, self._loop.time):
            return row
        raise StopIteration


class AsyncFeed(PushFeed[T]):
    """
    Draws from an async iterable by a task of its own, a bounded number of items ahead.

    An async iterator cannot be asked twice at once, and asking with a time limit would end a
    generator: so one task asks, and lanes take from its buffer.

    Args:
        source: the async iterable.
        limit: how many items to draw at most; None for all.
        keep: called with each index and item.
        ahead: how many items may wait in the buffer.
        on_change: called when an item has come, and when the source has ended or failed.
    """

    def __init__(
        self,
        source: AsyncIterable[T],
        limit: int | None,
        keep: Callable[[int, T], None] | None,
        *,
        ahead: int,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(keep, on_change)
        self._source = source
        self._limit = limit
        self._ahead = ahead
        self._error: BaseException | None = None
        self._closing = False
        self._room = asyncio.Event()
        self._pump = asyncio.create_task(self._draw(), name="ragasync source")

    @property
    def at_hand(self) -> bool:
        """Whether an item, or the source's error, waits to be drawn."""
        return bool(self._buffer) or self._error is not None

    def __next__(self) -> tuple[int, T]:
        for row in self.take(1, 0.0, self._loop.time):
            return row
        raise StopIteration

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """Draw up to so many items; the error of the source comes when all before it are drawn."""
        if not self._buffer and self._error is not None:
            error, self._error = self._error, None
            raise error
        self._room.set()
        return super().take(wanted, patience, clock)

    async def close(self) -> None:
        """Cancel the task that draws, and wait for it."""
        self._closing = True
        self._pump.cancel()
        await asyncio.wait([self._pump])

    async def _draw(self) -> None:
        """Draw items into the buffer for as long as there is room; this is the task's life."""
        try:
            if self._limit == 0:
                return
            async for item in self._source:
                self.push(item)
                if self.pushed == self._limit:
                    return
                await self._wait_for_room()
        except (Exception, asyncio.CancelledError) as error:
            if self._closing:
                raise
            self._error = error
        finally:
            self.end()

    async def _wait_for_room(self) -> None:
        """Wait until the buffer may take a further item."""
        while len(self._buffer) >= self._ahead:
            self._room.clear()
            await self._room.wait()
