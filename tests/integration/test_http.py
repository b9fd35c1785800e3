"""Jobs against a real HTTP server on loopback, through a real client made by `resources=`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.support.requirements import needs

needs("aiohttp")

import aiohttp  # noqa: E402

from ragasync import (  # noqa: E402
    AsyncBatchProcessor,
    AsyncRetry,
    AttemptTimeout,
    BatchResult,
    RateLimiter,
    ResultCountError,
    RunAsyncError,
    run_async,
)
from tests.support.http_server import Server, embed_many, embed_one  # noqa: E402

pytestmark = pytest.mark.real_time

TEXTS = ["x" * length for length in range(1, 101)]
LENGTHS = list(range(1, 101))

SOON = AsyncRetry(4, base_delay=0.01)
"""Retries that keep the tests short."""


def processor(server: Server, **options: Any) -> AsyncBatchProcessor[str, int]:
    """Return a processor of single texts, 8 at once, with a client of its own."""
    settings: dict[str, Any] = {"max_concurrency": 8, "retry": SOON, "resources": server.client}
    return AsyncBatchProcessor(embed_one, **settings | options)


def is_whole(result: BatchResult[int]) -> bool:
    """Whether every item has exactly one end, and the right value if it is done."""
    counts = (
        result.success_count,
        result.error_count,
        result.cancelled_count,
        result.pending_count,
    )
    right = all(outcome.value == len(outcome.item) for outcome in result if outcome.ok)
    return sum(counts) == result.total == len(list(result)) and right


# ---- 429 with Retry-After


class EmbedOne:
    """`embed_one` as an object that notes the time of its first 429."""

    def __init__(self) -> None:
        self.first_429 = float("inf")
        self.rate_limited = asyncio.Event()

    async def __call__(self, text: str, client: aiohttp.ClientSession) -> int:
        """Have one text embedded."""
        try:
            return await embed_one(text, client)
        except aiohttp.ClientResponseError as error:
            if error.status == 429:
                self.first_429 = min(self.first_429, now())
                self.rate_limited.set()
            raise


def now() -> float:
    """The time of this loop, which is the server's too."""
    return asyncio.get_running_loop().time()


def end_of_pause(server: Server) -> float:
    """When the server lets requests in again, less what clocks of different grain may differ."""
    return server.closed_until[0] - 0.001


def sent_too_soon(server: Server, embed: EmbedOne) -> list[float]:
    """By how many seconds requests came too soon that were sent after the first 429."""
    assert embed.rate_limited.is_set()
    sent_later = [each.at for each in server.arrivals if each.sent > embed.first_429]
    return [end_of_pause(server) - at for at in sent_later if at < end_of_pause(server)]


@pytest.mark.parametrize(("wording", "wait"), [("seconds", 1.0), ("date", 0.2), ("ms", 0.3)])
async def test_a_job_without_a_limiter_closes_its_own_gate_on_429(wording: str, wait: float):
    """Nothing is sent before the stated time, however it is worded; then all is done."""
    embed = EmbedOne()
    async with Server(trouble={20: 429}, wording=wording, wait=wait) as server:
        result = await AsyncBatchProcessor(
            embed, max_concurrency=8, retry=SOON, resources=server.client
        ).process(TEXTS)
    assert result.results == LENGTHS
    assert server.statuses == {200: 100, 429: 1}
    assert sent_too_soon(server, embed) == []
    assert sum(each.at >= end_of_pause(server) for each in server.arrivals) >= 70


async def test_429_pauses_all_limiters_of_a_job():
    """Neither is open to anybody before the stated time, nor to another job."""
    limiters = [RateLimiter(5000), RateLimiter(5000)]
    embed = EmbedOne()
    async with Server(trouble={3: 429}, wait=0.3, wording="ms") as server:
        refused = AsyncBatchProcessor(
            embed, max_concurrency=1, retry=SOON, resources=server.client, rate_limiter=limiters
        ).start(TEXTS, on_current_loop=True)
        await embed.rate_limited.wait()
        assert [limiter.try_acquire() for limiter in limiters] == [False, False]
        assert len(server.arrivals) == 4
        other = await processor(server, rate_limiter=limiters[1]).process(TEXTS)
        assert (await refused).results == other.results == LENGTHS
    assert sent_too_soon(server, embed) == []
    assert server.statuses == {200: 200, 429: 1}


