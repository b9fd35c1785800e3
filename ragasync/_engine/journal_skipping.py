"""The reader of a run's items, which skips those that the journal has an outcome of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ragasync._engine.item_sources import ItemSource
from ragasync._engine.recorder import Recorder
from ragasync.clock import Clock
from ragasync.errors import SourceFailed

T = TypeVar("T")

FILL_TIMEOUT = 0.02
"""Seconds that a partial batch waits for another item while there is a free worker."""

LOOK_AHEAD = 32
"""How many items of a list are looked up together in a journal that is read on a thread."""

MAX_SKIPPED = 1024
"""How many items may be skipped before the loop gets a turn."""


class Reader(Generic[T]):
    """
    Takes the items from a source that have to be called.

    Args:
        source: the items.
        clock: the run's clock.
        recorder: selects the items that are not in the journal, if there is one.
        ahead: how many items may be taken to be looked up together.
    """

    def __init__(
        self, source: ItemSource[T], clock: Clock, recorder: Recorder[T, Any], ahead: int
    ) -> None:
        self._source, self._clock = source, clock
        self._recorder, self._ahead = recorder, ahead
        self._ready: deque[tuple[int, T]] = deque()

    @property
    def left_over(self) -> bool:
        """Whether items that were taken from the source wait for a call."""
        return bool(self._ready)

    async def take(self, wanted: int) -> list[tuple[int, T]]:
        """
        Take up to `wanted` items, but none after one that the source was slow to give.

        Raises:
            SourceFailed: the source raised before the first of them.
        """
        ready = self._ready
        rows: list[tuple[int, T]] = []
        skipped, was_slow = 0, False
        try:
            while len(rows) < wanted and skipped < MAX_SKIPPED:
                if ready:
                    rows.append(ready.popleft())
                elif was_slow:
                    break
                elif not self._recorder.has_journal:
                    rows += self._source.take(wanted - len(rows), FILL_TIMEOUT, self._clock)
                    break
                else:
                    asked = max(wanted - len(rows), self._ahead)
                    taken = self._source.take(asked, FILL_TIMEOUT, self._clock)
                    await self._recorder.select_new(taken, ready)
                    skipped += len(taken) - len(ready)
                    was_slow = len(taken) < asked
        except asyncio.CancelledError:
            self.put_back(rows)
            raise
        except SourceFailed as failed:
            if not rows:
                raise
            self._source.raise_next(failed.error)
        return rows

    def put_back(self, rows: Sequence[tuple[int, T]]) -> None:
        """Return items whose call is not made; they are taken again before all others."""
        self._ready.extendleft(reversed(rows))

    def clear(self) -> None:
        """Drop the items that no call has: the run is over."""
        self._ready.clear()
