"""How long calls took: the distribution over items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.plots.charts import TimeUnit, picture, unit_of
from ragasync.reports.elements import COLOURS, NAMES
from ragasync.reports.timed import Timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array: TypeAlias = "np.ndarray[Any, Any]"

WIDE = 20.0
"""Between the 1% fastest and the 1% slowest: from this ratio on the axis is logarithmic."""


def plot_latency(result: RunResult, *, ax: Axes | None = None) -> Axes:
    """
    Plot how long items were in calls, all attempts together, failed ones apart.

    Done and failed are shares of their own number, so that a few failures are seen beside many
    successes. The axis is logarithmic where the times spread widely. The items of a batch have
    the time of their whole call.

    Example:
        >>> from ragasync import AsyncBatchProcessor, plot_latency
        >>> result = AsyncBatchProcessor(str).process_sync(range(100))
        >>> axes = plot_latency(result)
        >>> axes.get_xlabel()
        'time in calls, all attempts of an item (ms)'

    Args:
        result: a BatchResult.
        ax: the matplotlib Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    return picture("plot_latency", result, ax, _draw)


def _draw(ax: Axes, result: RunResult, items: Timed) -> None:
    """Draw the times of done items and of failed ones."""
    times = {code: items.seconds[items.status == code] for code in (DONE, FAILED)}
    every = np.concatenate(list(times.values()))
    unit = unit_of(float(np.quantile(every, 0.99)))
    edges = _edges(every * unit.per_second, ax)
    for code, seconds in times.items():
        if len(seconds):
            _draw_one(ax, seconds, edges, code, unit)
    what = "of a document" if result.stats.stages else "in calls, all attempts of an item"
    ax.set_xlabel(f"time {what} ({unit.name})")
    ax.set_ylabel("share of items (%)")
    ax.set_ylim(bottom=0.0)


def _edges(times: Array, ax: Axes) -> Array:
    """Return the edges of the bins, and set the axis to go with them."""
    count = int(np.clip(2 * np.sqrt(len(times)), 8, 50))
    positive = times[times > 0]
    if len(positive):
        low, high = np.quantile(positive, (0.01, 0.99))
        if high / low >= WIDE:
            _set_log_axis(ax, low, high)
            return np.geomspace(positive.min(), positive.max(), count + 1)
    low, high = float(times.min()), float(times.max())
    if high - low < 0.05 * high or not high:  # all alike: a bin each side of them
        low, high = 0.5 * low, 1.5 * high or 1.0
    return np.linspace(low, high, count + 1)


def _set_log_axis(ax: Axes, low: float, high: float) -> None:
    """Make the axis of times logarithmic, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    steps = (1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_one(ax: Axes, seconds: Array, edges: Array, code: int, unit: TimeUnit) -> None:
    """Draw the times of the items of one status, with their median and their 95th percentile."""
    times = np.clip(seconds * unit.per_second, edges[0], edges[-1])
    shares = np.histogram(times, edges)[0] * 100 / len(times)
    median, high = np.quantile(times, (0.5, 0.95))
    colour = COLOURS[code]
    label = (
        f"{len(times):,} {NAMES[code]}: median {_short(median)} {unit.name} (line), "
        f"p95 {_short(high)} {unit.name} (dots)"
    )
    ax.stairs(shares, edges, fill=True, color=colour, alpha=0.45, linewidth=0)
    ax.stairs(shares, edges, color=colour, linewidth=1.3, label=label)
    ax.axvline(median, color=colour, linewidth=1.2)
    ax.axvline(high, color=colour, linewidth=1.2, linestyle=":")


def _short(time: float) -> str:
    """Return a time to three digits."""
    return f"{time:,.0f}" if time >= 99.5 else f"{time:.3g}"
