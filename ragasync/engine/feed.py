"""Where the items come from: a lazy iterator over a sync or an async source."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeAlias, TypeVar

from ragasync.clock import Clock
from ragasync.engine.push import AsyncFeed, PushFeed

T = TypeVar("T")


class Feed(Protocol[T]):
    """
    What lanes draw from.

    `fresh` yields (index, item) and stops when nothing is at hand; it can be asked again unless
    `exhausted`. Errors of the source come out of it, and of `take`.
    """

    fresh: Iterator[tuple[int, T]]

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended and everything was drawn."""

    @property
    def at_hand(self) -> bool:
        """Whether drawing may give an item at once."""

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """Draw up to so many items, none after one that took longer than `patience` seconds."""

    def ran_dry(self) -> None:
        """Note that `fresh` stopped."""

    async def more(self, wanted: int, linger: float) -> bool:
        """
        Wait for so many further items; return whether any may be at hand.

        It waits no longer when the source ends, when it is known to give nothing soon, or when
        for `linger` seconds nothing has come.
        """

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

    def take(self, wanted: int, patience: float, clock: Clock) -> list[tuple[int, T]]:
        """Draw one by one, since an item may take its time; the first never is the last."""
        rows: list[tuple[int, T]] = []
        asked = clock()
        for row in islice(self.fresh, wanted):
            rows.append(row)
            drawn = clock()
            if drawn - asked > patience and len(rows) > 1:
                return rows
            asked = drawn
        self.exhausted = len(rows) < wanted
        return rows

    def ran_dry(self) -> None:
        """Note that the source has ended."""
        self.exhausted = True

    async def more(self, wanted: int, linger: float) -> bool:  # noqa: ARG002
        """Return at once: what could be had was drawn."""
        return False

    async def close(self) -> None:
        """Leave the iterator to whoever made it."""


def _kept(
    numbered: Iterator[tuple[int, T]], keep: Callable[[int, T], None]
) -> Iterator[tuple[int, T]]:
    """Yield what comes, and have each item remembered first."""
    for index, item in numbered:
        keep(index, item)
        yield index, item


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
