"""Limiters with unit="tokens", corrected by the usage that calls report."""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter, note_usage
from ragasync.testing import run_on_virtual_clock
from tests.limits.test_corrections import Call, check_usage
from tests.support.random_schedules import examples


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


def estimate(item: object) -> float:
    """Estimate 500 tokens for any item."""
    return 500


def slow_limiter(burst: float = 5000, weight: Any = estimate) -> RateLimiter:
    """Make a limiter of tokens that hardly refills, so that its level shows what was taken."""
    return RateLimiter(1e-6, burst, weight=weight, unit="tokens")


def check_level(limiter: RateLimiter, level: float) -> None:
    """Check what is left in a bucket, by taking it."""
    assert limiter.try_acquire(level)
    assert not limiter.try_acquire(1)


async def use_120(item: object) -> object:
    """Report 120 tokens."""
    await asyncio.sleep(0.1)
    note_usage(tokens=120)
    return item


def use_120_sync(item: object) -> object:
    """Report 120 tokens, on a thread or in a process."""
    note_usage(tokens=120)
    return item


# What is corrected


async def test_a_call_takes_in_the_end_what_it_has_used() -> None:
    """Three estimates of 500 that use 120 each."""
    limiter = slow_limiter()
    await AsyncBatchProcessor(use_120, rate_limiter=limiter).process(range(3))
    check_level(limiter, 5000 - 3 * 120)


async def test_a_job_runs_at_the_rate_of_what_its_calls_use() -> None:
    """Not at that of its estimates, which are four times as high."""
    limits = RateLimiter.per_minute(requests=6_000, tokens=60_000, weight=estimate)
    await AsyncBatchProcessor(use_120, max_concurrency=50, rate_limiter=limits).process(range(1000))
    assert now() == pytest.approx(120.0, rel=0.05)


async def test_a_call_that_used_more_leaves_a_debt() -> None:
    """The next one waits for it."""

    async def use_700(item: object) -> None:
        note_usage(tokens=700)

    limiter = RateLimiter(100, 500, weight=estimate, unit="tokens")
    processor = AsyncBatchProcessor(use_700, max_concurrency=1, rate_limiter=limiter)
    await processor.process([1, 2])
    assert now() == pytest.approx(7.0)


async def test_several_reports_of_a_call_count_together() -> None:
    """It is corrected once, when it has ended."""

    async def call(item: object) -> None:
        note_usage(tokens=20)
        await asyncio.sleep(1)
        note_usage(input_tokens=60, output_tokens=40)

    limiter = slow_limiter()
    await AsyncBatchProcessor(call, rate_limiter=limiter).process([1])
    check_level(limiter, 5000 - 120)


async def test_every_attempt_is_corrected_to_what_it_reported() -> None:
    """Failed ones too: 100 and 200 tokens, and nothing is counted twice."""
    tries: list[object] = []

    async def call(item: object) -> None:
        tries.append(item)
        note_usage(tokens=100 * len(tries))
        if len(tries) == 1:
            raise ConnectionError

    limiter = slow_limiter()
    processor = AsyncBatchProcessor(call, rate_limiter=limiter, retry=AsyncRetry(1, 0.0))
    await processor.process([1])
    check_level(limiter, 5000 - 300)


@pytest.mark.parametrize("report", [lambda: None, lambda: note_usage(cost=0.1)])
async def test_without_a_report_of_tokens_nothing_is_corrected(report: Any) -> None:
    """The estimate stands."""

    async def call(item: object) -> None:
        report()

    limiter = slow_limiter()
    await AsyncBatchProcessor(call, rate_limiter=limiter).process([1])
    check_level(limiter, 4500)


async def test_a_limiter_of_requests_is_not_corrected() -> None:
    """Its weight is no estimate."""
    limiter = RateLimiter(1e-6, 5000, weight=estimate)
    await AsyncBatchProcessor(use_120, rate_limiter=limiter).process([1])
    check_level(limiter, 4500)


