"""
How long a window of calls takes whose latencies differ much, over the best there is.

    python benchmarks/makespan.py --items 5000 --at-once 64 --rounds 3

The latencies are lognormal with a heavy tail, of every hundred calls one fails and is tried again
at once, and each round draws others, the same for every contender (see windows.py). The greedy
window is what workers take that need no time of their own: each item begins, in turn, when the
first of the slots is free (who begins them in another order may be lucky). The ideal is what no
window can beat: all slots busy to the end, or the longest item.

The first table is made on a virtual clock, and shows nothing but who waits for whom; the second on
the real one, where a contender's own work takes time too.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import random
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import windows
from measuring import Figures, in_turns, ratios, table
from windows import Contender, Run
from windows_by_hand import Work

from ragasync import AsyncBatchProcessor, AsyncRetry, BatchResult
from ragasync._outcomes.outcome import Outcome
from ragasync.testing import run_on_virtual_clock

SPREAD = 1.0
"""The lognormal's sigma: one call of a hundred takes six times the mean, one of 5,000 twenty."""

FAILING = 0.01
"""The share of items whose first call fails."""

REFERENCE = "hand-made workers, bare"


class Service:
    """
    Answers each call after a while that depends on the item alone.

    Args:
        size: how many items it knows.
        mean: seconds that a call takes in the mean.
        seed: which latencies, and which items fail at first.
    """

    def __init__(self, size: int, mean: float, seed: int) -> None:
        chance = random.Random(seed)
        middle = math.log(mean) - SPREAD**2 / 2

        def calls() -> tuple[float, ...]:
            attempts = 2 if chance.random() < FAILING else 1
            return tuple(chance.lognormvariate(middle, SPREAD) for _ in range(attempts))

        self.seconds = [calls() for _ in range(size)]
        """Of each call that an item needs; all but the last of them fail."""

    def open(self) -> Work:
        """Return the function to call; it remembers which items it has failed."""
        failed: set[int] = set()

        async def call(item: int) -> int:
            fails = item not in failed and len(self.seconds[item]) > 1
            await asyncio.sleep(self.seconds[item][0 if fails else -1])
            if fails:
                failed.add(item)
                raise ConnectionError("reset by peer")
            return item

        return call

    def ideal(self, at_once: int) -> float:
        """Return the seconds that no window can beat."""
        each = [sum(calls) for calls in self.seconds]
        return max(sum(each) / at_once, *each)

    def greedy(self, at_once: int) -> float:
        """Return the seconds of a window whose slots take the next item the instant they can."""
        free_at = [0.0] * at_once
        for calls in self.seconds:
            heapq.heapreplace(free_at, free_at[0] + sum(calls))
        return max(free_at)


def tried_twice(run: Run) -> Run:
    """Return a contender that tries an item again at once, as one writes it by hand."""

    def with_retry(work: Work, items: Sequence[int], at_once: int) -> Any:
        async def twice(item: int) -> int:
            try:
                return await work(item)
            except ConnectionError:
                return await work(item)

        return run(twice, items, at_once)

    return with_retry


def processor_of(work: Work, at_once: int) -> AsyncBatchProcessor[int, int]:
    """Return a processor that tries an item again at once."""
    return AsyncBatchProcessor(work, max_concurrency=at_once, retry=AsyncRetry(1, 0))


async def ragasync(work: Work, items: Sequence[int], at_once: int) -> BatchResult[int]:
    """Process with a policy of our own."""
    return await processor_of(work, at_once).process(items)


async def ragasync_stream(
    work: Work, items: Sequence[int], at_once: int, *, ordered: bool
) -> list[Outcome[int, int]]:
    """Stream, and keep what comes as it comes."""
    stream = processor_of(work, at_once).stream(items, ordered=ordered)
    return [outcome async for outcome in stream]


def in_order(given: Any) -> Sequence[int]:
    """Return the values of outcomes as they came: wrong, unless they came in order."""
    return [outcome.value for outcome in given]


CONTENDERS: Mapping[str, Contender] = {
    **{
        name: replace(contender, run=tried_twice(contender.run))
        for name, contender in windows.CONTENDERS.items()
        if not name.startswith("ragasync")
    },
    "ragasync": Contender(ragasync, windows.from_result),
    "ragasync, stream": Contender(partial(ragasync_stream, ordered=False), windows.from_outcomes),
    "ragasync, stream in order": Contender(partial(ragasync_stream, ordered=True), in_order),
}


async def makespan(contender: Contender, service: Service, at_once: int) -> float:
    """Return the seconds of a run on the clock of its loop, and check what it gave."""
    items = list(range(len(service.seconds)))
    clock = asyncio.get_running_loop().time
    began = clock()
    given = await contender.run(service.open(), items, at_once)
    took = clock() - began
    assert list(contender.values(given)) == items, f"{contender.run} gave wrong values"
    return took


def compared(services: Sequence[Service], at_once: int, on_a_loop: Any) -> dict[str, Figures]:
    """Return each contender's makespans over the greedy window, a round for each service."""

    def rounds_of(contender: Contender) -> Iterator[float]:
        for service in services:
            run: Coroutine[Any, Any, float] = makespan(contender, service, at_once)
            yield on_a_loop(run) / service.greedy(at_once)

    turns = {name: rounds_of(contender) for name, contender in CONTENDERS.items()}
    return in_turns({name: turn.__next__ for name, turn in turns.items()}, len(services))


def table_of_makespans(title: str, figures: Mapping[str, Figures], ideals: Sequence[float]) -> str:
    """Return makespans over the greedy window, over the ideal, and over the bare workers."""
    over = ratios(figures, REFERENCE)
    rows = []
    for name, each in figures.items():
        over_ideal = Figures(
            [value * ideal for value, ideal in zip(each.values, ideals, strict=False)]
        )
        rows.append([name, _fine(each), _fine(over_ideal), f"{over[name]:.3f}"])
    return table(title, ["", "over greedy", "over the ideal", f"x {REFERENCE}"], rows)


def _fine(figures: Figures) -> str:
    """Return median, least and most with three digits: the bars here are of percents."""
    return f"{figures.median:.3f} ({min(figures.values):.3f}-{max(figures.values):.3f})"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare how long windows of calls take.")
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--at-once", type=int, default=64, metavar="CALLS")
    parser.add_argument("--mean", type=float, default=0.02, help="seconds of a call in the mean")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--virtual", action="store_true", help="leave out the real clock")
    given = parser.parse_args()
    services = [Service(given.items, given.mean, given.seed + turn) for turn in range(given.rounds)]
    worse = [each.greedy(given.at_once) / each.ideal(given.at_once) for each in services]
    clocks = (
        {"virtual": run_on_virtual_clock}
        if given.virtual
        else {"virtual": run_on_virtual_clock, "real": asyncio.run}
    )
    for clock, on_a_loop in clocks.items():
        title = (
            f"{given.items:,} items of {given.mean * 1e3:g} ms in the mean, {given.at_once} at "
            f"once, {clock} clock: makespan, median (min-max)"
        )
        figures = compared(services, given.at_once, on_a_loop)
        print(table_of_makespans(title, figures, worse), flush=True)
    print(windows.note())


if __name__ == "__main__":
    main()
