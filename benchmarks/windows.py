"""
The contenders of `scheduling.py`: ways to run an async function over items, so many at once.

To add one, write an async function of (work, items, at_once) and give it a line in CONTENDERS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from ragasync import AsyncBatchProcessor, BatchResult

Work: TypeAlias = Callable[[int], Awaitable[int]]

LONG = 60.0
"""A time limit, in seconds, that no call here reaches."""


async def bare_workers(work: Work, items: Sequence[int], at_once: int) -> list[int | None]:
    """Draw from one iterator: nothing caught, nothing recorded but the values."""
    values: list[int | None] = [None] * len(items)
    source = iter(enumerate(items))

    async def worker() -> None:
        for index, item in source:
            values[index] = await work(item)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return values


@dataclass(slots=True)
class Record:
    """What somebody would note of an item by hand."""

    index: int
    value: int | None
    error: Exception | None
    attempts: int
    started: float
    seconds: float


async def recording_workers(work: Work, items: Sequence[int], at_once: int) -> list[Record | None]:
    """Draw from one iterator, catch errors, take times and keep a record of every item."""
    records: list[Record | None] = [None] * len(items)
    source = iter(enumerate(items))

    async def worker() -> None:
        for index, item in source:
            began = time.monotonic()
            value = error = None
            try:
                value = await work(item)
            except Exception as raised:
                error = raised
            records[index] = Record(index, value, error, 1, began, time.monotonic() - began)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return records


async def timeout_each(work: Work, items: Sequence[int], at_once: int) -> list[Record | None]:
    """Record by hand, with an `asyncio.timeout` around each call."""

    async def in_time(item: int) -> int:
        async with asyncio.timeout(LONG):
            return await work(item)

    return await recording_workers(in_time, items, at_once)


async def wait_for_each(work: Work, items: Sequence[int], at_once: int) -> list[Record | None]:
    """Record by hand, with an `asyncio.wait_for` around each call."""

    async def in_time(item: int) -> int:
        return await asyncio.wait_for(work(item), LONG)

    return await recording_workers(in_time, items, at_once)


async def gather_and_semaphore(work: Work, items: Sequence[int], at_once: int) -> list[int]:
    """Make a task of every item, and let a semaphore hold them back."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: int) -> int:
        async with slots:
            return await work(item)

    return await asyncio.gather(*map(one, items))


async def ragasync(
    work: Work, items: Sequence[int], at_once: int, timeout: float | None = None
) -> BatchResult[int]:
    """Process with everything that a run of ragasync does."""
    processor = AsyncBatchProcessor[int, int](work, max_concurrency=at_once, timeout=timeout)
    return await processor.process(items)


def as_they_are(given: Any) -> Sequence[int]:
    """Return the values of a contender that gives a list of them."""
    values: Sequence[int] = given
    return values


def from_records(given: Any) -> Sequence[int]:
    """Return the values that records hold."""
    return [record.value for record in given]


def from_result(given: Any) -> Sequence[int]:
    """Return the values of a BatchResult that calls every item done."""
    assert given.all_succeeded
    values: Sequence[int] = given.results
    return values


@dataclass(frozen=True)
class Contender:
    """A way to run a function over items, and how to read the values from what it gives."""

    run: Callable[[Work, Sequence[int], int], Awaitable[object]]
    values: Callable[[Any], Sequence[int]] = as_they_are
    most_items: int = 1_000_000
    """Beyond, it would take minutes or gigabytes."""


REFERENCE = "hand-made workers with a record"

CONTENDERS = {
    "hand-made workers, bare": Contender(bare_workers),
    REFERENCE: Contender(recording_workers, from_records),
    "gather and semaphore": Contender(gather_and_semaphore, most_items=100_000),
    "ragasync": Contender(ragasync, from_result),
}

WITH_A_TIME_LIMIT = {
    REFERENCE: CONTENDERS[REFERENCE],
    "the same, asyncio.timeout": Contender(timeout_each, from_records, most_items=100_000),
    "the same, asyncio.wait_for": Contender(wait_for_each, from_records, most_items=100_000),
    "ragasync": CONTENDERS["ragasync"],
    "ragasync, timeout=": Contender(partial(ragasync, timeout=LONG), from_result),
}
