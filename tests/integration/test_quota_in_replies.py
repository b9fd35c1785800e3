"""A quota that is used up, as the body of a reply says it to a bare client: httpx, requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ragasync import FATAL, AsyncBatchProcessor, AsyncRetry
from tests.support.raw_server import RawServer
from tests.support.requirements import needs
from tests.support.verdicts import verdict_on, wait_named_by

needs("httpx", "requests", "aiohttp")

pytestmark = pytest.mark.real_time

Get = Callable[[str], Awaitable[BaseException]]


async def by_httpx(url: str) -> BaseException:
    """Return the error of a bare httpx client."""
    import httpx

    async with httpx.AsyncClient() as client:
        response = await client.get(url)
        with pytest.raises(httpx.HTTPStatusError) as caught:
            response.raise_for_status()
    return caught.value


async def by_requests(url: str) -> BaseException:
    """Return the error of requests."""
    import requests

    response = await asyncio.to_thread(requests.get, url, timeout=10)
    with pytest.raises(requests.HTTPError) as caught:
        response.raise_for_status()
    return caught.value


class StatusError(Exception):
    """What a user raises about a response of aiohttp."""

    def __init__(self, response: Any) -> None:
        super().__init__("refused")
        self.response = response


async def by_aiohttp(url: str) -> BaseException:
    """Return an error that keeps a response of aiohttp, whose body was read."""
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url) as response:
        await response.read()
        return StatusError(response)


CLIENTS: list[Get] = [by_httpx, by_requests, by_aiohttp]


async def verdict_on_reply(get: Get, body: str | bytes, status: int = 429) -> object:
    """Return the verdict on a reply with this body."""
    async with RawServer(lambda request: request.send(body, status=status)) as server:
        return verdict_on(await get(server.url))


@pytest.mark.parametrize("get", CLIENTS)
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}},
        {"error": {"type": "insufficient_quota", "code": None}},
        {"code": "billing_not_active"},
        {"type": "error", "error": {"type": "billing_error"}},
    ],
)
async def test_a_quota_that_is_used_up_is_fatal(get: Get, body: object):
    """By its code or its type, at the top or under "error"."""
    assert await verdict_on_reply(get, json.dumps(body)) is FATAL


@pytest.mark.parametrize("get", CLIENTS)
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"error": {"message": "insufficient_quota", "code": "rate_limit_exceeded"}}),
        json.dumps({"error": "insufficient_quota"}),
        json.dumps(["insufficient_quota"]),
        json.dumps({"input": {"code": "insufficient_quota"}}),
        json.dumps({"code": "insufficient_quota", "padding": " " * 70_000}),
        '{"error": ' * 50_000,
        '{"code": "insufficient_quota"',
        b"\xff\xfe\x00",
        "",
    ],
)
async def test_other_bodies_are_a_rate_limit(get: Get, body: str | bytes):
    """The word in a message, in what was sent, or in a page of any length says nothing."""
    assert await verdict_on_reply(get, body) is True


@pytest.mark.parametrize("get", CLIENTS)
async def test_a_failing_server_is_not_believed(get: Get):
    """A 503 passes, whatever its body says."""
    assert await verdict_on_reply(get, '{"code": "insufficient_quota"}', 503) is True


async def test_a_body_that_was_not_read_stays_unread():
    """Reading it would wait for a service that has said enough."""
    import httpx

    async with (
        RawServer(
            lambda request: request.send('{"code": "insufficient_quota"}', status=429)
        ) as server,
        httpx.AsyncClient() as client,
        client.stream("GET", server.url) as response,
    ):
        with pytest.raises(httpx.HTTPStatusError) as caught:
            response.raise_for_status()
        assert verdict_on(caught.value) is True
        assert (await response.aread()).startswith(b"{")


async def test_the_delay_that_google_states_in_a_body_is_heeded():
    """RetryInfo, among the details of the error."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
    body = json.dumps({"error": {"code": 429, "details": [info]}})
    async with RawServer(lambda request: request.send(body, status=429)) as server:
        assert wait_named_by(await by_httpx(server.url)) == 7.5


async def test_a_job_stops_after_one_call_when_the_quota_is_used_up():
    """Not after four for each of a hundred items."""
    import httpx

    body = json.dumps({"error": {"code": "insufficient_quota"}})
    async with (
        RawServer(lambda request: request.send(body, status=429)) as server,
        httpx.AsyncClient() as client,
    ):

        async def call(item: int) -> None:
            (await client.post(server.url, json=item)).raise_for_status()

        processor = AsyncBatchProcessor(call, max_concurrency=1, retry=AsyncRetry(3, 0.01))
        result = await processor.process(range(100))
        assert len(server.received) == 1
    assert result.pending_count == 99
    assert "fatal" in str(result.stopped_because)
