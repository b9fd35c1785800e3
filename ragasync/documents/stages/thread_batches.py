"""Sync calls of many callers, made on threads, of the quick ones several in one hop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from ragasync.clock import loop_clock
from ragasync.lazy_task import create_lazy_task
from ragasync.outcomes.activity import ActivityMonitor

T = TypeVar("T")
V = TypeVar("V")

HOP = 0.005
"""Seconds that the items of one hop should take together."""

MOST_ITEMS = 32
"""The most items in one hop."""

WORTH_A_THREAD = 0.001
"""Seconds of work for which a further thread is busied."""


@dataclass(frozen=True, slots=True)
class HopOutcome(Generic[V]):
    """What became of the first items of a hop, a value or an error each, and what they took."""

    values: list[V | None]
    errors: dict[int, BaseException]
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchCall(Generic[T, V]):
    """Calls a function for several items on a thread, for as many as there is time for."""

    function: Callable[[T], V]

    def __call__(self, items: Sequence[T]) -> HopOutcome[V]:
        """Return what became of the items, or of as many as there was time for."""
        values: list[V | None] = []
        errors: dict[int, BaseException] = {}
        began = time.perf_counter()
        seconds = 0.0
        for place, item in enumerate(items):
            value = None
            try:
                value = self.function(item)
            except BaseException as error:  # the caller's, not this thread's
                errors[place] = error
            values.append(value)
            seconds = time.perf_counter() - began
            if seconds > 2 * HOP:
                break
        return HopOutcome(values, errors, seconds)


class ThreadBatcher(Generic[T, V]):
    """
    Sends items to threads, together where they are quick.

    To change threads costs more than to cut a short document. So a hop takes as many items as
    need HOP seconds by the latest ones: dozens of the short, and one of those that take their
    time. Where one takes longer than it should, the rest of its hop comes back and goes first in
    the next.

    Every hop sees the context that the first caller came with, and not that of the document which
    happens to send it and may have set some variable since.

    Args:
        call: makes an InOneHop's call on a thread.
        at_once: how many threads may be busy.

    Attributes:
        activity: when threads were busy.
        ended: the items that a hop was made for.
    """

    def __init__(
        self, call: Callable[[Sequence[T]], Awaitable[HopOutcome[V]]], max_concurrency: int
    ) -> None:
        self._call = call
        self._max_concurrency = max_concurrency
        self._loop = asyncio.get_running_loop()
        self._context: Context | None = None
        self._waiting: deque[tuple[T, asyncio.Future[V]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._typical: float | None = None
        self._size = 1
        self._unnoted = 0.0
        self.activity = ActivityMonitor(loop_clock(self._loop))
        self.ended = 0

    @property
    def in_flight(self) -> int:
        """How many threads are busy."""
        return len(self._under_way)

    @property
    def ahead(self) -> int:
        """How many items it pays to have here: as many as go into all hops at once."""
        return self._max_concurrency * self._size

    async def __call__(self, item: T) -> V:
        """Return what the function gives for an item, or raise what it raises."""
        future: asyncio.Future[V] = self._loop.create_future()
        self._waiting.append((item, future))
        if self._context is None:
            self._context = copy_context()
        self._send()
        return await future

    def here(self, function: Callable[[T], V], item: T) -> V:
        """Return what a function gives for an item, called here: a thread would cost more."""
        began = time.perf_counter()
        try:
            return function(item)
        finally:
            self.ended += 1
            self._unnoted += time.perf_counter() - began
            if self._unnoted > WORTH_A_THREAD:  # not each, for some take less than their noting
                self.activity.add_ended_now(self._unnoted)
                self._unnoted = 0.0

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _send(self) -> None:
        """Let hops begin, while there are threads for them and enough to do."""
        while self._waiting and len(self._under_way) < self._max_concurrency:
            if self._under_way and len(self._waiting) * (self._typical or HOP) < WORTH_A_THREAD:
                return
            hop = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
            if hop := [entry for entry in hop if not entry[1].done()]:
                assert self._context is not None  # of the first caller; there is one by now
                context = self._context.copy()
                task = create_lazy_task(
                    self._make(hop), self._loop, name="ragasync hop", context=context
                )
                self._under_way.add(task)

    def _learn(self, seconds: float) -> None:
        """Note what an item took of late."""
        typical = seconds if self._typical is None else self._typical
        self._typical = typical + (seconds - typical) / 4
        self._size = max(1, min(MOST_ITEMS, int(HOP / max(self._typical, 1e-9))))

    async def _make(self, hop: list[tuple[T, asyncio.Future[V]]]) -> None:
        """Make a hop, and hand each caller what became of its item."""
        try:
            outcome = await self._call([item for item, _ in hop])
        except Exception as error:  # no item's: a thread could not be had
            for _, future in hop:
                _settle(future, None, error)
        else:
            done = len(outcome.values)
            self.activity.add_ended_now(outcome.seconds)
            self.ended += done
            self._learn(outcome.seconds / done)
            for place, value in enumerate(outcome.values):
                _settle(hop[place][1], value, outcome.errors.get(place))
            self._waiting.extendleft(reversed(hop[done:]))
        finally:
            task = asyncio.current_task()
            assert task is not None  # a coroutine runs in a task
            self._under_way.discard(task)
        self._send()


def _settle(future: asyncio.Future[V], value: V | None, error: BaseException | None) -> None:
    """Give a caller its value or its error, if it still wants it."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)  # type: ignore[arg-type]  # without an error there is a value
