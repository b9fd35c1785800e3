"""A rate kept in Redis: order, cancellation, pauses, terms, several loops, and jobs."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    RateLimiter,
    RedisRateLimiter,
    RedisUnavailable,
    run_async,
)
from tests.support.lateness import Lateness
from tests.support.redis_server import RedisServer
from tests.support.services import StatusError

pytestmark = pytest.mark.real_time

Made = Callable[..., RedisRateLimiter]
NAMES = map("limit {}".format, itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests of this file."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def limiter(server: RedisServer) -> Made:
    """Make a limiter of this server, under a name of its own if none is given."""
    from redis.asyncio import Redis

    def made(rate: float = 1000.0, burst: float | None = None, **more) -> RedisRateLimiter:
        client = Redis(port=server.port)
        return RedisRateLimiter(client, more.pop("name", next(NAMES)), rate, burst, **more)

    return made


async def until(holds: Callable[[], object]) -> None:
    """Give way until something holds; the time limit of the test is the only one."""
    while not holds():  # noqa: ASYNC110  # what is elsewhere sets no event
        await asyncio.sleep(0.002)


async def test_callers_go_in_the_order_in_which_they_came(limiter: Made):
    """A big request is not overtaken by small ones behind it."""
    order, shared = [], limiter(500, 20)

    async def call(number: int) -> None:
        await shared.acquire(15 if number == 10 else 1)
        order.append(number)

    await asyncio.gather(*map(call, range(60)))
    assert order == list(range(60))


async def test_a_caller_who_is_cancelled_leaves_no_answer_behind(
    limiter: Made, server: RedisServer
):
    """Those before and behind it go on; its slot is lost only once Redis has given it."""
    shared = limiter(20, 1, name="cancelled")
    callers = [asyncio.create_task(shared.acquire()) for _ in range(8)]
    callers[0].cancel()  # before Redis was asked
    await callers[1]
    with server.asked() as asked:
        tat, at = asked.hmget("ragasync:rate:{cancelled}", "tat", "at")
    assert float(tat or 0) - float(at or 0) == pytest.approx(7 / 20, abs=0.06)
    for caller in callers[2:7]:
        caller.cancel()
    done, _ = await asyncio.wait(callers)
    assert [caller.cancelled() for caller in callers] == [True, False, *[True] * 5, False]
    assert len(done) == 8
    await shared.acquire()
    assert "waiting=0" in repr(shared)


async def test_thousands_of_callers_need_one_connection(limiter: Made, server: RedisServer):
    """None is refused because the connections are all in use."""
    shared = limiter(1e6, 1e6)
    with server.asked() as asked:
        before = asked.info("clients")["connected_clients"]
        await asyncio.gather(*(shared.acquire() for _ in range(5000)))
        assert asked.info("clients")["connected_clients"] <= before + 1


def pause_at(server: RedisServer, name: str) -> float:
    """Return for how long nothing was to be given, when Redis was last asked."""
    with server.asked() as asked:
        opens, at = asked.hmget(f"ragasync:rate:{{{name}}}", "opens", "at")
    return float(opens or 0) - float(at or 0)


async def test_a_pause_holds_callers_of_another_limiter_of_that_name(
    limiter: Made, server: RedisServer
):
    """As soon as Redis has heard of it."""
    one, other = limiter(name="paused"), limiter(name="paused")
    await other.acquire()
    one.pause(0.4)
    over = time.monotonic() + 0.4
    await until(lambda: pause_at(server, "paused") > 0.1)
    await other.acquire()
    assert time.monotonic() >= over - 0.001


async def test_a_pause_comes_from_a_thread_without_a_loop_too(limiter: Made, server: RedisServer):
    """And so does a rate."""
    shared = limiter(name="far")
    await asyncio.to_thread(shared.pause, 30)
    await until(lambda: pause_at(server, "far") > 25)


async def test_a_pause_is_ended_for_all_who_use_the_name(limiter: Made, server: RedisServer):
    """Whoever made it: callers go on in order, those of the other limiter within its next look."""
    one, other = limiter(1000, 1, name="resumed"), limiter(1000, 1, name="resumed")
    await other.acquire()
    one.pause(3600)
    await until(lambda: pause_at(server, "resumed") > 3000)
    order: list[int] = []

    async def call(number: int) -> None:
        await (one if number % 2 else other).acquire()
        order.append(number)

    calls = asyncio.gather(*map(call, range(8)))
    await until(lambda: other.paused_for > 3000)
    assert one.paused_for > 3000
    assert "paused for" in repr(other)
    other.resume()
    await asyncio.wait_for(calls, 10)
    assert [number for number in order if number % 2] == [1, 3, 5, 7]
    assert [number for number in order if not number % 2] == [0, 2, 4, 6]
    assert one.paused_for == other.paused_for == 0.0
    assert pause_at(server, "resumed") <= 0.0


async def test_no_more_than_the_burst_goes_when_a_pause_is_ended(limiter: Made):
    """The bucket refilled meanwhile, as in any rest; then all go at the rate."""
    paused = limiter(100, 5, name="rested")
    await paused.acquire()
    paused.pause(3600)
    calls = [asyncio.create_task(paused.acquire()) for _ in range(25)]
    await asyncio.sleep(0.2)
    began = time.monotonic()
    paused.resume()
    await asyncio.wait_for(asyncio.gather(*calls), 10)
    assert time.monotonic() - began >= 20 / 100 - 0.01


async def test_a_pause_that_was_ended_elsewhere_is_not_brought_back(limiter: Made):
    """The one who made it asks again, and says nothing of it."""
    one, other = limiter(name="over"), limiter(name="over")
    await one.acquire()
    one.pause(3600)
    waiting = asyncio.create_task(one.acquire())
    await asyncio.sleep(0.1)
    other.resume()
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(other.acquire(), 10)
    assert one.paused_for == 0.0


async def test_a_pause_is_ended_from_a_thread_without_a_loop(limiter: Made):
    """For the callers on this loop."""
    paused = limiter(name="ended")
    await paused.acquire()
    paused.pause(3600)
    waiting = asyncio.create_task(paused.acquire())
    await asyncio.sleep(0.1)
    await asyncio.to_thread(paused.resume)
    await asyncio.wait_for(waiting, 10)


async def test_a_job_ends_a_pause_of_a_limiter_in_redis(limiter: Made):
    """It resumes all its limiters."""
    refusals = [StatusError(429, retry_after=100.0)]

    async def call(item: int) -> int:
        if refusals:
            raise refusals.pop()
        return item

    paused = limiter(name="of a job")
    limiters = [paused, RateLimiter(1000)]
    processor = AsyncBatchProcessor(call, rate_limiter=limiters, retry_delay=0.0)
    job = processor.start([7], on_current_loop=True)
    while job.progress.limited_by != "paused":  # noqa: ASYNC110  # nothing else says so
        await asyncio.sleep(0.01)
    assert all(each.paused_for > 90 for each in limiters)
    job.resume()
    assert (await asyncio.wait_for(job, 10)).results == [7]
    assert [each.paused_for for each in limiters] == [0.0, 0.0]


async def test_callers_that_are_cancelled_in_a_pause_keep_no_connection(
    limiter: Made, server: RedisServer
):
    """The dispatcher disconnects although the pause goes on."""
    paused = limiter(name="left alone")
    with server.asked() as asked:
        before = asked.info("clients")["connected_clients"]
        paused.pause(3600)
        waiting = asyncio.create_task(paused.acquire())
        await asyncio.sleep(0.1)
        waiting.cancel()
        await until(lambda: asked.info("clients")["connected_clients"] <= before)


@pytest.mark.parametrize("wrong", [True, "1", None, float("nan"), -1, 10**400])
async def test_a_wrong_number_is_refused_with_what_was_got(limiter: Made, wrong):
    """As by a RateLimiter; callers after it go on."""
    shared = limiter(name="numbers")
    for attempt in (shared.pause, lambda wrong: setattr(shared, "rate", wrong), limiter):
        with pytest.raises((TypeError, ValueError), match="must be"):
            attempt(wrong)
    with pytest.raises((TypeError, ValueError), match="weight must be"):
        await shared.acquire(wrong)
    await shared.acquire()


async def test_a_new_rate_holds_for_all_who_use_the_name(limiter: Made):
    """The last to say it counts, be it by being new."""
    slow = limiter(4, name="said")
    await slow.acquire()
    fast = limiter(1000, name="said")
    await fast.acquire()
    waiting = asyncio.gather(*(slow.acquire() for _ in range(80)))
    await asyncio.wait_for(waiting, 10)  # twenty seconds at its own
    assert slow.rate == 1000
    slow.rate = 500
    await slow.acquire()
    await fast.acquire()
    assert fast.rate == 500


async def test_at_most_never_gives_more_in_a_window(server: RedisServer):
    """Nor for weights that differ."""
    from redis.asyncio import Redis

    shared, grants = RedisRateLimiter.at_most(Redis(port=server.port), "most", 10, 0.2), []

    async def call(weight: float) -> None:
        await shared.acquire(weight)
        grants.append((time.monotonic(), weight))

    async with Lateness() as late:
        await asyncio.gather(*(call(weight) for weight in [1, 7, 2, 10, 1, 1, 5, 5] * 2))
    for start, _ in grants:
        end = start + 0.2 - late.most
        assert sum(weight for when, weight in grants if start <= when < end) <= 10
    with pytest.raises(ValueError, match="can never be granted: at most 10"):
        await shared.acquire(11)


async def test_redis_may_forget_the_script(limiter: Made, server: RedisServer):
    """It is sent again."""
    shared = limiter()
    await shared.acquire()
    with server.asked() as asked:
        asked.script_flush()
    await asyncio.gather(*(shared.acquire() for _ in range(10)))


async def test_something_else_under_the_name_is_an_error_immediately(
    limiter: Made, server: RedisServer
):
    """Which says what to do."""
    with server.asked() as asked:
        asked.lpush("ragasync:rate:{taken}", "x")
    with pytest.raises(RedisUnavailable, match=r"refuses.*WRONGTYPE.*delete that"):
        await limiter(name="taken").acquire()


def test_it_belongs_to_no_loop(limiter: Made):
    """One after the other, and the background's, without a warning of what was left open."""
    shared = limiter()
    asyncio.run(shared.acquire())
    run_async(shared.acquire())
    asyncio.run(shared.acquire())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((object(), "a"), TypeError, "client of redis.asyncio, got builtins.object"),
        (("client", ""), ValueError, "must be a non-empty str"),
        (("client", 7), TypeError, "name must be a str"),
        (("client", "a", 0), ValueError, "requests_per_second must be positive"),
        (("client", "a", 1, -1), ValueError, "burst_size must be positive"),
    ],
)
def test_wrong_arguments_are_refused_immediately(server: RedisServer, arguments, error, says):
    """And so is a client that blocks."""
    from redis.asyncio import Redis

    arguments = [Redis() if each == "client" else each for each in arguments]
    with pytest.raises(error, match=says):
        RedisRateLimiter(*arguments)
    with server.asked() as blocking, pytest.raises(TypeError, match=r"redis\.asyncio"):
        RedisRateLimiter(blocking, "a")


