"""When each stage of a pipeline was at work: a band a stage, as high as its calls at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ragasync.outcomes.outcome import FAILED
from ragasync.outcomes.stats import RunResult, StageStats
from ragasync.plots.charts import TimeUnit, failures_of, ink
from ragasync.reports.spans import STATE_COLOURS, WORK
from ragasync.reports.stages import place_of
from ragasync.reports.timed import Timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIGH = 0.8
"""The share of its row that a band takes when all calls that may be are under way."""


def draw_stages(ax: Axes, items: Timed, unit: TimeUnit, result: RunResult, length: float) -> None:
    """Draw a band a stage in the order of a document's way, and where documents failed."""
    stages = result.stats.stages
    for row, stage in enumerate(stages):
        _draw_band(ax, row, stage, unit, length)
    _mark_failures(ax, items, unit, result)
    ax.set_yticks(range(len(stages)))
    ax.set_yticklabels(
        [f"{stage.name} ({stage.max_concurrency:,})" for stage in stages], parse_math=False
    )
    ax.set_ylim(len(stages) - 0.4, -0.6)
    ax.set_ylabel("stage (calls at once)")


def _draw_band(ax: Axes, row: int, stage: StageStats, unit: TimeUnit, length: float) -> None:
    """Draw how many of a stage's calls at once were under way."""
    bottom = row + HIGH / 2
    ax.axhline(bottom, color=ink(ax), linewidth=0.6, alpha=0.5)
    for busy in stage.busy:
        at_once = np.array(busy.concurrency())
        edges = busy.began + busy.width * np.arange(len(at_once) + 1)
        here = edges[:-1] < length
        share = np.clip(at_once[here] / stage.max_concurrency, 0.0, 1.0)
        edges = np.minimum(edges[: len(share) + 1], length)
        ax.stairs(
            bottom - HIGH * share,
            edges * unit.per_second,
            baseline=bottom,
            fill=True,
            color=STATE_COLOURS[WORK],
            linewidth=0,
            label="calls under way, of those that may be at once" if row == 0 else None,
        )


def _mark_failures(ax: Axes, items: Timed, unit: TimeUnit, result: RunResult) -> None:
    """Mark where documents failed, in the band of the stage that they failed in."""
    names, told = [stage.name for stage in result.stats.stages], result.columns.stages
    failed = items.status == FAILED
    if not failed.any():
        return
    rows = [place_of(told.get(row, ""), names) for row in items.row[failed].tolist()]
    ax.plot(
        items.end[failed] * unit.per_second,
        [len(names) - 1 if row is None else row for row in rows],
        linestyle="none",
        marker="x",
        markersize=6 if failed.sum() <= 100 else 3.5,
        color=ink(ax),
        label=failures_of(result),
        clip_on=False,
        zorder=4,
    )
