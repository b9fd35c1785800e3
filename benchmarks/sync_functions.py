"""
What running a sync function on threads or processes costs an item, above the function itself.

    python benchmarks/sync_functions.py --calls 4000 --items 20000 --rounds 5

Every contender (see pools.py) runs the same function over the same items on workers that have
started before, and is checked to have given the right values in order.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial

from measuring import Figures, in_turns, processor_time, ratios, table
from pools import (
    LATENCY,
    PROCESS_MAP,
    PROCESSES,
    RAW,
    THREADS,
    Contender,
    Work,
    double,
    wait_and_double,
)

WORKERS = 2
"""Processes in a pool."""


class Family:
    """
    Contenders that run one function over the same items.

    Args:
        contenders: by name; those that are not installed are left out.
        work: the function.
        size: how many items.
        at_once: how many calls at once.

    Attributes:
        wall: seconds from the first call to the last value.
        processor: processor seconds of this process, all of its threads together.
        note: says which were left out because they are not installed, if any.
    """

    def __init__(
        self, contenders: Mapping[str, Contender], work: Work, size: int, at_once: int
    ) -> None:
        self._contenders = {name: each for name, each in contenders.items() if each.is_here}
        left_out = [name for name in contenders if name not in self._contenders]
        self.note = f"\nnot installed: {', '.join(left_out)}\n" if left_out else ""
        self._work, self._items, self._at_once = work, range(size), at_once
        self.wall = {name: Figures() for name in self._contenders}
        self.processor: dict[str, Figures] = {}

    def measure(self, rounds: int) -> None:
        """Run all in turns, after each has run once off the clock."""
        for contender in self._contenders.values():
            self._run(contender, range(50))
        self.processor = in_turns(
            {name: partial(self._measured, name) for name in self._contenders}, rounds
        )

    def _measured(self, name: str) -> float:
        """Note the wall time of a run, and return its processor time."""
        wall, processor = self._run(self._contenders[name], self._items)
        self.wall[name].values.append(wall)
        return processor

    def _run(self, contender: Contender, items: Sequence[int]) -> tuple[float, float]:
        """Return wall and processor seconds of a checked run on a warm pool."""
        wall = 0.0

        async def timed() -> Sequence[int | None]:
            nonlocal wall
            began = time.perf_counter()
            values = await contender.run(self._work, items, self._at_once, pool)
            wall = time.perf_counter() - began
            return values

        def check(values: object) -> None:
            assert values == [2 * item for item in items], f"{contender.run} gave wrong values"

        with contender.pool(self._at_once) as pool:
            processor = processor_time(timed, check)
        return wall, processor


def in_units(figures: Mapping[str, Figures], unit: float) -> dict[str, Figures]:
    """Return figures in seconds counted in a unit of so many."""
    return {name: Figures([one / unit for one in each.values]) for name, each in figures.items()}


def table_of_threads(calls: int, at_once: int, rounds: int) -> str:
    """Return what calls that wait cost on threads."""
    family = Family(THREADS, wait_and_double, calls, at_once)
    family.measure(rounds)
    wall = in_units(family.wall, calls * LATENCY / at_once)
    processor = in_units(family.processor, calls * 1e-6)
    over = ratios(processor, RAW)
    return (
        table(
            f"{calls:,} calls of {LATENCY * 1e3:g} ms, {at_once} threads: median (min-max)",
            ["", "wall / ideal", "processor µs a call", f"x {RAW}"],
            [[name, wall[name], processor[name], f"{over[name]:.2f}"] for name in wall],
        )
        + family.note
    )


def table_of_processes(size: int, rounds: int) -> str:
    """Return what a tiny function costs on processes."""
    family = Family(PROCESSES, double, size, WORKERS)
    family.measure(rounds)
    wall = in_units(family.wall, size * 1e-6)
    processor = in_units(family.processor, size * 1e-6)
    over = ratios(wall, PROCESS_MAP)
    return (
        table(
            f"{size:,} calls of a tiny function, {WORKERS} processes: median (min-max)",
            ["", "wall µs a call", f"x {PROCESS_MAP}", "processor µs a call, this process only"],
            [[name, wall[name], f"{over[name]:.2f}", processor[name]] for name in wall],
        )
        + family.note
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what sync functions cost elsewhere.")
    parser.add_argument("--calls", type=int, default=4_000, help="on threads")
    parser.add_argument("--at-once", type=int, default=32, metavar="THREADS")
    parser.add_argument("--items", type=int, default=20_000, help="on processes")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(table_of_threads(given.calls, given.at_once, given.rounds), flush=True)
    print(table_of_processes(given.items, given.rounds))


if __name__ == "__main__":
    main()
