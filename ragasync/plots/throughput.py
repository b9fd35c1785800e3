"""How fast a run went: items a second, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.plots.charts import ink, picture, time_axis
from ragasync.reports.elements import COLOURS, NAMES
from ragasync.reports.summary import per_second
from ragasync.reports.timed import Timed, length_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 100


def plot_throughput(result: RunResult, *, ax: Axes | None = None) -> Axes:
    """
    Plot how many items a second ended over the run, done and failed, and their mean.

    Example:
        >>> from ragasync import AsyncBatchProcessor, plot_throughput
        >>> result = AsyncBatchProcessor(str).process_sync(range(100))
        >>> axes = plot_throughput(result)
        >>> axes.get_ylabel()
        'items a second'

    Args:
        result: a BatchResult.
        ax: the matplotlib Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    return picture("plot_throughput", result, ax, _draw)


def _draw(ax: Axes, result: RunResult, items: Timed) -> None:
    """Draw how many items ended in each stretch, failed ones upon the done."""
    length, ended = length_of(result, items), int(np.isin(items.status, (DONE, FAILED)).sum())
    unit = time_axis(ax, result, length)
    bins = int(np.clip(ended // 4, 10, BINS))
    below = np.zeros(bins)
    for code in (DONE, FAILED):
        chosen = items.end[items.status == code]
        counts, edges = np.histogram(chosen, bins=bins, range=(0.0, length))
        if len(chosen):
            rates = counts / np.diff(edges)
            ax.stairs(
                below + rates,
                edges * unit.per_second,
                baseline=below,
                fill=True,
                color=COLOURS[code],
                linewidth=0,
                label=f"{len(chosen):,} {NAMES[code]}",
            )
            below = below + rates
    mean = ended / length
    ax.axhline(
        mean,
        color=ink(ax),
        linewidth=1.2,
        linestyle="--",
        label=f"mean {per_second(mean)} items/s",
    )
    ax.set_ylabel("items a second")
    ax.set_ylim(0.0, 1.06 * float(below.max()))
