"""A scripted service to call: it takes its time, fails as told, and notes who called when."""

import asyncio
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

import pytest


def now() -> float:
    """The time of the running loop, which is virtual in most tests."""
    return asyncio.get_running_loop().time()


def about(seconds: Any) -> Any:
    """A virtual time, but for what floats lose."""
    return pytest.approx(seconds, abs=1e-6)


class Refused(Exception):
    """An HTTP error as clients raise it."""

    def __init__(self, status: int, retry_after: float | None = None, message: str = "") -> None:
        super().__init__(message or f"status {status}")
        self.status_code = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


class Service:
    """
    An async function of one item that returns ten times the item.

    Args:
        seconds: how long a call takes: one number, or a number for each item.
        errors: what calls with an item raise, in turn; a single error is raised for ever.
    """

    def __init__(
        self,
        seconds: float | Sequence[float] = 1.0,
        errors: dict[int, Iterable[Exception] | Exception] | None = None,
    ) -> None:
        self._seconds = seconds
        self._errors = {
            item: error if isinstance(error, Exception) else list(error)
            for item, error in (errors or {}).items()
        }
        self.calls: list[tuple[int, float]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.cancelled: list[int] = []

    async def __call__(self, item: int) -> int:
        """Answer after a while."""
        self.calls.append((item, now()))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(
                self._seconds if isinstance(self._seconds, int | float) else self._seconds[item]
            )
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        finally:
            self.in_flight -= 1
        error = self._errors.get(item)
        if isinstance(error, list):
            error = error.pop(0) if error else None
        if error is not None:
            raise error
        return 10 * item

    def starts_of(self, item: int) -> list[float]:
        """When this item was called."""
        return [at for called, at in self.calls if called == item]

    @property
    def items(self) -> list[int]:
        """The items, in the order of their calls."""
        return [item for item, _ in self.calls]

    @property
    def starts(self) -> list[float]:
        """The times of all calls."""
        return [at for _, at in self.calls]


class BatchService:
    """
    A batched async function that returns ten times each item.

    Args:
        poison: what a call raises that has one of these items.
        outage: what the next calls raise, in turn, whatever they have.
        seconds: how long a call takes.
    """

    def __init__(
        self,
        poison: dict[int, Exception] | None = None,
        outage: Iterable[Exception] = (),
        seconds: float = 1.0,
    ) -> None:
        self._poison = poison or {}
        self._outage = list(outage)
        self._seconds = seconds
        self.batches: list[list[int]] = []
        self.starts: list[float] = []

    async def __call__(self, items: list[int]) -> list[int]:
        """Answer for all after a while."""
        assert isinstance(items, list)
        self.batches.append(items)
        self.starts.append(now())
        await asyncio.sleep(self._seconds)
        if self._outage:
            raise self._outage.pop(0)
        for item in items:
            if item in self._poison:
                raise self._poison[item]
        return [10 * item for item in items]

    @property
    def sizes(self) -> list[int]:
        """The number of items in each call."""
        return [len(batch) for batch in self.batches]


async def read_into(seen: list[Any], source: AsyncIterable[Any]) -> None:
    """Append what an async iterable gives, which may end in an error."""
    async for each in source:
        seen.append(each)  # noqa: PERF401  # what came before an error is wanted


async def turns(count: int = 5) -> None:
    """Let every task run as far as it can without the clock moving."""
    for _ in range(count):
        await asyncio.sleep(0)


def other_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of this loop, without the test itself."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