async def test_a_limiter_without_an_estimate_is_charged_for_the_usage() -> None:
    """Each call weighs 1 until it has reported."""
    limiter = slow_limiter(weight=None)
    await AsyncBatchProcessor(use_120, rate_limiter=limiter).process(range(3))
    check_level(limiter, 5000 - 3 * 120)


async def test_an_item_that_is_estimated_to_weigh_nothing_is_charged() -> None:
    """It took no place."""
    limiter = slow_limiter(weight=lambda item: 0)
    await AsyncBatchProcessor(use_120, rate_limiter=limiter).process([1])
    check_level(limiter, 5000 - 120)


async def test_a_batch_is_corrected_to_the_usage_of_all_its_items() -> None:
    """Its weight is the sum, too."""

    async def call(items: list[object]) -> list[object]:
        note_usage(tokens=300)
        return items

    limiter = slow_limiter()
    processor = AsyncBatchProcessor(call, 4, 1, batched=True, rate_limiter=limiter)
    await processor.process(range(8))
    check_level(limiter, 5000 - 2 * 300)


async def test_the_parts_of_a_split_batch_are_corrected_each_to_its_own() -> None:
    """The whole one failed and reported 100; the parts report 10 for each item."""

    async def call(items: list[int]) -> list[int]:
        note_usage(tokens=100 if len(items) == 4 else 10 * len(items))
        if len(items) == 4:
            raise ValueError("refused")
        return items

    limiter = slow_limiter()
    processor = AsyncBatchProcessor(call, 4, 1, batched=True, rate_limiter=limiter)
    await processor.process(range(4))
    check_level(limiter, 5000 - 140)


async def test_a_report_after_its_call_has_ended_corrects_nothing() -> None:
    """It counts for the run only; the place of the next call is not its own."""
    late: list[asyncio.Task[None]] = []

    async def report_later() -> None:
        await asyncio.sleep(1)
        note_usage(tokens=9999)

    async def call(item: int) -> None:
        if item == 0:
            late.append(asyncio.create_task(report_later()))
        else:
            await asyncio.sleep(5)
            note_usage(tokens=120)

    limiter = slow_limiter()
    result = await AsyncBatchProcessor(call, max_concurrency=1, rate_limiter=limiter).process(
        [0, 1]
    )
    assert result.usage.tokens == 9999 + 120
    check_level(limiter, 5000 - 500 - 120)


async def test_a_cancelled_call_is_corrected_to_what_it_had_reported() -> None:
    """The tokens were used all the same."""

    async def call(item: object) -> None:
        note_usage(tokens=120)
        await asyncio.sleep(60)

    limiter = slow_limiter()
    job = AsyncBatchProcessor(call, rate_limiter=limiter).start([1], on_current_loop=True)
    await asyncio.sleep(1)
    job.cancel()
    await job
    check_level(limiter, 5000 - 120)


@pytest.mark.real_time
async def test_calls_on_threads_are_corrected() -> None:
    """Wherever they report."""
    limiter = slow_limiter()
    await AsyncBatchProcessor(use_120_sync, rate_limiter=limiter).process(range(3))
    check_level(limiter, 5000 - 3 * 120)


@pytest.mark.real_time
@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("batched", [False, True])
async def test_calls_on_executors_are_corrected(pool: Any, batched: bool) -> None:
    """The usage travels back with the values."""
    limiter = slow_limiter()
    with pool(2) as executor:
        processor = AsyncBatchProcessor(
            use_120_sync, 3, 1, batched=batched, executor=executor, rate_limiter=limiter
        )
        result = await processor.process(range(3))
    assert result.all_succeeded
    check_level(limiter, 5000 - (120 if batched else 3 * 120))


# Nested jobs


