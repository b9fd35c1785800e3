"""One connection to Redis that runs the script; whatever goes wrong on it ends it."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from ragasync.redis.script import SCRIPT, SHA, Reply, Request

if TYPE_CHECKING:
    from redis.asyncio import Connection, Redis

LONGEST_ANSWER = 5.0
"""Seconds after which a Redis that accepts connections and says nothing counts as away."""


class ConnectionFactory:
    """
    Where a client's Redis is, and how one gets in; the client's own connections stay untouched.

    Connections belong to a loop, and a client may be of another one than the job that it limits.

    Args:
        client: a client of `redis.asyncio`, open or not.

    Raises:
        TypeError: it is something else.
    """

    def __init__(self, client: Redis) -> None:
        pool = getattr(client, "connection_pool", None)
        connect = getattr(getattr(pool, "connection_class", None), "connect", None)
        if pool is None or not inspect.iscoroutinefunction(connect):
            raise TypeError(
                f"expected a client of redis.asyncio, got {type(client).__module__}."
                f"{type(client).__qualname__}: pass redis.asyncio.Redis.from_url(url), or what "
                "`async with AsyncRedisConnection(url) as client` gives"
            )
        self._pool = pool

    def __str__(self) -> str:
        """Return its URL, without user and password."""
        return url_of(self._pool.connection_kwargs)

    def connection(self) -> Connection:
        """Return a new connection, not open yet, that leaves it to others to try again."""
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        settings = {**self._pool.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
        made: Connection = self._pool.connection_class(**settings)
        return made


def url_of(settings: dict[str, Any]) -> str:
    """Return the URL of a connection with these settings, without user and password."""
    if "path" in settings:
        return f"unix://{settings['path']}"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return f"redis://{host}:{port}/{settings.get('db') or 0}"


def key_of(name: str) -> str:
    """Return the key under which Redis keeps a limit, or say what is wrong with its name."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a text that all who share the rate give, got {name!r}")
    if not name or "}" in name or "{" in name:
        raise ValueError(f"name must be a text without braces, not empty, got {name!r}")
    return f"ragasync:rate:{{{name}}}"


class ScriptConnection:
    """
    Asks the script, one request at a time, on the loop that it is used on.

    Args:
        address: where Redis is.
        key: under which it keeps the state.
    """

    def __init__(self, address: ConnectionFactory, key: str) -> None:
        self._address = address
        self._keys = (key, f"{key}:log")
        self._connection: Connection | None = None

    async def ask(self, request: Request, timeout: float) -> Reply:
        """
        Run the script; connect first where there is no connection.

        Raises:
            redis.RedisError: Redis is away, or refuses.
            TimeoutError, OSError: it is away.
        """
        try:
            async with asyncio.timeout(min(timeout, LONGEST_ANSWER)):
                return Reply.read(await self._run(request.arguments()))
        except BaseException:
            # Cancelled ones too: an answer that still comes must not be taken for the next one's.
            await self.drop()
            raise

    async def drop(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _run(self, arguments: list[str]) -> Any:
        """Run the script by its name, or where Redis does not know it (any more), by its text."""
        from redis.exceptions import NoScriptError

        if self._connection is None:
            self._connection = self._address.connection()
            await self._connection.connect()  # type: ignore[no-untyped-call]
        try:
            return await self._send("EVALSHA", SHA, *self._places(), *arguments)
        except NoScriptError:
            return await self._send("EVAL", SCRIPT, *self._places(), *arguments)

    def _places(self) -> tuple[str, ...]:
        """Return the keys, after their number."""
        return (str(len(self._keys)), *self._keys)

    async def _send(self, *command: str) -> Any:
        """Send a command and return its answer."""
        connection = self._connection
        assert connection is not None
        await connection.send_command(*command)
        return await connection.read_response(disable_decoding=True)
