"""The batcher: takes the items of one call, bounded by count, weight and waiting time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ragasync._engine.item_sources import ItemSource
from ragasync._engine.recorder import Recorder
from ragasync._engine.retry_queue import PendingCall
from ragasync._engine.run_journal import FILL_TIMEOUT, Reader
from ragasync.clock import Clock
from ragasync.errors import ItemTooLargeError, SourceFailed
from ragasync.foreign_errors import INTERRUPTS
from ragasync.settings import BatchSettings

T = TypeVar("T")


class Batcher(Generic[T]):
    """
    Takes items from a source and makes a PendingCall of them.

    A batch is complete when it is full by count or weight, when the source ends, or when no item
    has arrived for FILL_TIMEOUT seconds. One worker fills a batch at a time, so that a slow source
    fills one batch and not one per worker; the other workers wait meanwhile.

    Args:
        size: gives the maximum size of the next batch, given how many items were taken so far.
        recorder: records the failure of an item that fits in no batch.

    Attributes:
        filling: whether a worker is filling a batch.
    """

    def __init__(
        self,
        source: ItemSource[T],
        reader: Reader[T],
        size: Callable[[int], int],
        settings: BatchSettings[T, Any],
        clock: Clock,
        recorder: Recorder[T, Any],
    ) -> None:
        self._source, self._reader, self._clock = source, reader, clock
        self._size = size
        self._numbered = settings.batched or settings.grouped
        self._weight = settings.weight if settings.max_batch_weight is not None else None
        self._max_weight = settings.max_batch_weight or 0.0
        self._recorder = recorder
        self._carried: tuple[int, T, float | None] | None = None
        self.filling = False
        self._taken = 0
        self._batches = 0

    @property
    def left_over(self) -> bool:
        """Whether an item that was taken waits for the next batch."""
        return self._carried is not None or self._reader.left_over

    def clear(self) -> None:
        """Drop the items that no call has: the run is over."""
        self._carried = None
        self._reader.clear()

    async def next(self) -> PendingCall[T] | None:
        """Fill the next call; None if no item is ready."""
        self.filling = True
        try:
            fill = self._fill_by_count if self._weight is None else self._fill_by_weight
            rows: list[tuple[int, T]] = []
            await fill(self._size(self._taken), rows)
        except asyncio.CancelledError:
            self._reader.put_back(rows)
            raise
        except SourceFailed as failed:
            if not rows:
                raise
            self._source.raise_next(failed.error)  # after a batch of the items before it
        finally:
            self.filling = False
        if not rows:
            return None
        self._taken = rows[-1][0] + 1
        number = None
        if self._numbered:
            number, self._batches = self._batches, self._batches + 1
        indices, items = zip(*rows, strict=True)
        usage = self._recorder.take_earlier_usage(indices)
        return PendingCall(indices, items, batch=number, usage=usage)

    async def _fill_by_count(self, size: int, rows: list[tuple[int, T]]) -> None:
        """Take up to `size` items into `rows`, and wait once for more."""
        rows += await self._reader.take(size)
        if 0 < len(rows) < size and await self._source.wait_for_more(
            size - len(rows), FILL_TIMEOUT
        ):
            rows += await self._reader.take(size - len(rows))

    async def _fill_by_weight(self, size: int, rows: list[tuple[int, T]]) -> None:
        """Take up to `size` items into `rows`, while their total weight allows."""
        total = 0.0
        while len(rows) < size:
            asked = self._clock()
            entry = await self._take_weighed()
            if entry is None:
                if rows and await self._source.wait_for_more(1, FILL_TIMEOUT):
                    continue
                break
            index, item, weight = entry
            if weight is None:
                size -= 1  # else a source of refused items only would never let the loop turn
                continue
            if total + weight > self._max_weight and rows:
                self._carried = entry
                break
            total += weight
            rows.append((index, item))
            if len(rows) > 1 and self._clock() - asked > FILL_TIMEOUT:
                break

    async def _take_weighed(self) -> tuple[int, T, float | None] | None:
        """Take the next item with its weight, which is None if the item was refused."""
        if self._carried is not None:
            entry, self._carried = self._carried, None
            return entry
        assert self._weight is not None
        for index, item in await self._reader.take(1):
            try:
                weight = _checked_weight(self._weight(item), self._max_weight)
            except INTERRUPTS:
                raise
            except BaseException as error:
                self._recorder.record_refused(index, item, error)
                return index, item, None
            return index, item, weight
        return None


def _checked_weight(weight: Any, maximum: float) -> float:
    """Convert the weight of an item, or raise if it fits in no batch."""
    if not weight >= 0:
        raise ValueError(f"weight= must give a number of 0 or more for each item, got {weight!r}")
    if weight > maximum:
        raise ItemTooLargeError(
            f"this item alone weighs {weight:g}, more than max_batch_weight={maximum:g} allows "
            f"for a whole batch: shorten it, or raise max_batch_weight"
        )
    return float(weight)
