"""
Fakes for tests of code that makes calls: a virtual clock, and services that follow a script.

    loop         VirtualClockLoop, run_on_virtual_clock: hours of waiting take no time
    services     FakeService, FakeBatchService: exact scripts, which record every call
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Generic, TypeVar, cast

from ragasync.arguments import check_seconds
from ragasync.simulation.simulate import VirtualClockLoop, run_on_virtual_clock

__all__ = ["FakeBatchService", "FakeService", "VirtualClockLoop", "run_on_virtual_clock"]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)


T = TypeVar("T")
R = TypeVar("R")


class FakeService(Generic[T, R]):
    """
    An async function of one item with exact latencies and errors, which records its calls.

    For a service that fails at random, by rates, see `ragasync.simulation.ScriptedService`.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> from ragasync.testing import FakeService, run_on_virtual_clock
        >>> service = FakeService(str.upper, seconds=2.0, errors={"b": [ConnectionError("gone")]})
        >>> embed = AsyncBatchProcessor(service, max_concurrency=2, retry_delay=0.0)
        >>> run_on_virtual_clock(embed.process(["a", "b", "c"])).results
        ['A', 'B', 'C']
        >>> service.calls
        [('a', 0.0), ('b', 0.0), ('b', 2.0), ('c', 2.0)]

    Args:
        answer: returns the value for an item.
        seconds: how long a call takes, on the clock of the running loop; or a mapping or sequence
            that gives it for each item.
        errors: what the calls with an item raise, one after the other, before they succeed; a
            single exception is raised by every call.

    Attributes:
        calls: each call's item and start, on the loop's clock.
        in_flight: how many calls are in flight.
        most_in_flight: the most calls that have been in flight together.
        cancelled: the items whose calls were cancelled.
    """

    def __init__(
        self,
        answer: Callable[[T], R],
        *,
        seconds: float | timedelta | Sequence[float] | Mapping[T, float] = 1.0,
        errors: Mapping[T, Iterable[Exception] | Exception] | None = None,
    ) -> None:
        self._answer = answer
        self._seconds: float | Sequence[float] | Mapping[T, float] = (
            seconds
            if isinstance(seconds, Sequence | Mapping)
            else check_seconds("seconds", seconds)
        )
        self._errors = {
            item: error if isinstance(error, Exception) else list(error)
            for item, error in (errors or {}).items()
        }
        self.calls: list[tuple[T, float]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.cancelled: list[T] = []

    async def __call__(self, item: T) -> R:
        """Take the call's time, then return the item's value or raise its next error."""
        self.calls.append((item, asyncio.get_running_loop().time()))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._seconds_of(item))
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        finally:
            self.in_flight -= 1
        error = self._errors.get(item) if self._errors else None
        if isinstance(error, list):
            error = error.pop(0) if error else None
        if error is not None:
            raise error
        return self._answer(item)

    def __repr__(self) -> str:
        return f"<FakeService {len(self.calls):,} calls, {self.in_flight:,} in flight>"

    @property
    def items(self) -> list[T]:
        """The items, in the order of their calls."""
        return [item for item, _ in self.calls]

    @property
    def starts(self) -> list[float]:
        """The start times of all calls."""
        return [started for _, started in self.calls]

    def starts_of(self, item: T) -> list[float]:
        """The start times of the calls with this item."""
        return [started for called, started in self.calls if called == item]

    def _seconds_of(self, item: T) -> float:
        """How long a call with this item takes."""
        if isinstance(self._seconds, int | float):
            return self._seconds
        return cast("Mapping[T, float]", self._seconds)[item]


class FakeBatchService(Generic[T, R]):
    """
    A batched async function with exact errors, which records its batches.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> from ragasync.testing import FakeBatchService, run_on_virtual_clock
        >>> service = FakeBatchService(len, errors={"": ValueError("empty")})
        >>> embed = AsyncBatchProcessor(service, 2, 1, retry_count=0, batched=True)
        >>> run_on_virtual_clock(embed.process(["a", "", "abc"])).results
        [1, None, 3]
        >>> service.batches  # the batch with the empty text was split
        [['a', ''], ['a'], [''], ['abc']]

    Args:
        answer: returns the value for an item.
        seconds: how long a call takes, on the clock of the running loop.
        errors: what each call raises that has one of these items.
        outage: what the first calls raise, one after the other, whatever their items.

    Attributes:
        batches: the items of each call.
        starts: when each call started, on the loop's clock.
    """

    def __init__(
        self,
        answer: Callable[[T], R],
        *,
        seconds: float | timedelta = 1.0,
        errors: Mapping[T, Exception] | None = None,
        outage: Iterable[Exception] = (),
    ) -> None:
        self._answer, self._seconds = answer, check_seconds("seconds", seconds)
        self._errors, self._outage = dict(errors or {}), list(outage)
        self.batches: list[list[T]] = []
        self.starts: list[float] = []

    async def __call__(self, items: list[T]) -> list[R]:
        """Take the call's time, then return the values of the items or raise an error."""
        self.batches.append(items)
        self.starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._seconds)
        if self._outage:
            raise self._outage.pop(0)
        for item in items:
            if item in self._errors:
                raise self._errors[item]
        return [self._answer(item) for item in items]

    def __repr__(self) -> str:
        return f"<FakeBatchService {len(self.batches):,} calls>"

    @property
    def sizes(self) -> list[int]:
        """The number of items in each call."""
        return list(map(len, self.batches))
