"""How single items become the items of one call: by count, by weight, or by the time they take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ragasync.clock import Clock
from ragasync.engine.item_sources import ItemSource
from ragasync.engine.journal_skipping import FILL_TIMEOUT, Reader
from ragasync.engine.retry_queue import PendingCall
from ragasync.errors import ItemTooLargeError, SourceFailed
from ragasync.foreign_errors import INTERRUPTS
from ragasync.settings import BatchSettings

T = TypeVar("T")


class Batcher(Generic[T]):
    """
    Draws the items of one call.

    A batch leaves when it is full by count or weight, when the source ends, or when no further item
    has come for FILL_TIMEOUT seconds. One worker fills a batch at a time, so that a slow source
    fills one batch and not one per worker; the other workers wait meanwhile.

    Args:
        feed: where the items come from.
        drawing: draws them from there.
        size: says how many items the next batch may have, given how many were drawn.
        plan: says whether there are batches, and what bounds them by weight.
        clock: the run's clock.
        refuse: called with index, item and error for an item that can go in no batch.

    Attributes:
        forming: whether a worker is putting a batch together.
    """

    def __init__(
        self,
        feed: ItemSource[T],
        drawing: Reader[T],
        size: Callable[[int], int],
        plan: BatchSettings[T, Any],
        clock: Clock,
        refuse: Callable[[int, T, BaseException], None],
    ) -> None:
        self._feed, self._clock = feed, clock
        self._drawing = drawing
        self._size = size
        self._numbered = plan.batched or plan.grouped
        self._weight = plan.weight if plan.max_batch_weight is not None else None
        self._max_weight = plan.max_batch_weight or 0.0
        self._refuse = refuse
        self._carried: tuple[int, T, float | None] | None = None
        self.filling = False
        self._drawn = 0
        self._batches = 0

    @property
    def left_over(self) -> bool:
        """Whether an item that was drawn waits for the next batch."""
        return self._carried is not None or self._drawing.left_over

    def clear(self) -> None:
        """Drop what no call has taken: the run is over."""
        self._carried = None
        self._drawing.clear()

    async def next(self) -> PendingCall[T] | None:
        """Return the next ticket, or None when nothing is at hand."""
        self.filling = True
        try:
            form = self._by_count if self._weight is None else self._by_weight
            rows: list[tuple[int, T]] = []
            await form(self._size(self._drawn), rows)
        except asyncio.CancelledError:
            self._drawing.put_back(rows)
            raise
        except SourceFailed as failed:
            if not rows:
                raise
            self._feed.raise_next(failed.error)  # what came before it goes in a batch of its own
        finally:
            self.filling = False
        if not rows:
            return None
        self._drawn = rows[-1][0] + 1
        number = -1
        if self._numbered:
            number, self._batches = self._batches, self._batches + 1
        indices, items = zip(*rows, strict=True)
        return PendingCall(indices, items, batch=number)

    async def _by_count(self, size: int, rows: list[tuple[int, T]]) -> None:
        """Draw so many items, or what comes before the batch has to leave."""
        rows += await self._drawing.take(size)
        if 0 < len(rows) < size and await self._feed.wait_for_more(size - len(rows), FILL_TIMEOUT):
            rows += await self._drawing.take(size - len(rows))

    async def _by_weight(self, size: int, rows: list[tuple[int, T]]) -> None:
        """Draw as many items, while they weigh little enough together."""
        total = 0.0
        while len(rows) < size:
            asked = self._clock()
            entry = await self._draw()
            if entry is None:
                if rows and await self._feed.wait_for_more(1, FILL_TIMEOUT):
                    continue
                break
            index, item, weight = entry
            if weight is None:
                size -= 1  # a source of nothing else must let the loop turn, and the run stop
                continue
            if total + weight > self._max_weight and rows:
                self._carried = entry
                break
            total += weight
            rows.append((index, item))
            if len(rows) > 1 and self._clock() - asked > FILL_TIMEOUT:
                break

    async def _draw(self) -> tuple[int, T, float | None] | None:
        """Draw the next item with its weight, which is None where it was refused."""
        if self._carried is not None:
            entry, self._carried = self._carried, None
            return entry
        assert self._weight is not None
        for index, item in await self._drawing.take(1):
            try:
                weight = _checked_weight(self._weight(item), self._max_weight)
            except INTERRUPTS:
                raise
            except BaseException as error:
                self._refuse(index, item, error)
                return index, item, None
            return index, item, weight
        return None


def _checked_weight(weight: Any, most: float) -> float:
    """Return what an item weighs, or raise if no batch can take it."""
    if not weight >= 0:
        raise ValueError(f"weight= must give a number of 0 or more for each item, got {weight!r}")
    if weight > most:
        raise ItemTooLargeError(
            f"this item alone weighs {weight:g}, more than max_batch_weight={most:g} allows "
            f"for a whole batch: shorten it, or raise max_batch_weight"
        )
    return float(weight)
