"""max_concurrency="auto" in whole runs, on services that do not tell their limit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ragasync import AsyncBatchProcessor, BatchResult, RateLimiter
from ragasync.simulation import ScriptedService
from tests.support.hidden_limits import (
    Melting,
    Metered,
    Overloaded,
    Queueing,
    Refusing,
    Service,
    StatusError,
    halved,
    still,
)

Make = Callable[[], Service]

ITEMS = 5_000


async def throughput(service: Service | ScriptedService, at_once: int | str) -> float:
    """Measure the items per second of a run with this concurrency; the jitter is fixed."""
    random.seed(0)
    processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
        service,
        max_concurrency=at_once,  # type: ignore[arg-type]
        retry_count=8,
        retry_delay=0.5,
    )
    result = await processor.process(range(ITEMS))
    return result.success_count / result.seconds


SHAPES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "refuses beyond 20": (lambda: Refusing(still(20)), (20,)),
    "refuses beyond 24, latencies differ": (lambda: Refusing(still(24), sigma=0.5), (24,)),
    "answers 503 beyond 20": (lambda: Overloaded(still(20), sigma=0.3), (20,)),
    "lets wait beyond 24": (lambda: Queueing(still(24)), (32,)),
    "melts beyond 20": (lambda: Melting(still(20)), (20,)),
    "melts beyond 40, latencies differ": (lambda: Melting(still(40), sigma=0.5), (32,)),
    "melts, and the knee halves and comes back": (
        lambda: Melting(halved(40, 10, 20)),
        (20, 32),
    ),
    "allows 100 a second": (lambda: Metered(100), (16, 20)),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_it_reaches_nine_tenths_of_the_best_fixed_setting(shape: str):
    """Over the whole run, the search included; mostly close to the knee itself."""
    make, fixed = SHAPES[shape]
    best = max([await throughput(make(), at_once) for at_once in fixed])
    assert await throughput(make(), "auto") >= 0.9 * best


@pytest.mark.parametrize(("failing", "seed"), [(0.05, 1), (0.2, 2)])
async def test_errors_that_come_anyway_do_not_hold_it_down(failing: float, seed: int):
    """A service that can take any concurrency, and answers 503 now and then at all of them."""
    service = ScriptedService(0.2, {503: failing}, seed=seed)
    fixed = await throughput(service.fresh(), 64)
    assert await throughput(service, "auto") >= 0.9 * fixed
    assert service.most_in_flight >= 64


async def test_it_never_melts_a_service_down():
    """Nothing fails for good, few calls are refused, and most calls find the service well."""
    service = Melting(still(20))
    result = await AsyncBatchProcessor(service, max_concurrency="auto").process(range(ITEMS))
    assert result.all_succeeded
    assert service.refused <= 0.01 * ITEMS
    assert service.most <= 40


async def test_many_refusals_at_once_are_one_cut():
    """Of 32 calls in flight all are refused in one instant."""
    outage = asyncio.Event()

    async def call(item: int) -> int:
        await asyncio.sleep(1.0)
        if outage.is_set():
            raise StatusError(429)
        return item

    job = AsyncBatchProcessor(call, max_concurrency="auto").start(
        range(1_000), on_current_loop=True
    )
    while job.max_concurrency < 32:  # noqa: ASYNC110  # it has no event for that
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    outage.set()
    while job.max_concurrency == 32:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    outage.clear()
    await asyncio.sleep(0.5)
    assert job.max_concurrency == 24
    assert "at most 24 concurrent calls (auto)" in repr(job)
    job.cancel()
    await job


async def test_a_number_ends_it_and_auto_begins_it_again():
    """The concurrency of a job is set while it runs."""
    job = AsyncBatchProcessor(Queueing(still(64))).start(range(4_000), on_current_loop=True)
    await asyncio.sleep(2)
    assert (job.max_concurrency, "(auto)" in repr(job)) == (4, False)
    job.max_concurrency = "auto"
    await asyncio.sleep(5)
    assert job.max_concurrency >= 32
    assert "(auto)" in repr(job)
    job.max_concurrency = 6
    await asyncio.sleep(5)
    assert (job.max_concurrency, "(auto)" in repr(job)) == (6, False)
    assert job.progress.in_flight == 6
    job.max_concurrency = 64
    assert (await job).all_succeeded


async def test_a_pause_does_not_confuse_it():
    """It is where it was when the job goes on."""
    job = AsyncBatchProcessor(Queueing(still(20)), max_concurrency="auto").start(
        range(4_000), on_current_loop=True
    )
    await asyncio.sleep(10)
    before = job.max_concurrency
    job.pause()
    await asyncio.sleep(60)
    assert job.max_concurrency == before
    job.resume()
    await asyncio.sleep(1)
    assert 0.7 * before <= job.max_concurrency <= 1.5 * before
    assert (await job).all_succeeded


async def test_it_does_not_grow_where_a_rate_limit_holds_back():
    """Ten calls per second of 0.2 s each are two concurrent calls."""
    processor = AsyncBatchProcessor(
        Queueing(still(1_000)), max_concurrency="auto", rate_limiter=RateLimiter(10)
    )
    result = await processor.process(range(500))
    assert result.stats.max_concurrency <= 8


async def result_of(service: Service, items: int = 500) -> BatchResult[int]:
    """Return the result of a run that adapts."""
    processor = AsyncBatchProcessor[int, int](service, max_concurrency="auto")
    return await processor.process(range(items))


async def test_a_result_knows_how_the_bound_moved():
    """From 4 on, in order; merged runs one after the other."""
    result = await result_of(Queueing(still(20)))
    bounds = result.stats.concurrency_history
    assert bounds[0] == (0.0, 4)
    assert [bound for _, bound in bounds[:4]] == [4, 8, 16, 32]
    assert list(bounds) == sorted(bounds, key=lambda step: step[0])
    again = await result.retry_failed(
        AsyncBatchProcessor(Queueing(still(20)), max_concurrency="auto"), only=range(100)
    )
    assert again.stats.concurrency_history[: len(bounds)] == bounds
    assert again.stats.concurrency_history[len(bounds)] == (result.seconds, 4)


async def test_a_function_of_threads_adapts_too():
    """A sync function has a bound of its own to find."""
    processor = AsyncBatchProcessor(abs, max_concurrency="auto")
    assert (await processor.process(range(100))).all_succeeded


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [("Auto", TypeError), (True, TypeError), (4.0, TypeError), (0, ValueError), (-1, ValueError)],
)
def test_other_words_and_numbers_are_refused(wrong: object, kind: type[Exception]):
    """Told what is expected."""
    with pytest.raises(kind, match=r"max_concurrency must be (a whole number or|at least 1)"):
        AsyncBatchProcessor(abs, max_concurrency=wrong)  # type: ignore[arg-type]


def test_an_executor_has_a_number_of_its_own():
    """There is nothing to find."""
    with ThreadPoolExecutor() as pool, pytest.raises(ValueError, match="pass that number"):
        AsyncBatchProcessor(abs, max_concurrency="auto", executor=pool)
