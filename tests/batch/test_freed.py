"""What a run held is freed by reference counts alone, whenever its result is dropped."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    Journal,
    RateLimiter,
    gather_with_concurrency,
    process_with_workers,
    run_async,
)

pytestmark = pytest.mark.real_time


class Thing:
    """Something large, an item or a value, whose life is watched."""

    def __init__(self, number: int) -> None:
        self.number = number


class Life:
    """Makes things, and tells how many of them live."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[Thing]] = []

    def make(self, number: int) -> Thing:
        """Make a thing to be watched."""
        thing = Thing(number)
        self._made.append(weakref.ref(thing))
        return thing

    @property
    def alive(self) -> int:
        """How many things there still are, when the background loop has let go of its last task."""
        run_async(asyncio.sleep(0))
        return self.now

    @property
    def now(self) -> int:
        """How many things there are at this moment."""
        return sum(made() is not None for made in self._made)


@pytest.fixture
def life() -> Iterator[Life]:
    """Things, with the collector of cycles switched off."""
    gc.collect()
    gc.disable()
    try:
        yield Life()
    finally:
        gc.enable()


COUNT = 40


def failing(life: Life, every: int) -> Callable[[Thing], Awaitable[Thing]]:
    """An async function that makes values, and fails each so many items."""

    async def call(item: Thing) -> Thing:
        await asyncio.sleep(0)
        if every and item.number % every == 0:
            inner = life.make(-1)  # a local of a frame that a traceback keeps
            raise ValueError(f"item {inner.number}")
        return life.make(item.number)

    return call


@asynccontextmanager
async def resources() -> AsyncIterator[str]:
    """Something to open."""
    yield "a client"


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with retries": {"retry_count": 2, "retry_delay": 0.0},
    "in time": {"timeout": 5},
    "limited": {"rate_limiter": RateLimiter(100_000)},
    "adaptive": {"max_concurrency": "auto"},
    "one at a time": {"max_concurrency": 1},
}


@pytest.mark.parametrize("every", [0, 3], ids=["all succeed", "some fail"])
@pytest.mark.parametrize("way", WAYS)
def test_a_dropped_result_is_freed(life: Life, way: str, every: int):
    """Items, values, and what the frames of errors held."""
    settings = {"retry_count": 0, **WAYS[way]}
    processor = AsyncBatchProcessor(failing(life, every), **settings)
    result = processor.process_sync([life.make(number) for number in range(COUNT)])
    assert result.total == COUNT
    assert life.alive >= COUNT
    del result, processor
    assert life.alive == 0


@pytest.mark.parametrize("every", [0, 3], ids=["all succeed", "some fail"])
def test_a_dropped_result_of_sync_calls_is_freed(life: Life, every: int):
    """They run on threads, which keep nothing of them."""

    def call(item: Thing) -> Thing:
        if every and item.number % every == 0:
            raise ValueError
        return life.make(item.number)

    processor = AsyncBatchProcessor(call, retry_count=0)
    result = processor.process_sync(life.make(number) for number in range(COUNT))
    del result, processor
    assert life.alive == 0


def test_a_dropped_result_of_an_executor_is_freed(life: Life):
    """The groups as well."""

    def call(item: Thing) -> Thing:
        if item.number == 5:
            raise ValueError
        return life.make(item.number)

    with ThreadPoolExecutor(2) as executor:
        processor = AsyncBatchProcessor(call, retry_count=0, executor=executor)
        result = processor.process_sync([life.make(number) for number in range(COUNT)])
        assert result.error_count == 1
        del result, processor
    assert life.alive == 0


def test_a_dropped_result_of_batches_is_freed(life: Life):
    """Those that were split too."""

    async def call(items: list[Thing]) -> list[Thing]:
        if any(item.number == 7 for item in items):
            raise ValueError
        return [life.make(item.number) for item in items]

    processor = AsyncBatchProcessor(call, 8, retry_count=0, batched=True)
    result = processor.process_sync([life.make(number) for number in range(COUNT)])
    assert result.error_count == 1
    del result, processor
    assert life.alive == 0


def test_a_dropped_result_with_resources_and_a_journal_is_freed(life: Life, tmp_path: Path):
    """And with items from a generator."""

    async def call(item: Thing, client: str) -> str:
        if item.number == 7:
            raise ValueError(client)
        life.make(item.number)
        return client

    processor = AsyncBatchProcessor(
        call,
        retry_count=0,
        resources=resources,
        journal=Journal(tmp_path / "run.sqlite"),
        key=lambda item: item.number,
    )
    result = processor.process_sync(life.make(number) for number in range(COUNT))
    assert result.error_count == 1
    del result, processor
    assert life.alive == 0


@pytest.mark.parametrize("ends", ["to its end", "cancelled", "by an error of the source"])
def test_a_dropped_job_is_freed(life: Life, ends: str):
    """With its result, however it ended."""

    def items() -> Iterator[Thing]:
        for number in range(COUNT):
            if number == 30 and ends == "by an error of the source":
                raise OSError("the disk")
            yield life.make(number)

    processor = AsyncBatchProcessor(failing(life, 3), retry_count=0)
    job = processor.start(items())
    if ends == "cancelled":
        job.cancel()
    if ends == "by an error of the source":
        with pytest.raises(OSError, match="the disk"):
            job.wait()
    else:
        job.wait()
    assert "done" in repr(job.result)
    del job, processor
    assert life.alive == 0


def test_the_outcomes_of_a_stream_are_freed_as_they_are_read(life: Life):
    """Only those in the window live."""

    async def read() -> int:
        processor = AsyncBatchProcessor(failing(life, 3), retry_count=0, max_concurrency=2)
        most = 0
        async for outcome in processor.stream(life.make(number) for number in range(2_000)):
            del outcome
            most = max(most, life.now)
        return most

    assert run_async(read()) < 600
    assert life.alive == 0


def test_what_gather_and_workers_gave_is_freed(life: Life):
    """The awaitables too."""
    call = failing(life, 3)

    async def both() -> None:
        gathered = await gather_with_concurrency(
            (call(life.make(number)) for number in range(COUNT)), 4, return_exceptions=True
        )
        result = await process_with_workers([life.make(number) for number in range(COUNT)], call)
        assert len(gathered) == result.total

    run_async(both())
    assert life.alive == 0


def test_seven_runs_of_one_cell_hold_what_one_does(life: Life):
    """The same name bound again and again, as in a notebook."""
    processor = AsyncBatchProcessor(failing(life, 3), retry_count=0)
    for _ in range(7):
        result = processor.process_sync([life.make(number) for number in range(COUNT)])
    assert life.alive <= 3 * COUNT
    del result, processor
    assert life.alive == 0
