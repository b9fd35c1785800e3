"""Jobs on a service that refuses with 429 over real HTTP: what it says is kept to."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, Job, RateLimiter
from tests.support.fault_schedule import Fate, embedding_of
from tests.support.hostile_server import HostileService
from tests.support.http_clients import Asking, on_aiohttp

TEXTS = [f"text {number}" for number in range(1_000)]
VALUES = [embedding_of(text) for text in TEXTS]

AT_ONCE = 16


@pytest.mark.real_time
@pytest.mark.parametrize(
    "limits",
    [
        pytest.param([], id="no limiter"),
        pytest.param([lambda: RateLimiter(2000)], id="a limiter"),
        pytest.param(
            [lambda: RateLimiter(2000), lambda: RateLimiter.at_most(400, 0.2)], id="two limiters"
        ),
    ],
)
async def test_nothing_is_sent_to_a_service_that_has_said_how_long_it_is_closed(limits):
    """Each time it closes, what is in flight is refused, and nothing begun after that comes."""
    asking = Asking()
    async with HostileService(closes_at=range(200, 1200, 200), closed_for=0.2) as service:
        result = await AsyncBatchProcessor(
            asking.one,
            max_concurrency=AT_ONCE,
            retry=AsyncRetry(8, 0.01),
            rate_limiter=[limiter() for limiter in limits],
            resources=on_aiohttp(service),
        ).process(TEXTS)
    assert result.results == VALUES
    assert len(service.closings) == 5
    assert service.sent_while_closed(asking.refused_at) == []
    assert max(closing.refused for closing in service.closings) <= AT_ONCE


@pytest.mark.real_time
async def test_a_date_is_waited_for():
    """Retry-After may name an instant in whole seconds."""
    asking = Asking()
    async with HostileService(closes_at=(300,), wording="date") as service:
        result = await AsyncBatchProcessor(
            asking.one,
            max_concurrency=AT_ONCE,
            retry=AsyncRetry(1, 0.01),
            resources=on_aiohttp(service),
        ).process(TEXTS)
    assert result.results == VALUES
    assert len(service.closings) == 1
    assert service.sent_while_closed(asking.refused_at) == []
    assert max(closing.refused for closing in service.closings) <= AT_ONCE


def at_most_in_half_a_second(rate: float) -> int:
    """
    Return how many requests can come in any half second from a job with this rate.

    Those that its limiter grants in it, which is the burst and what flows in, and those that were
    on their way: each of them holds a slot.
    """
    return int(0.04 * rate + 0.5 * rate) + AT_ONCE


@pytest.mark.real_time
async def test_a_job_that_is_given_a_rate_at_its_first_429_stays_below_the_limit():
    """
    Refused requests count like others; one too many, and the service would close again.

    It stays closed so long that what came before is out of the half second.
    """
    asking = Asking()
    job: Job[str, int]

    def slow_down(_: object) -> None:
        job.rate = 400

    limit = (at_most_in_half_a_second(400), 0.5)
    async with HostileService(closes_at=(100,), closed_for=0.5, limit=limit) as service:
        job = AsyncBatchProcessor(
            asking.one,
            max_concurrency=AT_ONCE,
            retry=AsyncRetry(1, 0.01, on_retry=slow_down),
            resources=on_aiohttp(service),
        ).start(TEXTS[:500], on_current_loop=True)
        result = await job
    assert result.results == VALUES[:500]
    assert len(service.closings) == 1
    assert service.sent_while_closed(asking.refused_at) == []


@pytest.mark.real_time
async def test_a_limiter_below_the_limit_keeps_below_it_after_the_first_429_too():
    """What has come together in the pause does not come all at once after it."""
    asking = Asking()
    async with HostileService(closes_at=(100,), limit=(200 + AT_ONCE, 0.5)) as service:
        result = await AsyncBatchProcessor(
            asking.one,
            max_concurrency=AT_ONCE,
            retry=AsyncRetry(1, 0.01),
            rate_limiter=RateLimiter.at_most(200, 0.5),
            resources=on_aiohttp(service),
        ).process(TEXTS[:500])
    assert result.results == VALUES[:500]
    assert len(service.closings) == 1
    assert service.sent_while_closed(asking.refused_at) == []


async def test_429_that_does_not_say_how_long_backs_off_alone():
    """The refused one waits longer each time; the others are served meanwhile."""
    asking, fates = Asking(), {"text 0": Fate(first=(429, 429, 429))}

    async def one(text: str, client: Any) -> int:
        await asyncio.sleep(0.001)
        return await asking.one(text, client)

    async with HostileService(fates) as service:
        result = await AsyncBatchProcessor(
            one,
            max_concurrency=1,
            retry=AsyncRetry(3, 0.05, jitter=None),
            resources=on_aiohttp(service),
        ).process(TEXTS)
    assert result.results == VALUES
    assert [outcome.attempts for outcome in result] == [4] + [1] * 999
    assert {outcome.waited for outcome in result} == {0.0}
    tries = [place for place, each in enumerate(service.arrivals) if each.texts == ["text 0"]]
    gaps = [
        service.arrivals[after].at - service.arrivals[before].at
        for before, after in itertools.pairwise(tries)
    ]
    late = [gap - least for gap, least in zip(gaps, (0.051, 0.101, 0.201), strict=True)]
    assert -1e-6 < min(late) <= max(late) < 0.0011  # one other call may be in flight
    assert all(after - before > 1 for before, after in itertools.pairwise(tries))
