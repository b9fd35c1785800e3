"""Calls that are still pending, and the queue in which they wait for their next attempt."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ragasync.clock import Clock
from ragasync.outcomes.outcome import Attempt

T = TypeVar("T")


HELD_SECONDS = 1.0
"""Seconds that the parts of the first failed batch wait for a second batch, at the most."""


@dataclass(slots=True)
class RetryBudget:
    """How many retries were spent; one for a ticket and all the parts it is split into."""

    spent: int = 0


@dataclass(slots=True, eq=False)
class PendingCall(Generic[T]):
    """
    The items of one call (one, or a batch) on their way through attempts, waits and back-off.

    All times are in seconds; `started` and `parked_at` are instants on the run's clock.
    """

    indices: Sequence[int]
    items: Sequence[T]
    batch: int = -1
    attempts: int = 0
    started: float = -1.0
    seconds: float = 0.0
    waited: float = 0.0
    backed_off: float = 0.0
    parked_at: float = -1.0
    retries: RetryBudget = field(default_factory=RetryBudget)
    history: tuple[Attempt, ...] = ()
    suspect: bool = False
    """Whether a worker may have died of one of its items."""
    is_part: bool = False
    """Whether it is some of the items of a call that failed as a whole."""
    error: BaseException | None = None
    """What the last attempt raised, where this ticket waits for a retry that has a deadline."""

    def __len__(self) -> int:
        return len(self.indices)

    def add_attempt(self, seconds: float) -> None:
        """Count an attempt, and the time that it took."""
        self.attempts += 1
        self.seconds += seconds

    def log(self, started: float, seconds: float, error: str, delay: float, worker: int) -> None:
        """Keep what became of the attempt just made, which is not the last."""
        waited = max(0.0, self.waited - sum(earlier.waited for earlier in self.history))
        self.history += (Attempt(started, seconds, error, delay, waited, worker),)

    def halves(self) -> tuple[PendingCall[T], PendingCall[T]]:
        """Return the two parts that this ticket splits into; they share its retries."""
        middle = len(self.indices) // 2
        first, second = self.part(0, middle), self.part(middle, len(self.indices))
        first.is_part = second.is_part = True
        return first, second

    def alone(self, place: int) -> PendingCall[T]:
        """Return one of its items as a ticket with the same past, whose retries are its own."""
        return replace(self.part(place, place + 1), retries=RetryBudget(self.retries.spent))

    def some(self, places: Sequence[int]) -> PendingCall[T]:
        """Return the items at these places as a ticket with the same past and the same retries."""
        indices, items = self.indices, self.items
        return replace(
            self, indices=[indices[at] for at in places], items=[items[at] for at in places]
        )

    def part(self, start: int, stop: int) -> PendingCall[T]:
        """Return some of its items as a ticket with the same past and the same retries."""
        return replace(self, indices=self.indices[start:stop], items=self.items[start:stop])


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
