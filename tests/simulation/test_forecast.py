"""Forecasts of long runs from short ones: exact where nothing varies, and often enough right."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    BatchResult,
    RateLimiter,
)
from ragasync.simulation import Forecast, forecast
from ragasync.testing import run_on_virtual_clock

pytestmark = pytest.mark.slow  # arithmetic on simulated runs, the same with every Python

Call = Callable[[int], Coroutine[Any, Any, None]]


class Overloaded(Exception):
    """A service's 503."""

    status_code = 503


def taking(seconds: float) -> Call:
    """Return a service whose calls all take so long."""

    async def call(item: int) -> None:
        await asyncio.sleep(seconds)

    return call


def skewed(seed: int, *, errors: float = 0.05, poison: float = 0.0) -> Call:
    """Return a service with lognormal latencies, some 503s, and items that it never takes."""
    tries: dict[int, int] = {}

    async def call(item: int) -> None:
        tries[item] = tries.get(item, 0) + 1
        chance = random.Random(f"{seed} {item} {tries[item]}")
        await asyncio.sleep(chance.lognormvariate(-1.0, 0.6))
        if random.Random(f"{seed} {item}").random() < poison:
            raise KeyError(item)
        if chance.random() < errors:
            raise Overloaded(str(item))

    return call


def run(call: Any, n_items: int, limit: int | None = None, **settings: Any) -> BatchResult[Any]:
    """Return the result of a run, or of a pilot of it."""
    processor = AsyncBatchProcessor(call, **settings)
    return run_on_virtual_clock(processor.process(range(n_items), max_items=limit))


def what_if(made: Forecast, change: str) -> Any:
    """Return the row of a change."""
    return next(row for row in made.what_if if row.change == change)


