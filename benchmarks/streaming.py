"""
How much memory a stream of outcomes needs, over ever more items that a generator makes.

    python benchmarks/streaming.py --items 100000 1000000 --at-once 32

Constant is the bar: what a stream holds is its window and a bounded buffer. Two figures a size: the
most bytes that Python had allocated at once (traced, in a run of its own), and by how much the
whole process grew. Every value is looked at as it comes, and none is kept.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from measuring import installed, peak_bytes, spare_the_collector, table

from ragasync import AsyncBatchProcessor

Stream: TypeAlias = Callable[[Iterable[int], int], AsyncGenerator[int, None]]

LOOKS = 200
"""How often in a run the size of the process is looked at."""


async def give_way_once(item: int) -> int:
    """Let the loop turn, and return the item."""
    await asyncio.sleep(0)
    return item


async def workers_and_queue(items: Iterable[int], at_once: int) -> AsyncGenerator[int, None]:
    """Let workers draw from one iterator and put values into a queue with a bound."""
    source = iter(items)
    queue: asyncio.Queue[int | None] = asyncio.Queue(2 * at_once)

    async def worker() -> None:
        for item in source:
            await queue.put(await give_way_once(item))

    async def all_of_them() -> None:
        await asyncio.gather(*(worker() for _ in range(at_once)))
        await queue.put(None)

    running = asyncio.create_task(all_of_them())
    while (value := await queue.get()) is not None:
        yield value
    await running


async def with_aiostream(items: Iterable[int], at_once: int) -> AsyncGenerator[int, None]:
    """Map over a stream of aiostream, in order, which is how it comes."""
    from aiostream import pipe, stream

    mapped = stream.iterate(items) | pipe.map(give_way_once, ordered=True, task_limit=at_once)
    async with mapped.stream() as values:
        async for value in values:
            yield value


async def ragasync_stream(items: Iterable[int], at_once: int) -> AsyncGenerator[int, None]:
    """Read the outcomes in the order of their ends."""
    processor = AsyncBatchProcessor[int, int](give_way_once, max_concurrency=at_once)
    async for outcome in processor.stream(items):
        assert outcome.value is not None
        yield outcome.value


async def ragasync_in_order(items: Iterable[int], at_once: int) -> AsyncGenerator[int, None]:
    """Read the outcomes in the order of their items."""
    processor = AsyncBatchProcessor[int, int](give_way_once, max_concurrency=at_once)
    async for outcome in processor.stream(items, ordered=True):
        assert outcome.value is not None
        yield outcome.value


@dataclass(frozen=True)
class Contender:
    """A way to read values one by one, and how many items are bearable."""

    stream: Stream
    most_items: int = 10_000_000
    needs: tuple[str, ...] = ()


_ALL = {
    "hand-made workers and a queue": Contender(workers_and_queue),
    "aiostream map, ordered": Contender(with_aiostream, most_items=100_000, needs=("aiostream",)),
    "ragasync, stream": Contender(ragasync_stream),
    "ragasync, stream in order": Contender(ragasync_in_order),
}

CONTENDERS: Mapping[str, Contender] = {
    name: contender for name, contender in _ALL.items() if installed(*contender.needs)
}


async def read_all(
    contender: Contender, size: int, at_once: int, look: Callable[[], object] | None = None
) -> None:
    """Read every value of a stream, keep none, and check that all of them came."""
    items = (item for item in range(size))  # a generator: it has no length
    every = max(1, size // LOOKS)
    count = added_up = 0
    async with aclosing(contender.stream(items, at_once)) as values:
        async for value in values:
            count += 1
            added_up += value
            if look is not None and count % every == 0:
                look()
    assert (count, added_up) == (size, size * (size - 1) // 2), f"{contender} lost values"


def traced_kilobytes(contender: Contender, size: int, at_once: int) -> float:
    """Return the most that Python had allocated at once."""
    return peak_bytes(partial(read_all, contender, size, at_once)) / 1e3


def grown_megabytes(contender: Contender, size: int, at_once: int) -> float:
    """Return by how much the process was larger, at most, than before."""
    import psutil

    process = psutil.Process()
    sizes: list[int] = [process.memory_info().rss]
    asyncio.run(read_all(contender, size, at_once, lambda: sizes.append(process.memory_info().rss)))
    return (max(sizes) - sizes[0]) / 1e6


def table_of(
    title: str, measure: Callable[[Contender, int, int], float], sizes: Sequence[int], at_once: int
) -> str:
    """Return a figure of every contender, a column for each size that it takes on."""

    def cell(contender: Contender, size: int) -> str:
        if size > contender.most_items:
            return ""
        return f"{measure(contender, size, at_once):.1f}"

    rows = [
        [name, *(cell(contender, size) for size in sizes)] for name, contender in CONTENDERS.items()
    ]
    return table(
        f"a stream, {at_once} at once: {title}", ["", *(f"{size:,} items" for size in sizes)], rows
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare the memory that streams need.")
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--at-once", type=int, default=32, metavar="CALLS")
    parser.add_argument(
        "--traced-up-to", type=int, default=1_000_000, metavar="ITEMS", help="tracing is slow"
    )
    given = parser.parse_args()
    sizes = sorted(given.items)
    for contender in CONTENDERS.values():  # imports and caches, off the books
        asyncio.run(read_all(contender, 5_000, given.at_once))
    spare_the_collector()
    if installed("psutil"):
        title = "MB by which the process grew at most"
        print(table_of(title, grown_megabytes, sizes, given.at_once), flush=True)
    traced = [size for size in sizes if size <= given.traced_up_to]
    if traced:
        print(table_of("peak KB allocated", traced_kilobytes, traced, given.at_once))
    missing = [name for name in ("aiostream", "psutil") if not installed(name)]
    if missing:
        print(f"Left out, because not installed: {', '.join(missing)}. Install ragasync[bench].")


if __name__ == "__main__":
    main()
