"""The desk of one loop: who waits keeps its order while Redis is away. On the virtual clock."""

import asyncio

import pytest

from tests.support.requirements import needs

needs("redis")

from ragasync import RedisUnavailable  # noqa: E402
from ragasync.redis.dispatcher import Dispatcher  # noqa: E402
from ragasync.redis.memory import LocalState  # noqa: E402
from ragasync.redis.outage import Outage  # noqa: E402
from ragasync.redis.script import Reply, Request, Terms  # noqa: E402

TERMS = Terms(10, 1)


class ScriptConnection:
    """Takes a second to fail, so many times; then gives the places of a second to all who ask."""

    def __init__(self, failures: float) -> None:
        self.failures = failures
        self.open = True

    async def ask(self, request: Request, timeout: float) -> Reply:
        """Fail, or give places."""
        await asyncio.sleep(1)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("nobody there")
        return Reply("1.0", 0.0, TERMS, tuple(float(n) for n, _ in enumerate(request.weights)))

    async def drop(self) -> None:
        """Hang up."""
        self.open = False


def desk_at(link: ScriptConnection, timeout: float = 30.0) -> Dispatcher:
    """Return a desk with this link."""
    return Dispatcher(link, LocalState(TERMS), Outage("redis://a", timeout))  # type: ignore[arg-type]


async def test_who_came_before_a_failed_try_goes_before_who_came_during_it():
    """The first were asked for already, and the others were not."""
    desk, order = desk_at(ScriptConnection(failures=2)), []

    async def call(number: int) -> None:
        await asyncio.sleep(number * 0.3)
        await desk.wait(1.0)
        order.append(number)

    await asyncio.gather(*map(call, range(8)))
    assert order == list(range(8))


async def test_each_caller_waits_so_long_for_a_redis_that_is_away_and_no_longer():
    """From when it came, but for the try that is under way."""
    desk = desk_at(ScriptConnection(failures=float("inf")), timeout=10.0)
    loop, ended = asyncio.get_running_loop(), []

    async def call(after: float) -> None:
        await asyncio.sleep(after)
        with pytest.raises(RedisUnavailable, match="nobody there"):
            await desk.wait(1.0)
        ended.append(loop.time() - after)

    await asyncio.gather(call(0), call(5))
    assert all(10 <= each <= 12 for each in ended)


async def test_it_hangs_up_a_second_after_the_last_caller():
    """And not before."""
    link = ScriptConnection(failures=0)
    desk = desk_at(link)
    await desk.wait(1.0)
    await asyncio.sleep(0.9)
    assert link.open
    await asyncio.sleep(0.2)
    assert not link.open
    await desk.wait(1.0)
