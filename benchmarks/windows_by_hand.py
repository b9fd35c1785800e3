"""
Ways to run an async function over items, with bounded concurrency, written by hand.

Each is an async function of (work, items, at_once); `windows.py` names them as contenders.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

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


async def queue_and_workers(work: Work, items: Sequence[int], at_once: int) -> list[int | None]:
    """Put every item into a queue, and let workers take from it until they are cancelled."""
    values: list[int | None] = [None] * len(items)
    queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    for numbered in enumerate(items):
        queue.put_nowait(numbered)

    async def worker() -> None:
        while True:
            index, item = await queue.get()
            values[index] = await work(item)
            queue.task_done()

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    await queue.join()
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return values


async def task_in_a_window(work: Work, items: Sequence[int], at_once: int) -> list[int | None]:
    """Make a task of each item, as soon as one of those in the window has ended."""
    values: list[int | None] = [None] * len(items)
    running: set[asyncio.Task[None]] = set()

    async def one(index: int, item: int) -> None:
        values[index] = await work(item)

    for index, item in enumerate(items):
        if len(running) >= at_once:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        running.add(asyncio.create_task(one(index, item)))
    await asyncio.gather(*running)
    return values


async def chunked_gather(work: Work, items: Sequence[int], at_once: int) -> list[int]:
    """Gather a group of items, and begin the next group when its slowest has ended."""
    values: list[int] = []
    for start in range(0, len(items), at_once):
        values += await asyncio.gather(*map(work, items[start : start + at_once]))
    return values


async def gather_and_semaphore(work: Work, items: Sequence[int], at_once: int) -> list[int]:
    """Make a task of every item, and let a semaphore hold them back."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: int) -> int:
        async with slots:
            return await work(item)

    return await asyncio.gather(*map(one, items))


async def group_and_semaphore(work: Work, items: Sequence[int], at_once: int) -> list[int]:
    """Make a task of every item in a TaskGroup, and let a semaphore hold them back."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: int) -> int:
        async with slots:
            return await work(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]
