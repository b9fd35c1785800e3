"""Pending calls, and the queue in which they wait for their next attempt without a worker."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Generic, Self, TypeVar

from ragasync._limits.combined import TokenGrant
from ragasync._outcomes.outcome import Attempt
from ragasync.clock import Clock
from ragasync.usage import Usage

T = TypeVar("T")


@dataclass(slots=True)
class RetryBudget:
    """The retries spent so far, shared by a call and all parts that it is split into."""

    spent: int = 0


@dataclass(slots=True, eq=False)
class PendingCall(Generic[T]):
    """
    The items of one call (one, or a batch) until they have an outcome, over all attempts.

    Durations are in seconds; `started` and `queued_at` are instants on the run's clock.
    """

    indices: Sequence[int]
    items: Sequence[T]
    batch: int | None = None
    attempts: int = 0
    started: float = -1.0
    seconds: float = 0.0
    waited: float = 0.0
    backed_off: float = 0.0
    queued_at: float = -1.0
    retries: RetryBudget = field(default_factory=RetryBudget)
    history: tuple[Attempt, ...] = ()
    isolate: bool = False
    """Whether one of its items may have killed a worker process, so that it must run alone."""
    is_part: bool = False
    """Whether it is a part of a batch that failed as a whole."""
    last_error: BaseException | None = None
    """What the last attempt raised, kept only if the retry policy has a max_elapsed."""
    usage: Sequence[Usage] | None = None
    """The usage that attempts so far have reported for each item, or None."""
    grant: TokenGrant | None = None
    """The places of the current attempt that its usage corrects, if there are any."""

    def __len__(self) -> int:
        return len(self.indices)

    def add_attempt(self, seconds: float) -> None:
        """Count an attempt and its duration."""
        self.attempts += 1
        self.seconds += seconds

    def add_usage(self, reported: Sequence[Usage]) -> None:
        """Add the usage that an attempt has reported for each item."""
        before = self.usage
        self.usage = reported if before is None else list(map(Usage.plus, before, reported))

    def halves(self) -> tuple[Self, Self]:
        """Split a failed batch in two parts, which share its retry budget."""
        middle = len(self) // 2
        first, second = self._part(0, middle), self._part(middle, len(self))
        first.is_part = second.is_part = True
        return first, second

    def single_item(self, position: int) -> Self:
        """Take one item out of a batch, with the batch's past and a retry budget of its own."""
        return replace(self._part(position, position + 1), retries=RetryBudget(self.retries.spent))

    def subset(self, positions: Sequence[int]) -> Self:
        """Keep the items at these positions of a batch, with its past and its retry budget."""
        return replace(
            self,
            indices=[self.indices[at] for at in positions],
            items=[self.items[at] for at in positions],
            usage=None if self.usage is None else [self.usage[at] for at in positions],
        )

    def uncalled(self, start: int, size: int) -> list[Self]:
        """Take the items of a group that were not called, from `start` on, `size` per call."""
        return [
            replace(
                self._part(at, min(at + size, len(self))),
                started=self.started if self.attempts else -1.0,
                retries=RetryBudget(self.retries.spent),
            )
            for at in range(start, len(self), size)
        ]

    def _part(self, start: int, stop: int) -> Self:
        """Slice a batch; the slice has its past and its retry budget."""
        usage = None if self.usage is None else self.usage[start:stop]
        return replace(
            self, indices=self.indices[start:stop], items=self.items[start:stop], usage=usage
        )


DEFER_SECONDS = 1.0
"""Seconds for which the parts of the first failed batch wait for the next batch, at most."""


class RetryQueue(Generic[T]):
    """
    Pending calls ordered by the time at which they are due, ties in order of arrival.

    Calls can also be deferred: they become due when they are released, or after DEFER_SECONDS.

    Args:
        on_change: called when a call was added or taken.
        on_due: called, on the loop, when the first call has become due.

    Attributes:
        items: how many items all waiting calls have together.
    """

    def __init__(
        self,
        clock: Clock,
        on_change: Callable[[], None],
        on_due: Callable[[], None],
        context: Context,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock, self._context = clock, context
        self._on_change, self._on_due = on_change, on_due
        self._heap: list[tuple[float, int, PendingCall[T]]] = []
        self._deferred: deque[PendingCall[T]] = deque()
        self._arrivals = 0
        self.items = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf
        self._release_timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap) + len(self._deferred)

    @property
    def has_due(self) -> bool:
        """Whether a call is due now."""
        return bool(self._heap) and self._heap[0][0] <= self._clock()

    @property
    def has_deferred(self) -> bool:
        """Whether a deferred call waits for its release."""
        return bool(self._deferred)

    def push(self, call: PendingCall[T], delay: float = 0.0) -> None:
        """Add a call that is due after `delay` seconds."""
        call.queued_at = self._clock()
        self.items += len(call)
        self._arrivals += 1
        heapq.heappush(self._heap, (call.queued_at + delay, self._arrivals, call))
        self._set_timer()
        self._on_change()

    def pop_due(self) -> PendingCall[T] | None:
        """Take the first call that is due, if any; add the time since its last attempt to it."""
        if not self.has_due:
            return None
        call = heapq.heappop(self._heap)[2]
        self.items -= len(call)
        if call.attempts:  # otherwise a pause held back its first attempt
            call.backed_off += self._clock() - call.queued_at
        if self._heap:
            self._set_timer()
        self._on_change()
        return call

    def defer(self, call: PendingCall[T]) -> None:
        """Add a call that waits until it is released or taken, for DEFER_SECONDS at most."""
        call.queued_at = self._clock()
        self.items += len(call)
        self._deferred.append(call)
        if self._release_timer is None:
            self._release_timer = self._loop.call_later(
                DEFER_SECONDS, self.release_deferred, context=self._context
            )
        self._on_change()

    def pop_deferred(self) -> PendingCall[T] | None:
        """Take the first deferred call, if any."""
        if not self._deferred:
            return None
        call = self._deferred.popleft()
        self.items -= len(call)
        self._on_change()
        return call

    def release_deferred(self) -> None:
        """Make all deferred calls due now, so that they go before new items."""
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        while (call := self.pop_deferred()) is not None:
            self.push(call)

    def close(self) -> None:
        """Stop the timers; calls that still wait are not tried again."""
        if self._release_timer is not None:
            self._release_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting(self) -> list[PendingCall[T]]:
        """All calls that wait, in no order."""
        return [*(call for _, _, call in self._heap), *self._deferred]

    def clear(self) -> None:
        """Drop the calls that still wait at the end of the run."""
        self._heap.clear()
        self._deferred.clear()

    def _set_timer(self) -> None:
        """Set the timer to the first due time, unless it fires by then anyway."""
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
        """Report that a call is due; timers may fire a little early, by the loop's resolution."""
        self._timer = None
        if self.has_due:
            self._on_due()
        elif self._heap:
            self._set_timer()
