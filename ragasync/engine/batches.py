"""How single items become the items of one call: by count, by cost, or by the time they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeVar

from ragasync.clock import Clock
from ragasync.engine.feed import Feed
from ragasync.engine.journalling import NewOf
from ragasync.engine.ticket import Ticket
from ragasync.errors import CostTooHigh
from ragasync.plan import Plan

T = TypeVar("T")

LINGER = 0.02
"""Seconds that an unfilled batch waits for a further item while there is a free slot."""

LOOK_AHEAD = 32
"""How many items are looked up at once in a journal that does so on a thread."""

PASSED_OVER = 1024
"""How many items that need no call are passed over for one batch before the loop turns."""


class Batches(Generic[T]):
    """
    Draws the items of one call.

    A batch leaves when it is full by count or cost, when the source ends, or when no further item
    has come for LINGER seconds. One lane forms a batch at a time, so that a slow source fills one
    batch and not as many as there are lanes; the others rest meanwhile.

    Args:
        feed: where the items come from.
        size: says how many items the next batch may have, given how many were drawn.
        plan: says whether there are batches, and what bounds them by cost.
        clock: the run's clock.
        refuse: called with index, item and error for an item that can go in no batch.
        new_of: returns those of some items that are to be called; None: all of them.
        is_list: whether drawing an item takes no time, so that some may be looked up together.

    Attributes:
        forming: whether a lane is putting a batch together.
    """

    def __init__(
        self,
        feed: Feed[T],
        size: Callable[[int], int],
        plan: Plan[T, Any],
        clock: Clock,
        refuse: Callable[[int, T, Exception], None],
        new_of: NewOf[T] | None = None,
        *,
        is_list: bool = False,
    ) -> None:
        self._feed = feed
        self._size = size
        self._clock = clock
        self._numbered = plan.batched or plan.in_hops
        self._cost = plan.cost if plan.max_batch_cost is not None else None
        self._max_cost = plan.max_batch_cost or 0.0
        self._refuse = refuse
        self._new_of = new_of
        on_thread = plan.journal is not None and plan.journal.on_thread
        self._ahead = LOOK_AHEAD if is_list and on_thread else 0
        self._looked_up: deque[tuple[int, T]] = deque()
        self._carried: tuple[int, T, float] | None = None
        self.forming = False
        self._drawn = 0
        self._batches = 0

    @property
    def left_over(self) -> bool:
        """Whether an item that was drawn waits for the next batch."""
        return self._carried is not None or bool(self._looked_up)

    async def next(self) -> Ticket[T] | None:
        """Return the next ticket, or None when nothing is at hand."""
        self.forming = True
        try:
            form = self._form()
            rows = await form(self._size(self._drawn))
        finally:
            self.forming = False
        if not rows:
            return None
        self._drawn = rows[-1][0] + 1
        number = -1
        if self._numbered:
            number, self._batches = self._batches, self._batches + 1
        indices, items = zip(*rows, strict=True)
        return Ticket(indices, items, batch=number)

    def _form(self) -> Callable[[int], Awaitable[list[tuple[int, T]]]]:
        """Return the way in which batches are formed."""
        if self._cost is not None:
            return self._by_cost
        return self._by_count if self._new_of is None else self._of_new

    async def _of_new(self, size: int) -> list[tuple[int, T]]:
        """Draw so many items that are to be called, or what comes before the batch has to leave."""
        assert self._new_of is not None
        rows: list[tuple[int, T]] = []
        drawn, most, late = 0, size + PASSED_OVER, 0
        while len(rows) < size and drawn < most:
            missing = size - len(rows)
            if not self._looked_up:
                came = self._feed.take(max(missing, self._ahead), LINGER, self._clock)
                drawn += len(came)
                self._looked_up.extend(await self._new_of(came))
                late = missing - len(came)
            while self._looked_up and len(rows) < size:
                rows.append(self._looked_up.popleft())
            if late > 0 and not (rows and await self._feed.more(late, LINGER)):
                break
        return rows

    async def _by_count(self, size: int) -> list[tuple[int, T]]:
        """Draw so many items, or what comes before the batch has to leave."""
        feed, clock = self._feed, self._clock
        rows = feed.take(size, LINGER, clock)
        if 0 < len(rows) < size and await feed.more(size - len(rows), LINGER):
            rows += feed.take(size - len(rows), LINGER, clock)
        return rows

    async def _by_cost(self, size: int) -> list[tuple[int, T]]:
        """Draw as many items, while they weigh little enough together."""
        rows: list[tuple[int, T]] = []
        weight, passed_over = 0.0, 0
        # A source of nothing but such items must let the loop turn, and the run stop.
        while len(rows) < size and passed_over < PASSED_OVER:
            asked = self._clock()
            entry = await self._draw()
            if entry is None:
                if rows and await self._feed.more(1, LINGER):
                    continue
                break
            if entry == "known":
                passed_over += 1
                continue
            if entry == "refused":
                size -= 1
                continue
            index, item, cost = entry
            if weight + cost > self._max_cost and rows:
                self._carried = entry
                break
            weight += cost
            rows.append((index, item))
            if len(rows) > 1 and self._clock() - asked > LINGER:
                break
        return rows

    async def _draw(self) -> tuple[int, T, float] | Literal["known", "refused"] | None:
        """Draw the next item with its cost, or say why it needs no call; None: none is at hand."""
        if self._carried is not None:
            entry, self._carried = self._carried, None
            return entry
        assert self._cost is not None
        for index, item in self._feed.fresh:
            if self._new_of is not None and not await self._new_of([(index, item)]):
                return "known"
            try:
                cost = _checked_cost(self._cost(item), self._max_cost)
            except Exception as error:
                self._refuse(index, item, error)
                return "refused"
            return index, item, cost
        self._feed.ran_dry()
        return None


def _checked_cost(cost: Any, most: float) -> float:
    """Return what an item weighs, or raise if no batch can take it."""
    if not cost >= 0:
        raise ValueError(f"cost= must give a number of 0 or more for each item, got {cost!r}")
    if cost > most:
        raise CostTooHigh(
            f"this item alone costs {cost:g}, more than max_batch_cost={most:g} allows for a whole "
            f"batch: shorten it, or raise max_batch_cost"
        )
    return float(cost)
