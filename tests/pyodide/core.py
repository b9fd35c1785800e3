"""What the core does under Pyodide, on the browser's own loop: run by ../test_pyodide.py."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import asynccontextmanager

sys.dont_write_bytecode = True
sys.path.insert(0, "/src")

from pyodide.ffi import can_run_sync  # type: ignore[import-not-found]  # noqa: E402

from ragasync import (  # noqa: E402
    AsyncBatchProcessor,
    AsyncRetry,
    Journal,
    JournalError,
    RateLimiter,
    RunAsyncError,
    gather_with_concurrency,
    process_with_workers,
    retry_async,
    run_async,
)


async def double(number: int) -> int:
    """Wait for a moment and return twice the number."""
    await asyncio.sleep(0.01)
    return 2 * number


def raised(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    """Fail unless the call raises this kind of error, with these words in it."""
    try:
        call()
    except kind as error:
        said = str(error)
    else:
        said = "nothing was raised"
    assert words in said, said


async def test_a_batch_runs_at_the_asked_concurrency():
    """Twenty calls of 10 ms, four at once, take five turns."""
    result = await AsyncBatchProcessor(double, max_concurrency=4).process(range(20))
    assert result.all_succeeded
    assert result.results == [2 * number for number in range(20)]
    assert result.seconds > 0.04
    assert "20 of 20 done" in repr(result)  # summary() has percentiles, which need numpy


async def test_a_failure_stays_with_its_item():
    """And its traceback is there to be read."""

    async def odd_only(number: int) -> int:
        if number % 2 == 0:
            raise ValueError(f"{number} is even")
        return number

    result = await AsyncBatchProcessor(odd_only, retry_count=0).process(range(10))
    assert (result.success_count, result.error_count) == (5, 5)
    assert str(result.errors[4]) == "4 is even"
    assert not result.errors[5]


async def test_a_batched_call_is_halved_until_the_poison_stands_alone():
    """As on any other loop."""

    async def all_at_once(numbers: list[int]) -> list[int]:
        if 13 in numbers:
            raise ValueError("13 is poison")
        return numbers

    processor = AsyncBatchProcessor(all_at_once, batch_size=16, batched=True, retry_count=0)
    result = await processor.process(range(32))
    assert [outcome.index for outcome in result.get_failed()] == [13]


async def test_a_rate_is_kept():
    """Twelve calls at forty a second, two of them at once, take a quarter of a second."""
    limiter = RateLimiter(40, burst_size=2)
    result = await AsyncBatchProcessor(double, max_concurrency=12, rate_limiter=limiter).process(
        range(12)
    )
    assert result.all_succeeded
    assert result.seconds > 0.24


async def test_a_failing_call_is_tried_again_after_its_back_off():
    """Twice, with the waits that were asked for."""
    tries: list[float] = []

    async def third_time(_: int) -> str:
        tries.append(time.perf_counter())
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return "there"

    retry = AsyncRetry(3, 0.02, jitter=None)
    result = await AsyncBatchProcessor(third_time, retry=retry).process([0])
    assert result.results == ["there"]
    assert result[0].attempts == 3
    assert tries[1] - tries[0] > 0.018
    assert tries[2] - tries[1] > 0.036


async def test_a_function_can_be_retried_by_itself():
    """retry_async, with its own delays."""
    tries: list[int] = []

    async def second_time() -> str:
        tries.append(1)
        if len(tries) < 2:
            raise ConnectionError("not yet")
        return "there"

    assert await retry_async(second_time, max_attempts=2, backoff_factor=0.01) == "there"


async def test_an_attempt_has_a_time_limit():
    """The slow item fails; the others do not wait for it."""

    async def one_slow(number: int) -> int:
        await asyncio.sleep(30 if number == 3 else 0)
        return number

    processor = AsyncBatchProcessor(one_slow, timeout=0.05, retry_count=0)
    result = await processor.process(range(10))
    assert [outcome.index for outcome in result.get_failed()] == [3]


async def test_cancelling_the_await_keeps_what_is_done():
    """As the stop button does; nothing runs on."""

    async def slow_from_five(number: int) -> int:
        await asyncio.sleep(30 if number >= 5 else 0)
        return number

    processor = AsyncBatchProcessor(slow_from_five, max_concurrency=2)
    running = asyncio.create_task(processor.process(range(20)))
    await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert processor.last_result is not None
    assert processor.last_result.success_count == 5, processor.last_result


async def test_outcomes_stream_in_order():
    """One by one, while the rest still runs."""
    seen = [
        outcome.value
        async for outcome in AsyncBatchProcessor(double).stream(range(12), ordered=True)
    ]
    assert seen == [2 * number for number in range(12)]


async def test_resources_are_opened_and_closed_once():
    """On the browser's loop, around the run."""
    seen: list[str] = []

    @asynccontextmanager
    async def client():
        seen.append("opened")
        yield 10
        seen.append("closed")

    async def add(number: int, client: int) -> int:
        return number + client

    result = await AsyncBatchProcessor(add, resources=client).process(range(3))
    assert result.results == [10, 11, 12]
    assert seen == ["opened", "closed"]


async def test_gather_and_workers_run():
    """The two small patterns."""
    assert await gather_with_concurrency(map(double, range(5)), 2) == [0, 2, 4, 6, 8]
    result = await process_with_workers(range(5), double, num_workers=2)
    assert result.results == [0, 2, 4, 6, 8]


async def test_a_job_on_this_loop_is_steered():
    """Paused, resumed, limited, cancelled."""
    job = AsyncBatchProcessor(double, max_concurrency=2).start(range(1000), on_current_loop=True)
    await asyncio.sleep(0.1)
    job.pause()
    await asyncio.sleep(0.1)
    held = job.progress.done
    assert 0 < held < 1000
    await asyncio.sleep(0.1)
    assert job.progress.done == held
    job.max_concurrency, job.rate = 8, 200.0
    job.resume()
    await asyncio.sleep(0.2)
    assert job.progress.done > held
    job.cancel()
    result = await job
    assert 0 < result.success_count < 1000
    assert result.cancelled_count + result.pending_count + result.success_count == 1000


async def test_run_async_waits_or_says_to_await():
    """It can wait only where the browser can put the Python stack aside."""
    if can_run_sync():
        assert run_async(double(4)) == 8
        assert AsyncBatchProcessor(double).process_sync(range(3)).results == [0, 2, 4]
        raised(TimeoutError, "timeout=0.01", lambda: run_async(asyncio.sleep(30), timeout=0.01))
    else:
        raised(RunAsyncError, "`await` the coroutine instead", lambda: run_async(double(4)))


async def test_a_job_in_the_background_is_refused():
    """There is no thread for its loop."""
    processor = AsyncBatchProcessor(double)
    raised(RunAsyncError, "on_current_loop=True", lambda: processor.start(range(3)))


async def test_a_sync_function_is_refused_at_once():
    """There is no thread to call it on."""
    raised(TypeError, "`async def`", lambda: AsyncBatchProcessor(lambda number: number))


async def test_a_journal_is_refused_at_once():
    """There is no thread to write it."""
    raised(
        JournalError,
        "leave out journal=",
        lambda: AsyncBatchProcessor(double, journal=Journal("run.sqlite")),
    )


def tell(fact: dict[str, object]) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(fact) + "\n")


async def main() -> None:
    """Run each test and print a line of JSON about it."""
    tell({"can_run_sync": can_run_sync()})
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            error = None
            try:
                await test()
            except Exception:
                error = traceback.format_exc()
            tell({"test": name, "error": error})