async def test_a_service_with_a_bucket_gets_every_item_through():
    """A limiter below the service's rate is never refused."""
    async with Server(rate=400, burst=40) as server:
        result = await processor(server, rate_limiter=RateLimiter(200, 1)).process(TEXTS)
    assert result.results == LENGTHS
    assert server.statuses == {200: 100}


# ---- errors that pass


async def test_503s_are_retried():
    """Every fifth request: each costs one further request, and no item."""
    async with Server(trouble=dict.fromkeys(range(0, 100, 5), 503)) as server:
        result = await processor(server).process(TEXTS)
    assert result.results == LENGTHS
    assert server.statuses == {200: 100, 503: 20}
    assert sum(outcome.attempts for outcome in result) == 120


async def test_an_outage_ends_in_the_error_of_the_last_attempt():
    """A first attempt and two retries of each item, and each error on its own item."""
    async with Server(trouble=dict.fromkeys(range(30), 503)) as server:
        result = await processor(server, retry=AsyncRetry(2, 0.01)).process(TEXTS[:10])
    assert [outcome.attempts for outcome in result] == [3] * 10
    assert [getattr(error, "status", None) for error in result.errors] == [503] * 10
    assert len(server.arrivals) == 30


async def test_hanging_connections_end_in_attempt_timeout_and_are_retried():
    """The client hangs up, and the retry is answered."""
    async with Server(trouble=dict.fromkeys((3, 30, 60), "hang")) as server:
        result = await processor(server, timeout=1).process(TEXTS)
        assert result.results == LENGTHS
        assert server.hung_up == 3
    late = [outcome for outcome in result if outcome.attempts == 2]
    assert [outcome.history[0].error for outcome in late] == [
        "AttemptTimeout: the attempt took longer than 1 s"
    ] * 3


async def test_a_service_that_hangs_for_good_ends_in_attempt_timeout():
    """The error says so, and the job ends."""
    async with Server(trouble=dict.fromkeys(range(4), "hang")) as server:
        result = await processor(server, timeout=0.3, retry=AsyncRetry(1, 0.01)).process(["a", "b"])
    assert [type(error) for error in result.errors] == [AttemptTimeout] * 2
    assert server.hung_up == 4


async def test_dropped_connections_are_retried():
    """The connection goes away instead of an answer."""
    async with Server(trouble=dict.fromkeys((0, 1, 50), "drop")) as server:
        result = await processor(server).process(TEXTS)
    assert result.results == LENGTHS
    assert server.statuses == {200: 100, None: 3}


# ---- batches


async def test_413_splits_batches_until_they_fit():
    """Nothing is tried again as it was; what is answered is in order."""
    async with Server(largest=10) as server:
        result = await AsyncBatchProcessor(
            embed_many, 32, batched=True, retry=SOON, resources=server.client
        ).process(TEXTS)
    assert result.results == LENGTHS
    assert max(len(each.texts) for each in server.arrivals if each.status == 200) <= 10
    refused = [tuple(each.texts) for each in server.arrivals if each.status == 413]
    assert len(refused) == len(set(refused)) == 3 + 3 * 2


async def test_a_batch_with_a_value_too_few_is_split_down_to_the_item_at_fault():
    """Its neighbours are done; at most 2n-1 requests for its batch."""
    async with Server(poison=TEXTS[40]) as server:
        result = await AsyncBatchProcessor(
            embed_many, 32, batched=True, retry_count=0, resources=server.client
        ).process(TEXTS)
    assert is_whole(result)
    assert [outcome.index for outcome in result.get_failed()] == [40]
    assert isinstance(result.errors[40], ResultCountError)
    assert len(server.arrivals) <= 3 + 2 * 32 - 1


# ---- errors that never pass


async def test_a_bad_key_stops_the_job_after_the_requests_in_flight():
    """Nobody learns a thousand times that a key is wrong."""
    async with Server() as server:
        result = await processor(
            server, resources=partial(server.client, "wrong"), max_concurrency=2
        ).process(TEXTS)
    assert len(server.arrivals) <= 2
    assert is_whole(result)
    assert result.pending_count >= 98
    assert "401" in str(result.stopped_because)


async def test_a_bad_key_is_seen_by_the_first_request_alone():
    """One at a time, it is one request."""
    async with Server(key="renewed") as server:
        result = await processor(server, max_concurrency=1).process(TEXTS)
    assert len(server.arrivals) == 1
    assert (result.error_count, result.pending_count) == (1, 99)


