"""
What a table of all outcomes costs, beside what pandas makes of records kept by hand.

    python benchmarks/frames.py --items 1000000 --rounds 3

One item in a hundred failed and one was tried twice, in a real run. The contenders begin with
what a run has kept: ragasync with its columns, the others with a record an item.

A second table is about input: a run over a Series, and over a DataFrame of five columns, compared
with runs over lists of the same items, which were made before.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from measuring import in_turns, ratios, table

from ragasync import AsyncBatchProcessor, AsyncRetry, BatchResult, Outcome, to_dataframe

MakeFrame: TypeAlias = Callable[[], pd.DataFrame]

FACTS = [each.name for each in fields(Outcome) if each.name not in ("traceback", "history")]

REFERENCE = "pandas, of a list of dicts"


class Flaky:
    """A service that fails for one item in a hundred, and at first for another one."""

    def __init__(self) -> None:
        self._failed: set[int] = set()

    async def __call__(self, item: int) -> float:
        """Return half the item, or fail."""
        fails_at_first = item % 100 == 50 and item not in self._failed
        if item % 100 == 0 or fails_at_first:
            self._failed.add(item)
            raise ConnectionError(f"item {item}: reset by peer")
        return item / 2


def result_of(size: int) -> BatchResult[float]:
    """Run so many items and return what became of them."""
    retry = AsyncRetry(max_retries=1, base_delay=0)
    processor = AsyncBatchProcessor[int, float](Flaky(), max_concurrency=32, retry=retry)
    return processor.process_sync(range(size))


def contenders(result: BatchResult[float]) -> dict[str, MakeFrame]:
    """Return the ways to a table; what a run would have kept is made here, off the clock."""
    records = [tuple(getattr(outcome, fact) for fact in FACTS) for outcome in result]
    dicts = [dict(zip(FACTS, record, strict=True)) for record in records]
    return {
        REFERENCE: lambda: pd.DataFrame(dicts),
        "pandas, of a list of tuples": lambda: pd.DataFrame(records, columns=FACTS),
        "pandas, from_records": lambda: pd.DataFrame.from_records(records, columns=FACTS),
        "ragasync": partial(to_dataframe, result),
    }


def check(frame: pd.DataFrame, result: BatchResult[float]) -> None:
    """Raise unless the table tells of every item."""
    assert list(frame["item"]) == list(range(result.total))
    assert (frame["status"] == "failed").sum() == result.error_count
    assert (frame["attempts"] == 2).sum() == 2 * result.error_count


def seconds(make: MakeFrame, result: BatchResult[float]) -> float:
    """Return the processor seconds that a table takes."""
    gc.collect()
    began = time.process_time()
    frame = make()
    took = time.process_time() - began
    check(frame, result)
    return took


async def nothing(_: object) -> None:
    """Return at once: only the run itself is measured."""


def run_seconds(items: Any, size: int) -> float:
    """Return the processor seconds of a run over these items."""
    gc.collect()
    began = time.process_time()
    result = AsyncBatchProcessor(nothing, max_concurrency=32).process_sync(items)
    took = time.process_time() - began
    assert result.success_count == size
    return took


def inputs(size: int) -> dict[str, Any]:
    """Return the same items as lists, as a Series and as a DataFrame, with shuffled labels."""
    numbers = np.arange(size)
    labels = pd.Index(np.random.default_rng(0).permutation(size))
    texts = [f"text {number}" for number in range(size)]
    kinds = pd.Categorical([f"kind {number % 5}" for number in range(size)])
    columns = {"id": numbers, "text": texts, "score": numbers / 7, "even": numbers % 2 == 0}
    frame = pd.DataFrame(columns | {"kind": kinds}, index=labels)
    return {
        "ragasync, a list of texts": frame["text"].tolist(),
        "ragasync, a Series of texts": frame["text"],
        "ragasync, a list of dicts": frame.to_dict("records"),
        "ragasync, a DataFrame": frame,
    }


def input_table(size: int, rounds: int) -> str:
    """Measure runs over each kind of items, and return the table."""
    items = inputs(size)
    figures = in_turns(
        {name: partial(run_seconds, each, size) for name, each in items.items()}, rounds
    )
    lists = {
        "ragasync, a Series of texts": "ragasync, a list of texts",
        "ragasync, a DataFrame": "ragasync, a list of dicts",
    }
    rows = [
        [name, figures[name], f"{figures[name].median - figures[lists.get(name, name)].median:.2f}"]
        for name in items
    ]
    columns = ["items", "processor s, median (min-max)", "s more than the list"]
    return table(f"a run over {size:,} items", columns, rows)


def bytes_of(make: MakeFrame, size: int) -> tuple[float, float]:
    """Return the peak bytes a row while it is made, and those it keeps."""
    gc.collect()
    tracemalloc.start()
    try:
        frame = make()  # noqa: F841  # what it keeps is measured while it is there
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak / size, kept / size


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what a table of all outcomes costs.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    result = result_of(given.items)
    makers = contenders(result)
    for make in makers.values():  # imports, off the clock
        make().head()
    figures = in_turns(
        {name: partial(seconds, make, result) for name, make in makers.items()}, given.rounds
    )
    over = ratios(figures, REFERENCE)
    rows = []
    for name, make in makers.items():
        peak, kept = bytes_of(make, given.items)
        rows.append([name, figures[name], f"{over[name]:.2f}", f"{peak:.0f}", f"{kept:.0f}"])
    columns = ["", "processor s, median (min-max)", "ratio", "peak B a row", "kept B a row"]
    print(table(f"to_dataframe, {given.items:,} items", columns, rows))
    del result, makers
    print(input_table(given.items, given.rounds))


if __name__ == "__main__":
    main()
