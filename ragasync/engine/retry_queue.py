"""Where failed calls wait for their next attempt, without holding a slot."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

from ragasync.clock import Clock
from ragasync.engine.ticket import PendingCall

T = TypeVar("T")


HELD_SECONDS = 1.0
"""Seconds that the parts of the first failed batch wait for a second batch, at the most."""


class RetryQueue(Generic[T]):
    """
    Tickets that wait for an instant, the earliest first, ties in order of arrival.

    Args:
        clock: the run's clock.
        on_due: called, on the loop, when a ticket has become due.
        context: what timers see of context variables.

    Attributes:
        items: how many items the waiting tickets have in all.
    """

    def __init__(self, clock: Clock, on_due: Callable[[], None], context: Context) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._clock = clock
        self._on_due = on_due
        self._heap: list[tuple[float, int, PendingCall[T]]] = []
        self._held: deque[PendingCall[T]] = deque()
        self._arrivals = 0
        self.items = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = float("inf")
        self._release_timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap) + len(self._held)

    @property
    def holds_any(self) -> bool:
        """Whether a ticket is held back for a batch that may come."""
        return bool(self._held)

    @property
    def has_due(self) -> bool:
        """Whether a ticket is due now."""
        return bool(self._heap) and self._heap[0][0] <= self._clock()

    def park(self, ticket: PendingCall[T], delay: float) -> None:
        """Let a ticket wait so many seconds."""
        ticket.parked_at = self._clock()
        self.items += len(ticket)
        self._arrivals += 1
        heapq.heappush(self._heap, (ticket.parked_at + delay, self._arrivals, ticket))
        self._set_timer()

    def pop_due(self) -> PendingCall[T] | None:
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

    def hold(self, ticket: PendingCall[T]) -> None:
        """Let a ticket wait until it is released, or asked for, but no longer than HELD_SECONDS."""
        ticket.parked_at = self._clock()
        self.items += len(ticket)
        self._held.append(ticket)
        if self._release_timer is None:
            self._release_timer = self._loop.call_later(
                HELD_SECONDS, self.release, context=self._context
            )

    def pop_held(self) -> PendingCall[T] | None:
        """Take the first ticket that is held back, if any."""
        if not self._held:
            return None
        ticket = self._held.popleft()
        self.items -= len(ticket)
        return ticket

    def release(self) -> None:
        """Let what is held back go before new items."""
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        while (ticket := self.pop_held()) is not None:
            self.park(ticket, 0.0)

    def close(self) -> None:
        """Stop the timers; what still waits is not tried again."""
        if self._release_timer is not None:
            self._release_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def let_go(self) -> None:
        """Drop what still waits: the run is over."""
        self._heap.clear()
        self._held.clear()

    def _set_timer(self) -> None:
        """Have `on_due` called when the first is due, unless that is arranged already."""
        due = self._heap[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(
            max(0.0, due - self._clock()), self._fire, context=self._context
        )

    def _fire(self) -> None:
        """Report what is due; a timer may be early."""
        self._timer = None
        if self.has_due:
            self._on_due()
        elif self._heap:
            self._set_timer()
