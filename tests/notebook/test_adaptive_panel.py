"""The panel of a job with max_concurrency="auto"."""

from __future__ import annotations

import asyncio

from ragasync import AsyncBatchProcessor

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._reports.error_groups import LiveErrorGroups
from ragasync.notebook.controls import Controls
from tests.support.hidden_limits import Queueing, still
from tests.support.requirements import needs


async def test_the_slider_of_a_panel_follows_the_limit():
    """It shows the current limit without setting it: the run continues to adapt."""
    needs("ipywidgets")
    job = AsyncBatchProcessor(Queueing(still(64)), max_concurrency="auto").start(
        range(4_000), on_current_loop=True
    )
    await asyncio.sleep(0.1)
    none: LiveErrorGroups = LiveErrorGroups(Columns(items=[]))
    controls = Controls(job, job._view(), none, lambda: None)
    _, slider, _ = controls._concurrency[0].widgets
    seen = [slider.label]
    for _ in range(4):
        await asyncio.sleep(0.2)
        controls.draw(job._view(), none)
        seen.append(slider.label)
        assert seen[-1] == str(job.max_concurrency)
    assert seen == ["4", "4", "8", "16", "32"]
    assert "(auto)" in repr(job)
    controls.close()
    job.cancel()
    await job
