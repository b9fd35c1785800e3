"""A Redis client that is opened, checked and closed; no caller reads another's answer."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from ragasync import AsyncBatchProcessor, AsyncRedisConnection, RedisUnavailable
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests of this file."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


async def test_it_opens_and_closes_a_client(server: RedisServer):
    """And can be opened again, but not twice concurrently."""
    connection = AsyncRedisConnection(server.url, decode_responses=True)
    with pytest.raises(RuntimeError, match="async with"):
        _ = connection.client
    for value in "ab":
        async with connection as client:
            assert connection.client is client
            await client.set("key", value)
            assert await client.get("key") == value
            with pytest.raises(RuntimeError, match="already open"):
                await connection.__aenter__()
        with server.asked() as asked:
            assert asked.info("clients")["connected_clients"] == 1


async def test_no_server_is_told_with_its_address_and_no_password():
    """As well as what to do."""
    with pytest.raises(RedisUnavailable, match=r"redis://127.+:1/3, .*: start it") as caught:
        async with AsyncRedisConnection("redis://ann:pa55word@127.0.0.1:1/3"):
            pytest.fail("nobody is there")
    assert "pa55word" not in str(caught.value)


async def test_a_wrong_password_is_told(server: RedisServer):
    """By what to mend."""
    url = server.url.replace("127", "ann:pa55word@127")
    with pytest.raises(RedisUnavailable, match="right user and password") as caught:
        async with AsyncRedisConnection(url):
            pytest.fail("she is not let in")
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 3])
async def test_a_cancelled_command_leaves_no_answer_to_the_next_caller(
    server: RedisServer, size: int
):
    """A slow one, whose answer is still on its way."""
    async with AsyncRedisConnection(server.url, max_connections=size) as client:
        for number in range(5):
            slow = asyncio.create_task(client.blpop("nobody pushes", timeout=1))
            with server.asked() as asked:
                while not asked.info("clients")["blocked_clients"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            slow.cancel()
            await asyncio.wait([slow])
            assert await client.echo(f"{number}") == b"%d" % number


async def test_commands_cancelled_at_any_moment_spoil_nothing(server: RedisServer):
    """Nor do they use up the pool: every answer is the caller's own, to the end."""
    chance = random.Random(1)

    async def ask(client, number: int) -> None:
        assert await client.echo(str(number)) == str(number).encode()

    async with AsyncRedisConnection(server.url, max_connections=4) as client:
        for _ in range(40):
            asking = [asyncio.create_task(ask(client, number)) for number in range(30)]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            for each in chance.sample(asking, 10):
                each.cancel()
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                    each.cancel()
            await asyncio.wait(asking)
            assert all(each.cancelled() or each.exception() is None for each in asking)
        await asyncio.wait_for(asyncio.gather(*(ask(client, n) for n in range(100))), 20)


async def test_thousands_of_callers_share_a_small_pool(server: RedisServer):
    """They wait for a connection, and none is refused."""
    async with AsyncRedisConnection(server.url, max_connections=5) as client:
        counts = await asyncio.gather(*(client.incr("counted") for _ in range(2000)))
        assert sorted(counts) == list(range(1, 2001))


async def test_a_job_passes_the_client_to_its_function(server: RedisServer):
    """Opened on the loop of the run, and closed when it ends."""

    async def store(item: int, client) -> int:
        return await client.set(f"item {item}", item)

    def opened() -> AsyncRedisConnection:
        return AsyncRedisConnection(server.url)

    processor = AsyncBatchProcessor(store, max_concurrency=8, resources=opened)
    assert (await processor.start(range(50))).all_succeeded
    with server.asked() as asked:
        assert len(asked.keys("item *")) == 50
        assert asked.info("clients")["connected_clients"] == 1


@pytest.mark.parametrize(
    ("url", "more", "error"),
    [
        ("http://a", {}, ValueError),
        ("redis://a", {"max_connections": 0}, ValueError),
        ("redis://a", {"timeout": -1}, ValueError),
    ],
)
def test_wrong_arguments_are_refused_immediately(url: str, more: dict, error: type[Exception]):
    """Before anything is opened."""
    with pytest.raises(error):
        AsyncRedisConnection(url, **more)