# ---- jobs


class Busy(Exception):
    """A 429 that asks for a wait."""

    status_code = 429
    headers = {"retry-after": "0.4"}  # noqa: RUF012


async def test_a_429_pauses_the_jobs_of_all_who_share_the_rate(limiter: Made):
    """The other job has had none."""
    one, other, calls = limiter(name="busy"), limiter(name="busy"), []
    await other.acquire()

    async def refuse_once(item: int) -> int:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise Busy
        return item

    processor = AsyncBatchProcessor(refuse_once, max_concurrency=1, rate_limiter=one)
    job = processor.start([1])
    await until(lambda: calls and one.paused_for)
    refused = calls[0]
    await asyncio.sleep(0.05)  # for the message: it is on its way
    await other.acquire()
    assert time.monotonic() - refused >= 0.4
    assert (await job).all_succeeded


async def test_a_job_takes_from_redis_last(limiter: Made):
    """What a local limiter holds up has taken nothing there; the job's own rate works beside."""
    shared, local = limiter(10, 10), RateLimiter(0.001, 2)
    processor = AsyncBatchProcessor(asyncio.sleep, rate_limiter=[shared, local])
    job = processor.start([0] * 10)
    await until(lambda: job.progress.done == 2)
    job.rate = 5.0
    job.cancel()
    result = await job
    assert result.success_count == 2
    assert shared._state.request(())[0].ahead <= 1.1  # nine of the burst, and two calls


async def test_a_pipeline_embeds_at_a_shared_rate(limiter: Made):
    """Its embed stage takes a limiter in Redis as any other."""

    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0] for _ in texts]

    shared = limiter(100, 1)
    processor = AsyncDocumentProcessor(embed=embed, batch_size=1, rate_limiter=shared)
    result = await processor.process([(str(n), f"text {n}") for n in range(6)])
    assert result.all_succeeded
    assert shared._state._epoch
