"""Forecasts of runs with several limiters: each of the pilot's holds the whole run back, too."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, RateLimiter
from ragasync.simulation import forecast, simulate
from ragasync.testing import run_on_virtual_clock
from tests.simulation.test_forecast import run, taking, what_if

pytestmark = pytest.mark.slow  # arithmetic on simulated runs, the same with every Python


def tokens_of(item: int) -> int:
    """Return what an item weighs: 10 to 990 tokens, a few much more than the others."""
    return 10 + int(980 * random.Random(item).random() ** 4)


LIMITS: dict[str, Callable[[], list[RateLimiter]]] = {
    "requests and tokens": lambda: [RateLimiter(20), RateLimiter(1_500, weight=tokens_of)],
    "tokens and requests": lambda: [RateLimiter(1_500, weight=tokens_of), RateLimiter(20)],
    "requests hold": lambda: [RateLimiter(6), RateLimiter(5_000, weight=tokens_of)],
    "tokens alone": lambda: [RateLimiter(1_500, weight=tokens_of)],
    "a window of tokens": lambda: [
        RateLimiter(20),
        RateLimiter.at_most(30_000, 20.0, weight=tokens_of),
    ],
    "windows of requests": lambda: [RateLimiter(20), RateLimiter.at_most(60, 10.0)],
    "a burst": lambda: [RateLimiter(5, 40), RateLimiter(1e9, weight=tokens_of)],
    "two weights": lambda: [
        RateLimiter(4_000, weight=tokens_of),
        RateLimiter(700, weight=lambda item: 100),
    ],
}


@pytest.mark.parametrize("limits", LIMITS)
def test_a_forecast_knows_every_limiter_of_its_pilot(limits: str):
    """Whatever they count, and in whichever order they were given."""
    settings: dict[str, Any] = {"max_concurrency": 20}
    pilot = run(taking(0.5), 1_500, limit=300, rate_limiter=LIMITS[limits](), **settings)
    truth = run(taking(0.5), 1_500, rate_limiter=LIMITS[limits](), **settings)
    made = forecast(pilot, 1_500)
    assert made.makespan == pytest.approx(truth.seconds, rel=0.1)
    assert made.limited_by == "rate"


def test_all_limiters_that_are_passed_are_used():
    """As those of the pilot are; and twice the rate is twice that of each."""
    limits = LIMITS["requests and tokens"]
    pilot = run(taking(0.5), 1_500, limit=300, rate_limiter=limits(), max_concurrency=20)
    made, given = forecast(pilot, 1_500), forecast(pilot, 1_500, rate_limiter=limits())
    assert given.makespan == pytest.approx(made.makespan)
    assert what_if(made, "twice the rate").ratio < 0.6
    assert what_if(made, "twice the concurrency").ratio > 0.95


def test_the_items_of_a_batch_weigh_what_those_of_the_pilots_batches_did():
    """Not as often the first of them as there are items."""

    async def call(items: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0.2)
        return items

    def weight(item: int) -> int:
        return 1_000 if item % 20 == 0 else 10  # each batch begins with a heavy one

    settings: dict[str, Any] = {"max_concurrency": 4, "batch_size": 20, "batched": True}
    limits = [RateLimiter(2), RateLimiter(1_000, weight=weight)]
    pilot = run(call, 10_000, limit=400, rate_limiter=limits, **settings)
    truth = run(
        call, 10_000, rate_limiter=[RateLimiter(2), RateLimiter(1_000, weight=weight)], **settings
    )
    made = forecast(pilot, 10_000)
    assert made.makespan == pytest.approx(truth.seconds, rel=0.03)


def test_the_jobs_own_rate_is_one_of_its_limits():
    """It was set while the pilot ran."""

    async def pilot() -> Any:
        limiter = RateLimiter(1_500, weight=tokens_of)
        processor = AsyncBatchProcessor(taking(0.5), max_concurrency=20, rate_limiter=limiter)
        job = processor.start(range(200), on_current_loop=True)
        job.rate = 2.0
        return await job

    made = forecast(run_on_virtual_clock(pilot()), 1_000)
    assert made.makespan == pytest.approx(500, rel=0.03)


def test_a_simulated_pilot_knows_its_limits_too():
    """With the weights that it was given."""
    limits = [RateLimiter(50), RateLimiter(1_000, weight=lambda _: 0.0)]
    pilot = simulate(200, max_concurrency=20, latency=0.1, rate_limiter=limits, weight=100)
    assert forecast(pilot, 2_000).makespan == pytest.approx(200, rel=0.02)


def test_a_limiter_that_has_changed_since_is_taken_as_it_was():
    """A forecast is of a run like the pilot."""
    limits = [RateLimiter(20), RateLimiter(1_500, weight=tokens_of)]
    pilot = run(taking(0.5), 300, rate_limiter=limits, max_concurrency=20)
    before = forecast(pilot, 1_500)
    limits[1].rate = 1e6
    assert forecast(pilot, 1_500) == before


def test_a_drag_of_the_rate_keeps_the_other_limiters():
    """Of tokens, and of calls in another window; no bound removes the strictest alone."""
    limits = [
        RateLimiter(20),
        RateLimiter(100, weight=lambda _: 10),
        RateLimiter.at_most(1_200, 40.0),
    ]
    pilot = run(taking(0.5), 300, rate_limiter=limits, max_concurrency=20)
    panel = forecast(pilot, 1_000).explore()
    panel._repr_mimebundle_()

    def shown() -> str:
        answer: str = panel.box.children[0].value
        return answer

    before = shown()
    assert "1,000 items in 1 min 40 s" in before
    panel.change(rate=500.0)
    assert "1,000 items in 1 min 40 s" in shown()
    assert "limited by rate" in shown()
    panel.change(rate=5.0)
    assert "1,000 items in 3 min 20 s" in shown()
    panel.change(rate=None)
    assert "1,000 items in 1 min 40 s" in shown()
