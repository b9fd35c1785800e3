"""Where the items come from: a lazy iterator over a sync or an async source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeAlias, TypeVar

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


class PushFeed(Generic[T]):
    """
    Draws from a buffer that somebody else fills, by `push` until `end`.

    Args:
        keep: called with each index and item.
        on_change: called when an item has come, and at the end.
    """

    def __init__(
        self, keep: Callable[[int, T], None] | None, on_change: Callable[[], None]
    ) -> None:
        self._keep = keep
        self._on_change = on_change
        self._buffer: deque[tuple[int, T]] = deque()
        self.pushed = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
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

    def push(self, *items: T) -> None:
        """Add items; several at once cost one waking."""
        for item in items:
            if self._keep is not None:
                self._keep(self.pushed, item)
            self._buffer.append((self.pushed, item))
            self.pushed += 1
        self._changed()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self._changed()

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
        """Take no more."""
        self._ended = True

    def _wake_waiter(self) -> None:
        """Let the one who waits for more look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _changed(self) -> None:
        """Tell whoever waits."""
        self._wake_waiter()
        self._on_change()


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
        if not self._buffer and self._error is not None:
            error, self._error = self._error, None
            raise error
        self._room.set()
        return super().__next__()

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


FeedMaker: TypeAlias = Callable[[Callable[[int, T], None] | None, Callable[[], None]], PushFeed[T]]
"""A source that is no iterable: makes the feed, given what to call for each item and change."""


def open_feed(
    source: Iterable[T] | AsyncIterable[T] | FeedMaker[T],
    limit: int | None,
    keep: Callable[[int, T], None] | None,
    *,
    ahead: int,
    on_change: Callable[[], None],
) -> Feed[T]:
    """Return the feed that fits the source; see AsyncFeed for the arguments."""
    if isinstance(source, AsyncIterable):
        return AsyncFeed(source, limit, keep, ahead=ahead, on_change=on_change)
    if callable(source) and not isinstance(source, Iterable):  # an Enum is both
        return source(keep, on_change)
    return SyncFeed(source, limit, keep)
