"""What ran when, a bar a call on its worker: for runs of up to a few thousand calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ragasync.outcomes.outcome import CANCELLED, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.plots.charts import TimeUnit, failures_of, ink
from ragasync.reports.elements import COLOURS
from ragasync.reports.spans import (
    BACKOFF,
    FOR_GOOD,
    LIMITER,
    NOT_FAILED,
    STATE_COLOURS,
    TRIED_AGAIN,
    WORK,
    Spans,
    names_of,
)
from ragasync.reports.timed import Timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array: TypeAlias = "np.ndarray[Any, Any]"

BAR, LINE = (-0.42, 0.24), (0.28, 0.42)
"""Where in its worker a stretch is drawn that holds the worker, and one that does not."""


def draw_bars(ax: Axes, spans: Spans, unit: TimeUnit, result: RunResult) -> None:
    """Draw every stretch of time on its worker."""
    from matplotlib.ticker import MaxNLocator

    work, names = spans.state == WORK, names_of(result.stats)
    for chosen, colour, name in (
        (work & (spans.failed == NOT_FAILED), STATE_COLOURS[WORK], names[WORK]),
        (work & (spans.failed == TRIED_AGAIN), COLOURS[FAILED] + "80", "failed, then tried again"),
        (work & (spans.failed == FOR_GOOD), COLOURS[FAILED], ""),
        (spans.state == LIMITER, STATE_COLOURS[LIMITER], names[LIMITER]),
        (spans.state == BACKOFF, STATE_COLOURS[BACKOFF], names[BACKOFF]),
    ):
        if chosen.any():
            _add_bars(ax, spans, chosen, unit, colour, name)
    ax.set_ylim(spans.worker.max() + 0.6, -0.6)
    ax.yaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
    ax.set_ylabel("worker")


def _add_bars(
    ax: Axes, spans: Spans, chosen: Array, unit: TimeUnit, colour: str, name: str
) -> None:
    """Draw the stretches of one kind as one artist."""
    from matplotlib.collections import PolyCollection

    left, right = spans.start[chosen] * unit.per_second, spans.end[chosen] * unit.per_second
    low, high = (
        spans.worker[chosen] + side for side in (LINE if spans.state[chosen][0] == BACKOFF else BAR)
    )
    corners = ((left, low), (left, high), (right, high), (right, low))
    narrow = len(spans) > 300 or spans.worker.max() > 20  # a gap between the bars would eat them
    ax.add_collection(
        PolyCollection(
            list(np.stack([np.column_stack(corner) for corner in corners], axis=1)),
            facecolors=colour,
            edgecolors=colour if narrow else ax.get_facecolor(),
            linewidths=0.3 if narrow else 0.6,
            label=name,
        )
    )


def mark_ends(ax: Axes, items: Timed, unit: TimeUnit, result: RunResult) -> None:
    """Mark the items that failed for good, and those that were cancelled."""
    for code, marker, name in ((FAILED, "x", failures_of(result)), (CANCELLED, "d", "cancelled")):
        chosen = items.status == code
        if chosen.any():
            ax.plot(
                items.end[chosen] * unit.per_second,
                items.worker[chosen] + sum(BAR) / 2,
                linestyle="none",
                marker=marker,
                markersize=6 if chosen.sum() <= 100 else 3.5,
                color=ink(ax) if code == FAILED else COLOURS[code],
                label=name,
                clip_on=False,
                zorder=4,
            )
