"""
How long a loop stands still while a function that never suspends is run over many items.

    python benchmarks/breathing.py --items 10000 --at-once 32 --rounds 3

While the loop stands, no button answers, no heartbeat beats and no other task goes on. A ticker
looks every millisecond which time it is; the figure is the longest time between two of its looks,
from just before a contender begins to just after it has ended. The share is that of the whole run:
1.00 is a loop that did not turn once.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

from measuring import Figures, in_turns, spare_the_collector, table
from windows import CONTENDERS, Contender, note

TICK = 0.001
"""Seconds between two looks, where the loop is free."""


async def reckon(item: int) -> int:
    """Return the item after some 20 µs of work, as of a reply that is parsed."""
    sum(range(1_000))
    return item


class Refresher:
    """A timer that notes the longest time between two turns of its loop."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = time.perf_counter()
        self._timer = self._loop.call_later(TICK, self._tick)

    def stop(self) -> None:
        """Look for the last time."""
        self._look()
        self._timer.cancel()

    def _tick(self) -> None:
        """Look, and come again."""
        self._look()
        self._timer = self._loop.call_later(TICK, self._tick)

    def _look(self) -> None:
        """Note how long it has been since the last look."""
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now


async def stood_still(
    contender: Contender, items: Sequence[int], at_once: int
) -> tuple[float, float]:
    """Return the milliseconds that the loop stood at most, and what share of the run that is."""
    ticker = Refresher()
    began = time.perf_counter()
    given = await contender.run(reckon, items, at_once)
    ticker.stop()
    took = time.perf_counter() - began
    assert list(contender.values(given)) == items, f"{contender.run} gave wrong values"
    return ticker.longest * 1e3, ticker.longest / took


def compared(size: int, at_once: int, rounds: int) -> tuple[dict[str, Figures], dict[str, Figures]]:
    """Return the longest pauses of the contenders that can take this many items; their shares."""
    items = list(range(size))
    shares: dict[str, Figures] = {}

    def measure(name: str, contender: Contender) -> float:
        longest, share = asyncio.run(stood_still(contender, items, at_once))
        shares.setdefault(name, Figures()).values.append(share)
        return longest

    taking_part: Mapping[str, Contender] = {
        name: contender for name, contender in CONTENDERS.items() if size <= contender.most_items
    }
    for contender in taking_part.values():  # imports and caches, off the clock
        asyncio.run(stood_still(contender, items[:100], at_once))
    spare_the_collector()
    pauses = in_turns(
        {name: partial(measure, name, contender) for name, contender in taking_part.items()}, rounds
    )
    return pauses, shares


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare how long loops stand still.")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=32, metavar="CALLS")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    pauses, shares = compared(given.items, given.at_once, given.rounds)
    title = (
        f"{given.items:,} items of a function that never suspends, {given.at_once} at once: the "
        f"longest time between two turns of the loop, median (min-max)"
    )
    rows = [[name, pauses[name], shares[name]] for name in pauses]
    print(table(title, ["", "ms", "share of the run"], rows))
    print(note())


if __name__ == "__main__":
    main()
