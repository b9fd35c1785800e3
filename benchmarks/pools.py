"""
The contenders of `sync_functions.py`: ways to run a sync function on threads or processes.

To add one, write an async function of (work, items, at_once, pool) and give it a line in THREADS or
in PROCESSES. The pool is warm: its workers have started.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from measuring import installed

from ragasync import AsyncBatchProcessor, BatchResult

Work: TypeAlias = Callable[[int], int]
Run: TypeAlias = Callable[[Work, Sequence[int], int, Executor], Awaitable[Sequence[int | None]]]
MakePool: TypeAlias = Callable[[int], Executor]

LATENCY = 0.005
"""Seconds that a call on a thread takes: a small request to a service nearby."""


def wait_and_double(item: int) -> int:
    """Wait as for a service, and return twice the item."""
    time.sleep(LATENCY)
    return 2 * item


def double(item: int) -> int:
    """Return twice the item."""
    return 2 * item


def warm_threads(at_once: int) -> Executor:
    """Return a pool of so many threads, all of which have met."""
    pool = ThreadPoolExecutor(at_once)
    meeting = threading.Barrier(at_once)
    list(pool.map(lambda _: meeting.wait(), range(at_once)))
    return pool


def warm_processes(at_once: int) -> Executor:
    """Return Python's own pool of so many processes, which have imported this file."""
    return _warmed(ProcessPoolExecutor(at_once))


def warm_loky(at_once: int) -> Executor:
    """Return loky's pool of so many processes."""
    import loky

    return _warmed(loky.ProcessPoolExecutor(at_once))


def _warmed(pool: Executor) -> Executor:
    """Return the pool when its workers have begun to answer."""
    list(pool.map(double, range(200)))
    return pool


# ── threads ─────────────────────────────────────────────────────────────────────────────────


async def raw_threads(
    work: Work, items: Sequence[int], at_once: int, _: Executor
) -> list[int | None]:
    """Start threads that draw from one iterator; the loop stands still meanwhile."""
    values: list[int | None] = [None] * len(items)
    source = iter(enumerate(items))  # the C code of its `next` holds the interpreter's lock

    def draw() -> None:
        for index, item in source:
            values[index] = work(item)

    threads = [threading.Thread(target=draw) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return values


async def map_of_pool(
    work: Work, items: Sequence[int], _: int, pool: Executor, chunk: int = 1
) -> list[int]:
    """Map with the pool's own method; the loop stands still meanwhile."""
    return list(pool.map(work, items, chunksize=chunk))


async def on_run_in_executor(
    work: Work, items: Sequence[int], at_once: int, pool: Executor
) -> list[int | None]:
    """Draw from one iterator in tasks, each of which awaits the pool."""
    loop = asyncio.get_running_loop()

    def call(item: int) -> Awaitable[int]:
        return loop.run_in_executor(pool, work, item)

    return await _drawing_tasks(call, items, at_once)


async def on_to_thread(
    work: Work, items: Sequence[int], at_once: int, pool: Executor, *, own_pool: bool = False
) -> list[int | None]:
    """Do the same with `asyncio.to_thread`, on the loop's default pool or with another in place."""
    if own_pool:
        assert isinstance(pool, ThreadPoolExecutor)
        asyncio.get_running_loop().set_default_executor(pool)
    return await _drawing_tasks(lambda item: asyncio.to_thread(work, item), items, at_once)


async def _drawing_tasks(
    call: Callable[[int], Awaitable[int]], items: Sequence[int], at_once: int
) -> list[int | None]:
    """Draw from one iterator in so many tasks."""
    values: list[int | None] = [None] * len(items)
    source = iter(enumerate(items))

    async def draw() -> None:
        for index, item in source:
            values[index] = await call(item)

    await asyncio.gather(*(draw() for _ in range(at_once)))
    return values


async def langchain_abatch(
    work: Work, items: Sequence[int], at_once: int, _: Executor
) -> list[int]:
    """Await LangChain's batch of a sync function, which goes to the loop's default pool."""
    from langchain_core.runnables import RunnableLambda

    given: list[int] = await RunnableLambda(work).abatch(
        list(items), config={"max_concurrency": at_once}
    )
    return given


async def langchain_batch(work: Work, items: Sequence[int], at_once: int, _: Executor) -> list[int]:
    """Call LangChain's sync batch, which has a pool of its own; the loop stands still meanwhile."""
    from langchain_core.runnables import RunnableLambda

    given: list[int] = RunnableLambda(work).batch(list(items), config={"max_concurrency": at_once})
    return given


async def ragasync_threads(
    work: Work, items: Sequence[int], at_once: int, _: Executor
) -> Sequence[int | None]:
    """Process with everything that a run of ragasync does, on threads of its own."""
    return _values(await AsyncBatchProcessor[int, int](work, 32, at_once).process(items))


# ── processes ───────────────────────────────────────────────────────────────────────────────


async def ragasync_processes(
    work: Work, items: Sequence[int], _: int, pool: Executor, batch_size: int = 32
) -> Sequence[int | None]:
    """Process in groups to the pool, with the calls at once that are the default."""
    processor = AsyncBatchProcessor[int, int](work, batch_size, executor=pool)
    return _values(await processor.process(items))


def _values(result: BatchResult[int]) -> Sequence[int | None]:
    """Return the values of a result that calls every item done."""
    assert result.all_succeeded, result
    return result.results


@dataclass(frozen=True)
class Contender:
    """A way to run a function over items, what it runs on, and which packages it needs."""

    run: Run
    pool: MakePool
    needs: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether its packages are installed."""
        return installed(*self.needs)


RAW, THREAD_MAP = "raw threads that draw", "ThreadPoolExecutor.map"

THREADS = {
    RAW: Contender(raw_threads, warm_threads),
    THREAD_MAP: Contender(map_of_pool, warm_threads),
    "workers on run_in_executor": Contender(on_run_in_executor, warm_threads),
    "workers on to_thread, a pool of its own": Contender(
        partial(on_to_thread, own_pool=True), warm_threads
    ),
    f"workers on to_thread, default pool ({min(32, (os.cpu_count() or 1) + 4)})": Contender(
        on_to_thread, warm_threads
    ),
    "LangChain batch": Contender(langchain_batch, warm_threads, ("langchain_core",)),
    "LangChain abatch": Contender(langchain_abatch, warm_threads, ("langchain_core",)),
    "ragasync": Contender(ragasync_threads, warm_threads),
}

PROCESS_MAP = "ProcessPoolExecutor.map, chunks of 16"

PROCESSES = {
    PROCESS_MAP: Contender(partial(map_of_pool, chunk=16), warm_processes),
    "ProcessPoolExecutor.map": Contender(map_of_pool, warm_processes),
    "loky's map, chunks of 16": Contender(partial(map_of_pool, chunk=16), warm_loky, ("loky",)),
    "loky's map": Contender(map_of_pool, warm_loky, ("loky",)),
    "ragasync": Contender(ragasync_processes, warm_processes),
    "ragasync, batch_size=16": Contender(
        partial(ragasync_processes, batch_size=16), warm_processes
    ),
}
