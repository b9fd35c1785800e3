"""Where the items come from: a lazy iterator over a sync or an async source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from ragasync.calls.threads import DaemonThreadPool
from ragasync.clock import Clock
from ragasync.engine.push import BRIEF, AsyncIterableItems, QueuedItems, ReadAhead
from ragasync.error_text import add_note
from ragasync.errors import SourceFailed

T = TypeVar("T")

TOO_LONG, TOO_OFTEN = 0.05, 0.05
"""A source moves to a thread once reads that were not brief took so many seconds, and such a share
of the time since the first of its items was read: a machine may hold up any source now and then."""

BLOCK_SECONDS = 0.02
"""Seconds after which a thread hands over what it has read, though more could be taken."""

CLOSING_SECONDS = 1.0
"""Seconds that the end of a run waits for a thread that is reading, which nothing can interrupt."""

MOVED = (
    "ragasync: reading this source blocked the event loop, so it was read on a thread from then "
    "on; a source that needs its own thread or loop had better be a list, or an async generator"
)

IN_MEMORY = (list, tuple, range)
"""Types whose iteration neither blocks nor raises, nor runs anybody's code."""


@dataclass(frozen=True, slots=True)
class ReadOptions(Generic[T]):
    """
    How a run reads its source.

    Args:
        max_items: how many items to draw at most; None for all.
        keep: called with each index and item, or None.
        ahead: how many items may be read ahead, where the source is read by a task.
        on_change: called when a task has read something.
        held_up: called with the seconds for which reading has blocked the loop.
        may_move: whether a source that blocks may be read on a thread.
        clock: the run's clock.
        context: what the source sees of context variables; its own from then on.
    """

    max_items: int | None
    on_item: Callable[[int, T], None] | None
    ahead: int
    on_change: Callable[[], None]
    held_up: Callable[[float], None]
    may_move: bool
    clock: Clock
    context: Context


