"""Run as a script: tasks of one process that share a rate, and note when each call began."""

import asyncio
import sys
import time

from redis.asyncio import Redis

from ragasync import RedisRateLimiter
from ragasync.redis import connection

NOTED = "redis.call('RPUSH', 'slots', string.format('%.6f', string.match(epoch, '^%d+') + due))\n"


async def share(port: int, rate: float, seconds: float) -> list[float]:
    """Have 20 tasks call as fast as the limiter lets them; return when, by the wall clock."""
    # The script also records each slot that it assigns.
    line = "  waits[#waits + 1]"
    connection.SCRIPT = connection.SCRIPT.replace(line, f"  {NOTED}{line}")
    connection.SHA = "0" * 40
    limiter = RedisRateLimiter(Redis(port=port), "shared", rate)
    until, began = time.time() + seconds, []

    async def call_on() -> None:
        while time.time() < until:
            await limiter.acquire()
            began.append(time.time())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(call_on())
    return began


if __name__ == "__main__":
    port, rate, seconds = sys.argv[1:]
    for when in asyncio.run(share(int(port), float(rate), float(seconds))):
        sys.stdout.write(f"{when!r}\n")
