"""
What a window of calls costs above the calls themselves: processor time and memory an item.

    python benchmarks/scheduling.py --items 10000 100000 1000000 --at-once 4 32 256 --rounds 5

Every contender (see windows.py) runs the same async function over the same items, and is checked
to have given the right values. One that is dear takes part in fewer rounds, and leaves out the
sizes that would take it minutes. The last column is what an item costs at the largest size that a
contender took on over the smallest.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import partial

from measuring import (
    Figures,
    in_turns,
    peak_bytes,
    processor_time,
    ratios,
    spare_the_collector,
    table,
)
from windows import CONTENDERS, REFERENCE, THAT_ISOLATE, WITH_A_TIME_LIMIT, Contender, note
from windows_by_hand import Work

MOST = 6.0
"""Processor seconds a contender may take at one size: it takes part in no more rounds than that."""


async def return_at_once(item: int) -> int:
    """Return the item."""
    return item


async def give_way_once(item: int) -> int:
    """Let the loop turn, and return the item."""
    await asyncio.sleep(0)
    return item


bound: ContextVar[int] = ContextVar("bound")


async def bind_a_variable(item: int) -> int:
    """Bind a context variable for good, and return the item."""
    bound.set(item)
    return item


FAMILIES: dict[str, tuple[Work, Mapping[str, Contender]]] = {
    "returns at once": (return_at_once, CONTENDERS),
    "one sleep(0)": (give_way_once, CONTENDERS),
    "returns at once, with a time limit": (return_at_once, WITH_A_TIME_LIMIT),
    "binds a context variable": (bind_a_variable, THAT_ISOLATE),
}


def microseconds(contender: Contender, work: Work, size: int, at_once: int, repeats: int) -> float:
    """Return the processor microseconds an item takes, over some runs, each checked."""
    items = list(range(size))

    def check(given: object) -> None:
        assert contender.values(given) == items, f"{contender.run} gave wrong values"

    run = partial(contender.run, work, items, at_once)
    return processor_time(run, check, repeats) * 1e6 / size


def compared(
    contenders: Mapping[str, Contender],
    work: Work,
    size: int,
    at_once: int,
    *,
    rounds: int,
    seconds: float,
) -> dict[str, Figures]:
    """Return the figures of all contenders that take on so many items."""
    taking_part = {
        name: contender for name, contender in contenders.items() if size <= contender.most_items
    }
    for contender in taking_part.values():  # imports and caches, off the clock
        microseconds(contender, work, 100, at_once, 1)
    spare_the_collector()
    few = min(size, 1_000)
    measurements, fewer = {}, {}
    for name, contender in taking_part.items():
        one_run = microseconds(contender, work, few, at_once, 1) * size / 1e6
        repeats = math.ceil(seconds / one_run)
        fewer[name] = max(1, min(rounds, round(MOST / (repeats * one_run))))
        measurements[name] = partial(microseconds, contender, work, size, at_once, repeats)
    return in_turns(measurements, rounds, fewer)


def table_of_times(title: str, sizes: Sequence[int], figures: list[dict[str, Figures]]) -> str:
    """Return microseconds an item and the ratio to the reference, a column for each size."""
    over = [ratios(each, REFERENCE) for each in figures]

    def cell(name: str, column: int) -> str:
        if name not in figures[column]:
            return ""
        return f"{figures[column][name]} x{over[column][name]:.2f}"

    def growth(name: str) -> str:
        taken_on = [each[name].median for each in figures if name in each]
        return f"x{taken_on[-1] / taken_on[0]:.2f}"

    names = max(figures, key=len)
    rows = [
        [name, *(cell(name, column) for column in range(len(sizes))), growth(name)]
        for name in names
    ]
    heads = ["", *(f"{size:,} items" for size in sizes), "growth"]
    return table(f"{title}: processor µs an item, median (min-max) xratio", heads, rows)


def table_of_memory(sizes: Sequence[int], at_once: int) -> str:
    """Return the peak bytes an item above the items; the values here are the items themselves."""
    rows = []
    for name, contender in CONTENDERS.items():
        bytes_each = [
            peak_bytes(partial(contender.run, return_at_once, list(range(size)), at_once)) / size
            for size in sizes
            if size <= contender.most_items
        ]
        left = [""] * (len(sizes) - len(bytes_each))
        growth = f"x{bytes_each[-1] / bytes_each[0]:.2f}" if bytes_each else ""
        rows.append([name, *(f"{each:.1f}" for each in bytes_each), *left, growth])
    return table(
        f"{at_once} at once: peak bytes an item above items and values",
        ["", *(f"{size:,} items" for size in sizes), "growth"],
        rows,
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what a window of calls costs an item.")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, nargs="+", default=[32], metavar="CALLS")
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="of processor time a contender and round"
    )
    given = parser.parse_args()
    sizes = sorted(given.items)
    for at_once in given.at_once:
        for title, (work, contenders) in FAMILIES.items():
            figures = [
                compared(
                    contenders, work, size, at_once, rounds=given.rounds, seconds=given.seconds
                )
                for size in sizes
            ]
            print(table_of_times(f"{title}, {at_once} at once", sizes, figures), flush=True)
    print(table_of_memory(sizes, given.at_once[0]))
    print(note())


if __name__ == "__main__":
    main()
