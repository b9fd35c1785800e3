"""The sources of a run's items: lazy iterators over an iterable, an async iterable or a queue."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sized
from contextvars import Context
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from ragasync._engine.item_queue import (
    BRIEF,
    AsyncReader,
    QueuedItems,
    ThreadReader,
    close_generator,
)
from ragasync.arguments import check_count
from ragasync.clock import Clock
from ragasync.dataframe_items import DataFrameLike, Labels, PandasRows, PolarsRows, labeled_items
from ragasync.errors import SourceFailed

T = TypeVar("T")

Items: TypeAlias = Iterable[T] | AsyncIterable[T] | DataFrameLike
"""The items that a user passes."""

MAX_BLOCKED, MAX_BLOCKED_SHARE = 0.05, 0.05
"""Seconds, and share of the time since the first read, for which reading may block the loop before
a thread takes over. Both, because any source is delayed once in a while."""

IN_MEMORY = (list, tuple, range, PandasRows, PolarsRows)
"""Types whose iteration neither blocks nor raises anything but SourceFailed."""


class CheckedItems(NamedTuple):
    """
    The items of a run, checked.

    Args:
        source: the source; a list, a tuple, a Series or a DataFrame was copied, so that later
            changes do not matter.
        total: the number of items, if it is known.
        labels: the labels of items from a Series or DataFrame of pandas.
    """

    source: Any
    total: int | None
    labels: Labels | None = None


def check_items(items: object, total: int | None, max_items: int | None) -> CheckedItems:
    """
    Check the arguments of a run.

    Raises:
        TypeError: `items` cannot be iterated, or is a text or a DataFrame of another library than
            pandas and polars.
        ValueError: `total` or `max_items` is negative.
    """
    if isinstance(items, str | bytes | bytearray):
        raise TypeError(
            f"items must be an iterable of items, got one {type(items).__name__}, which would be "
            f"taken letter by letter: pass [text] for a single item"
        )
    if (labeled := labeled_items(items)) is not None:
        items = labeled.items
    elif type(items).__name__ == "DataFrame":
        raise TypeError(
            f"items must be an iterable of items, or a DataFrame of pandas or polars, got one of "
            f"{type(items).__module__.partition('.')[0]!r}, which may be taken column name by "
            f"column name: convert it first"
        )
    if not isinstance(items, Iterable | AsyncIterable) and not hasattr(items, "__getitem__"):
        raise TypeError(f"items must be an iterable or async iterable, got {items!r}")
    for name, value in (("total", total), ("max_items", max_items)):
        if value is not None:
            check_count(name, value, at_least=0)
    if labeled is not None:
        return CheckedItems(labeled.items, len(labeled.items), labeled.labels)
    if isinstance(items, list | tuple):
        return CheckedItems(list(items), len(items))
    length = length_of(items)
    if length is None and isinstance(items, Sized):
        return CheckedItems(_without_length(items), total)
    return CheckedItems(items, total if length is None else length)


def length_of(items: object) -> int | None:
    """The number of items, or None; `len` of a progress bar around a generator raises."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except TypeError:
        return None


def _without_length(items: Any) -> Iterator[Any]:
    """Yield the items of an iterable whose `len` raises."""
    yield from items


