"""
What a table of a million rows takes to load: seconds, and megabytes at the most.

    python benchmarks/tables.py [--rows 1000000]

Each case is measured twice: for its time, and by tracemalloc for its memory with the file's bytes.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterable

from ragasync.documents import CSVLoader, JSONLinesLoader
from ragasync.documents.loaders import Record

Load = Callable[[bytes], Iterable[Record]]


def cases(rows: int) -> dict[str, tuple[Load, bytes]]:
    """Return a loader and a file for each case."""
    table = b"id,town,about\n" + b"".join(b"%d,Oslo,rain and rain\n" % n for n in range(rows))
    lines = b"".join(b'{"id": %d, "town": "Oslo", "about": "rain"}\n' % n for n in range(rows))
    return {
        "csv, all columns are text": (CSVLoader(), table),
        "csv, ids and numbers": (CSVLoader(text_columns=["about"], id_column="id"), table),
        "csv, bad rows skipped": (CSVLoader(on_bad_rows="skip"), table + b"Total\n"),
        "json lines": (JSONLinesLoader(), lines),
        "json lines, cut off": (JSONLinesLoader(on_bad_rows="skip"), lines[:-9]),
    }


def drained(load: Load, data: bytes) -> int:
    """Return how many records a file has, of which none is kept."""
    return sum(1 for _ in load(data))


def measured(load: Load, data: bytes) -> tuple[float, float]:
    """Return the seconds of processor time, and the megabytes at the most beside the bytes."""
    began = time.process_time()
    drained(load, data)
    took = time.process_time() - began
    tracemalloc.start()
    drained(load, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return took, (peak + len(data)) / 1e6


def main() -> None:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    print(f"### Tables of {rows:,} rows\n")
    print("| case | file, MB | seconds | memory, MB |\n|---|---|---|---|")
    for name, (load, data) in cases(rows).items():
        took, memory = measured(load, data)
        print(
            f"| ragasync, {name} | {len(data) / 1e6:.0f} | {took:.1f} | {memory:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
