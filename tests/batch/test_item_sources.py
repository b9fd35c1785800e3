"""Item sources: read lazily, on a thread if they block, closed in time, their errors raised."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from io import StringIO
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, RateLimiter, gather_with_concurrency, run_async
from ragasync.testing import run_on_virtual_clock


async def echo(item: Any) -> Any:
    """Return the item, after a turn of the loop."""
    await asyncio.sleep(0)
    return item


class Closing:
    """Makes sources that record when they are closed."""

    def __init__(self, count: int = 1000) -> None:
        self._count = count
        self.closed: list[str] = []

    def generator(self) -> Iterator[int]:
        """A sync generator."""
        try:
            yield from range(self._count)
        finally:
            self.closed.append("generator")

    async def async_generator(self) -> AsyncIterator[int]:
        """An async one, whose clean-up awaits."""
        try:
            for number in range(self._count):
                yield number
        finally:
            await asyncio.sleep(0)
            self.closed.append("async generator")

    def both(self) -> list[Any]:
        """One of each."""
        return [self.generator(), self.async_generator()]


async def test_sources_are_closed_at_a_limit():
    """When the run ends, not when the garbage collector runs."""
    closing = Closing()
    for source in closing.both():
        result = await AsyncBatchProcessor(echo).process(source, max_items=5)
        assert result.success_count == 5
    assert closing.closed == ["generator", "async generator"]


async def test_sources_are_closed_when_a_stream_is_left():
    """By a break."""
    closing = Closing()
    for source in closing.both():
        stream = AsyncBatchProcessor(echo).stream(source)
        async for _ in stream:
            break
        await stream.aclose()
    assert closing.closed == ["generator", "async generator"]


async def test_sources_are_closed_when_a_job_is_cancelled_or_stopped():
    """By hand, by too many errors, or by a fatal one."""

    async def fail(item: int) -> int:
        raise ValueError(item)

    closing = Closing()
    for source in closing.both():
        job = AsyncBatchProcessor(lambda item: item, rate_limiter=RateLimiter(1)).start(
            source, on_current_loop=True
        )
        await asyncio.sleep(3)
        job.cancel()
        await job
        assert job.result.success_count > 0
    for source in closing.both():
        await AsyncBatchProcessor(fail, retry_count=0, max_errors=3).process(source)
    assert closing.closed == ["generator", "async generator"] * 2


async def test_sources_are_closed_when_the_run_itself_is_cancelled():
    """And the cancellation propagates."""
    closing = Closing()
    for source in closing.both():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await AsyncBatchProcessor(asyncio.sleep).process(source)
    assert closing.closed == ["generator", "async generator"]


async def test_a_file_is_left_open():
    """Its owner closes it; only a generator over it is closed."""
    file = StringIO("one\ntwo\nthree\n")
    await AsyncBatchProcessor(echo).process(file, max_items=1)
    assert not file.closed
    assert file.read() == "two\nthree\n" or file.read() == ""


@pytest.mark.parametrize("kind", ["generator", "async"])
async def test_an_error_in_the_clean_up_of_a_source_is_raised(kind: str):
    """With everything done kept, and nothing printed by asyncio."""

    def generator() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            raise OSError("cannot close")

    async def async_generator() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            raise OSError("cannot close")

    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    processor = AsyncBatchProcessor(echo)
    source = generator() if kind == "generator" else async_generator()
    with pytest.raises(OSError, match="cannot close") as raised:
        await processor.process(source, max_items=4)
    assert "4 items were done" in " ".join(raised.value.__notes__) or "of 4" in str(
        raised.value.__notes__
    )
    assert processor.last_result is not None
    assert processor.last_result.success_count == 4
    assert complaints == []


@pytest.mark.parametrize("error", [KeyError("x"), asyncio.CancelledError("the source's")])
async def test_an_error_of_the_source_ends_the_job_with_a_note_of_what_was_done(
    error: BaseException,
):
    """Also a CancelledError that the source raises by itself."""

    def items() -> Iterator[int]:
        yield from range(5)
        raise error

    async def more_items() -> AsyncIterator[int]:
        for number in items():
            yield number

    for source in (items(), more_items()):
        processor = AsyncBatchProcessor(echo)
        with pytest.raises(type(error)) as raised:
            await processor.process(source)
        assert raised.value is error
        assert processor.last_result is not None
        assert processor.last_result.success_count == 5


async def test_a_fault_of_the_engine_is_not_blamed_on_the_source(monkeypatch: pytest.MonkeyPatch):
    """Its message says that ragasync itself failed."""
    # Internals: nothing that a user passes makes the engine itself fail.
    from ragasync._outcomes.columns import Columns

    def broken(self: Any, worker: int, started_at: float) -> Any:
        def record(*_: object) -> None:
            raise ZeroDivisionError("ours")

        return record

    monkeypatch.setattr(Columns, "fast_recorder", broken)
    processor = AsyncBatchProcessor(echo)
    with pytest.raises(ZeroDivisionError, match="ours"):
        await processor.process(range(3))
    assert processor.last_result is not None
    because = str(processor.last_result.stopped_because)
    assert "source" not in because
    assert "ragasync itself" in because


@pytest.mark.real_time
def test_a_source_that_blocks_makes_no_call_time_out():
    """It is read on a thread, and the time it blocked before does not count for any call."""

    def items() -> Iterator[int]:
        for number in range(8):
            time.sleep(0.15)
            threads.add(threading.current_thread().name)
            yield number

    async def call(item: int) -> int:
        await asyncio.sleep(0.05)
        return item

    threads: set[str] = set()
    processor = AsyncBatchProcessor(call, timeout=0.12, retry_count=0, max_concurrency=4)
    result = processor.process_sync(items())
    assert result.results == list(range(8))
    assert len(threads) > 1
    assert "Reading the input blocked the event loop" in " ".join(result.explain().split())


@pytest.mark.real_time
@pytest.mark.parametrize("batched", [False, True])
def test_a_source_on_a_thread_keeps_order_limit_and_errors(batched: bool):
    """As on the event loop."""
    bound: ContextVar[int] = ContextVar("bound", default=-1)

    def items() -> Iterator[int]:
        for number in range(40):
            if number in (1, 20):
                time.sleep(0.1)
            bound.set(number)
            yield number
            assert bound.get() == number
        raise OSError("the disk")

    async def call(item: Any) -> Any:
        assert bound.get() == -1
        return item

    processor = AsyncBatchProcessor(call, 4, batched=batched, retry_count=0)
    result = processor.process_sync(items(), max_items=30)
    assert result.results == list(range(30))
    with pytest.raises(OSError, match="the disk"):
        processor.process_sync(items())
    assert processor.last_result is not None
    assert processor.last_result.success_count == 40


@pytest.mark.real_time
def test_a_job_over_a_source_that_hangs_can_be_cancelled():
    """Nothing can interrupt its thread, so the job does not wait for it."""
    let_go, hanging = threading.Event(), threading.Event()
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield 0
            time.sleep(0.1)
            yield 1
            hanging.set()
            let_go.wait(30)
            yield 2
        finally:
            closed.append(True)

    job = AsyncBatchProcessor(echo).start(items())
    assert hanging.wait(20)
    job.cancel()
    result = job.wait(20)
    assert result.success_count == 2
    let_go.set()
    for _ in range(200):
        if closed:
            break
        time.sleep(0.05)
    assert closed == [True]


@pytest.mark.real_time
def test_at_most_a_window_is_read_ahead_on_a_thread():
    """A thread reads lazily too."""
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(60):
            if number < 3:
                time.sleep(0.06)
            read.append(number)
            yield number

    async def call(item: int) -> int:
        await asyncio.sleep(0.005)
        ahead.append(len(read) - item)
        return item

    ahead: list[int] = []
    result = AsyncBatchProcessor(call, max_concurrency=4).process_sync(items())
    assert result.success_count == 60
    assert max(ahead) <= 4 + 4 + 1


@pytest.mark.real_time
def test_gather_takes_from_a_generator_that_needs_its_loop():
    """Its awaitables may be tasks of this loop."""

    def items() -> Iterator[Any]:
        for number in range(6):
            time.sleep(0.03)
            yield asyncio.ensure_future(echo(number))

    async def main() -> list[Any]:
        return await gather_with_concurrency(items(), 2)

    assert run_async(main()) == list(range(6))


def test_an_async_source_starts_when_the_run_is_complete():
    """Its first item arrives after that, even if it is ready immediately."""

    class Eager:
        def __aiter__(self) -> Eager:
            return self

        async def __anext__(self) -> int:
            if numbers:
                return numbers.pop()
            raise StopAsyncIteration

    numbers = [3, 2, 1]
    result = run_on_virtual_clock(AsyncBatchProcessor(echo).process(Eager()))
    assert result.results == [1, 2, 3]
