"""Fake services whose values are ten times their items, and the small change of async tests."""

import asyncio
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

import pytest

from ragasync.testing import FakeBatchService, FakeService


def now() -> float:
    """The time of the running loop, which is virtual in most tests."""
    return asyncio.get_running_loop().time()


def about(seconds: Any) -> Any:
    """A virtual time, compared with a tolerance for rounding."""
    return pytest.approx(seconds, abs=1e-6)


class StatusError(Exception):
    """An HTTP error with its status and headers, as clients raise it."""

    def __init__(self, status: int, retry_after: float | None = None, message: str = "") -> None:
        super().__init__(message or f"status {status}")
        self.status_code = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


class Service(FakeService[int, int]):
    """A fake service whose values are ten times the items."""

    def __init__(
        self,
        seconds: float | Sequence[float] = 1.0,
        errors: dict[int, Iterable[Exception] | Exception] | None = None,
    ) -> None:
        super().__init__(ten_times, seconds=seconds, errors=errors)


class BatchService(FakeBatchService[int, int]):
    """A batched fake service whose values are ten times the items."""

    def __init__(
        self,
        errors: dict[int, Exception] | None = None,
        outage: Iterable[Exception] = (),
        seconds: float = 1.0,
    ) -> None:
        super().__init__(ten_times, seconds=seconds, errors=errors, outage=outage)


def ten_times(item: int) -> int:
    """The value of an item: another number, so that a test cannot mistake one for the other."""
    return 10 * item


async def read_into(seen: list[Any], source: AsyncIterable[Any]) -> None:
    """Append the values of an async iterable to a list, which keeps them if it raises."""
    async for each in source:
        seen.append(each)  # noqa: PERF401  # a comprehension would lose them


async def turns(count: int = 5) -> None:
    """Run every task for some turns of the loop, while the clock stands still."""
    for _ in range(count):
        await asyncio.sleep(0)


def other_tasks() -> set[asyncio.Task[Any]]:
    """All tasks of this loop except the test itself."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
