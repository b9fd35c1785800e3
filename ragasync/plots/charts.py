"""Charts of latency and throughput, and the Axes, title, legend and time axis of all plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._outcomes.stats import RunResult
from ragasync._reports.html import COLORS, NAMES
from ragasync._reports.summary import per_second, title
from ragasync._reports.timeline import ItemTimes, item_times, run_length
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    DrawFunction: TypeAlias = Callable[[Axes, RunResult, ItemTimes], None]

Array: TypeAlias = "np.ndarray[Any, Any]"

FIGURE_SIZE = (8.0, 3.4)
"""The width and height of a new figure, in inches."""

LOG_SCALE_RATIO = 20.0
"""The ratio of the 99th to the 1st percentile of times from which their axis is logarithmic."""

MAX_BINS = 100
"""The largest number of bins in a throughput plot."""

MANY_MARKERS = 100
"""The number of markers above which each is drawn small."""


# ── latency ─────────────────────────────────────────────────────────────────────────────────────


def plot_latency(result: RunResult, *, ax: Axes | None = None) -> Axes:
    """
    Plot the distribution of the time that items spent in calls, over all attempts.

    Done and failed items are shown as percentages of their own number, so that a few failures stay
    visible among many successes. The axis is logarithmic if the times spread widely. Each item of
    a batch has the time of its whole call.

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
    return draw_plot("plot_latency", result, ax, _draw_latency)


def _draw_latency(ax: Axes, result: RunResult, items: ItemTimes) -> None:
    """Draw the histograms of done and of failed items."""
    times = {code: items.seconds[items.status == code] for code in (DONE, FAILED)}
    all_times = np.concatenate(list(times.values()))
    unit = time_unit(float(np.quantile(all_times, 0.99)))
    edges = _latency_bins(all_times * unit.per_second, ax)
    for code, seconds in times.items():
        if len(seconds):
            _draw_histogram(ax, seconds, edges, code, unit)
    what = "of a document" if result.stats.stages else "in calls, all attempts of an item"
    ax.set_xlabel(f"time {what} ({unit.name})")
    ax.set_ylabel("share of items (%)")
    ax.set_ylim(bottom=0.0)


def _latency_bins(times: Array, ax: Axes) -> Array:
    """Choose the edges of the bins, and set the scale of the axis to match."""
    count = int(np.clip(2 * np.sqrt(len(times)), 8, 50))
    positive = times[times > 0]
    if len(positive):
        low, high = np.quantile(positive, (0.01, 0.99))
        if high / low >= LOG_SCALE_RATIO:
            _set_log_axis(ax, low, high)
            return np.geomspace(positive.min(), positive.max(), count + 1)
    low, high = float(times.min()), float(times.max())
    if high - low < 0.05 * high or not high:  # all times are equal: leave room on both sides
        low, high = 0.5 * low, 1.5 * high or 1.0
    return np.linspace(low, high, count + 1)


def _set_log_axis(ax: Axes, low: float, high: float) -> None:
    """Set a logarithmic axis of times, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    steps = (1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_histogram(ax: Axes, seconds: Array, edges: Array, code: int, unit: TimeUnit) -> None:
    """Draw the histogram of one status' times, with lines at the median and the 95th percentile."""
    times = np.clip(seconds * unit.per_second, edges[0], edges[-1])
    shares = np.histogram(times, edges)[0] * 100 / len(times)
    median, p95 = np.quantile(times, (0.5, 0.95))
    color = COLORS[code]
    label = (
        f"{len(times):,} {NAMES[code]}: median {per_second(median)} {unit.name} (line), "
        f"p95 {per_second(p95)} {unit.name} (dots)"
    )
    ax.stairs(shares, edges, fill=True, color=color, alpha=0.45, linewidth=0)
    ax.stairs(shares, edges, color=color, linewidth=1.3, label=label)
    ax.axvline(median, color=color, linewidth=1.2)
    ax.axvline(p95, color=color, linewidth=1.2, linestyle=":")


# ── throughput ──────────────────────────────────────────────────────────────────────────────────


