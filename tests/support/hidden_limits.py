"""Fake services whose limit is not documented, on the clock of the running loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace


class StatusError(Exception):
    """An HTTP client's error for a refusal."""

    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(f"status {status}")
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        self.response = SimpleNamespace(status_code=status, headers=headers)


class Service:
    """
    A service whose latency depends on the item and on the number of calls in flight.

    Args:
        knee: the number of concurrent calls that it can serve, as a function of the time.
        seconds: what a call takes when there are few.
        sigma: how far calls differ, as a lognormal's.
    """

    def __init__(
        self, knee: Callable[[float], float], *, seconds: float = 0.2, sigma: float = 0.0
    ) -> None:
        self.knee, self.seconds, self.sigma = knee, seconds, sigma
        self.in_flight = self.most = self.refused = 0
        self.calls = 0

    async def __call__(self, item: int) -> int:
        """Take what the call takes, or refuse it."""
        self.in_flight += 1
        self.calls += 1
        self.most = max(self.most, self.in_flight)
        try:
            now = asyncio.get_running_loop().time()
            chance = random.Random(item).lognormvariate(0.0, self.sigma) if self.sigma else 1.0
            await self.serve(self.in_flight / self.knee(now), self.seconds * chance)
        finally:
            self.in_flight -= 1
        return item

    async def serve(self, load: float, seconds: float) -> None:
        """Take what a call takes under this load, in shares of the knee."""
        raise NotImplementedError

    def refuse(self, status: int, retry_after: float | None = None) -> None:
        """Refuse a call."""
        self.refused += 1
        raise StatusError(status, retry_after)


class Refusing(Service):
    """Refuses with 429, or another status, what comes beyond its knee, after a tenth of a call."""

    status = 429

    async def serve(self, load: float, seconds: float) -> None:
        """Refuse or answer."""
        if load > 1:
            await asyncio.sleep(self.seconds / 10)
            self.refuse(self.status)
        await asyncio.sleep(seconds)


class Overloaded(Refusing):
    """Answers 503 to what comes beyond its knee."""

    status = 503


class Queueing(Service):
    """Serves as many calls as its knee concurrently and queues the rest: throughput stays flat."""

    async def serve(self, load: float, seconds: float) -> None:
        """Take longer in proportion."""
        await asyncio.sleep(seconds * max(1.0, load))


class Melting(Service):
    """Takes the longer the more there are, so that it gives less, and 503 beyond twice the knee."""

    async def serve(self, load: float, seconds: float) -> None:
        """Take longer by the square of the load."""
        await asyncio.sleep(seconds * max(1.0, load) ** 2)
        if load > 2:
            self.refuse(503)


class Metered(Service):
    """Allows a rate, with a burst of one second; above it, 429 with Retry-After."""

    def __init__(self, rate: float, *, seconds: float = 0.2, sigma: float = 0.0) -> None:
        super().__init__(lambda _: 1.0, seconds=seconds, sigma=sigma)
        self.rate = rate
        self._full_at = 0.0

    async def serve(self, load: float, seconds: float) -> None:
        """Take a token, or refuse."""
        now = asyncio.get_running_loop().time()
        self._full_at = max(now, self._full_at)
        if (over := self._full_at + 1 / self.rate - now - 1.0) > 0:
            await asyncio.sleep(0.01)
            self.refuse(429, over)
        self._full_at += 1 / self.rate
        await asyncio.sleep(seconds)


def still(knee: float) -> Callable[[float], float]:
    """Return a knee that stays where it is."""
    return lambda _: knee


def halved(knee: float, since: float, until: float) -> Callable[[float], float]:
    """Return a knee that is half as high for a while."""
    return lambda now: knee / 2 if since <= now < until else knee