async def test_a_nested_job_counts_once_for_a_limiter_that_both_use() -> None:
    """The outer call gives its estimate back, except for what it used itself."""
    limiter = slow_limiter()
    inner = AsyncBatchProcessor(use_120, rate_limiter=limiter)

    async def call(item: object) -> None:
        await inner.process([1, 2])
        note_usage(tokens=7)

    result = await AsyncBatchProcessor(call, rate_limiter=limiter).process([1])
    assert result[0].tokens == 2 * 120 + 7
    check_level(limiter, 5000 - 2 * 120 - 7)


async def test_a_nested_job_counts_for_each_of_two_limiters() -> None:
    """The outer limiter counts what the inner job uses."""
    inner_limiter, outer_limiter = slow_limiter(), slow_limiter()
    inner = AsyncBatchProcessor(use_120, rate_limiter=inner_limiter)

    async def call(item: object) -> None:
        await inner.process([1, 2])

    await AsyncBatchProcessor(call, rate_limiter=outer_limiter).process([1])
    check_level(inner_limiter, 5000 - 2 * 120)
    check_level(outer_limiter, 5000 - 2 * 120)


async def test_a_nested_job_two_levels_down_counts_once() -> None:
    """The one in between has no limiter."""
    limiter = slow_limiter()
    innermost = AsyncBatchProcessor(use_120, rate_limiter=limiter)

    async def between(item: object) -> None:
        await innermost.process([1])

    middle = AsyncBatchProcessor(between)

    async def call(item: object) -> None:
        await middle.process([1, 2])

    await AsyncBatchProcessor(call, rate_limiter=limiter).process([1])
    check_level(limiter, 5000 - 2 * 120)


@pytest.mark.real_time
async def test_a_nested_job_on_an_executor_counts_once() -> None:
    """Threads of a pool in this process share its limiters."""
    limiter = slow_limiter()
    inner = AsyncBatchProcessor(use_120_sync, rate_limiter=limiter)

    def call(item: object) -> None:
        inner.process_sync([1])

    with ThreadPoolExecutor(2) as executor:
        outer = AsyncBatchProcessor(call, 3, 1, executor=executor, rate_limiter=limiter)
        result = await outer.process(range(3))
    assert result.all_succeeded
    check_level(limiter, 5000 - 3 * 120)


# The bound, in usage

calls = st.builds(
    Call,
    weight=st.integers(1, 50),
    used=st.integers(1, 120),
    seconds=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    pause=st.just(0.0),
)


def weight_of(item: Any) -> float:
    """Estimate a call; the job around some calls uses nothing itself."""
    return item.weight if isinstance(item, Call) else 1


@examples(40)
@given(
    jobs=st.lists(st.lists(calls, max_size=8), min_size=1, max_size=3),
    max_concurrency=st.integers(1, 4),
    nested=st.booleans(),
)
def test_usage_stays_within_the_bound_in_every_window(
    jobs: list[list[Call]], max_concurrency: int, nested: bool
) -> None:
    """For jobs that share a limiter, and for jobs within a call that also has a place there."""
    limiter = RateLimiter(2.0, 50, weight=weight_of, unit="tokens")
    made = [call for job in jobs for call in job]

    async def make(call: Call) -> None:
        call.granted = now()
        await asyncio.sleep(call.seconds)
        note_usage(tokens=call.used)
        call.ended = now()

    processor = AsyncBatchProcessor(make, max_concurrency=max_concurrency, rate_limiter=limiter)

    async def run_jobs() -> None:
        await asyncio.gather(*(processor.process(job) for job in jobs))

    async def make_job(job: list[Call]) -> None:
        around = Call(1, 0, 0.0, 0.0, granted=now())
        made.append(around)
        await processor.process(job)
        around.ended = now()

    async def run_nested() -> None:
        await AsyncBatchProcessor(make_job, rate_limiter=limiter).process(jobs)

    run_on_virtual_clock(run_nested() if nested else run_jobs())
    assert all(call.ended >= 0.0 for call in made)
    check_usage(made, burst=50, rate=2.0)
