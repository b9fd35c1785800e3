"""
How many files and functions of ragasync one item or document crosses, from `process` to its result.

    python benchmarks/crossings.py
    python benchmarks/crossings.py --list

It measures how much code a newcomer meets, not speed. Each runs once before it is counted, so that
imports and what is computed once do not count; what runs on threads counts too.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

from measuring import table

import ragasync
from ragasync import AsyncBatchProcessor, AsyncDocumentProcessor, RateLimiter
from ragasync.documents import MemoryStore, SqliteStore

PACKAGE = str(Path(ragasync.__file__).parent)
DOCUMENTS = "/documents/"

Process: TypeAlias = Callable[[], Awaitable[Any]]
"""Processes one item."""


def functions_crossed(process: Process) -> set[CodeType]:
    """Return the functions of ragasync that are entered while something is processed."""
    entered: set[CodeType] = set()
    is_warm = False

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # The bodies of comprehensions and lambdas are parts of the functions that they stand in.
        is_function = event == "call" and code.co_name[0] != "<"
        if is_warm and is_function and code.co_filename.startswith(PACKAGE):
            entered.add(code)

    async def run() -> None:
        nonlocal is_warm
        await process()
        is_warm = True
        sys.setprofile(note)
        try:
            await process()
        finally:
            sys.setprofile(None)

    threading.setprofile(note)  # before the first run, whose threads may serve the second
    try:
        asyncio.run(run())
    finally:
        threading.setprofile(None)
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


def items() -> Iterator[tuple[str, Process]]:
    """Yield the ways of one item."""
    processors: dict[str, AsyncBatchProcessor[Any, Any]] = {
        "one plain item": AsyncBatchProcessor(double),
        "one item and a retry": AsyncBatchProcessor(failing_at_first(), retry_delay=0.001),
        "one batch": AsyncBatchProcessor(double_all, batched=True),
        "one item and a limiter": AsyncBatchProcessor(double, rate_limiter=RateLimiter(1_000)),
    }
    for name, processor in processors.items():
        yield name, partial(processor.process, [1])


@contextmanager
def documents() -> Iterator[dict[str, Process]]:
    """Yield the ways of one document, each time another one except where it is unchanged."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryStore() as memory,
        SqliteStore(Path(folder, "store.sqlite")) as store,
    ):
        numbers = count()

        def new_text() -> tuple[str, str]:
            return f"text {next(numbers)}", "A bucket refills."

        def new_file() -> Path:
            number = next(numbers)
            path = Path(folder, f"{number}.py")
            path.write_text(f"def call_{number}():\n    pass\n")
            return path

        def run(make_source: Callable[[], object], **settings: Any) -> Process:
            processor = AsyncDocumentProcessor(**settings)
            return lambda: processor.process([make_source()])

        same = new_file()
        yield {
            "one text, without a store": run(new_text),
            "one text into a MemoryStore": run(new_text, store=memory),
            "one file, without a store": run(new_file),
            "one file into a SqliteStore": run(new_file, store=store),
            "one unchanged file": run(lambda: same, store=store),
        }


def row_of(name: str, entered: set[CodeType], wants_list: bool) -> list[object]:
    """Return the numbers of files and functions, in all and of documents/, and list them."""
    by_file: dict[str, set[str]] = {}
    for code in entered:
        by_file.setdefault(code.co_filename.removeprefix(PACKAGE), set()).add(code.co_qualname)
    if wants_list:
        print(f"\n{name}")
        for file, functions in sorted(by_file.items()):
            print(f"  {file.lstrip('/')}: {', '.join(sorted(functions))}")
    of_documents = {file: names for file, names in by_file.items() if file.startswith(DOCUMENTS)}
    sizes = [(len(files), sum(map(len, files.values()))) for files in (by_file, of_documents)]
    return [f"ragasync: {name}", *sizes[0], *sizes[1]]


def main() -> None:
    """Print a row for each way, and with --list the functions by file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the functions too")
    wants_list = parser.parse_args().list
    with documents() as of_documents:
        rows = [
            row_of(name, functions_crossed(process), wants_list)
            for name, process in [*items(), *of_documents.items()]
        ]
    heads = ["", "files", "functions", "files of documents/", "functions of documents/"]
    print(table("code that one item or document crosses", heads, rows))


if __name__ == "__main__":
    main()
