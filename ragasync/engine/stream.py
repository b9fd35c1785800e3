"""A run whose outcomes are read one by one, and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from ragasync.clock import Heartbeat
from ragasync.engine.controls import RunControls
from ragasync.engine.job_run import Items, checked_items
from ragasync.engine.outlet import OutcomeBuffer
from ragasync.engine.run import execute
from ragasync.error_text import add_note
from ragasync.errors import JobStopped
from ragasync.lazy_task import create_lazy_task
from ragasync.outcomes.outcome import Outcome
from ragasync.reports.summary import counted
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")


async def streamed(
    plan: BatchSettings[T, R], items: Items[T], *, ordered: bool, total: int | None
) -> AsyncGenerator[Outcome[T, R], None]:
    """Yield the outcomes of a run of this plan; see AsyncBatchProcessor.stream."""
    source, known = checked_items(items, total, None)
    window = plan.max_concurrency * plan.items_per_call
    # In order, all that is begun during the longest call waits for its end: with latencies that
    # have a heavy tail half of this bound made a run up to 1.6 times as long.
    bound = max(2048, 32 * window) if ordered else max(64, 2 * window)
    outlet: OutcomeBuffer[T, R] = OutcomeBuffer(ordered=ordered, bound=bound)
    run = RunControls(plan)
    outlet.on_change = run.notify
    executing = execute(run, source, outlet, total=known, on_item=outlet.on_item)
    running = create_lazy_task(executing, asyncio.get_running_loop(), name="ragasync stream")
    running.add_done_callback(lambda _: outlet.end())
    given = 0
    try:
        with Heartbeat():
            while (outcome := await outlet.next()) is not None:
                given += 1
                yield outcome
    finally:
        if not run.owner_is_cancelled:  # a second time would end its clean-up
            running.cancel()
        await asyncio.wait([running])
    try:
        running.result()
    except Exception as error:
        gave = counted(given, "outcome")
        add_note(error, f"ragasync: the stream gave {gave} before this was raised")
        raise
    if run.stopped_because:
        raise JobStopped(run.stopped_because)
