"""
What it costs to simulate a job, by the item, and how long a million takes.

    python benchmarks/simulating.py --items 100000 1000000 --rounds 3

The same service each time, with a long tail of slow calls, 64 at once: alone, with errors that are
retried, behind a rate limit, and in batches. Beside it what the same run costs on the virtual clock
of the tests, which also looks at sockets and lets others breathe, and what bare tasks that do
nothing but sleep weight there. Processor time of all threads.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from functools import partial
from itertools import islice

from measuring import Figures, in_turns, ratios, table

from ragasync import AsyncBatchProcessor, RateLimiter
from ragasync.simulation import Latency, ScriptedService, simulate
from ragasync.testing import run_on_virtual_clock

AT_ONCE = 64
LATENCY = Latency.lognormal(1.0, 0.5)


def alone(n_items: int) -> int:
    """Simulate plain calls."""
    return simulate(n_items, max_concurrency=AT_ONCE, latency=LATENCY).success_count


def with_errors(n_items: int) -> int:
    """Have one attempt in twenty fail, and be tried again until it succeeds."""
    return simulate(
        n_items, max_concurrency=AT_ONCE, latency=LATENCY, error_rate=0.05, retry_count=20
    ).success_count


def limited(n_items: int) -> int:
    """Have a limiter hold calls back to three quarters of what they could do."""
    limiter = RateLimiter(0.75 * AT_ONCE / 1.13)
    return simulate(
        n_items, max_concurrency=AT_ONCE, latency=LATENCY, rate_limiter=limiter
    ).success_count


def in_batches(n_items: int) -> int:
    """Put 32 items into a call."""
    return simulate(
        n_items, max_concurrency=AT_ONCE, latency=LATENCY, batched=True, batch_size=32
    ).success_count


def by_hand(n_items: int) -> int:
    """Run a processor over the same service on the clock of the tests."""
    processor = AsyncBatchProcessor[int, int](ScriptedService(LATENCY), max_concurrency=AT_ONCE)
    return run_on_virtual_clock(processor.process(range(n_items))).success_count


def bare_tasks(n_items: int) -> int:
    """Have tasks that share an iterator sleep there, and keep nothing but a count."""
    service, items = ScriptedService(LATENCY), iter(range(n_items))

    async def work() -> int:
        done = 0
        for item in items:
            await service(item)
            done += 1
        return done

    async def main() -> int:
        return sum(await asyncio.gather(*(work() for _ in islice(range(n_items), AT_ONCE))))

    return run_on_virtual_clock(main())


REFERENCE = "ragasync simulate"

CONTENDERS: dict[str, Callable[[int], int]] = {
    REFERENCE: alone,
    "ragasync simulate, 5% errors": with_errors,
    "ragasync simulate, behind a limiter": limited,
    "ragasync simulate, batches of 32": in_batches,
    "AsyncBatchProcessor on the clock of the tests": by_hand,
    "bare tasks that sleep there, nothing recorded": bare_tasks,
}

DEAR = 100_000
"""The most items for what is measured only to compare: it pays ten beats a virtual second."""


def microseconds(run: Callable[[int], int], n_items: int) -> float:
    """Return the processor microseconds an item takes."""
    began = time.process_time()
    done = run(n_items)
    took = time.process_time() - began
    assert done == n_items, f"{done} of {n_items} items were done"
    return took * 1e6 / n_items


def figures_of(n_items: int, rounds: int) -> dict[str, Figures]:
    """Return the microseconds an item of each contender."""
    measured = {
        name: partial(microseconds, run, n_items)
        for name, run in CONTENDERS.items()
        if n_items <= DEAR or name.startswith("ragasync")
    }
    return in_turns(measured, rounds)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure what a simulated item costs.")
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for n_items in given.items:
        figures = figures_of(n_items, given.rounds)
        over = ratios(figures, REFERENCE)
        rows = [
            [name, each, f"{over[name]:.2f}", f"{each.median * n_items / 1e6:.1f}"]
            for name, each in figures.items()
        ]
        title = f"{n_items:,} simulated items, {AT_ONCE} at once: processor µs an item (min-max)"
        print(table(title, ["", "µs", "ratio", "seconds in all"], rows))


if __name__ == "__main__":
    main()
