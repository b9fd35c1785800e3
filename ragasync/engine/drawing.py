"""How items are drawn that have to be called: those that a journal knows are passed over."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from ragasync.clock import Clock
from ragasync.engine.feed import Feed
from ragasync.engine.journalling import NewOf

T = TypeVar("T")

LINGER = 0.02
"""Seconds that an unfilled batch waits for a further item while there is a free slot."""

LOOK_AHEAD = 32
"""How many items of a list are looked up at once in a journal that does so on a thread."""

PASSED_OVER = 1024
"""How many items that need no call are passed over before the loop turns."""


class Drawing(Generic[T]):
    """
    Draws items from a feed.

    Args:
        feed: where the items come from.
        clock: the run's clock.
        new_of: returns those of some items that are to be called; None: all of them.
        ahead: how many items may be drawn to be looked up together.
    """

    def __init__(self, feed: Feed[T], clock: Clock, new_of: NewOf[T] | None, ahead: int) -> None:
        self._feed, self._clock = feed, clock
        self._new_of, self._ahead = new_of, ahead
        self._looked_up: deque[tuple[int, T]] = deque()

    @property
    def left_over(self) -> bool:
        """Whether items that were drawn wait to be taken."""
        return bool(self._looked_up)

    async def take(self, wanted: int) -> list[tuple[int, T]]:
        """Draw up to so many items, none after one that took its time."""
        if self._new_of is None:
            return self._feed.take(wanted, LINGER, self._clock)
        rows: list[tuple[int, T]] = []
        passed_over, late = 0, False
        while len(rows) < wanted and passed_over < PASSED_OVER:
            if self._looked_up:
                rows.append(self._looked_up.popleft())
            elif late:
                break
            else:
                asked = max(wanted - len(rows), self._ahead)
                came = self._feed.take(asked, LINGER, self._clock)
                new = await self._new_of(came)
                self._looked_up.extend(new)
                passed_over += len(came) - len(new)
                late = len(came) < asked
        return rows
