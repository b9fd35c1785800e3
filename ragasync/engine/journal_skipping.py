"""How items are drawn that have to be called: those that a journal knows are passed over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from ragasync.clock import Clock
from ragasync.engine.item_sources import ItemSource
from ragasync.engine.journalling import NewOf, Refuse
from ragasync.errors import SourceFailed

T = TypeVar("T")

FILL_TIMEOUT = 0.02
"""Seconds that an unfilled batch waits for a further item while there is a free slot."""

LOOK_AHEAD = 32
"""How many items of a list are looked up at once in a journal that does so on a thread."""

PASSED_OVER = 1024
"""How many items that need no call are passed over before the loop turns."""


class Reader(Generic[T]):
    """
    Draws items from a feed.

    Args:
        feed: where the items come from.
        clock: the run's clock.
        new_of: finds those of some items that are to be called; None: all of them.
        ahead: how many items may be drawn to be looked up together.
        refuse: called with index, item and error for an item that has no key.
    """

    def __init__(
        self,
        feed: ItemSource[T],
        clock: Clock,
        new_of: NewOf[T] | None,
        ahead: int,
        refuse: Refuse[T],
    ) -> None:
        self._refuse = refuse
        self._feed, self._clock = feed, clock
        self._new_of, self._ahead = new_of, ahead
        self._looked_up: deque[tuple[int, T]] = deque()

    @property
    def left_over(self) -> bool:
        """Whether items that were drawn wait to be taken."""
        return bool(self._looked_up)

    async def take(self, wanted: int) -> list[tuple[int, T]]:
        """Draw up to so many items, none after one that took its time."""
        ready = self._looked_up
        rows: list[tuple[int, T]] = []
        passed_over, late = 0, False
        try:
            while len(rows) < wanted and passed_over < PASSED_OVER:
                if ready:
                    rows.append(ready.popleft())
                elif late:
                    break
                elif self._new_of is None:
                    rows += self._feed.take(wanted - len(rows), FILL_TIMEOUT, self._clock)
                    break
                else:
                    asked = max(wanted - len(rows), self._ahead)
                    came = self._feed.take(asked, FILL_TIMEOUT, self._clock)
                    await self._new_of(came, ready, self._refuse)
                    passed_over += len(came) - len(ready)
                    late = len(came) < asked
        except asyncio.CancelledError:
            self.put_back(rows)
            raise
        except SourceFailed as failed:
            if not rows:
                raise
            self._feed.raise_next(failed.error)
        return rows

    def clear(self) -> None:
        """Drop what no call has taken: the run is over."""
        self._looked_up.clear()
        self._new_of = None

    def put_back(self, rows: Sequence[tuple[int, T]]) -> None:
        """Have items that were drawn for a call that is not made drawn again, before all others."""
        self._looked_up.extendleft(reversed(rows))
