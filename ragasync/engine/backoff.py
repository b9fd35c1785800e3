"""Where failed calls wait for their next attempt, without holding a slot."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from ragasync.clock import Clock
from ragasync.engine.ticket import Ticket

T = TypeVar("T")


class BackoffLine(Generic[T]):
    """
    Tickets that wait for an instant, the earliest first, ties in order of arrival.

    Args:
        clock: the run's clock.
        on_due: called, on the loop, when a ticket has become due.

    Attributes:
        items: how many items the waiting tickets have in all.
    """

    def __init__(self, clock: Clock, on_due: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._on_due = on_due
        self._heap: list[tuple[float, int, Ticket[T]]] = []
        self._arrivals = 0
        self.items = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = float("inf")

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def has_due(self) -> bool:
        """Whether a ticket is due now."""
        return bool(self._heap) and self._heap[0][0] <= self._clock()

    def park(self, ticket: Ticket[T], delay: float) -> None:
        """Let a ticket wait so many seconds."""
        ticket.parked_at = self._clock()
        self.items += len(ticket)
        self._arrivals += 1
        heapq.heappush(self._heap, (ticket.parked_at + delay, self._arrivals, ticket))
        self._set_timer()

    def pop_due(self) -> Ticket[T] | None:
        """Take the first ticket that is due, if any; note how long it waited between attempts."""
        if not self.has_due:
            return None
        ticket = heapq.heappop(self._heap)[2]
        self.items -= len(ticket)
        if ticket.attempts:  # else it was a pause that held it back
            ticket.backed_off += self._clock() - ticket.parked_at
        if self._heap:
            self._set_timer()
        return ticket

    def close(self) -> None:
        """Stop the timer; what still waits is not tried again."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        """Have `on_due` called when the first is due, unless that is arranged already."""
        due = self._heap[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._fire)

    def _fire(self) -> None:
        """Report what is due; a timer may be early."""
        self._timer = None
        if self.has_due:
            self._on_due()
        elif self._heap:
            self._set_timer()
