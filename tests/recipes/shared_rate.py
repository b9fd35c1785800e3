"""Redis: whoever runs this shares one rate with all others, on this machine and elsewhere."""

import os

from redis.asyncio import Redis

from ragasync import AsyncDocumentProcessor, RedisRateLimiter

client = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
limiter = RedisRateLimiter(client, "library", requests_per_second=50)
processor = AsyncDocumentProcessor(rate_limiter=limiter)
result = processor.process_sync("docs")
