"""
What a retry policy adds to a call: one that succeeds, and one that is retried without delay.

    python benchmarks/retries.py --calls 50000 --rounds 5

To add a contender, give POLICIES a line: a function that wraps an async function of no arguments.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from measuring import in_turns, processor_time, ratios, table

from ragasync import AsyncRetry

Call: TypeAlias = Callable[[], Awaitable[int]]


async def succeed() -> int:
    """Return at once."""
    return 1


class FailEveryOther:
    """A service whose every other call fails, so that each item is tried twice."""

    def __init__(self) -> None:
        self._calls = 0

    async def __call__(self) -> int:
        """Fail at first, then succeed."""
        self._calls += 1
        if self._calls % 2:
            raise ConnectionError("reset by peer")
        return 1


def hand_made(call: Call) -> Call:
    """Catch, sleep, and try again, three times."""

    async def attempts() -> int:
        for _ in range(3):
            try:
                return await call()
            except ConnectionError:
                await asyncio.sleep(0)
        return await call()

    return attempts


OURS, REFERENCE = "ragasync", "hand-made loop"

POLICIES: dict[str, Callable[[Call], Call]] = {
    REFERENCE: hand_made,
    OURS: AsyncRetry(max_retries=3, base_delay=0),
}


def microseconds(wrap: Callable[[Call], Call], call: Call, calls: int) -> float:
    """Return processor microseconds a call; every one must succeed in the end."""
    wrapped = wrap(call)

    async def run() -> int:
        return sum([await wrapped() for _ in range(calls)])

    def check(succeeded: object) -> None:
        assert succeeded == calls, f"{succeeded} of {calls} calls succeeded"

    return processor_time(run, check) * 1e6 / calls


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what retry policies add to a call.")
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    cases: dict[str, tuple[Call, dict[str, Callable[[Call], Call]]]] = {
        "a call that succeeds": (succeed, {"bare": lambda call: call, **POLICIES}),
        "a call that is retried once, without delay": (FailEveryOther(), POLICIES),
    }
    for title, (call, policies) in cases.items():
        figures = in_turns(
            {
                name: partial(microseconds, wrap, call, given.calls)
                for name, wrap in policies.items()
            },
            given.rounds,
        )
        over = ratios(figures, REFERENCE)
        rows = [[name, each, f"{over[name]:.2f}"] for name, each in figures.items()]
        print(table(f"{title}: processor µs, median (min-max)", ["", "µs", "ratio"], rows))


if __name__ == "__main__":
    main()