async def made_in_the_background(server: Server) -> aiohttp.ClientSession:
    """Make a client on the background loop."""

    async def make() -> aiohttp.ClientSession:
        return server.client()

    return await asyncio.to_thread(lambda: run_async(make()))


def made_on_a_loop_that_is_gone(server: Server) -> aiohttp.ClientSession:
    """Make a client as two calls of `asyncio.run` would share it."""

    async def make() -> aiohttp.ClientSession:
        return server.client()

    return asyncio.run(make())


async def test_a_client_made_in_the_background_is_one_clear_error_here():
    """And no request."""
    async with Server() as server:
        client = await made_in_the_background(server)
        try:
            await one_clear_error(server, client)
        finally:
            await asyncio.to_thread(lambda: run_async(client.close()))


async def test_a_client_made_here_is_one_clear_error_in_the_background():
    """As when it is made in a cell and used by a job that `start` runs elsewhere."""
    async with Server() as server, server.client() as client:
        await one_clear_error(server, client, on_current_loop=False)


async def test_a_client_whose_loop_is_gone_is_one_clear_error():
    """And no request."""
    async with Server() as server:
        client = await asyncio.to_thread(made_on_a_loop_that_is_gone, server)
        try:
            await one_clear_error(server, client)
        finally:
            await client.close()


async def one_clear_error(
    server: Server, client: aiohttp.ClientSession, *, on_current_loop: bool = True
) -> None:
    """Check what comes of a job whose function uses a client of another loop."""

    async def embed(text: str) -> int:
        return await embed_one(text, client)

    stranger = AsyncBatchProcessor(embed, max_concurrency=8, retry=SOON)
    with pytest.raises(RunAsyncError, match="ways out"):
        await stranger.start(TEXTS, on_current_loop=on_current_loop)
    assert server.arrivals == []
    assert stranger.last_result is not None
    assert is_whole(stranger.last_result)
    assert stranger.last_result.pending_count >= 92
    assert stranger.last_result.success_count == 0


# ---- the client


async def test_one_client_serves_a_run_and_is_closed_at_its_end():
    """Also when the job failed."""
    clients: set[aiohttp.ClientSession] = set()

    async def noting(text: str, client: aiohttp.ClientSession) -> int:
        clients.add(client)
        assert not client.closed
        return await embed_one(text, client)

    async with Server(trouble={50: 401}) as server:
        for _ in range(2):
            result = await AsyncBatchProcessor(
                noting, max_concurrency=8, resources=server.client
            ).process(TEXTS)
            assert is_whole(result)
    assert len(clients) == 2
    assert all(client.closed for client in clients)


async def test_a_cancelled_job_hangs_up_and_closes_its_client():
    """The server sees every connection go."""
    async with Server(trouble=dict.fromkeys(range(8), "hang")) as server:
        job = processor(server).start(TEXTS, on_current_loop=True)
        await server.until(lambda: len(server.arrivals) == 8)
        job.cancel()
        result = await job
        await server.until(lambda: server.hung_up == 8)
    assert (result.cancelled_count, result.pending_count) == (8, 92)
    assert is_whole(result)


# ---- all at once


@pytest.mark.parametrize("on_current_loop", [True, False], ids=["this loop", "background"])
async def test_every_item_is_accounted_for_in_a_storm(on_current_loop: bool):
    """503s, hangs, drops and a bucket that refuses, all in one job."""
    trouble: dict[int, int | str] = {
        **dict.fromkeys(range(0, 300, 7), 503),
        **dict.fromkeys(range(5, 300, 41), "drop"),
        **dict.fromkeys((11, 101), "hang"),
    }
    async with Server(
        trouble=trouble, rate=150, burst=10, wait=0.05, wording="ms", latency=0.002
    ) as server:
        job = processor(
            server, timeout=1, retry=AsyncRetry(30, 0.01, max_delay=0.05), max_errors=0
        ).start(TEXTS * 3, on_current_loop=on_current_loop)
        result = await job
    assert result.results == LENGTHS * 3
    assert is_whole(result)
    assert server.statuses[200] == 300
    assert server.statuses[429] > 0
    assert sum(outcome.attempts for outcome in result) == len(server.arrivals)
