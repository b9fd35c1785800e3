"""Where the items come from: a lazy iterator over a sync or an async source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Feed(Protocol[T]):
    """
    What lanes draw from.

    `fresh` yields (index, item) and stops when nothing is at hand; it can be asked again unless
    `exhausted`. Errors of the source come out of it.
    """

    fresh: Iterator[tuple[int, T]]

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended and everything was drawn."""

    @property
    def at_hand(self) -> bool:
        """Whether drawing may give an item at once."""

    def ran_dry(self) -> None:
        """Note that `fresh` stopped."""

    async def more(self, within: float) -> bool:
        """Wait for a further item, at most so many seconds; return whether one may be at hand."""

    async def close(self) -> None:
        """Stop drawing from the source."""


class SyncFeed(Generic[T]):
    """Draws from an iterable in the lanes themselves: an item is pulled when a lane is free."""

    def __init__(
        self, source: Iterable[T], limit: int | None, keep: Callable[[int, T], None] | None
    ) -> None:
        numbered = enumerate(source if limit is None else islice(source, limit))
        self.fresh: Iterator[tuple[int, T]] = numbered if keep is None else _kept(numbered, keep)
        self.exhausted = False

    @property
    def at_hand(self) -> bool:
        """Whether the source has not ended."""
        return not self.exhausted

    def ran_dry(self) -> None:
        """Note that the source has ended."""
        self.exhausted = True

    async def more(self, within: float) -> bool:  # noqa: ARG002  # nothing comes by waiting
        """Return at once: the next item comes when it is asked for."""
        return not self.exhausted

    async def close(self) -> None:
        """Leave the iterator to whoever made it."""


def _kept(
    numbered: Iterator[tuple[int, T]], keep: Callable[[int, T], None]
) -> Iterator[tuple[int, T]]:
    """Yield what comes, and have each item remembered first."""
    for index, item in numbered:
        keep(index, item)
        yield index, item


class AsyncFeed(Generic[T]):
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
        self._source = source
        self._limit = limit
        self._keep = keep
        self._ahead = ahead
        self._on_change = on_change
        self._buffer: deque[tuple[int, T]] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._room = asyncio.Event()
        self._waiter: asyncio.Future[None] | None = None
        self._pump = asyncio.create_task(self._draw(), name="ragasync source")
        self.fresh: Iterator[tuple[int, T]] = self

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended and everything was drawn."""
        return self._ended and not self._buffer and self._error is None

    @property
    def at_hand(self) -> bool:
        """Whether an item, or the source's error, waits to be drawn."""
        return bool(self._buffer) or self._error is not None

    def ran_dry(self) -> None:
        """Do nothing: the buffer itself knows."""

    def __iter__(self) -> Iterator[tuple[int, T]]:
        return self

    def __next__(self) -> tuple[int, T]:
        if self._buffer:
            self._room.set()
            return self._buffer.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    async def more(self, within: float) -> bool:
        """Wait for a further item or the end; only one may wait at a time."""
        if not self.at_hand and not self._ended:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(within, self._wake_waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self.at_hand

    async def close(self) -> None:
        """Cancel the task that draws, and wait for it."""
        self._pump.cancel()
        await asyncio.wait([self._pump])

    def _wake_waiter(self) -> None:
        """Let the one who waits for more look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _changed(self) -> None:
        """Tell whoever waits."""
        self._wake_waiter()
        self._on_change()

    async def _draw(self) -> None:
        """Draw items into the buffer for as long as there is room; this is the task's life."""
        try:
            index = 0
            if self._limit == 0:
                return
            async for item in self._source:
                if self._keep is not None:
                    self._keep(index, item)
                self._buffer.append((index, item))
                index += 1
                self._changed()
                if index == self._limit:
                    return
                await self._wait_for_room()
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self._changed()

    async def _wait_for_room(self) -> None:
        """Wait until the buffer may take a further item."""
        while len(self._buffer) >= self._ahead:
            self._room.clear()
            await self._room.wait()


def open_feed(
    source: Iterable[T] | AsyncIterable[T],
    limit: int | None,
    keep: Callable[[int, T], None] | None,
    *,
    ahead: int,
    on_change: Callable[[], None],
) -> Feed[T]:
    """Return the feed that fits the source; see AsyncFeed for the arguments."""
    if isinstance(source, AsyncIterable):
        return AsyncFeed(source, limit, keep, ahead=ahead, on_change=on_change)
    return SyncFeed(source, limit, keep)
