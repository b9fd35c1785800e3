"""The timeline plot: calls on their workers, areas of concurrency, or stages of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED
from ragasync._outcomes.stats import RunResult, StageStats
from ragasync._reports.html import COLORS
from ragasync._reports.time_breakdown import stage_index
from ragasync._reports.timeline import (
    BACKOFF,
    FAILED_FINALLY,
    LIMITER,
    NOT_FAILED,
    RETRIED,
    STATE_COLORS,
    STATES,
    WORK,
    CallSpans,
    ItemTimes,
    call_noun,
    call_spans,
    mean_concurrency,
    run_length,
    state_names,
)
from ragasync.plots.charts import (
    TimeUnit,
    draw_markers,
    draw_plot,
    failure_label,
    stacked_area,
    text_color,
    time_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array: TypeAlias = "np.ndarray[Any, Any]"

MAX_BARS = 3_000
"""The largest number of spans drawn as bars; among more, a single one could not be seen."""

BINS = 300
"""The bins of the plot of concurrency."""

WORKER_BAR, BACKOFF_BAR = (-0.42, 0.24), (0.28, 0.42)
"""The lower and upper edges of bars in the row of their worker; back-off holds no worker."""

STAGE_HEIGHT = 0.8
"""The height of a stage at full concurrency, as a share of its row."""


def plot_timeline(result: RunResult, *, ax: Axes | None = None) -> Axes:
    """
    Plot what ran when: calls, waits for the rate limit, back-off, and failures.

    Up to a few thousand calls are drawn as bars, one row per worker. Larger runs are drawn as
    areas, the number of concurrent calls in each state, so that the plot stays small. An item
    between two attempts holds no worker: its back-off is a thin line in the row of the worker that
    retries it. Merged runs follow each other; an item that a later run repeated is shown only
    there.

    For documents it shows the stages instead, one row each: the calls in progress, relative to the
    concurrency of the stage, with a mark for each document that failed in it.

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
    return draw_plot("plot_timeline", result, ax, _draw, shown=(DONE, FAILED, CANCELLED))


def _draw(ax: Axes, result: RunResult, items: ItemTimes) -> None:
    """Draw stages, bars or areas, whichever suits the result."""
    length = run_length(result, items)
    unit = time_axis(ax, result, length)
    if any(stage.busy for stage in result.stats.stages):
        _draw_stages(ax, items, unit, result, length)
        return
    spans = call_spans(result.columns, items)
    if len(spans) <= MAX_BARS:
        _draw_bars(ax, spans, unit, result)
        _mark_ends(ax, items, unit, result)
    else:
        _draw_concurrency(ax, spans, unit, result, length)
        _draw_failure_ticks(ax, items, unit, result, length)


# ── bars: each call on its worker ───────────────────────────────────────────────────────────────


def _draw_bars(ax: Axes, spans: CallSpans, unit: TimeUnit, result: RunResult) -> None:
    """Draw every span as a bar in the row of its worker."""
    from matplotlib.ticker import MaxNLocator

    work, names = spans.state == WORK, state_names(result.stats)
    for chosen, color, name in (
        (work & (spans.failed == NOT_FAILED), STATE_COLORS[WORK], names[WORK]),
        (work & (spans.failed == RETRIED), COLORS[FAILED] + "80", "failed, then retried"),
        (work & (spans.failed == FAILED_FINALLY), COLORS[FAILED], ""),
        (spans.state == LIMITER, STATE_COLORS[LIMITER], names[LIMITER]),
        (spans.state == BACKOFF, STATE_COLORS[BACKOFF], names[BACKOFF]),
    ):
        if chosen.any():
            _add_bars(ax, spans, chosen, unit, color, name)
    ax.set_ylim(spans.worker.max() + 0.6, -0.6)
    ax.yaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
    ax.set_ylabel("worker")


def _add_bars(
    ax: Axes, spans: CallSpans, chosen: Array, unit: TimeUnit, color: str, name: str
) -> None:
    """Add bars of one color as one artist: thousands of single patches would take seconds."""
    from matplotlib.collections import PolyCollection

    left, right = spans.start[chosen] * unit.per_second, spans.end[chosen] * unit.per_second
    edges = BACKOFF_BAR if spans.state[chosen][0] == BACKOFF else WORKER_BAR
    low, high = (spans.worker[chosen] + edge for edge in edges)
    corners = ((left, low), (left, high), (right, high), (right, low))
    narrow = len(spans) > 300 or spans.worker.max() > 20  # gaps would hide narrow bars
    ax.add_collection(
        PolyCollection(
            list(np.stack([np.column_stack(corner) for corner in corners], axis=1)),
            facecolors=color,
            edgecolors=color if narrow else ax.get_facecolor(),
            linewidths=0.3 if narrow else 0.6,
            label=name,
        )
    )


