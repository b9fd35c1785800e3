"""
What it costs to lose nothing: a run that writes each outcome down, beside one that does not.

    python benchmarks/journalling.py --items 20000 --at-once 64 --seconds 0.01

Calls that sleep 10 ms, as those of a service would, and give a short text or a vector. By hand: a
line of JSON for each outcome, synced to the disk each time, or every 50 ms. The bar is 5% of the
time of the run. And how long it takes to go on: a run whose outcomes are all in the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from measuring import Figures, in_turns, ratios, table

from ragasync import AsyncBatchProcessor, BatchResult, Journal

Give: TypeAlias = Callable[[int], Awaitable[object]]
"""A call of the service."""

Contender: TypeAlias = Callable[[Give, int, int, Path], float]
"""Runs so many calls, so many at once, with files in a folder; returns the seconds it took."""

PLAIN = "ragasync, no journal"


def timed(run: Awaitable[BatchResult[Any]], items: int) -> float:
    """Return the wall seconds of a run that does all of its items."""

    async def measured() -> float:
        began = time.perf_counter()
        result = await run
        took = time.perf_counter() - began
        assert result.success_count == items, result
        return took

    return asyncio.run(measured())


def without(give: Give, items: int, at_once: int, folder: Path) -> float:  # noqa: ARG001
    """Keep outcomes in memory alone."""
    processor = AsyncBatchProcessor[int, object](give, max_concurrency=at_once)
    return timed(processor.process(range(items)), items)


def journalled(give: Give, items: int, at_once: int, folder: Path) -> float:
    """Write each outcome to a journal."""
    journal = Journal(_fresh(folder / "run.sqlite"), name="measured")
    processor = AsyncBatchProcessor[int, object](give, max_concurrency=at_once, journal=journal)
    return timed(processor.process(range(items)), items)


def recalled(give: Give, items: int, at_once: int, folder: Path) -> float:
    """Find all outcomes in the journal that the contender before has left."""
    journal = Journal(folder / "run.sqlite", name="measured")
    processor = AsyncBatchProcessor[int, object](give, max_concurrency=at_once, journal=journal)
    asyncio.run(processor.process(range(items)))
    return timed(processor.process(range(items)), items)


def line_by_line(give: Give, items: int, at_once: int, folder: Path, *, sync_every: float) -> float:
    """Append a line of JSON for each outcome, by hand, and sync the file every so often."""
    with _fresh(folder / "run.jsonl").open("a") as file:
        synced = time.perf_counter()

        async def give_and_note(item: int) -> object:
            nonlocal synced
            value = await give(item)
            file.write(json.dumps([item, value]) + "\n")
            if time.perf_counter() - synced >= sync_every:
                file.flush()
                os.fsync(file.fileno())
                synced = time.perf_counter()
            return value

        processor = AsyncBatchProcessor[int, object](give_and_note, max_concurrency=at_once)
        return timed(processor.process(range(items)), items)


CONTENDERS: dict[str, Contender] = {
    PLAIN: without,
    "ragasync, a journal": journalled,
    "by hand, a line of JSON, synced each time": partial(line_by_line, sync_every=0.0),
    "by hand, a line of JSON, synced every 50 ms": partial(line_by_line, sync_every=0.05),
}


def _fresh(path: Path) -> Path:
    """Return a path with nothing there."""
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    return path


def service(seconds: float, numbers: int) -> Give:
    """Return a call that takes so long and gives a text, or a vector of so many numbers."""

    async def give(item: int) -> object:
        await asyncio.sleep(seconds)
        return [item / (number + 1) for number in range(numbers)] if numbers else f"value of {item}"

    return give


def measure(numbers: int, given: argparse.Namespace, folder: Path) -> str:
    """Return the table for values of one size."""
    give, ideal = service(given.seconds, numbers), given.items * given.seconds / given.at_once
    found = in_turns(
        {
            name: partial(contender, give, given.items, given.at_once, folder)
            for name, contender in CONTENDERS.items()
        },
        given.rounds,
    )
    over = ratios(found, PLAIN)
    again = Figures([recalled(give, given.items, given.at_once, folder) for _ in range(1)])
    rows: list[Sequence[object]] = [
        [name, f"{figures} x{over[name]:.2f}", f"{figures.median / ideal:.2f}"]
        for name, figures in found.items()
    ]
    rows.append(["ragasync, all known to the journal", f"{again}", ""])
    what = f"a vector of {numbers} numbers" if numbers else "a short text"
    title = f"{given.items:,} calls of {1000 * given.seconds:g} ms, {given.at_once} at once, {what}"
    return table(title, ["", "wall s, over no journal", "over the ideal"], rows)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure what a journal costs.")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=64, metavar="CALLS")
    parser.add_argument("--seconds", type=float, default=0.01, help="how long a call takes")
    parser.add_argument("--numbers", type=int, nargs="+", default=[0, 256])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:  # on a real disk, not in memory
        for numbers in given.numbers:
            print(measure(numbers, given, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
