"""How a call of a run waits for its limits, and what becomes of it if it cannot pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from ragasync.clock import Clock
from ragasync.engine.retry_queue import PendingCall
from ragasync.limits.combined import CombinedLimiter


class LimiterWait:
    """
    The gate of a run, and who waits before it.

    Args:
        gate: the limits.
        by_items: whether every item of a call takes a place of its own.

    Attributes:
        waited: seconds that calls waited, added up.
    """

    def __init__(self, gate: CombinedLimiter, *, by_items: bool) -> None:
        self._gate = gate
        self._by_items = by_items
        self._waiting: set[asyncio.Task[Any]] = set()
        self.waited = 0.0

    def __len__(self) -> int:
        """Return how many calls wait."""
        return len(self._waiting)

    @property
    def waiting(self) -> Collection[asyncio.Task[Any]]:
        """The tasks of the calls that wait."""
        return self._waiting

    @property
    def is_open(self) -> bool:
        """Whether nothing limits at all."""
        return self._gate.is_open

    async def wait(
        self, ticket: PendingCall[Any], clock: Clock, wanted: Callable[[], bool]
    ) -> None:
        """
        Wait until the gate lets a call through, if it is wanted then, and count the time.

        Raises:
            ValueError: the call weighs more than a limiter can ever grant.
            Exception: a limiter's own trouble.
        """
        task, asked = asyncio.current_task(), clock()
        assert task is not None  # a coroutine runs in a task
        self._waiting.add(task)
        try:
            calls = len(ticket) if self._by_items else 1
            await self._gate.admit(ticket.items, calls, wanted=wanted)
        finally:
            self._waiting.remove(task)
            waited = clock() - asked
            ticket.waited += waited
            self.waited += waited