def _mark_ends(ax: Axes, items: ItemTimes, unit: TimeUnit, result: RunResult) -> None:
    """Mark the ends of failed and of cancelled items."""
    for code, marker, color, name in (
        (FAILED, "x", text_color(ax), failure_label(result)),
        (CANCELLED, "d", COLORS[CANCELLED], "cancelled"),
    ):
        chosen = items.status == code
        if chosen.any():
            times = items.end[chosen] * unit.per_second
            rows = items.worker[chosen] + sum(WORKER_BAR) / 2
            draw_markers(ax, times, rows, marker=marker, color=color, label=name)


# ── areas: the number of concurrent calls ───────────────────────────────────────────────────────


def _draw_concurrency(
    ax: Axes, spans: CallSpans, unit: TimeUnit, result: RunResult, length: float
) -> None:
    """Draw the number of concurrent calls, one state on top of the other."""
    edges = np.linspace(0.0, length, BINS + 1)
    below = np.zeros(BINS)
    names = state_names(result.stats)
    for state in STATES:
        chosen = spans.state == state
        calls = mean_concurrency(spans.start[chosen], spans.end[chosen], edges)
        if calls.any():
            times = edges * unit.per_second
            below = stacked_area(ax, below, calls, times, STATE_COLORS[state], names[state])
    top, workers = float(below.max()), result.stats.max_concurrency
    if result.stats.adapted and result.stats.concurrency_history:
        top = max(top, _draw_limit(ax, unit, result, length))
    elif workers and workers <= 2 * top:
        color, label = text_color(ax), f"{workers:,} workers"
        ax.axhline(workers, color=color, linewidth=1, linestyle=":", label=label)
        top = max(top, workers)
    ax.set_ylim(0.0, 1.06 * top or 1.0)
    ax.set_ylabel(f"concurrent {call_noun(result.stats)}")


def _draw_limit(ax: Axes, unit: TimeUnit, result: RunResult, length: float) -> float:
    """Draw the limit that max_concurrency="auto" set over time, and return its largest value."""
    since, limits = zip(*result.stats.concurrency_history, strict=True)
    edges = np.array([*since, max(length, since[-1])]) * unit.per_second
    color = text_color(ax)
    ax.stairs(limits, edges, baseline=None, color=color, linewidth=1, label="limit (auto)")
    return float(max(limits))


def _draw_failure_ticks(
    ax: Axes, items: ItemTimes, unit: TimeUnit, result: RunResult, length: float
) -> None:
    """Draw a row of ticks below the areas: one where items failed, longer if more of them did."""
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
        color=COLORS[FAILED],
        linewidth=1.2,
        label=failure_label(result),
    )
    ax.set_ylim(-room, top)
    ax.axhline(0.0, color=text_color(ax), linewidth=0.8)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])


# ── stages of a pipeline ────────────────────────────────────────────────────────────────────────


def _draw_stages(
    ax: Axes, items: ItemTimes, unit: TimeUnit, result: RunResult, length: float
) -> None:
    """Draw one row for each stage, in pipeline order, and mark the documents that failed."""
    stages = result.stats.stages
    for row, stage in enumerate(stages):
        _draw_stage(ax, row, stage, unit, length)
    _mark_failed_documents(ax, items, unit, result)
    ax.set_yticks(range(len(stages)))
    ax.set_yticklabels(
        [f"{stage.name} ({stage.max_concurrency:,})" for stage in stages], parse_math=False
    )
    ax.set_ylim(len(stages) - 0.4, -0.6)
    ax.set_ylabel("stage (max. concurrent calls)")


def _draw_stage(ax: Axes, row: int, stage: StageStats, unit: TimeUnit, length: float) -> None:
    """Draw the number of a stage's calls in progress, relative to its concurrency."""
    bottom = row + STAGE_HEIGHT / 2
    ax.axhline(bottom, color=text_color(ax), linewidth=0.6, alpha=0.5)
    for busy in stage.busy:
        calls = np.array(busy.concurrency())
        edges = busy.began + busy.width * np.arange(len(calls) + 1)
        in_run = edges[:-1] < length
        share = np.clip(calls[in_run] / stage.max_concurrency, 0.0, 1.0)
        edges = np.minimum(edges[: len(share) + 1], length)
        ax.stairs(
            bottom - STAGE_HEIGHT * share,
            edges * unit.per_second,
            baseline=bottom,
            fill=True,
            color=STATE_COLORS[WORK],
            linewidth=0,
            label="calls in progress, relative to the maximum" if row == 0 else None,
        )


def _mark_failed_documents(ax: Axes, items: ItemTimes, unit: TimeUnit, result: RunResult) -> None:
    """Mark each failed document in the row of the stage in which it failed."""
    names, stages = [stage.name for stage in result.stats.stages], result.columns.stages
    failed = items.status == FAILED
    if not failed.any():
        return
    rows = [stage_index(stages.get(row, ""), names) for row in items.row[failed].tolist()]
    draw_markers(
        ax,
        items.end[failed] * unit.per_second,
        [len(names) - 1 if row is None else row for row in rows],
        marker="x",
        color=text_color(ax),
        label=failure_label(result),
    )
