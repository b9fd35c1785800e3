"""
A soak: a million items with failures, retries, pauses and resizes, and nothing left at the end.

    python benchmarks/soak.py --items 1000000

Run by hand: it takes some minutes. A stream of outcomes is read and forgotten; a process of
constant size, no task, no thread and no timer left is the bar, and every item accounted for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing

from measuring import installed, table

from ragasync import AsyncBatchProcessor, AsyncRetry, Outcome

LOOK_EVERY = 250
"""After so many items the size of the process is looked at."""


class Service:
    """
    Answers at once or after a moment; fails each time for 1 item in 100, and once for another.

    Args:
        seed: of all that is random.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._met: set[int] = set()

    async def answer(self, item: int) -> int:
        """Return the item, or raise."""
        await asyncio.sleep(0.002 if self._random.random() < 0.01 else 0)
        if item % 100 == 7:
            raise ValueError(f"item {item} is bad")
        if item % 100 == 8 and item not in self._met:
            self._met.add(item)
            raise ConnectionError("away for a moment")
        self._met.discard(item)
        return item


async def read_with_pauses(
    items: Iterable[int], at_once: int, seed: int
) -> tuple[Counter[str], list[int]]:
    """Read the stream of a run, and now and then do not; return the statuses, and the sizes."""
    import psutil

    process, sizes, chance = psutil.Process(), list[int](), random.Random(seed)
    processor = AsyncBatchProcessor[int, int](
        Service(seed).answer,
        max_concurrency=at_once,
        retry=AsyncRetry(2, 0.001, max_delay=0.01),
        timeout=5.0,
    )
    statuses: Counter[str] = Counter()
    async with aclosing(processor.stream(items)) as outcomes:
        async for outcome in outcomes:
            check(outcome)
            statuses[outcome.status] += 1
            if chance.random() < 0.0001:
                await asyncio.sleep(chance.random() * 0.02)  # the reader pauses; the run waits
            if statuses.total() % LOOK_EVERY == 0:
                sizes.append(process.memory_info().rss)
    return statuses, sizes


def _open_files() -> int:
    """Return how many files, sockets and pipes this process has open."""
    import psutil

    process = psutil.Process()
    return int(process.num_fds() if hasattr(process, "num_fds") else process.num_handles())


def check(outcome: Outcome[int, int]) -> None:
    """Raise unless an item came to its right end."""
    bad = outcome.index % 100 == 7
    assert outcome.status == ("failed" if bad else "done"), outcome
    assert outcome.value == (None if bad else outcome.index), outcome
    assert outcome.attempts == {7: 3, 8: 2}.get(outcome.index % 100, 1), outcome


async def soak(items: int, at_once: int, seed: int) -> list[list[object]]:
    """Run it, and return the rows of its table."""
    await read_with_pauses(range(10_000), at_once, seed)  # imports and caches, off the books
    gc.collect()
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    objects, files = len(gc.get_objects()), _open_files()
    statuses, sizes = await read_with_pauses((item for item in range(items)), at_once, seed)
    gc.collect()
    quarter = max(1, len(sizes) // 4)
    grown = max(sizes[-quarter:]) - max(sizes[:quarter])
    return [
        ["ragasync, items", f"{statuses.total():,}"],
        ["done", f"{statuses['done']:,}"],
        ["failed", f"{statuses['failed']:,}"],
        ["MB by which the last quarter was larger than the first", f"{grown / 1e6:.1f}"],
        ["tasks left", len(asyncio.all_tasks()) - tasks],
        ["threads left", threading.active_count() - threads],
        ["open files and sockets left", _open_files() - files],
        ["objects left", len(gc.get_objects()) - objects],
    ]


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description="Let a run of many items show what it leaves.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--at-once", type=int, default=32, metavar="CALLS")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not installed("psutil"):
        raise SystemExit("psutil is not installed: install ragasync[bench]")
    rows = asyncio.run(soak(given.items, given.at_once, given.seed))
    print(table(f"a soak of {given.items:,} items, {given.at_once} at once", ["", "count"], rows))


if __name__ == "__main__":
    main()
