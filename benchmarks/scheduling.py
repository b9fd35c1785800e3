"""
What a window of calls costs above the calls themselves: processor time and memory an item.

    python benchmarks/scheduling.py --items 10000 100000 1000000 --rounds 5

Every contender (see windows.py) runs the same async function over the same items, and is checked
to have given the right values.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping, Sequence
from functools import partial

from measuring import Figures, in_turns, peak_bytes, processor_time, ratios, table
from windows import CONTENDERS, REFERENCE, WITH_A_TIME_LIMIT, Contender, Work

AT_LEAST = 50_000
"""Items a round: fewer take milliseconds, and then the machine's whims are all one sees."""


async def return_at_once(item: int) -> int:
    """Return the item."""
    return item


async def give_way_once(item: int) -> int:
    """Let the loop turn, and return the item."""
    await asyncio.sleep(0)
    return item


FAMILIES: dict[str, tuple[Work, Mapping[str, Contender]]] = {
    "returns at once": (return_at_once, CONTENDERS),
    "one sleep(0)": (give_way_once, CONTENDERS),
    "returns at once, with a time limit": (return_at_once, WITH_A_TIME_LIMIT),
}


def microseconds(contender: Contender, work: Work, size: int, at_once: int, repeats: int) -> float:
    """Return the processor microseconds an item takes, over some runs, each checked."""
    items = list(range(size))

    def check(given: object) -> None:
        assert contender.values(given) == items, f"{contender.run} gave wrong values"

    run = partial(contender.run, work, items, at_once)
    return processor_time(run, check, repeats) * 1e6 / size


def compared(
    contenders: Mapping[str, Contender], work: Work, size: int, at_once: int, rounds: int
) -> dict[str, Figures]:
    """Return the figures of all contenders that take on so many items."""
    taking_part = {
        name: contender for name, contender in contenders.items() if size <= contender.most_items
    }
    for contender in taking_part.values():  # imports and caches, off the clock
        microseconds(contender, work, 100, at_once, 1)
    repeats = min(100, math.ceil(AT_LEAST / size))
    return in_turns(
        {
            name: partial(microseconds, contender, work, size, at_once, repeats)
            for name, contender in taking_part.items()
        },
        rounds,
    )


def table_of_times(title: str, sizes: Sequence[int], figures: list[dict[str, Figures]]) -> str:
    """Return microseconds an item and the ratio to the reference, a column for each size."""
    over = [ratios(each, REFERENCE) for each in figures]

    def cell(name: str, column: int) -> str:
        if name not in figures[column]:
            return ""
        return f"{figures[column][name]} x{over[column][name]:.2f}"

    names = max(figures, key=len)
    rows = [[name, *(cell(name, column) for column in range(len(sizes)))] for name in names]
    heads = [f"{size:,} items" for size in sizes]
    return table(f"{title}: processor µs an item, median (min-max) xratio", ["", *heads], rows)


def table_of_memory(sizes: Sequence[int], at_once: int) -> str:
    """Return the peak bytes an item above the items; the values here are the items themselves."""

    def cell(contender: Contender, size: int) -> str:
        if size > contender.most_items:
            return ""
        run = partial(contender.run, return_at_once, list(range(size)), at_once)
        return f"{peak_bytes(run) / size:.1f}"

    rows = [
        [name, *(cell(contender, size) for size in sizes)] for name, contender in CONTENDERS.items()
    ]
    return table(
        "peak bytes an item above items and values",
        ["", *(f"{size:,} items" for size in sizes)],
        rows,
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what a window of calls costs an item.")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=32, metavar="CALLS")
    given = parser.parse_args()
    for title, (work, contenders) in FAMILIES.items():
        figures = [
            compared(contenders, work, size, given.at_once, given.rounds) for size in given.items
        ]
        print(table_of_times(f"{title}, {given.at_once} at once", given.items, figures), flush=True)
    print(table_of_memory(given.items, given.at_once))


if __name__ == "__main__":
    main()
