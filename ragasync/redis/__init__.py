"""
Redis: a rate limit shared by processes and machines, and a client that is opened and closed safely.

    limiter.py     RedisRateLimiter
    dispatcher.py  Dispatcher: requests slots for the callers of one loop; Outage: when to retry
    connection.py  AsyncRedisConnection; the connection that runs the script; errors of Redis
    script.py      the Lua script, its Request and Reply, and LocalState

A caller of `RedisRateLimiter.acquire` waits at the dispatcher of its loop. The dispatcher's task
sends one request for all waiting callers to the script, which assigns each a slot in time. A timer
wakes each caller at its slot, if Redis has replied within the lease.
"""

from ragasync.redis.connection import AsyncRedisConnection
from ragasync.redis.limiter import RedisRateLimiter

__all__ = ["AsyncRedisConnection", "RedisRateLimiter"]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)
