"""What several processes and machines share through Redis: a rate, and a client that is safe."""

from ragasync.redis.connection import AsyncRedisConnection
from ragasync.redis.limiter import RedisRateLimiter

__all__ = ["AsyncRedisConnection", "RedisRateLimiter"]
