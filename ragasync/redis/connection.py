"""
Connections to Redis: the client that a user opens, and the connection that runs the script.

Neither retries by itself: the processor and the dispatcher do. Also here: which errors mean that
Redis is away, and advice for those with which it refuses.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ragasync.arguments import check_count, check_seconds, explains_arguments
from ragasync.error_text import describe, safe_message, type_name
from ragasync.errors import MissingExtra, RedisUnavailable
from ragasync.redis.script import SCRIPT, SHA, Reply, Request

if TYPE_CHECKING:
    from redis.asyncio import Connection, Redis

MAX_REPLY_TIME = 5.0
"""Seconds after which a Redis that accepts connections but sends no reply counts as away."""


@explains_arguments
class AsyncRedisConnection:
    """
    Open a `redis.asyncio` client, check that Redis answers, and close it at the end.

    Callers share a connection pool and wait when all connections are in use. A connection whose
    command was cancelled is dropped, so its reply never reaches the next caller. The client does
    not retry, because the processor does.

        async with AsyncRedisConnection("redis://localhost:6379/0") as client:
            await client.set("a", 1)

    Example:
        >>> from ragasync import AsyncBatchProcessor, AsyncRedisConnection
        >>> async def look_up(item, client):
        ...     return await client.get(item)
        >>> processor = AsyncBatchProcessor(look_up, resources=AsyncRedisConnection)
        >>> AsyncRedisConnection("redis://ann:pa55@localhost:6379/0")
        <AsyncRedisConnection redis://localhost:6379/0, closed>

    An object can be open only once at a time; after it is closed it can be opened again, on any
    loop.

    Args:
        url: The URL of Redis: `redis://[[user]:[password]@]host[:port][/db]`, `rediss://` for TLS,
            or `unix://path?db=0`.
        max_connections: The size of the pool; further callers wait for a connection.
        timeout: Seconds for connecting, and for each reply; None waits forever, which blocking
            commands may need.
        decode_responses: Whether replies are str instead of bytes.

    Raises:
        ValueError: The URL is not a Redis URL, or a number is out of range.
        MissingExtra: The package redis is not installed.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        max_connections: int = 50,
        timeout: float | timedelta | None = 30.0,
        decode_responses: bool = False,
    ) -> None:
        check_count("max_connections", max_connections, at_least=1)
        if timeout is not None:
            timeout = check_seconds("timeout", timeout, positive=True)
        self._url, self._size = url, max_connections
        self._timeout, self._decode = timeout, decode_responses
        self._client: Redis | None = None
        self._safe_url = url_of(self._make().connection_pool.connection_kwargs)

    @property
    def client(self) -> Redis:
        """
        The open client.

        Raises:
            RuntimeError: The connection is not open.
        """
        if self._client is None:
            raise RuntimeError("not open: write `async with AsyncRedisConnection(url) as client:`")
        return self._client

    async def __aenter__(self) -> Redis:
        """
        Open the client and check that Redis answers.

        Raises:
            RedisUnavailable: It does not answer, or refuses this user.
            RuntimeError: The connection is already open.
        """
        if self._client is not None:
            raise RuntimeError("already open: create another AsyncRedisConnection(url)")
        client = self._client = self._make()
        try:
            async with asyncio.timeout(min(self._timeout or 5.0, 5.0)):
                await client.ping()
        except BaseException as error:
            await self._close()
            if isinstance(error, Exception):
                raise RedisUnavailable(self._message(error)) from error
            raise
        return client

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def __repr__(self) -> str:
        state = "closed" if self._client is None else "open"
        return f"<AsyncRedisConnection {self._safe_url}, {state}>"

    def _make(self) -> Redis:
        """Return a client with a pool that has no connection yet."""
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
        """Close the client with its connections, including those in use."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _message(self, error: Exception) -> str:
        """Return an error message that says why the connection could not be opened."""
        todo = "give the URL the right user and password"
        if is_away(error):
            todo = "start it (redis-server), or check that this machine reaches it"
        return f"expected Redis to answer at {self._safe_url}, got {describe(error)}: {todo}"


class ConnectionFactory:
    """
    Creates connections with a client's settings, without using the client's own connections.

    A connection belongs to a loop, and the client may belong to another loop than the job.

    Args:
        client: A `redis.asyncio` client, open or not.

    Raises:
        TypeError: `client` is something else.
    """

    def __init__(self, client: Redis) -> None:
        pool = getattr(client, "connection_pool", None)
        connect = getattr(getattr(pool, "connection_class", None), "connect", None)
        if pool is None or not inspect.iscoroutinefunction(connect):
            raise TypeError(
                f"expected a client of redis.asyncio, got {type(client).__module__}."
                f"{type(client).__qualname__}: pass redis.asyncio.Redis.from_url(url), or the "
                "client of `async with AsyncRedisConnection(url) as client`"
            )
        self._pool = pool

    def __str__(self) -> str:
        """Return the URL without user and password."""
        return url_of(self._pool.connection_kwargs)

    def create(self) -> Connection:
        """Return a new connection, not open yet, that does not retry."""
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        settings = {**self._pool.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
        connection: Connection = self._pool.connection_class(**settings)
        return connection


class ScriptConnection:
    """A connection that runs the script, one request at a time; any error closes it."""

    def __init__(self, factory: ConnectionFactory, key: str) -> None:
        self._factory = factory
        self._keys = ("2", key, f"{key}:log")  # their number comes first
        self._connection: Connection | None = None

    async def ask(self, request: Request, timeout: float) -> Reply:
        """
        Run the script and return its reply; connect first if there is no connection.

        Raises:
            redis.RedisError: Redis is away, or refuses the request.
            TimeoutError, OSError: Redis is away.
        """
        try:
            async with asyncio.timeout(min(timeout, MAX_REPLY_TIME)):
                return Reply.read(await self._run(request.arguments()))
        except BaseException:
            # After a cancellation too: a late reply must not be taken for that of the next request.
            await self.disconnect()
            raise

    async def disconnect(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _run(self, arguments: list[str]) -> Any:
        """Run the script by its SHA-1, or by its text if Redis does not know that (any more)."""
        from redis.exceptions import NoScriptError

        if self._connection is None:
            self._connection = self._factory.create()
            await self._connection.connect()  # type: ignore[no-untyped-call]
        try:
            return await self._send("EVALSHA", SHA, *self._keys, *arguments)
        except NoScriptError:
            return await self._send("EVAL", SCRIPT, *self._keys, *arguments)

    async def _send(self, *command: str) -> Any:
        """Send a command and return its reply."""
        connection = self._connection
        assert connection is not None
        await connection.send_command(*command)
        return await connection.read_response(disable_decoding=True)


def url_of(settings: dict[str, Any]) -> str:
    """Return the URL of connection settings, without user and password."""
    if "path" in settings:
        return f"unix://{settings['path']}"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return f"redis://{host}:{port}/{settings.get('db') or 0}"


def key_of(name: str) -> str:
    """Return the Redis key of a limit's name, or raise if the name is not valid."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str that all processes sharing the rate use, got {name!r}")
    if not name or "}" in name or "{" in name:
        raise ValueError(f"name must be a non-empty str without braces, got {name!r}")
    return f"ragasync:rate:{{{name}}}"


