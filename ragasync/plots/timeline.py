"""What ran when: a bar a call on its lane, or how many calls did what in each stretch of time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ragasync.outcomes.facts import Finished
from ragasync.outcomes.outcome import CANCELLED, FAILED
from ragasync.plots.canvas import TimeUnit, axes_for, entitle, frame, ink, say, time_axis
from ragasync.plots.lanes import lanes_of
from ragasync.reports.elements import COLOURS
from ragasync.reports.spans import (
    BACKOFF,
    FOR_GOOD,
    LIMITER,
    NOT_FAILED,
    STATE_COLOURS,
    STATES,
    TRIED_AGAIN,
    WORK,
    Spans,
    names_of,
    noun_of,
    occupancy,
    spans_of,
)
from ragasync.reports.timed import Timed, length_of, timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array: TypeAlias = "np.ndarray[Any, Any]"

BARS_UP_TO = 3_000
"""The most stretches that are drawn one by one; of more than these nobody sees the single one."""

BINS = 300
HEIGHT = 3.6
BAR, LINE = (-0.42, 0.24), (0.28, 0.42)
"""Where in its lane a stretch is drawn that holds the lane, and one that does not."""


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
            _draw_bars(ax, spans, unit, result)
            _mark_ends(ax, items, unit, result)
        else:
            _draw_shares(ax, spans, unit, result, length)
            _draw_failures(ax, items, unit, result, length)
        frame(ax)
    entitle(ax, result)
    return ax


def _draw_bars(ax: Axes, spans: Spans, unit: TimeUnit, result: Finished) -> None:
    """Draw every stretch of time on its lane."""
    from matplotlib.ticker import MaxNLocator

    lane = lanes_of(spans, result.facts.max_concurrency)
    work, names = spans.state == WORK, names_of(result.facts)
    for chosen, colour, name in (
        (work & (spans.failed == NOT_FAILED), STATE_COLOURS[WORK], names[WORK]),
        (work & (spans.failed == TRIED_AGAIN), COLOURS[FAILED] + "80", "failed, then tried again"),
        (work & (spans.failed == FOR_GOOD), COLOURS[FAILED], ""),
        (spans.state == LIMITER, STATE_COLOURS[LIMITER], names[LIMITER]),
        (spans.state == BACKOFF, STATE_COLOURS[BACKOFF], names[BACKOFF]),
    ):
        if chosen.any():
            _add_bars(ax, spans, chosen, lane, unit, colour, name)
    ax.set_ylim(lane.max() + 0.6, -0.6)
    ax.yaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
    ax.set_ylabel("lane")


def _add_bars(
    ax: Axes, spans: Spans, chosen: Array, lane: Array, unit: TimeUnit, colour: str, name: str
) -> None:
    """Draw the stretches of one kind as one artist."""
    from matplotlib.collections import PolyCollection

    left, right = spans.start[chosen] * unit.per_second, spans.end[chosen] * unit.per_second
    low, high = (
        lane[chosen] + side for side in (LINE if spans.state[chosen][0] == BACKOFF else BAR)
    )
    corners = ((left, low), (left, high), (right, high), (right, low))
    narrow = len(spans) > 300 or lane.max() > 20  # a gap between the bars would eat them
    ax.add_collection(
        PolyCollection(
            list(np.stack([np.column_stack(corner) for corner in corners], axis=1)),
            facecolors=colour,
            edgecolors=colour if narrow else ax.get_facecolor(),
            linewidths=0.3 if narrow else 0.6,
            label=name,
            zorder=1 if spans.state[chosen][0] == WORK else 0.9,  # waits of retries are estimates
        )
    )


def _mark_ends(ax: Axes, items: Timed, unit: TimeUnit, result: Finished) -> None:
    """Mark the items that failed for good, and those that were cancelled."""
    for code, marker, name in ((FAILED, "x", _failures(result)), (CANCELLED, "d", "cancelled")):
        chosen = items.status == code
        if chosen.any():
            ax.plot(
                items.end[chosen] * unit.per_second,
                items.lane[chosen] + sum(BAR) / 2,
                linestyle="none",
                marker=marker,
                markersize=6 if chosen.sum() <= 100 else 3.5,
                color=ink(ax) if code == FAILED else COLOURS[code],
                label=name,
                clip_on=False,
                zorder=4,
            )


def _draw_shares(ax: Axes, spans: Spans, unit: TimeUnit, result: Finished, length: float) -> None:
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
                label=names_of(result.facts)[state],
            )
        below = below + at_once
    top, lanes = float(below.max()), result.facts.max_concurrency
    if lanes and lanes <= 2 * top:
        ax.axhline(lanes, color=ink(ax), linewidth=1, linestyle=":", label=f"{lanes:,} lanes")
        top = max(top, lanes)
    ax.set_ylim(0.0, 1.06 * top)
    ax.set_ylabel(f"{noun_of(result.facts)} at once")


def _draw_failures(ax: Axes, items: Timed, unit: TimeUnit, result: Finished, length: float) -> None:
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
        label=_failures(result),
    )
    ax.set_ylim(-room, top)
    ax.axhline(0.0, color=ink(ax), linewidth=0.8)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])


def _failures(result: Finished) -> str:
    """Return how many items failed, and in which stages where these are known."""
    columns = result.columns
    stages = Counter(
        columns.stages[row] for row in columns.rows_with(FAILED) if row in columns.stages
    )
    where = ", ".join(f"{count:,} in {stage}" for stage, count in stages.most_common())
    return f"{columns.status.count(FAILED):,} failed" + (f" ({where})" if where else "")
