"""Redis loses the state of a limit, or goes back to an old one: no window exceeds the bound."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragasync import RedisRateLimiter
from tests.support.lateness import Lateness
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.real_time

RATE, BURST = 30.0, 15.0
LIMIT, PER = 24.0, 0.8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to break."""
    with RedisServer(tmp_path) as server:
        yield server


def bucket(server: RedisServer) -> RedisRateLimiter:
    """Return a limiter as of a further process: it knows nothing of the others."""
    from redis.asyncio import Redis

    return RedisRateLimiter(Redis(port=server.port), "a", RATE, BURST)


def window(server: RedisServer) -> RedisRateLimiter:
    """Return a limiter of calls in a window."""
    from redis.asyncio import Redis

    return RedisRateLimiter.at_most(Redis(port=server.port), "a", LIMIT, PER)


def weights(server: RedisServer) -> RedisRateLimiter:
    """Return a limiter of weights in a window."""
    from redis.asyncio import Redis

    return RedisRateLimiter.at_most(Redis(port=server.port), "a", LIMIT, PER, weight=len)


def flush(server: RedisServer) -> None:
    """Have Redis forget everything."""
    with server.asked() as asked:
        asked.flushall()


def restart(server: RedisServer) -> None:
    """Kill it and start it again, with nothing."""
    server.kill()
    server.start()


def evict(server: RedisServer) -> None:
    """Have it forget the state, as when its memory is full."""
    with server.asked() as asked:
        asked.delete("ragasync:rate:{a}")


def evict_log(server: RedisServer) -> None:
    """Have it forget what was given in the window, and nothing else."""
    with server.asked() as asked:
        asked.delete("ragasync:rate:{a}:log")


def restart_from_old_copy(server: RedisServer) -> None:
    """Have it go on from what it had saved before, as a replica that lagged behind."""
    server.kill()  # what was saved is in its folder
    server.start()


LOSSES = {each.__name__: each for each in (flush, restart, evict, restart_from_old_copy)}


def most_in(times: list[tuple[float, float]], seconds: float) -> float:
    """Return the most weight in any window; it is enough to start one at each call."""
    times = sorted(times)
    starts = [when for when, _ in times]
    ends = (bisect_left(starts, start + seconds) for start in starts)
    return max(sum(weight for _, weight in times[n:end]) for n, end in enumerate(ends))


