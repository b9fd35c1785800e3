"""A run of the real engine that nobody looks on: no heartbeat, and no breath for others."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from ragasync.engine.controls import RunControls
from ragasync.engine.run import execute
from ragasync.engine.telling import run_stats
from ragasync.outcomes.columns import Columns
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings

R = TypeVar("R")


async def run_simulation(plan: BatchSettings[int, R], n_items: int) -> BatchResult[R]:
    """
    Run a plan over the numbers from 0, on a virtual clock, and return what became of them.

    Nobody is there to press a stop button or to see progress: without the beats for those, the
    price of a long job is that of its calls, however many virtual hours they take.
    """
    clock, items = asyncio.get_running_loop().time, range(n_items)
    columns: Columns[int, R] = Columns(items)
    run = RunControls(plan)
    began = clock()
    await execute(run, items, columns, total=n_items, never_yield=True)
    seconds = clock() - began
    columns.close(None)
    return BatchResult.of(
        columns,
        seconds=seconds,
        stopped_because=run.stopped_because,
        stats=run_stats(run, "list", None),
    )
