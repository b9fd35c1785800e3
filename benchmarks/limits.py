"""
What a rate limiter costs, and how much of its rate it keeps.

    python benchmarks/limits.py --rates 1000 10000 --seconds 2 --rounds 3

To add a contender, write a class with `acquire` and `burst` (see Limiter) and give LIMITERS a line:
a function that makes it, given the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from measuring import Figures, in_turns, processor_time, ratios, table

from ragasync import RateLimiter

WAITERS = 64


class Limiter(Protocol):
    """What is asked of a contender."""

    @property
    def burst(self) -> float:
        """How much it grants at once after a rest."""

    async def acquire(self) -> None:
        """Wait for a place."""


class HandMade:
    """
    The generic cell rate algorithm in ten lines: each caller reserves the next place and sleeps.

    It belongs to one loop, and a caller that is cancelled loses its place.
    """

    def __init__(self, rate: float, catch_up: float = 0.0) -> None:
        self._interval = 1 / rate
        self._catch_up = catch_up
        self._next = 0.0
        self.burst = 1 + catch_up * rate

    async def acquire(self) -> None:
        """Reserve the next place and sleep until then."""
        now = time.monotonic()
        place = max(self._next, now - self._catch_up)
        self._next = place + self._interval
        if place > now:
            await asyncio.sleep(place - now)


OURS, REFERENCE = "ragasync", "hand-made"

LIMITERS: dict[str, Callable[[float], Limiter]] = {
    REFERENCE: HandMade,
    "hand-made, 40 ms to catch up": partial(HandMade, catch_up=0.04),
    OURS: RateLimiter,
}


def free_acquire(make: Callable[[float], Limiter], acquires: int) -> float:
    """Return processor microseconds an acquire of a limiter that makes nobody wait."""
    limiter = make(1e9)

    async def run() -> None:
        for _ in range(acquires):
            await limiter.acquire()

    return processor_time(run) * 1e6 / acquires


class Flow:
    """
    Many waiters at one limiter for a while.

    Attributes:
        share: percent of the rate that was granted, the first burst not counted.
        cost: processor microseconds a grant.
    """

    def __init__(self, make: Callable[[float], Limiter], rate: float, seconds: float) -> None:
        self._limiter = make(rate)
        self._granted = 0
        took = processor_time(partial(self._run, seconds))
        self.share = 100 * max(0.0, self._granted - self._limiter.burst) / (rate * seconds)
        self.cost = took * 1e6 / self._granted

    async def _run(self, seconds: float) -> None:
        """Count the grants until the time is up."""
        waiters = [asyncio.create_task(self._take_turns()) for _ in range(WAITERS)]
        await asyncio.sleep(seconds)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)

    async def _take_turns(self) -> None:
        """Acquire, count, and stand in line again."""
        while True:
            await self._limiter.acquire()
            self._granted += 1


def flows(
    rate: float, seconds: float, rounds: int
) -> tuple[dict[str, Figures], dict[str, Figures]]:
    """Return the shares and the costs of all contenders at a rate."""
    costs = {name: Figures() for name in LIMITERS}

    def share(name: str) -> float:
        flow = Flow(LIMITERS[name], rate, seconds)
        costs[name].values.append(flow.cost)
        return flow.share

    return in_turns({name: partial(share, name) for name in LIMITERS}, rounds), costs


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what rate limiters cost and keep.")
    parser.add_argument("--rates", type=float, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--acquires", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    free = in_turns(
        {name: partial(free_acquire, make, given.acquires) for name, make in LIMITERS.items()},
        given.rounds,
    )
    over = ratios(free, REFERENCE)
    print(
        table(
            "a free acquire: processor µs, median (min-max)",
            ["", "µs", "ratio"],
            [[name, figures, f"{over[name]:.2f}"] for name, figures in free.items()],
        ),
        flush=True,
    )
    for rate in given.rates:
        shares, costs = flows(rate, given.seconds, given.rounds)
        print(
            table(
                f"{WAITERS} waiters at {rate:,.0f}/s for {given.seconds:g} s: median (min-max)",
                ["", "% of the rate", "processor µs a grant"],
                [[name, shares[name], costs[name]] for name in LIMITERS],
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
