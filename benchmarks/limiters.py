"""
The contenders of `limits.py`: rate limiters, and the ways in which they are asked.

To add one, write a function of (rate) that makes a Limiter, and give it a line in LIMITERS; name
the module it needs, so that it is left out where that is not installed. What has no `acquire` is
an async function of (rate, log) that goes on until it is cancelled, with a line in RUNNERS.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from measuring import installed

from ragasync import RateLimiter

WAITERS = 64


@dataclass
class Limiter:
    """How a contender is asked for a place, and what else there is to know of it."""

    acquire: Callable[[], Awaitable[object]]
    burst: float = 1.0
    """How much it grants at once after a rest."""
    close: Callable[[], object] = lambda: None


@dataclass
class Log:
    """Who asked when, and who was granted when; whoever asks gets the next number."""

    asked: list[float] = field(default_factory=list)
    granted: list[tuple[int, float]] = field(default_factory=list)

    def ask(self) -> int:
        """Note that somebody stands in line from now on; return the number."""
        self.asked.append(time.monotonic())
        return len(self.asked) - 1

    def grant(self, number: int) -> None:
        """Note that this one runs."""
        self.granted.append((number, time.monotonic()))


class HandMade:
    """
    The generic cell rate algorithm in ten lines: each caller reserves the next place and sleeps.

    It belongs to one loop, and a caller that is cancelled loses its place.
    """

    def __init__(self, rate: float, catch_up: float) -> None:
        self._interval = 1 / rate
        self._catch_up = catch_up
        self._next = 0.0

    async def acquire(self) -> None:
        """Reserve the next place and sleep until then."""
        now = time.monotonic()
        place = max(self._next, now - self._catch_up)
        self._next = place + self._interval
        if place > now:
            await asyncio.sleep(place - now)


def hand_made(rate: float, catch_up: float = 0.0) -> Limiter:
    """Make the limiter above."""
    return Limiter(HandMade(rate, catch_up).acquire, 1 + catch_up * rate)


def ragasync(rate: float) -> Limiter:
    """Make ours, with the burst that it chooses itself."""
    limiter = RateLimiter(rate)
    return Limiter(limiter.acquire, limiter.burst)


def aiolimiter(rate: float, *, smooth: bool) -> Limiter:
    """Make a bucket of one that leaks in 1/rate seconds, or one of a second's worth."""
    from aiolimiter import AsyncLimiter

    size, period = (1, 1 / rate) if smooth else (rate, 1)
    return Limiter(AsyncLimiter(size, period).acquire, size)


def pyrate_limiter(rate: float) -> Limiter:
    """Make a log of the last second."""
    from pyrate_limiter import Duration, Rate
    from pyrate_limiter import Limiter as Pyrate

    limiter = Pyrate(Rate(int(rate), Duration.SECOND))
    return Limiter(limiter.try_acquire_async, rate, limiter.close)


def throttled(rate: float) -> Limiter:
    """Make the generic cell rate algorithm over a store in memory."""
    from throttled import asyncio as throttled

    limiter = throttled.Throttled(
        key="everybody",
        using=throttled.RateLimiterType.GCRA.value,
        quota=throttled.per_sec(int(rate), burst=1),
        store=throttled.MemoryStore(),
        timeout=1e6,
    )
    return Limiter(limiter.limit)


def asynciolimiter(rate: float, kind: str) -> Limiter:
    """Make the one that catches up by five, or the one that never does."""
    import asynciolimiter as package

    limiter = getattr(package, kind)(rate)
    return Limiter(limiter.wait, close=limiter.close)


def langchain(rate: float, *, every: float | None = None) -> Limiter:
    """Make the one that asks again so often; every tenth of a second if not said."""
    from langchain_core.rate_limiters import InMemoryRateLimiter

    options: dict[str, Any] = {} if every is None else {"check_every_n_seconds": every}
    return Limiter(InMemoryRateLimiter(requests_per_second=rate, **options).aacquire)


OURS, REFERENCE = "ragasync", "hand-made"

_LIMITERS: dict[str, tuple[str, Callable[[float], Limiter]]] = {
    REFERENCE: ("asyncio", hand_made),
    "hand-made, 40 ms to catch up": ("asyncio", partial(hand_made, catch_up=0.04)),
    "aiolimiter (1, 1/rate)": ("aiolimiter", partial(aiolimiter, smooth=True)),
    "aiolimiter (rate, 1)": ("aiolimiter", partial(aiolimiter, smooth=False)),
    "pyrate-limiter": ("pyrate_limiter", pyrate_limiter),
    "throttled-py, GCRA": ("throttled", throttled),
    "asynciolimiter, Limiter": ("asynciolimiter", partial(asynciolimiter, kind="Limiter")),
    "asynciolimiter, Strict": ("asynciolimiter", partial(asynciolimiter, kind="StrictLimiter")),
    "LangChain": ("langchain_core", langchain),
    "LangChain, asking every ms": ("langchain_core", partial(langchain, every=0.001)),
    OURS: ("asyncio", ragasync),
}
LIMITERS = {name: make for name, (module, make) in _LIMITERS.items() if installed(module)}

Runner = Callable[[float, Log], Awaitable[None]]


@contextlib.asynccontextmanager
async def closing(make: Callable[[float], Limiter], rate: float) -> AsyncIterator[Limiter]:
    """Make a limiter on this loop, and end its threads and timers afterwards."""
    limiter = make(rate)
    try:
        yield limiter
    finally:
        limiter.close()


async def stand_in_line(make: Callable[[float], Limiter], rate: float, log: Log) -> None:
    """Have many ask one limiter, and ask again as soon as they are granted."""

    async def take_turns() -> None:
        while True:
            number = log.ask()
            await limiter.acquire()
            log.grant(number)

    async with closing(make, rate) as limiter:
        await asyncio.gather(*(take_turns() for _ in range(WAITERS)))


async def start_jobs(rate: float, log: Log) -> None:
    """Have aiometer start jobs; as many as there are waiters elsewhere count as standing by."""
    from aiometer import run_on_each

    async def job(number: int) -> None:
        log.grant(number)

    def jobs() -> Iterator[int]:
        for _ in range(WAITERS):
            log.ask()
        for number in itertools.count():
            yield number
            log.ask()

    endless: Any = jobs()  # any iterable does, and a list of them would have to end
    await run_on_each(job, endless, max_per_second=rate)


async def sleep_alone(rate: float, log: Log) -> None:
    """Sleep 1/rate again and again: what it costs to wake a loop, and no limiter at all."""
    while True:
        log.grant(log.ask())
        await asyncio.sleep(1 / rate)


FLOOR = "(no limiter: one task that sleeps)"

RUNNERS: dict[str, Runner] = {
    FLOOR: sleep_alone,
    **({"aiometer, starts of jobs": start_jobs} if installed("aiometer") else {}),
    **{name: partial(stand_in_line, make) for name, make in LIMITERS.items()},
}

MISSING = sorted({module for module, _ in _LIMITERS.values() if not installed(module)})
if not installed("aiometer"):
    MISSING.append("aiometer")
