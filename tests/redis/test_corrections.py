"""A limiter of tokens in Redis, corrected by the usage that calls report."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ragasync import AsyncBatchProcessor, RedisRateLimiter, note_usage

# Internals: single requests to the script, with no other caller between them.
from ragasync.redis.script import LocalState, Terms
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests of this file."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def make(server: RedisServer, name: str, rate: float, burst: float) -> RedisRateLimiter:
    """Make a limiter of tokens, which estimates 500 for any item."""
    from redis.asyncio import Redis

    client = Redis(port=server.port)
    return RedisRateLimiter(client, name, rate, burst, weight=lambda item: 500, unit="tokens")


def owed(server: RedisServer, name: str) -> float:
    """Return what the bucket in Redis lacks, as of the latest request."""
    with server.asked() as asked:
        state = asked.hmget(f"ragasync:rate:{{{name}}}", "tat", "at", "rate")
    tat, at, rate = (float(value or 0) for value in state)
    return (tat - at) * rate


async def test_a_job_corrects_its_places_in_redis(server: RedisServer) -> None:
    """Three estimates of 500 that used 120; the bucket was empty at first."""

    async def use_120(item: object) -> None:
        note_usage(tokens=120)

    limiter = make(server, "used", 1e4, 1e5)
    await limiter.acquire(1)
    before = owed(server, "used")
    result = await AsyncBatchProcessor(use_120, rate_limiter=limiter).process(range(3))
    assert result.usage.tokens == 360
    await limiter.acquire(1)
    assert owed(server, "used") <= before + 360 + 2


async def test_a_shortfall_is_waited_for_in_another_limiter_of_the_name(
    server: RedisServer,
) -> None:
    """The state is Redis's."""
    one, other = make(server, "shared", 100.0, 100.0), make(server, "shared", 100.0, 100.0)
    await one.acquire(1)
    began = asyncio.get_running_loop().time()
    one.correct(1, used=201)
    while owed(server, "shared") < 200:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await other.acquire(100)
    assert asyncio.get_running_loop().time() - began >= 1.9  # never earlier than the debt allows


def test_a_surplus_is_sent_once_and_a_debt_until_it_arrives() -> None:
    """A request without a reply may have arrived: it must not return a surplus twice."""
    state = LocalState(Terms(10.0, 100.0))
    state.correct(500, 120)
    state.correct(100, 700)
    request, _ = state.request(())
    assert request.corrections == [(500, 120), (100, 700)]
    state.restore(request)
    assert state.request(())[0].corrections == [(100, 700)]
    assert state.request(())[0].corrections == []


def test_the_unit_is_that_of_a_limiter_in_memory(server: RedisServer) -> None:
    """One unit, one error."""
    from redis.asyncio import Redis

    client = Redis(port=server.port)
    assert make(server, "a unit", 1.0, 1.0).unit == "tokens"
    assert RedisRateLimiter(client, "a unit").unit == "requests"
    assert RedisRateLimiter.at_most(client, "a unit", 1, 1.0, unit="tokens").unit == "tokens"
    with pytest.raises(ValueError, match="unit must be"):
        RedisRateLimiter(client, "a unit", unit="words")  # type: ignore[arg-type]


@pytest.mark.parametrize("used", [-1, float("nan"), "120"])
def test_a_correction_by_what_is_no_amount_is_refused(server: RedisServer, used: object) -> None:
    """Before anything is sent."""
    limiter = make(server, "refused", 1.0, 1.0)
    with pytest.raises((TypeError, ValueError), match="used must be"):
        limiter.correct(1, used)  # type: ignore[arg-type]