# ── where nothing varies ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n_items", [1, 7, 200, 2_003, 1_000_000])
def test_a_constant_latency_gives_the_exact_makespan(n_items: int):
    """The last wave counts though it is not full, and the interval has no width."""
    pilot = run(taking(0.5), 400, limit=200, max_concurrency=10)
    made = forecast(pilot, n_items)
    exact = -(-n_items // 10) * 0.5
    assert made.makespan == pytest.approx(exact)
    assert made.interval == pytest.approx((exact, exact))
    assert made.requests == pytest.approx(n_items)
    assert made.limited_by == "concurrency"


def test_a_run_at_the_rate_takes_what_the_rate_allows():
    """Twice the rate halves its time, and more concurrency has no effect."""
    pilot = run(taking(0.5), 200, max_concurrency=10, rate_limiter=RateLimiter(5))
    made = forecast(pilot, 1_000)
    truth = run(taking(0.5), 1_000, max_concurrency=10, rate_limiter=RateLimiter(5))
    assert made.makespan == pytest.approx(truth.seconds, rel=0.003)
    assert made.limited_by == "rate"
    assert what_if(made, "twice the rate").ratio == pytest.approx(0.5, abs=0.002)
    assert what_if(made, "twice the concurrency").ratio == pytest.approx(1.0, abs=0.002)


def test_twice_the_calls_at_once_take_half_as_long_up_to_the_rate():
    """Where the rate is next, the table says so."""
    pilot = run(taking(1.0), 200, max_concurrency=10, rate_limiter=RateLimiter(15))
    made = forecast(pilot, 6_000)
    assert made.limited_by == "concurrency"
    assert what_if(made, "half the concurrency").makespan == pytest.approx(1200, rel=0.01)
    row = what_if(made, "twice the concurrency")
    assert (row.makespan, row.limited_by) == (pytest.approx(400, rel=0.01), "rate")


def test_batches_count_as_calls():
    """With 32 items each and 4 in flight; twice the batch size takes half as long."""
    pilot = run(taking_many(2.0), 640, max_concurrency=4, batch_size=32, batched=True)
    made = forecast(pilot, 12_800)
    assert made.makespan == pytest.approx(200)
    assert made.requests == pytest.approx(400)
    assert what_if(made, "twice the batch size").makespan == pytest.approx(100)
    assert any("size of its batch" in note for note in made.notes)


def taking_many(seconds: float, poison: float = 0.0) -> Any:
    """Return a service of batches, which refuses those with an item of some share."""

    async def call(items: list[int]) -> list[int]:
        await asyncio.sleep(seconds)
        if any(random.Random(item).random() < poison for item in items):
            raise ValueError("not embeddable")
        return items

    return call


def test_batches_that_are_split_are_foreseen_with_their_parts():
    """Poison costs calls, and so does the forecast's."""
    settings: Any = {"max_concurrency": 4, "batch_size": 32, "batched": True}
    made = forecast(run(taking_many(1.0, 0.01), 10_000, limit=1_280, **settings), 10_000)
    truth = run(taking_many(1.0, 0.01), 10_000, **settings)
    assert made.interval[0] <= truth.seconds <= made.interval[1]
    assert made.failed_interval[0] <= truth.error_count <= made.failed_interval[1]


# ── changes ─────────────────────────────────────────────────────────────────────────────────────


def test_changes_take_the_place_of_what_the_pilot_had():
    """Each setting by itself, and a limiter that is passed is not changed."""
    pilot = run(taking(0.5), 200, max_concurrency=10, rate_limiter=RateLimiter(5))
    limiter = RateLimiter(10, burst_size=1)
    before = repr(limiter)
    assert forecast(pilot, 1_000, rate_limiter=None).makespan == pytest.approx(50)
    assert forecast(pilot, 1_000, rate_limiter=limiter).makespan == pytest.approx(100.4)
    assert forecast(pilot, 1_000, rate_limiter=None, max_concurrency=50).makespan == (
        pytest.approx(10)
    )
    assert repr(limiter) == before
    assert limiter.try_acquire()


def test_more_calls_at_once_than_in_the_pilot_are_taken_to_last_as_long():
    """And it is said that this is taken for granted."""
    pilot = run(taking(0.5), 200, max_concurrency=10)
    assert not forecast(pilot, 1_000).notes
    assert "50 in flight" in forecast(pilot, 1_000, max_concurrency=50).notes[0]


def test_retries_and_error_rates_are_foreseen():
    """Every attempt that fails costs one more, as far as retries go."""
    pilot = run(taking(1.0), 200, max_concurrency=10)
    retry = AsyncRetry(8, base_delay=0.0)
    made = forecast(pilot, 4_000, error_rate=0.5, retry=retry)
    assert made.requests == pytest.approx(8_000, rel=0.08)
    assert made.makespan == pytest.approx(800, rel=0.08)
    assert what_if(made, "half the errors").makespan == pytest.approx(533, rel=0.1)
    hopeless = forecast(pilot, 1_000, error_rate=1.0, retry=AsyncRetry(0))
    assert (hopeless.failed, hopeless.failed_interval[1]) == (1_000, 1_000)


def test_a_timeout_cuts_calls_short():
    """Those above it fail after it, however long they would have taken."""

    async def mixed(item: int) -> None:
        await asyncio.sleep(60.0 if item % 10 == 0 else 1.0)

    pilot = run(mixed, 200, max_concurrency=10)
    made = forecast(pilot, 5_000, timeout=2.0, retry=AsyncRetry(0))
    assert made.makespan == pytest.approx(550, rel=0.15)
    assert made.failed == pytest.approx(500, rel=0.3)


def test_tokens_are_weighed_as_those_of_the_pilots_items():
    """A limiter with a weight counts what the items of the pilot weight."""
    pilot = run(taking(0.1), 200, max_concurrency=10)
    limiter = RateLimiter(100, burst_size=400, weight=lambda item: 10 if item % 2 else 30)
    made = forecast(pilot, 3_000, rate_limiter=limiter)
    assert made.makespan == pytest.approx(600, rel=0.08)
    assert made.limited_by == "rate"


# ── against the truth ───────────────────────────────────────────────────────────────────────────


def test_permanent_errors_are_distinguished_from_transient_ones():
    """What fails for good fails in the same share, what passes costs attempts only."""
    random.seed(1)
    pilot = run(skewed(1, errors=0.2, poison=0.1), 200, max_concurrency=8)
    made = forecast(pilot, 2_000)
    assert made.failed == pytest.approx(10 * pilot.error_count, rel=0.4)
    assert made.requests == pytest.approx(10 * sum(pilot.columns.attempts), rel=0.1)
    assert what_if(made, "half the errors").ratio < 0.97


def test_none_that_failed_is_not_none_that_will():
    """The interval has room for what 200 items need not have shown."""
    made = forecast(run(taking(1.0), 200), 10_000)
    assert made.failed == 0
    assert 100 < made.failed_interval[1] < 200


def test_a_source_that_held_the_pilot_back_holds_the_forecast_back():
    """And it is said."""

    async def slowly() -> Any:
        for item in range(200):
            await asyncio.sleep(0.5)
            yield item

    pilot = run_on_virtual_clock(AsyncBatchProcessor(taking(0.1)).process(slowly()))
    made = forecast(pilot, 1_000)
    assert made.limited_by == "input"
    assert made.makespan == pytest.approx(500, rel=0.01)
    assert "limited by its source" in made.notes[0]


def test_waits_for_retries_are_what_limits_a_run_of_little_work():
    """A few slow back-offs, and workers that have nothing else to do."""
    tries: set[int] = set()

    async def once_in_vain(item: int) -> None:
        await asyncio.sleep(0.1)
        if item not in tries:
            tries.add(item)
            raise Overloaded

    retry = AsyncRetry(3, base_delay=30.0, jitter=None)
    pilot = run(once_in_vain, 200, max_concurrency=100, retry=retry)
    assert forecast(pilot, 200).limited_by == "retries"


def test_the_same_arguments_give_the_same_forecast():
    """Chance is drawn from seeds of its own."""
    random.seed(3)
    pilot = run(skewed(3), 200, max_concurrency=8)
    first = forecast(pilot, 50_000)
    random.seed(4)
    assert forecast(pilot, 50_000) == first


async def test_it_works_where_a_loop_runs():
    """As in a cell."""
    pilot = await AsyncBatchProcessor(taking(1.0)).process(range(40))
    assert forecast(pilot, 400).makespan == pytest.approx(100)