async def calls_around(
    lose: Callable[[RedisServer], None],
    make: Callable[[RedisServer], RedisRateLimiter],
    server: RedisServer,
    weight: float = 1.0,
) -> list[tuple[float, float]]:
    """Return when calls began: of one process before a loss and through it, of others after it."""
    times: list[tuple[float, float]] = []

    async def call(limiter: RedisRateLimiter) -> None:
        await limiter.acquire(weight)
        times.append((time.monotonic(), weight))

    count = int(40 / weight)
    first = make(server)
    await first.acquire()
    if lose is restart_from_old_copy:
        with server.asked() as asked:
            asked.save()
    await asyncio.sleep(BURST / RATE + 0.1)  # the bucket is full
    calls = [asyncio.create_task(call(first)) for _ in range(count)]
    while not times:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)
    await asyncio.to_thread(lose, server)
    for _ in range(2):
        other = make(server)
        calls += [asyncio.create_task(call(other)) for _ in range(count // 2)]
        await asyncio.sleep(0.2)
    await asyncio.gather(*calls)
    assert len(times) == len(calls)
    return times


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_bucket_keeps_its_bound_when_its_state_is_lost(loss: str, server: RedisServer):
    """The caller who asks first afterwards, and however many wait with slots of before."""
    async with Lateness() as late:
        times = await calls_around(LOSSES[loss], bucket, server)
    for seconds in (0.5, 1.0, 2.0):
        assert most_in(times, seconds - late.most) <= BURST + RATE * seconds


@pytest.mark.parametrize("loss", [*LOSSES, "evict_log"])
async def test_a_window_keeps_its_limit_when_its_state_is_lost(loss: str, server: RedisServer):
    """Never one more, also where only the log of the window is gone."""
    lose = LOSSES.get(loss, evict_log)
    async with Lateness() as late:
        times = await calls_around(lose, window, server)
    assert most_in(times, PER - late.most) <= LIMIT


@pytest.mark.parametrize("lose", [flush, evict_log])
async def test_a_window_of_weights_keeps_its_limit_when_its_state_is_lost(
    lose: Callable[[RedisServer], None], server: RedisServer
):
    """A third of the limit may have gone in one call just before."""
    async with Lateness() as late:
        times = await calls_around(lose, weights, server, weight=8.0)
    assert most_in(times, PER - late.most) <= LIMIT


async def test_places_of_a_lost_state_lapse_and_their_callers_keep_their_order(server: RedisServer):
    """They ask again, before those who came later."""
    from redis.asyncio import Redis

    limiter = RedisRateLimiter(Redis(port=server.port), "a", 20, 1)
    order: list[int] = []

    async def call(number: int) -> None:
        await limiter.acquire()
        order.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(12)]
    while len(order) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    flush(server)
    calls += [asyncio.create_task(call(number)) for number in range(12, 20)]
    await asyncio.gather(*calls)
    assert order == list(range(20))


async def test_two_loops_of_one_process_both_hear_of_a_loss(server: RedisServer):
    """Each has slots of its own to give up."""
    limiter, times = bucket(server), list[tuple[float, float]]()

    async def call() -> None:
        await limiter.acquire()
        times.append((time.monotonic(), 1.0))

    async def many() -> None:
        await asyncio.gather(*(call() for _ in range(30)))

    await limiter.acquire()
    await asyncio.sleep(BURST / RATE + 0.1)
    other = asyncio.create_task(asyncio.to_thread(asyncio.run, many()))
    own = asyncio.create_task(many())
    async with Lateness() as late:
        await asyncio.sleep(0.2)
        flush(server)
        await asyncio.gather(own, other)
    assert len(times) == 60
    assert most_in(times, 1.0 - late.most) <= BURST + RATE


def pid_of(server: RedisServer) -> int:
    """Return the process of a server."""
    with server.asked() as asked:
        info: dict[str, Any] = asked.info("server")
    return int(info["process_id"])


async def test_places_that_went_by_while_redis_was_silent_are_not_used_together(
    server: RedisServer,
):
    """It kept its state: nobody is lost, all keep their order, and no window exceeds the bound."""
    limiter, times, order = bucket(server), list[tuple[float, float]](), list[int]()

    async def call(number: int) -> None:
        await limiter.acquire()
        times.append((time.monotonic(), 1.0))
        order.append(number)

    await limiter.acquire()
    process = pid_of(server)
    calls = [asyncio.create_task(call(number)) for number in range(60)]
    while len(order) < 10:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    async with Lateness() as late:
        os.kill(process, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        silent = len(order)
        os.kill(process, signal.SIGCONT)
        await asyncio.gather(*calls)
    assert order == list(range(60))
    assert silent < 30  # nothing goes once the last answer is too old
    for seconds in (0.5, 1.0):
        assert most_in(times, seconds - late.most) <= BURST + RATE * seconds


async def test_a_new_name_begins_within_moments(server: RedisServer):
    """Soon for calls, after a window for weights that may have gone together."""
    for make, wait in ((bucket, 0.1), (window, 0.1), (weights, PER)):
        flush(server)
        began = time.monotonic()
        async with asyncio.timeout(wait + 30):
            await make(server).acquire()
        assert time.monotonic() - began >= wait


async def test_users_who_may_not_ask_which_server_it_is_lose_nothing(server: RedisServer):
    """Beside others who may, they share one state."""
    from redis.asyncio import Redis

    with server.asked() as asked:
        asked.execute_command("ACL", "SETUSER", "ann", "on", ">pa55", "~*", "+@all", "-info")
        limiters = [
            bucket(server),
            RedisRateLimiter(
                Redis(port=server.port, username="ann", password="pa55"), "a", RATE, BURST
            ),
        ]
        epochs = set()
        for limiter in limiters * 2:
            await limiter.acquire()
            epochs.add(asked.hget("ragasync:rate:{a}", "epoch"))
    assert len(epochs) == 1


@pytest.mark.parametrize("lose", [flush, restart, restart_from_old_copy])
async def test_the_rate_that_was_set_last_survives_a_loss(
    server: RedisServer, lose: Callable[[RedisServer], None]
):
    """Also where one that had not heard of it comes first; a rate set after the loss counts."""
    setting, idle = bucket(server), bucket(server)
    await setting.acquire()
    await idle.acquire()
    if lose is restart_from_old_copy:
        with server.asked() as asked:
            asked.save()
    setting.rate = 20.0
    await setting.acquire()
    lose(server)
    await idle.acquire()
    await setting.acquire()
    await idle.acquire()
    assert (setting.rate, idle.rate) == (20.0, 20.0)
    lose(server) if lose is flush else None
    idle.rate = 40.0
    await idle.acquire()
    await setting.acquire()
    assert (setting.rate, idle.rate) == (40.0, 40.0)