def is_away(error: Exception) -> bool:
    """Return whether an error means that Redis is away, starting, or changing its role."""
    from redis import exceptions as of_redis

    if isinstance(error, of_redis.AuthenticationError | of_redis.AuthorizationError):
        return False
    away = (of_redis.ConnectionError, of_redis.TimeoutError)  # a starting server raises the former
    changing = (of_redis.MasterDownError, of_redis.ReadOnlyError)
    return isinstance(error, (*away, *changing, OSError))


_ADVICE = (
    (
        "WRONGTYPE",
        "it has other data under this name: delete that, or give the limiter another name",
    ),
    ("AUTH|password|WRONGPASS", "give the client the right username and password"),
    ("OOM|OutOfMemory|maxmemory", "its memory is full: raise its maxmemory, or delete data"),
    ("MISCONF", "it cannot write to its disk: free some space there, or see its log"),
    ("NOREPLICAS", "too few of its replicas are up: start them, or lower min-replicas-to-write"),
    ("BUSY", "another script is running: wait for it, or end it with SCRIPT KILL"),
    (
        "CROSSSLOT|CrossSlot|MOVED|Moved|CLUSTERDOWN|ClusterDown|AskError",
        "it is one node of a cluster: use a Redis of its own",
    ),
    ("NOPERM|permission|unknown command", "allow this user to run scripts"),
)
"""Advice on errors of Redis, by a regular expression for the message."""


def refusal_message(url: str, error: Exception) -> str:
    """Return an error message for a Redis that answers but refuses the script."""
    problem = f"{type_name(error)}: {safe_message(error)}"
    advice = (todo for words, todo in _ADVICE if re.search(words, problem))
    todo = next(advice, "see its log, and run the same again once it answers")
    return f"Redis at {url} refuses to keep the rate limit ({problem}): {todo}"
