"""What goes into one call, and what has become of it so far."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ragasync.outcome import Attempt

T = TypeVar("T")


@dataclass(slots=True)
class Retries:
    """How many retries were spent; one for a ticket and all the parts it is split into."""

    spent: int = 0


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
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
    retries: Retries = field(default_factory=Retries)
    history: tuple[Attempt, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def halves(self) -> tuple[Ticket[T], Ticket[T]]:
        """Return the two parts that this ticket splits into; they share its retries."""
        middle = len(self.indices) // 2
        return self.part(0, middle), self.part(middle, len(self.indices))

    def part(self, start: int, stop: int) -> Ticket[T]:
        """Return some of its items as a ticket with the same past and the same retries."""
        return replace(self, indices=self.indices[start:stop], items=self.items[start:stop])


class BackoffLine(Generic[T]):
    """Tickets that wait for their next attempt, the earliest first, ties in order of arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Ticket[T]]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_due(self) -> float:
        """The instant at which the first is due; infinity when none waits."""
        return self._heap[0][0] if self._heap else float("inf")

    def park(self, ticket: Ticket[T], due: float) -> None:
        """Let a ticket wait until the instant `due`."""
        self._arrivals += 1
        heapq.heappush(self._heap, (due, self._arrivals, ticket))

    def pop_due(self, now: float) -> Ticket[T] | None:
        """Take the first ticket that is due, if any."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None

    def clear(self) -> list[Ticket[T]]:
        """Take every ticket out, due or not."""
        tickets = [ticket for _, _, ticket in self._heap]
        self._heap.clear()
        return tickets
