"""What all plots share: how one is opened and closed, its title, its axis of time, its legend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ragasync.errors import MissingExtra
from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.reports.summary import headline
from ragasync.reports.timed import Timed, timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Draws: TypeAlias = Callable[[Axes, RunResult, Timed], None]

SIZE = (8.0, 3.4)
"""Inches of a figure of our own, across and down."""


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """What times are shown in: its name, and how many of it are a second."""

    name: str
    per_second: float


def picture(
    what: str,
    result: RunResult,
    ax: Axes | None,
    draw: Draws,
    shown: Sequence[int] = (DONE, FAILED),
) -> Axes:
    """
    Draw a result, or say that it has no times, under a title.

    Args:
        what: the name of the function that draws.
        result: what it was given to draw.
        ax: where the caller wants it; None: in a new figure.
        draw: draws the items that were started.
        shown: the statuses of items that it has something to show for.

    Raises:
        MissingExtra: matplotlib is not installed.
        TypeError: `result` is no BatchResult, or `ax` no Axes.
    """
    ax = _axes_for(what, result, ax)
    items = timed(result)
    if np.isin(items.status, shown).any():
        draw(ax, result, items)
        ax.spines[["top", "right"]].set_visible(False)
    else:
        _say(ax, "no times are known")
    _entitle(ax, result)
    return ax


def _axes_for(what: str, result: RunResult, ax: Axes | None) -> Axes:
    """Return the Axes to draw in, after a look at what was given."""
    if not hasattr(result, "columns"):
        raise TypeError(f"{what} needs a BatchResult (of a Job: job.result), got {result!r}")
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError:
        raise MissingExtra(what, "matplotlib", "plot") from None
    if ax is None:
        return pyplot.subplots(figsize=SIZE, layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"{what} draws in one matplotlib Axes, got ax={ax!r}")
    return ax


def ink(ax: Axes) -> str:
    """Return the colour of these Axes' text, which was chosen to read on their background."""
    from matplotlib.colors import to_hex

    return to_hex(ax.xaxis.label.get_color())


def _entitle(ax: Axes, result: RunResult) -> None:
    """Put the counts and the time above the plot, and below them what its colours mean."""
    counts, _, early = headline(result).partition(": stopped because ")
    title = f"{counts}, stopped early" if early else counts
    if result.stats.runs > 1:
        title += f" ({result.stats.runs} runs)"
    has_legend = bool(ax.get_legend_handles_labels()[0])
    ax.set_title(
        title,
        loc="left",
        fontsize="medium",
        color=ink(ax),
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
            labelcolor=ink(ax),
            borderpad=0.2,
            borderaxespad=0.0,
            handlelength=1.2,
            handletextpad=0.5,
            columnspacing=1.4,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a stage's name may hold dollar signs


def failures_of(result: RunResult) -> str:
    """Return how many items failed, and in which stages where these are known."""
    columns = result.columns
    stages = Counter(
        columns.stages[row] for row in columns.rows_with(FAILED) if row in columns.stages
    )
    where = ", ".join(f"{count:,} in {stage}" for stage, count in stages.most_common())
    return f"{columns.status.count(FAILED):,} failed" + (f" ({where})" if where else "")


def unit_of(seconds: float) -> TimeUnit:
    """Return the unit that so long a time is read best in."""
    if seconds < 0.5:
        return TimeUnit("ms", 1e3)
    if seconds <= 300.0:
        return TimeUnit("s", 1.0)
    if seconds <= 3 * 3600.0:
        return TimeUnit("min", 1 / 60)
    return TimeUnit("h", 1 / 3600)


def time_axis(ax: Axes, result: RunResult, length: float) -> TimeUnit:
    """Have the x axis show so many seconds, and where runs meet; return the unit of its numbers."""
    unit = unit_of(length)
    ax.set_xlim(0.0, length * unit.per_second)
    for began in set(result.columns.run_began or ()) - {0.0}:
        ax.axvline(began * unit.per_second, color=ink(ax), linewidth=0.8, alpha=0.6, zorder=0)
    end_to_end = ", runs end to end" if result.stats.runs > 1 else ""
    ax.set_xlabel(f"time since the start{end_to_end} ({unit.name})")
    return unit


def _say(ax: Axes, words: str) -> None:
    """Say in the middle of empty Axes why they are empty."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=ink(ax))
    ax.set_xticks([])
    ax.set_yticks([])
