"""Forecasts beside what really came: on the virtual clock forty times, over HTTP once."""

import asyncio
import random
from typing import Any

import pytest
from server import Server, embed_one
from test_forecast import run, skewed, what_if

from ragasync import AsyncBatchProcessor, RateLimiter
from ragasync.simulation import forecast


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


@pytest.mark.real_time
async def test_a_run_over_http_takes_as_long_as_its_pilot_foretold():
    """Two hundred requests foretell two thousand, the limit that holds them, and twice the rate."""
    async with Server() as server, server.client() as client:

        async def call(item: int) -> int:
            server.latency = random.uniform(0.002, 0.012)
            return await embed_one(str(item), client)

        knobs: Any = {"max_concurrency": 64, "rate_limiter": RateLimiter(250)}
        pilot = await AsyncBatchProcessor(call, **knobs).process(range(200))
        made = forecast(pilot, 2_000, rate_limiter=knobs["rate_limiter"])
        await asyncio.sleep(0.1)  # the bucket is full again, as at the pilot's beginning
        truth = await AsyncBatchProcessor(call, **knobs).process(range(2_000))
    assert made.interval[0] <= truth.seconds <= made.interval[1]
    assert made.limited_by == "rate"
    assert what_if(made, "twice the rate").ratio == pytest.approx(0.5, abs=0.02)
