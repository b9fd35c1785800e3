"""The dispatcher of one loop: callers keep their order while Redis is away. On a virtual clock."""

import asyncio

import pytest

from tests.support.requirements import needs

needs("redis")

from ragasync import RedisUnavailable  # noqa: E402

# Internals: the part that asks the server, with one that fails on demand.
from ragasync.redis.dispatcher import Dispatcher, Outage  # noqa: E402
from ragasync.redis.script import LocalState, Reply, Request, Terms  # noqa: E402

TERMS = Terms(10, 1)


class FakeConnection:
    """A connection that fails after a second, a number of times; then it assigns slots."""

    def __init__(self, failures: float) -> None:
        self.failures = failures
        self.open = True

    async def ask(self, request: Request, timeout: float) -> Reply:
        """Fail, or return a slot a second."""
        await asyncio.sleep(1)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("nobody there")
        return Reply("1.0", 0.0, TERMS, tuple(float(n) for n, _ in enumerate(request.weights)))

    async def disconnect(self) -> None:
        """Close the connection."""
        self.open = False


def dispatcher_of(connection: FakeConnection, timeout: float = 30.0) -> Dispatcher:
    """Return a dispatcher with this connection."""
    return Dispatcher(connection, LocalState(TERMS), Outage("redis://a", timeout))  # type: ignore[arg-type]


async def test_who_came_before_a_failed_try_goes_before_who_came_during_it():
    """The first were in the failed request, and the others were not."""
    dispatcher, order = dispatcher_of(FakeConnection(failures=2)), []

    async def call(number: int) -> None:
        await asyncio.sleep(number * 0.3)
        await dispatcher.wait(1.0)
        order.append(number)

    await asyncio.gather(*map(call, range(8)))
    assert order == list(range(8))


async def test_each_caller_waits_for_a_redis_that_is_away_until_its_timeout():
    """From its arrival, plus the attempt in progress."""
    dispatcher = dispatcher_of(FakeConnection(failures=float("inf")), timeout=10.0)
    loop, ended = asyncio.get_running_loop(), []

    async def call(after: float) -> None:
        await asyncio.sleep(after)
        with pytest.raises(RedisUnavailable, match="nobody there"):
            await dispatcher.wait(1.0)
        ended.append(loop.time() - after)

    await asyncio.gather(call(0), call(5))
    assert all(10 <= each <= 12 for each in ended)


async def test_it_disconnects_a_second_after_the_last_caller():
    """And not earlier."""
    connection = FakeConnection(failures=0)
    dispatcher = dispatcher_of(connection)
    await dispatcher.wait(1.0)
    await asyncio.sleep(0.9)
    assert connection.open
    await asyncio.sleep(0.2)
    assert not connection.open
    await dispatcher.wait(1.0)
