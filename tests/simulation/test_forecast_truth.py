"""Forecasts compared with real runs: forty on the virtual clock, one over HTTP."""

import asyncio
import random
from typing import Self

import pytest

from ragasync import AsyncBatchProcessor, RateLimiter
from ragasync.simulation import forecast
from tests.simulation.test_forecast import run, skewed, what_if
from tests.support.http_server import Server, embed_one


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_truth_lies_in_the_interval_about_as_often_as_promised():
    """Of 40 runs of 2,000 items, each foreseen from its first 200; and intervals say something."""
    inside = 0
    for seed in range(40):
        random.seed(seed)
        made = forecast(run(skewed(seed), 200, max_concurrency=8), 2_000)
        truth = run(skewed(seed), 2_000, max_concurrency=8).seconds
        inside += made.interval[0] <= truth <= made.interval[1]
        assert made.interval[1] < 1.5 * made.interval[0]
    assert inside >= 32


class Stalls:
    """Counts the seconds in which the machine gave this loop no turn, beyond what a burst holds."""

    def __init__(self, borne: float) -> None:
        self._borne, self.seconds = borne, 0.0

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._watching())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()

    async def _watching(self) -> None:
        """Sleep for a moment again and again, and see how late that ends."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + 0.005
            await asyncio.sleep(0.005)
            self.seconds += max(0.0, clock() - due - self._borne)


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_run_over_http_takes_as_long_as_forecast_from_its_pilot():
    """Two hundred requests foretell two thousand, the limit that holds them, and twice the rate."""
    limiter = RateLimiter(200)
    async with Server() as server, server.client() as client:

        async def call(item: int) -> int:
            server.latency = random.uniform(0.002, 0.012)
            return await embed_one(str(item), client)

        # Many, or a machine that gives the pilot no turn for a while looks like a slow service.
        processor = AsyncBatchProcessor(call, max_concurrency=512, rate_limiter=limiter)
        pilot = await processor.process(range(200))
        made = forecast(pilot, 2_000)
        await asyncio.sleep(0.1)  # the bucket is full again, as at the pilot's beginning
        # After a stall the burst goes immediately; a half-full bucket absorbs half of it.
        async with Stalls(borne=limiter.burst / limiter.rate / 2) as stalls:
            truth = (await processor.process(range(2_000))).seconds
    assert made.interval[0] <= truth
    assert truth - stalls.seconds <= made.interval[1]
    assert made.limited_by == "rate"
    assert what_if(made, "twice the rate").ratio == pytest.approx(0.5, abs=0.02)
