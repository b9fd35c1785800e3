"""What ran when: as bars, or where these are too many as areas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragasync.outcomes.facts import Finished
from ragasync.plots.bars import draw_bars, mark_ends
from ragasync.plots.canvas import axes_for, entitle, frame, say, time_axis
from ragasync.plots.shares import draw_failures, draw_shares
from ragasync.reports.spans import spans_of
from ragasync.reports.timed import length_of, timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS_UP_TO = 3_000
"""The most stretches that are drawn one by one; of more than these nobody sees the single one."""

HEIGHT = 3.6


def plot_timeline(result: Finished, *, ax: Axes | None = None) -> Axes:
    """
    Plot what ran when: calls, waits for the rate limit and back-off told apart, failures marked.

    Up to a few thousand calls are bars, a lane a worker. Above that it shows how many calls at
    once did what, so that the picture stays small. An item between two attempts holds no lane: its
    back-off is a thin line on the lane that takes it up again.

        plot_timeline(result).figure.savefig("timeline.png")

    Args:
        result: a BatchResult.
        ax: the matplotlib Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    ax = axes_for("plot_timeline", result, ax, HEIGHT)
    items = timed(result)
    length = length_of(result, items)
    if not (len(items) and length):
        say(ax, "no times are known")
    else:
        spans = spans_of(result.columns, items)
        unit = time_axis(ax, length)
        if len(spans) <= BARS_UP_TO:
            draw_bars(ax, spans, unit, result)
            mark_ends(ax, items, unit, result)
        else:
            draw_shares(ax, spans, unit, result, length)
            draw_failures(ax, items, unit, result, length)
        frame(ax)
    entitle(ax, result)
    return ax
