"""The queue of items that arrive by themselves: pushed by callers, or read in the background."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from ragasync.clock import Clock
from ragasync.errors import SourceFailed

T = TypeVar("T")


class QueueFiller(Protocol[T]):
    """A reader that pushes the items of a source into a queue."""

    def start(self, queue: QueuedItems[T]) -> None:
        """Start to fill the queue."""

    async def close(self, *, all_were_cancelled: bool) -> BaseException | None:
        """Stop and close the source; return the error of closing it."""


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
        reader: QueueFiller[T] | None = None,
        no_more_expected: Callable[[], bool] = lambda: False,
        select: Callable[[list[tuple[int, T]]], list[tuple[int, T]]] | None = None,
        first_index: int = 0,
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
        self._last_push = 0.0
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
        """Wake the waiting worker `patience` seconds after the last push."""
        # One timer that is extended when it fires costs less than one that each push restarts.
        due = self._last_push + patience
        if self._loop.time() >= due:
            self._wake_waiter()
        else:
            self._timer = self._loop.call_at(due, self._wake_when_quiet, patience)

    # ── closing ───────────────────────────────────────────────────────────────────────────────

    async def close(self, *, all_were_cancelled: bool = False) -> BaseException | None:
        """
        Stop the reader and close its source.

        Args:
            all_were_cancelled: whether somebody has cancelled all tasks of the loop.

        Returns:
            What closing the source raised.
        """
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