def plot_throughput(result: RunResult, *, ax: Axes | None = None) -> Axes:
    """
    Plot the items per second over a run, done and failed, and their mean.

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
    return draw_plot("plot_throughput", result, ax, _draw_throughput)


def _draw_throughput(ax: Axes, result: RunResult, items: ItemTimes) -> None:
    """Draw the rate of items that ended in each bin, failed on top of done."""
    length, ended = run_length(result, items), int(np.isin(items.status, (DONE, FAILED)).sum())
    unit = time_axis(ax, result, length)
    bins = int(np.clip(ended // 4, 10, MAX_BINS))
    below = np.zeros(bins)
    for code in (DONE, FAILED):
        chosen = items.end[items.status == code]
        counts, edges = np.histogram(chosen, bins=bins, range=(0.0, length))
        if len(chosen):
            rates = counts / np.diff(edges)
            name = f"{len(chosen):,} {NAMES[code]}"
            below = stacked_area(ax, below, rates, edges * unit.per_second, COLORS[code], name)
    mean = ended / length
    ax.axhline(
        mean,
        color=text_color(ax),
        linewidth=1.2,
        linestyle="--",
        label=f"mean {per_second(mean)} items/s",
    )
    ax.set_ylabel("items a second")
    ax.set_ylim(0.0, 1.06 * float(below.max()))


def stacked_area(
    ax: Axes, below: Array, heights: Array, edges: Array, color: str, label: str | None
) -> Array:
    """Draw one area of steps on top of those below it; return the new upper edge of all."""
    above = below + heights
    ax.stairs(above, edges, baseline=below, fill=True, color=color, linewidth=0, label=label)
    return above


# ── what all plots share ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """The unit of a time axis: its name, and how many of it make a second."""

    name: str
    per_second: float


def draw_plot(
    function: str,
    result: RunResult,
    ax: Axes | None,
    draw: DrawFunction,
    shown: Sequence[int] = (DONE, FAILED),
) -> Axes:
    """
    Draw a plot with its title and legend, or an empty one that says that no times are known.

    Args:
        function: the name of the public plot function, for error messages.
        result: the result to draw.
        ax: the Axes to draw in; None: those of a new figure.
        draw: draws the items that were started.
        shown: the statuses of the items that this plot shows.

    Raises:
        MissingExtra: matplotlib is not installed.
        TypeError: `result` is not a BatchResult, or `ax` not an Axes.
    """
    ax = _checked_axes(function, result, ax)
    items = item_times(result)
    if np.isin(items.status, shown).any():
        draw(ax, result, items)
        ax.spines[["top", "right"]].set_visible(False)
    else:
        _draw_message(ax, "no times are known")
    _draw_title(ax, result)
    return ax


def _checked_axes(function: str, result: RunResult, ax: Axes | None) -> Axes:
    """Check the arguments of a plot function, and create the Axes if there are none."""
    if not hasattr(result, "columns"):
        raise TypeError(f"{function} needs a BatchResult (of a Job: job.result), got {result!r}")
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError:
        raise MissingExtra(function, "matplotlib", "plot") from None
    if ax is None:
        return pyplot.subplots(figsize=FIGURE_SIZE, layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"{function} draws in one matplotlib Axes, got ax={ax!r}")
    return ax


def text_color(ax: Axes) -> str:
    """The color of the Axes' text, which the user's style has chosen to suit the background."""
    from matplotlib.colors import to_hex

    return to_hex(ax.xaxis.label.get_color())


def _draw_title(ax: Axes, result: RunResult) -> None:
    """Draw the counts and the time as the title, and the legend below it."""
    text, _, early = title(result).partition(": stopped because ")
    if early:
        text += ", stopped early"
    if result.stats.runs > 1:
        text += f" ({result.stats.runs} runs)"
    has_legend = bool(ax.get_legend_handles_labels()[0])
    ax.set_title(
        text,
        loc="left",
        fontsize="medium",
        color=text_color(ax),
        pad=24.0 if has_legend else None,
        parse_math=False,
    )
    if has_legend:
        legend = ax.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=6,
            frameon=False,
            fontsize="small",
            labelcolor=text_color(ax),
            borderpad=0.2,
            borderaxespad=0.0,
            handlelength=1.2,
            handletextpad=0.5,
            columnspacing=1.4,
        )
        for label in legend.get_texts():
            label.set_parse_math(False)  # the name of a stage may contain dollar signs


def draw_markers(
    ax: Axes, times: Array, rows: Sequence[float] | Array, *, marker: str, color: str, label: str
) -> None:
    """Draw one marker for each item, on top of everything else, small ones if they are many."""
    ax.plot(
        times,
        rows,
        linestyle="none",
        marker=marker,
        markersize=6 if len(times) <= MANY_MARKERS else 3.5,
        color=color,
        label=label,
        clip_on=False,
        zorder=4,
    )


def failure_label(result: RunResult) -> str:
    """Write the number of failed items, and their stages if these are known."""
    columns = result.columns
    stages = Counter(
        columns.stages[row] for row in columns.rows_with(FAILED) if row in columns.stages
    )
    where = ", ".join(f"{count:,} in {stage}" for stage, count in stages.most_common())
    return f"{columns.status.count(FAILED):,} failed" + (f" ({where})" if where else "")


def time_unit(seconds: float) -> TimeUnit:
    """Choose the unit for times of this length."""
    if seconds < 0.5:
        return TimeUnit("ms", 1e3)
    if seconds <= 300.0:
        return TimeUnit("s", 1.0)
    if seconds <= 3 * 3600.0:
        return TimeUnit("min", 1 / 60)
    return TimeUnit("h", 1 / 3600)


def time_axis(ax: Axes, result: RunResult, length: float) -> TimeUnit:
    """Set the time axis of a run, with lines where merged runs meet; return its unit."""
    unit = time_unit(length)
    ax.set_xlim(0.0, length * unit.per_second)
    for began in set(result.columns.run_began or ()) - {0.0}:
        instant = began * unit.per_second
        ax.axvline(instant, color=text_color(ax), linewidth=0.8, alpha=0.6, zorder=0)
    end_to_end = ", runs end to end" if result.stats.runs > 1 else ""
    ax.set_xlabel(f"time since the start{end_to_end} ({unit.name})")
    return unit


def _draw_message(ax: Axes, text: str) -> None:
    """Draw a message in the middle of empty Axes."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=text_color(ax))
    ax.set_xticks([])
    ax.set_yticks([])