class ItemSource(Protocol[T]):
    """
    The items of a run, as its workers take them.

    Attributes:
        items: an iterator over (index, item), for the fast path. When it stops, the worker calls
            `on_exhausted`; there may be more later.
    """

    items: Iterator[tuple[int, T]]

    @property
    def has_ready(self) -> bool:
        """Whether an item can be taken without waiting."""

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended and every item was taken."""

    @property
    def no_more_expected(self) -> bool:
        """Whether it is no use to wait for another item."""

    def start(self) -> None:
        """Start to read, if a task reads; called when the run is complete."""

    def on_exhausted(self) -> None:
        """Note that `items` has stopped."""

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """
        Take up to `wanted` items.

        Raises:
            SourceFailed: the source raised before the first of them.
        """

    async def wait_for_more(self, wanted: int, patience: float) -> bool:
        """Wait for more items to fill a batch; return whether an item can be taken."""

    def raise_next(self, error: BaseException) -> None:
        """Raise an error of the source in the next `take`."""

    async def close(self, *, all_were_cancelled: bool = False) -> BaseException | None:
        """Stop reading and close the source; return the error of closing it."""

    def clear(self) -> None:
        """Drop the items and the source: the run is over."""


SourceFactory: TypeAlias = Callable[
    [Callable[[int, T], None] | None, Callable[[], None]], ItemSource[T]
]
"""Makes an ItemSource, given `on_item` and `on_change` of ReadOptions."""


@dataclass(frozen=True, slots=True)
class ReadOptions(Generic[T]):
    """
    How a run reads its source.

    Args:
        max_items: how many items to read at most; None for all.
        ahead: how many items a background reader may read ahead.
        on_change: called when a background reader has read something.
        on_blocked: called with the seconds for which reading has blocked the loop.
        may_use_thread: whether a source that blocks may be read on a thread.
    """

    max_items: int | None
    on_item: Callable[[int, T], None] | None
    ahead: int
    on_change: Callable[[], None]
    on_blocked: Callable[[float], None]
    may_use_thread: bool
    clock: Clock
    context: Context


def open_source(
    source: Iterable[T] | AsyncIterable[T] | SourceFactory[T], options: ReadOptions[T]
) -> ItemSource[T]:
    """Make the ItemSource of an iterable, an async iterable or a factory; `start` starts it."""
    if isinstance(source, AsyncIterable):
        reader = AsyncReader(
            aiter(source),
            options.on_blocked,
            options.clock,
            ahead=options.ahead,
            max_items=options.max_items,
            context=options.context,
        )
        return QueuedItems(options.on_item, options.on_change, reader=reader)
    if callable(source) and not isinstance(source, Iterable):  # an Enum class is both
        return source(options.on_item, options.on_change)
    return IterableItems(source, options)


class IterableItems(Generic[T]):
    """
    An ItemSource that the workers read themselves: an item is read when a worker is free.

    A source that turns out to block the loop is read on a thread from then on, a bounded number of
    items ahead. Otherwise every call in flight would stop while the next item is read.
    """

    def __init__(self, source: Iterable[T], options: ReadOptions[T]) -> None:
        self._options = options
        self._iterator = iter(source)
        self._count = 0
        self._ended = False
        self._error: BaseException | None = None
        self._queue: QueuedItems[T] | None = None
        """The items that a thread reads, once reading has blocked the loop."""
        self._first_read_at = 0.0
        self._blocked = 0.0
        self._is_slow = False
        if type(source) in IN_MEMORY:
            items = self._iterator
            if options.max_items is not None:
                items = islice(items, options.max_items)
            numbered = enumerate(items)
            self.items = (
                numbered if options.on_item is None else _reported(numbered, options.on_item)
            )
        else:
            self.items = self._read_on_loop()

    @property
    def has_ready(self) -> bool:
        """Whether an item may be read without waiting."""
        return not self._ended if self._queue is None else self._queue.has_ready

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended and every item was taken."""
        return self._ended if self._queue is None else self._queue.exhausted

    @property
    def no_more_expected(self) -> bool:
        """Whether the source has ended."""
        return self.exhausted

    def start(self) -> None:
        """Do nothing: the workers read."""

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """Take items one by one, but none after one that was slow, so that a batch can leave."""
        if self._queue is not None:
            return self._queue.take(wanted, patience, clock)
        if self._error is not None:
            raise SourceFailed(self._error)
        rows: list[tuple[int, T]] = []
        asked = clock()
        try:
            for row in islice(self.items, wanted):
                rows.append(row)
                read = clock()
                if read - asked > patience and len(rows) > 1:
                    return rows
                asked = read
        except SourceFailed as failed:
            if not rows:
                raise
            self.raise_next(failed.error)
            return rows
        if len(rows) < wanted:
            self.on_exhausted()
        return rows

    def on_exhausted(self) -> None:
        """Note that the source has ended, or have a thread read the rest of it."""
        if self._queue is not None:
            return
        if not self._is_slow:
            self._ended = True
            return
        options = self._options
        reader = ThreadReader(
            self._iterator,
            ahead=options.ahead,
            max_items=options.max_items,
            context=options.context,
        )
        self.items = self._queue = QueuedItems(
            options.on_item, options.on_change, reader=reader, first_index=self._count
        )
        self._queue.start()

    async def wait_for_more(self, wanted: int, patience: float) -> bool:
        """Wait for the thread; what a worker could read itself, `take` has read."""
        return False if self._queue is None else await self._queue.wait_for_more(wanted, patience)

    def raise_next(self, error: BaseException) -> None:
        """Raise an error of the source in the next `take`."""
        if self._queue is None:
            self._error = error
        else:
            self._queue.raise_next(error)

    async def close(self, *, all_were_cancelled: bool = False) -> BaseException | None:
        """Stop reading and close a generator; return the error of closing it."""
        if self._queue is not None:
            return await self._queue.close(all_were_cancelled=all_were_cancelled)
        self._ended = True
        try:
            self._options.context.run(close_generator, self._iterator)
        except BaseException as error:
            return error
        return None

    def clear(self) -> None:
        """Drop the items and the source: the run is over."""
        if self._queue is not None:
            self._queue.clear()
        self._ended = True
        self.items = iter(())
        del self._iterator, self._options

    def _read_on_loop(self) -> Iterator[tuple[int, T]]:
        """Yield items that the asking worker reads; stop early if reading blocks the loop."""
        options, iterator = self._options, self._iterator
        clock, read, on_item = options.clock, options.context.run, options.on_item
        while self._count != options.max_items and not self._is_slow:
            asked = clock()
            try:
                item = read(next, iterator)
            except StopIteration:
                return
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:
                del on_item, options  # the error refers to this frame
                raise SourceFailed(error) from error
            if (took := clock() - asked) > BRIEF:
                self._note_blocked(asked, took)
            index = self._count
            self._count = index + 1
            if on_item is not None:
                on_item(index, item)
            yield index, item
            del item  # an error of the source refers to this frame

    def _note_blocked(self, asked: float, took: float) -> None:
        """Count the time for which reading has blocked the loop; too much of it is for a thread."""
        options = self._options
        self._first_read_at = self._first_read_at or asked
        self._blocked += took
        options.on_blocked(took)
        elapsed = options.clock() - self._first_read_at
        if self._blocked > MAX_BLOCKED and self._blocked > MAX_BLOCKED_SHARE * elapsed:
            self._is_slow = options.may_use_thread


def _reported(
    numbered: Iterator[tuple[int, T]], on_item: Callable[[int, T], None]
) -> Iterator[tuple[int, T]]:
    """Yield each row after `on_item` has seen it."""
    for index, item in numbered:
        on_item(index, item)
        yield index, item