class IterableItems(ReadAhead[T]):
    """
    Draws from an iterable in the workers themselves: an item is pulled when a worker is free.

    A source that turns out to block the loop goes on in a thread, a bounded number of items
    ahead: else every call in flight would stand still while the next item is read.
    """

    def __init__(self, source: Iterable[T], reader: ReadOptions[T]) -> None:
        super().__init__(
            reader.max_items,
            reader.on_item,
            ahead=reader.ahead,
            on_change=reader.on_change,
            context=reader.context,
        )
        self._clock, self._held_up = reader.clock, reader.held_up
        self._may_move = reader.may_move
        self._iterator = iter(source)
        self._threads: DaemonThreadPool | None = None
        self._first_read_at = 0.0
        self._blocked = 0.0
        self._is_slow = False
        if type(source) in IN_MEMORY:
            items = self._iterator
            numbered = enumerate(
                items if reader.max_items is None else islice(items, reader.max_items)
            )
            self.items = numbered if reader.on_item is None else _kept(numbered, reader.on_item)
        else:
            self.items = self._read_here()

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended and everything was drawn."""
        return self._ended if self._threads is None else super().exhausted

    @property
    def has_ready(self) -> bool:
        """Whether an item may be drawn without waiting."""
        return not self._ended if self._threads is None else super().has_ready

    def start(self) -> None:
        """Do nothing yet: workers read for themselves."""

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """Draw one by one, since an item may take its time; the first never is the last."""
        if self._threads is not None:
            return super().take(wanted, patience, clock)
        if self._error is not None:
            raise SourceFailed(self._error)
        rows: list[tuple[int, T]] = []
        asked = clock()
        try:
            for row in islice(self.items, wanted):
                rows.append(row)
                drawn = clock()
                if drawn - asked > patience and len(rows) > 1:
                    return rows
                asked = drawn
        except SourceFailed as failed:
            if not rows:
                raise
            self.raise_next(failed.error)
            return rows
        if len(rows) < wanted:
            self.on_exhausted()
        return rows

    def on_exhausted(self) -> None:
        """Note that the source has ended, or is to be read on a thread from now on."""
        if self._threads is not None:
            return
        if not self._is_slow:
            self._ended = True
            return
        self._threads = DaemonThreadPool(self._loop)
        self.items = self
        super().start()

    async def more(self, wanted: int, linger: float) -> bool:
        """Return at once while workers read: what could be had was drawn."""
        return False if self._threads is None else await super().more(wanted, linger)

    async def close(self, *, all_were_cancelled: bool = False) -> BaseException | None:
        """Stop drawing, and close a generator; return what that raised."""
        if self._threads is not None:
            return await super().close(all_were_cancelled=all_were_cancelled)
        self._ended = True
        try:
            self._context.run(close_generator, self._iterator)
        except BaseException as error:
            return error
        return None

    def clear(self) -> None:
        """Drop the items and the source: the run is over."""
        super().clear()
        del self._iterator

    def _read_here(self) -> Iterator[tuple[int, T]]:
        """Yield items that are read by whoever asks; end early where reading blocks the loop."""
        clock, read, iterator, on_item = self._clock, self._context.run, self._iterator, self._keep
        while self.pushed != self._limit and not self._is_slow:
            asked = clock()
            try:
                item = read(next, iterator)
            except StopIteration:
                return
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:
                del on_item  # the error refers to this frame
                raise SourceFailed(error) from error
            if (took := clock() - asked) > BRIEF:
                self._note_blocked(asked, took)
            index = self.pushed
            self.pushed = index + 1
            if on_item is not None:
                on_item(index, item)
            yield index, item
            del item  # an error of the source refers to this frame

    def _note_blocked(self, asked: float, took: float) -> None:
        """Note that reading an item has blocked the loop, and see whether that is too much."""
        self._first_read_at = self._first_read_at or asked
        self._blocked += took
        self._held_up(took)
        elapsed = self._clock() - self._first_read_at
        if self._blocked > TOO_LONG and self._blocked > TOO_OFTEN * elapsed:
            self._is_slow = self._may_move

    async def _read(self) -> None:
        """Push block after block that a thread reads, while there is room."""
        assert self._threads is not None
        ended = False
        run, iterator = self._context.run, self._iterator
        while not (ended or self._closing) and self.pushed != self._limit:
            room = await self._wait_for_room()
            items, error, ended = await self._threads.submit(
                lambda most: run(self._next_block, iterator, most), room
            )
            self.push(*items)
            if error is not None:
                add_note(error, MOVED)
                raise error

    def _next_block(
        self, iterator: Iterator[T], room: int
    ) -> tuple[Sequence[T], BaseException | None, bool]:
        """Return the next items, what the source raised after them, and whether it has ended."""
        items: list[T] = []
        handed_over_at = time.monotonic() + BLOCK_SECONDS
        try:
            for item in iterator:
                items.append(item)
                if len(items) == room or self._closing or time.monotonic() > handed_over_at:
                    return items, None, False
        except BaseException as error:  # the source's, not this thread's
            return items, error, True
        finally:
            if self._closing:
                close_generator(iterator)  # by this thread, as nobody else can while it is read
        return items, None, True

    async def _close_source(self) -> None:
        """Close the source on a thread: now, or when the thread that is reading has its item."""
        assert self._threads is not None
        closing = asyncio.ensure_future(self._close_on_thread(self._threads))
        await asyncio.wait([closing], timeout=CLOSING_SECONDS)
        self._threads.close()
        if closing.done():
            closing.result()
            return
        closing.cancel()
        await asyncio.wait([closing])

    async def _close_on_thread(self, threads: DaemonThreadPool) -> None:
        """Close the source; a generator that is being read is closed by the thread that reads."""

        def close(iterator: Iterator[T]) -> None:
            try:
                self._context.copy().run(close_generator, iterator)
            except ValueError as error:
                if "already executing" not in str(error):
                    raise

        await threads.submit(close, self._iterator)


def close_generator(iterator: Iterator[Any]) -> None:
    """Close a generator; any other iterator, such as a file, is left to its owner."""
    if isinstance(iterator, Generator):
        iterator.close()


def _kept(
    numbered: Iterator[tuple[int, T]], on_item: Callable[[int, T], None]
) -> Iterator[tuple[int, T]]:
    """Yield what comes, and have each item remembered first."""
    for index, item in numbered:
        on_item(index, item)
        yield index, item


SourceFactory: TypeAlias = Callable[
    [Callable[[int, T], None] | None, Callable[[], None]], QueuedItems[T]
]
"""A source that is no iterable: makes the feed, given what to call for each item and change."""


def open_source(
    source: Iterable[T] | AsyncIterable[T] | SourceFactory[T], reader: ReadOptions[T]
) -> QueuedItems[T]:
    """Return the feed that fits the source, which begins to read when it is started."""
    if isinstance(source, AsyncIterable):
        return AsyncIterableItems(
            source,
            reader.max_items,
            reader.on_item,
            ahead=reader.ahead,
            on_change=reader.on_change,
            context=reader.context,
            clock=reader.clock,
            held_up=reader.held_up,
        )
    if callable(source) and not isinstance(source, Iterable):  # an Enum is both
        return source(reader.on_item, reader.on_change)
    return IterableItems(source, reader)
