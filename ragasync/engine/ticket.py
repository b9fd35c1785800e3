"""What goes into one call, and what has become of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ragasync.outcomes.outcome import Attempt

T = TypeVar("T")


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
