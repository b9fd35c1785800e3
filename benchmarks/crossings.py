"""
How many files and functions of ragasync one item crosses, from `process` to its result.

    python benchmarks/crossings.py
    python benchmarks/crossings.py --list

It measures how much code a newcomer meets on the way of an item, not speed. Each runs once before
it is counted, so that imports and what is computed once do not count.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from measuring import table

import ragasync
from ragasync import AsyncBatchProcessor, RateLimiter

PACKAGE = str(Path(ragasync.__file__).parent)


def functions_crossed(process: Callable[[], Awaitable[Any]]) -> set[CodeType]:
    """Return the functions of ragasync that are entered while something is processed."""
    entered: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # The bodies of comprehensions and lambdas are parts of the functions that they stand in.
        if event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name[0] != "<":
            entered.add(code)

    async def run() -> None:
        await process()
        sys.setprofile(note)
        try:
            await process()
        finally:
            sys.setprofile(None)

    asyncio.run(run())
    return entered


async def double(item: int) -> int:
    """Return twice the item, after a turn of the loop."""
    await asyncio.sleep(0)
    return 2 * item


async def double_all(items: list[int]) -> list[int]:
    """Return twice each item."""
    return [2 * item for item in items]


def failing_at_first() -> Callable[[int], Awaitable[int]]:
    """Return a function whose every other call fails."""
    calls = count()

    async def call(item: int) -> int:
        if next(calls) % 2 == 0:
            raise ConnectionError("every other call")
        return item

    return call


PROCESSORS: dict[str, AsyncBatchProcessor[Any, Any]] = {
    "one plain item": AsyncBatchProcessor(double),
    "one item and a retry": AsyncBatchProcessor(failing_at_first(), retry_delay=0.001),
    "one batch": AsyncBatchProcessor(double_all, batched=True),
    "one item and a limiter": AsyncBatchProcessor(double, rate_limiter=RateLimiter(1_000)),
}


def main() -> None:
    """Print a row for each way, and with --list the functions by file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the functions too")
    wants_list = parser.parse_args().list
    rows: list[list[object]] = []
    for name, processor in PROCESSORS.items():
        entered = functions_crossed(partial(processor.process, [1]))
        by_file: dict[str, set[str]] = {}
        for code in entered:
            by_file.setdefault(code.co_filename.removeprefix(PACKAGE), set()).add(code.co_qualname)
        rows.append([f"ragasync: {name}", len(by_file), sum(map(len, by_file.values()))])
        if wants_list:
            print(f"\n{name}")
            for file, functions in sorted(by_file.items()):
                print(f"  {file.lstrip('/')}: {', '.join(sorted(functions))}")
    print(table("What one item crosses", ["way", "files", "functions"], rows))


if __name__ == "__main__":
    main()
