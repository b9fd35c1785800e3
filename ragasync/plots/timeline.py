"""What ran when: as bars, or where these are too many as areas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.plots.bars import draw_bars, mark_ends
from ragasync.plots.charts import picture, time_axis
from ragasync.plots.shares import draw_failures, draw_shares
from ragasync.plots.stages import draw_stages
from ragasync.reports.spans import spans_of
from ragasync.reports.timed import Timed, length_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS_UP_TO = 3_000
"""The most stretches that are drawn one by one; of more than these nobody sees the single one."""


def plot_timeline(result: RunResult, *, ax: Axes | None = None) -> Axes:
    """
    Plot what ran when: calls, waits for the rate limit and back-off told apart, failures marked.

    Up to a few thousand calls are bars, one row per worker. Above that it shows how many calls
    did what concurrently, so that the plot stays small. An item between two attempts holds no
    worker: its back-off is a thin line on the worker that retries it. Of merged runs each begins
    where the one before it ended; what a later run did again is only there.

    Of documents it shows the stages instead: a band each, as high as the calls that were under way
    of those that may be at once, with a mark where a document failed in it.

    Example:
        >>> from ragasync import AsyncBatchProcessor, plot_timeline
        >>> result = AsyncBatchProcessor(str).process_sync(range(100))
        >>> axes = plot_timeline(result)
        >>> axes.get_xlabel()
        'time since the start (ms)'
        >>> axes.figure.savefig("timeline.png")

    Args:
        result: a BatchResult.
        ax: the matplotlib Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    return picture("plot_timeline", result, ax, _draw, shown=(DONE, FAILED, CANCELLED))


def _draw(ax: Axes, result: RunResult, items: Timed) -> None:
    """Draw every stretch by itself, or how many there were at once."""
    length = length_of(result, items)
    unit = time_axis(ax, result, length)
    if any(stage.busy for stage in result.stats.stages):
        draw_stages(ax, items, unit, result, length)
        return
    spans = spans_of(result.columns, items)
    if len(spans) <= BARS_UP_TO:
        draw_bars(ax, spans, unit, result)
        mark_ends(ax, items, unit, result)
    else:
        draw_shares(ax, spans, unit, result, length)
        draw_failures(ax, items, unit, result, length)
