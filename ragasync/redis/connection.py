"""A Redis client that is opened, checked and closed: for the calls of a job, or for a cell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ragasync.arguments import check_count, check_positive
from ragasync.error_text import describe
from ragasync.errors import MissingExtra, RedisUnavailable
from ragasync.redis.link import url_of
from ragasync.redis.outage import is_away

if TYPE_CHECKING:
    from redis.asyncio import Redis


class AsyncRedisConnection:
    """
    Open a `redis.asyncio` client, check that Redis answers, and close it at the end.

    Callers share a pool and wait for a connection when all are in use, however many they are. A
    connection whose command was cancelled is dropped: its answer never reaches the next caller.
    Nothing is tried again in here, for the processor does that.

        async with AsyncRedisConnection("redis://localhost:6379/0") as client:
            await client.set("a", 1)

    Example:
        >>> from ragasync import AsyncBatchProcessor, AsyncRedisConnection
        >>> async def look_up(item, client):
        ...     return await client.get(item)
        >>> processor = AsyncBatchProcessor(look_up, resources=AsyncRedisConnection)
        >>> AsyncRedisConnection("redis://ann:pa55@localhost:6379/0")
        <AsyncRedisConnection redis://localhost:6379/0, closed>

    One at a time can be open of the same object; it can be opened again, on any loop.

    Args:
        url: of Redis: `redis://[[user]:[password]@]host[:port][/db]`, `rediss://` for TLS, or
            `unix://path?db=0`.
        max_connections: the most connections; further callers wait for one of them.
        timeout: seconds for connecting, and for each answer; None waits for ever, as blocking
            commands may need it.
        decode_responses: whether answers are texts, not bytes.

    Raises:
        ValueError: the URL is none of Redis, or a number is out of range.
        MissingExtra: the package redis is not installed.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        max_connections: int = 50,
        timeout: float | None = 30.0,
        decode_responses: bool = False,
    ) -> None:
        check_count("max_connections", max_connections, at_least=1)
        if timeout is not None:
            check_positive("timeout", timeout)
        self._url, self._size = url, max_connections
        self._timeout, self._decode = timeout, decode_responses
        self._client: Redis | None = None
        self._said_url = url_of(self._make().connection_pool.connection_kwargs)

    @property
    def client(self) -> Redis:
        """
        The client, while it is open.

        Raises:
            RuntimeError: it is not.
        """
        if self._client is None:
            raise RuntimeError("not open: write `async with AsyncRedisConnection(url) as client:`")
        return self._client

    async def __aenter__(self) -> Redis:
        """
        Open the client and see that Redis answers.

        Raises:
            RedisUnavailable: it does not, or not to this user.
            RuntimeError: it is open already.
        """
        if self._client is not None:
            raise RuntimeError("already open: make a further AsyncRedisConnection(url)")
        client = self._client = self._make()
        try:
            async with asyncio.timeout(min(self._timeout or 5.0, 5.0)):
                await client.ping()
        except BaseException as error:
            await self._close()
            if isinstance(error, Exception):
                raise RedisUnavailable(self._why(error)) from error
            raise
        return client

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def __repr__(self) -> str:
        state = "closed" if self._client is None else "open"
        return f"<AsyncRedisConnection {self._said_url}, {state}>"

    def _make(self) -> Redis:
        """Return a client that has no connection yet."""
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise MissingExtra("AsyncRedisConnection", "redis", "redis") from None
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=self._size,
            timeout=None,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            decode_responses=self._decode,
            retry=Retry(NoBackoff(), 0),
        )
        return Redis.from_pool(pool)

    async def _close(self) -> None:
        """Close what is open; connections of calls that still run included."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _why(self, error: Exception) -> str:
        """Say why it could not be opened."""
        todo = "give the URL the right user and password"
        if is_away(error):
            todo = "start it (redis-server), or see that this machine reaches it"
        return f"expected Redis to answer at {self._said_url}, got {describe(error)}: {todo}"
