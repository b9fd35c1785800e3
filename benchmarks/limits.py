"""
What a rate limiter costs, how much of its rate it keeps, and whether it keeps its word.

    python benchmarks/limits.py --rates 10 100 1000 10000 --seconds 2 --rounds 3

Sixty-four waiters ask one limiter (see limiters.py), and ask again as soon as they are granted;
every grant is noted when the waiter runs. A free acquire is one that makes nobody wait. The
longest wait counts those who still wait at the end; it is left out of runs that are too short to
show it, so give `--rates 10 --seconds 20` to see it at 10 a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from limiters import LIMITERS, MISSING, REFERENCE, RUNNERS, WAITERS, Limiter, Log, Runner, closing
from measuring import Figures, in_turns, processor_time, ratios, table


def free_acquire(make: Callable[[float], Limiter], acquires: int) -> float:
    """Return processor microseconds an acquire of a limiter that makes nobody wait."""

    async def run() -> None:
        async with closing(make, 1e9) as limiter:
            acquire = limiter.acquire
            for _ in range(acquires):
                await acquire()

    return processor_time(run) * 1e6 / acquires


def allowed(rate: float) -> float:
    """Return the most that should be granted in any half-open second."""
    return max(1.05 * rate, rate + 1)


def most_in_a_second(times: Sequence[float]) -> int:
    """Return the most of these instants, in order, that any half-open second holds."""
    most = start = 0
    for end, time in enumerate(times, start=1):
        while time - times[start] >= 1.0:
            start += 1
        most = max(most, end - start)
    return most


def overtakes(order: Sequence[int]) -> int:
    """Return how many in this order came while somebody with a lower number still waited."""
    came: set[int] = set()
    first = past = 0
    for number in order:
        past += number != first
        came.add(number)
        while first in came:
            came.remove(first)
            first += 1
    return past


@dataclass
class Flow:
    """What many runs of one contender at one rate showed, a figure a run."""

    share: Figures = field(default_factory=Figures)
    """Percent of the rate, the first burst not counted."""
    weight: Figures = field(default_factory=Figures)
    """Processor microseconds a grant."""
    most: int = 0
    """The most grants in any half-open second of all runs."""
    overtakes: Figures = field(default_factory=Figures)
    """Percent of grants that went to one who came later than somebody in line."""
    longest: Figures = field(default_factory=Figures)
    """The longest wait over the fair one, which is a turn of all the waiters."""

    def note(self, log: Log, rate: float, burst: float, began: float, ended: float) -> None:
        """Add what one run showed."""
        times = [when for _, when in log.granted]
        order = [number for number, _ in log.granted]
        assert len(set(order)) == len(order), "somebody was granted twice"
        waits = [when - log.asked[number] for number, when in log.granted]
        waits += [ended - log.asked[number] for number in set(range(len(log.asked))) - set(order)]
        # The next grant might just not have been due; in a short run there may be none at all.
        until = max([began, *times][-1], ended - 1 / rate)
        self.share.values.append(100 * max(0.0, len(times) - burst) / (rate * (until - began)))
        self.most = max(self.most, most_in_a_second(times))
        self.overtakes.values.append(100 * overtakes(order) / max(1, len(order)))
        self.longest.values.append(max(waits) * rate / WAITERS)


def flow(runner: Runner, flow: Flow, rate: float, burst: float, seconds: float) -> float:
    """Run one contender for so long, note what it showed, and return its share of the rate."""
    log = Log()

    async def for_a_while() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        running = asyncio.ensure_future(runner(rate, log))
        began = loop.time()
        await asyncio.wait([running], timeout=seconds)
        ended = loop.time()
        assert not running.done(), running
        running.cancel()
        await asyncio.wait([running])
        return began, ended

    def note(ends: object) -> None:
        assert isinstance(ends, tuple)
        flow.note(log, rate, burst, *ends)

    took = processor_time(for_a_while, note)
    flow.weight.values.append(took * 1e6 / max(1, len(log.granted)))
    return flow.share.values[-1]


def table_of_flows(rate: float, seconds: float, rounds: int) -> str:
    """Return what all contenders keep and weight at a rate."""
    flows = {name: Flow() for name in RUNNERS}
    bursts = {name: make(rate).burst for name, make in LIMITERS.items()}
    runs = {
        name: partial(flow, runner, flows[name], rate, bursts.get(name, 1.0), seconds)
        for name, runner in RUNNERS.items()
    }
    in_turns(runs, rounds)
    over = ratios({name: each.weight for name, each in flows.items()}, REFERENCE)
    long_enough = seconds > 1.5 * WAITERS / rate
    return table(
        f"{WAITERS} waiters at {rate:,.0f} a second for {seconds:g} s: median (min-max)",
        [
            "",
            "% of the rate",
            f"most in a second, of {allowed(rate):,.0f}",
            "% overtaking",
            "longest wait over the fair one",
            "processor µs a grant xratio",
        ],
        [
            [
                name,
                each.share,
                f"{each.most:,}",
                f"{each.overtakes.median:.1f}",
                each.longest if long_enough else "",
                f"{each.weight} x{over[name]:.2f}",
            ]
            for name, each in flows.items()
        ],
    )


async def warm_up() -> None:
    """Have every contender imported, and its first grant made, off the clock."""
    for runner in RUNNERS.values():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner(1000, Log()), 0.01)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what rate limiters weight and keep.")
    parser.add_argument("--rates", type=float, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--acquires", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if MISSING:
        print(f"Left out: {', '.join(MISSING)}; pip install 'ragasync[bench]'\n")

    asyncio.run(warm_up())
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
        print(table_of_flows(rate, given.seconds, given.rounds), flush=True)


if __name__ == "__main__":
    main()
