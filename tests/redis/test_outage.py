"""Redis is killed and started again, stays away, or says nothing: waits, goes on, never hangs."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragasync import AsyncBatchProcessor, RedisRateLimiter, RedisUnavailable
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.real_time

RATE, BURST = 100.0, 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to kill."""
    with RedisServer(tmp_path) as server:
        yield server


def limiter(server: RedisServer, name: str = "a", **more) -> RedisRateLimiter:
    """Return a limiter of this server, whose password nobody must read."""
    from redis.asyncio import Redis

    password = more.pop("password", None)
    user = "ann" if password else None
    client = Redis(host="127.0.0.1", port=server.port, username=user, password=password)
    return RedisRateLimiter(client, name, RATE, BURST, **more)


async def until_away(shared: RedisRateLimiter) -> None:
    """Wait until a try has failed."""
    while not shared._dispatcher()._outage._attempts:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_redis_killed_and_started_again_goes_on_without_a_burst(server: RedisServer):
    """It has lost its state, and the rest has refilled nothing."""
    shared, times = limiter(server), []

    async def call_on() -> None:
        while len(times) < 160:
            await shared.acquire()
            times.append(time.monotonic())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(call_on())
        while len(times) < 40:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        server.kill()
        await until_away(shared)
        before = len(times)
        server.start()
        back = time.monotonic()
    after = times[before:]
    assert len(after) > 40
    # Places that were given before the end may be among the first; a full bucket would be BURST.
    assert sum(when < back + 0.5 for when in after) <= 0.5 * RATE + 25


async def test_a_new_process_finds_no_full_bucket_after_a_loss(server: RedisServer):
    """Another limiter comes first, and the old one brings along what it knows."""
    old, new = limiter(server), limiter(server)
    await asyncio.gather(*(old.acquire() for _ in range(20)))
    with server.asked() as asked:
        asked.flushall()
    began, times = time.monotonic(), []

    async def call(which: RedisRateLimiter) -> None:
        await which.acquire()
        times.append(time.monotonic() - began)

    await asyncio.gather(*(call(which) for which in [new] * 15 + [old] * 15))
    assert sorted(times)[20] >= 19 / RATE


async def test_redis_away_for_too_long_is_an_error_that_says_what_to_do(server: RedisServer):
    """With the address, since when, and no password."""
    shared = limiter(server, unavailable_timeout=0.3, password="pa55word")
    server.kill()
    with pytest.raises(RedisUnavailable) as caught:
        await shared.acquire()
    said = str(caught.value)
    for part in (server.url, "has not answered for 0.", "since 20", "Start it", "set unavail"):
        assert part in said
    assert "pa55word" not in said + repr(shared)
    server.start()


async def test_a_server_that_says_nothing_is_away(server: RedisServer):
    """It takes connections, and never answers."""
    shared = limiter(server, unavailable_timeout=0.3)
    await shared.acquire()
    server.freeze()
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(shared.acquire(), 20)


async def test_a_wrong_password_is_reported_immediately(server: RedisServer):
    """Waiting would not help."""
    with pytest.raises(RedisUnavailable, match="right username and password"):
        await limiter(server, password="pa55word").acquire()


async def test_a_full_redis_is_not_taken_for_missing_rights(server: RedisServer):
    """What to do is about its memory."""
    with server.asked() as asked:
        asked.config_set("maxmemory-policy", "noeviction")
        asked.config_set("maxmemory", "1")
    with pytest.raises(
        RedisUnavailable, match=r"its memory is full: raise its maxmemory"
    ) as caught:
        await limiter(server).acquire()
    assert "allow this user" not in str(caught.value)


async def test_a_redis_that_lacks_replicas_says_so(server: RedisServer):
    """The advice is about replicas."""
    with server.asked() as asked:
        asked.config_set("min-replicas-to-write", "1")
    with pytest.raises(RedisUnavailable, match="too few of its replicas"):
        await limiter(server).acquire()


async def test_a_user_who_may_not_run_scripts_is_told(server: RedisServer):
    """The advice about rights is for this one."""
    with server.asked() as asked:
        asked.acl_setuser("ann", enabled=True, passwords=["+pa55word"], categories=["+@read"])
    with pytest.raises(RedisUnavailable, match="allow this user to run scripts"):
        await limiter(server, password="pa55word").acquire()


async def test_a_job_without_its_redis_stops_and_keeps_what_is_done(server: RedisServer):
    """Its items do not fail one by one, each after its own wait."""
    shared = limiter(server, unavailable_timeout=0.3)
    called = asyncio.Event()

    async def call(item: int) -> int:
        if item == 5:
            server.kill()
            called.set()
        return item

    result = await AsyncBatchProcessor(call, max_concurrency=1, rate_limiter=shared).process(
        range(1000)
    )
    assert called.is_set()
    assert result.get_successful() == list(range(6))
    assert (result.error_count, result.pending_count) == (1, 993)
    assert "RedisUnavailable" in str(result.stopped_because)
    server.start()


async def test_a_caller_can_be_cancelled_while_redis_is_away(server: RedisServer):
    """At once, and those behind go on when it is back."""
    shared = limiter(server)
    server.kill()
    callers = [asyncio.create_task(shared.acquire()) for _ in range(3)]
    await until_away(shared)
    callers[0].cancel()
    assert (await asyncio.wait([callers[0]], timeout=5))[0]
    server.start()
    await asyncio.gather(*callers[1:])
