"""
A job with a journal, run in a process of its own that may be killed at any moment.

    python journal_job_script.py ITEMS IN_FLIGHT FLUSH_ITEMS

reads a line "JOURNAL PIPE" from stdin, runs the job on this journal in a child, and prints the
child's process id; with the next line from stdin it waits for the child, and prints how it ended:
so the id stays the child's own as long as somebody may want to kill it. The child writes into the
pipe when a call begins and when it ends, and whoever reads knows what was done up to its last
moment. It forks instead of starting anew, to spare the import fifty times.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

# Internals: what a run loads only when it needs it.
import ragasync.journal.session  # noqa: F401  # what a run loads, loaded once for all children
from ragasync import AsyncBatchProcessor, Journal

SECONDS = 0.005
"""How long a call takes."""


class Record(NamedTuple):
    """What a child says of a call."""

    what: Literal["begins", "ends"]
    item: int


def value_of(item: int) -> int:
    """The value of an item."""
    return 10 * item


def line_of(record: Record) -> bytes:
    """Return a record as a line of the pipe; all lines have one length."""
    return f"{record.what[:5]:5} {record.item:6}\n".encode()


def records_of(lines: bytes) -> list[Record]:
    """The lines written into the pipe."""
    split = [line.split() for line in lines.decode().splitlines()]
    return [Record("begins" if what == "begin" else "ends", int(item)) for what, item in split]


LINE = len(line_of(Record("begins", 0)))


def make_call(pipe: int) -> Callable[[int], Awaitable[int]]:
    """Return the job's function, which says into the pipe what it does."""

    async def call(item: int) -> int:
        os.write(pipe, line_of(Record("begins", item)))
        await asyncio.sleep(SECONDS)
        os.write(pipe, line_of(Record("ends", item)))
        return value_of(item)

    return call


def run_job(journal: str, pipe: str, items: int, in_flight: int, flush_items: int) -> bool:
    """Run the job and return whether its result is whole."""
    call = make_call(os.open(pipe, os.O_WRONLY))
    processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
        call, max_concurrency=in_flight, journal=Journal(journal, flush_items=flush_items)
    )
    result = asyncio.run(processor.process(range(items)))
    return result.all_succeeded and result.results == [value_of(item) for item in range(items)]


def serve(items: int, in_flight: int, flush_items: int) -> None:
    """Run the job for every line of stdin."""
    for line in sys.stdin:
        journal, pipe = line.split()
        child = os.fork()
        if child == 0:
            whole = run_job(journal, pipe, items, in_flight, flush_items)
            os._exit(0 if whole else 3)
        print(child, flush=True)  # noqa: T201  # the parent of this script reads it
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
