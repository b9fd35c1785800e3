"""What ran when, as how many calls at once did what: for runs of more calls than one can see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ragasync.outcomes.outcome import FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.plots.charts import TimeUnit, failures_of, ink
from ragasync.reports.elements import COLOURS
from ragasync.reports.spans import (
    STATE_COLOURS,
    STATES,
    Spans,
    names_of,
    noun_of,
    occupancy,
)
from ragasync.reports.timed import Timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 300


def draw_shares(ax: Axes, spans: Spans, unit: TimeUnit, result: RunResult, length: float) -> None:
    """Draw how many calls at once did what, one state upon the other."""
    edges = np.linspace(0.0, length, BINS + 1)
    below = np.zeros(BINS)
    for state in STATES:
        chosen = spans.state == state
        at_once = occupancy(spans.start[chosen], spans.end[chosen], edges)
        if at_once.any():
            ax.stairs(
                below + at_once,
                edges * unit.per_second,
                baseline=below,
                fill=True,
                color=STATE_COLOURS[state],
                linewidth=0,
                label=names_of(result.stats)[state],
            )
        below = below + at_once
    top, workers = float(below.max()), result.stats.max_concurrency
    if result.stats.adapted and result.stats.concurrency_history:
        top = max(top, _draw_bounds(ax, unit, result, length))
    elif workers and workers <= 2 * top:
        ax.axhline(workers, color=ink(ax), linewidth=1, linestyle=":", label=f"{workers:,} workers")
        top = max(top, workers)
    ax.set_ylim(0.0, 1.06 * top or 1.0)
    ax.set_ylabel(f"{noun_of(result.stats)} at once")


def _draw_bounds(ax: Axes, unit: TimeUnit, result: RunResult, length: float) -> float:
    """Draw how many calls at once were allowed, as it moved, and return the most."""
    since, bounds = zip(*result.stats.concurrency_history, strict=True)
    edges = np.array([*since, max(length, since[-1])]) * unit.per_second
    ax.stairs(bounds, edges, baseline=None, color=ink(ax), linewidth=1, label="bound (auto)")
    return float(max(bounds))


def draw_failures(ax: Axes, items: Timed, unit: TimeUnit, result: RunResult, length: float) -> None:
    """Draw a row of ticks under the plot: where items failed, and the longer the more of them."""
    counts, edges = np.histogram(items.end[items.status == FAILED], bins=BINS, range=(0.0, length))
    if not counts.any():
        return
    places = np.flatnonzero(counts)
    bottom, top = ax.get_ylim()
    room = 0.09 * (top - bottom)
    ax.vlines(
        (edges[places] + edges[1] / 2) * unit.per_second,
        -room,
        -room * (1 - (0.3 + 0.6 * counts[places] / counts.max())),
        color=COLOURS[FAILED],
        linewidth=1.2,
        label=failures_of(result),
    )
    ax.set_ylim(-room, top)
    ax.axhline(0.0, color=ink(ax), linewidth=0.8)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
