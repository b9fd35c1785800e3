"""What all plots share: their Axes, its title, its axis of time, its legend."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragasync.errors import MissingExtra
from ragasync.outcomes.facts import Finished
from ragasync.outcomes.outcome import FAILED
from ragasync.reports.words import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 8.0
"""Inches of a figure of our own."""


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """What times are shown in: its name, and how many of it are a second."""

    name: str
    per_second: float


def axes_for(what: str, result: Finished, ax: Axes | None, height: float) -> Axes:
    """
    Return the Axes to draw in: the one that was given, or that of a new figure.

    Args:
        what: the name of the function that draws.
        result: what it was given to draw.
        ax: where the caller wants it.
        height: inches of a new figure.

    Raises:
        MissingExtra: matplotlib is not installed.
        TypeError: `result` is no BatchResult, or `ax` no Axes.
    """
    if not hasattr(result, "columns"):
        raise TypeError(f"{what} needs a BatchResult (of a Job: job.result), got {result!r}")
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError:
        raise MissingExtra(what, "matplotlib", "plot") from None
    if ax is None:
        return pyplot.subplots(figsize=(WIDTH, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"{what} draws in one matplotlib Axes, got ax={ax!r}")
    return ax


def ink(ax: Axes) -> str:
    """Return the colour of these Axes' text, which was chosen to read on their background."""
    from matplotlib.colors import to_hex

    return to_hex(ax.xaxis.label.get_color())


def entitle(ax: Axes, result: Finished) -> None:
    """Put the counts and the time above the plot, and below them what its colours mean."""
    counts, _, early = headline(result).partition(": stopped because ")
    title = f"{counts}, stopped early" if early else counts
    if result.facts.runs > 1:
        title += f" ({result.facts.runs} runs, each from its own start)"
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
        ax.legend(
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


def failures_of(result: Finished) -> str:
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


def time_axis(ax: Axes, length: float) -> TimeUnit:
    """Have the x axis show a run of so many seconds; return the unit of its numbers."""
    unit = unit_of(length)
    ax.set_xlim(0.0, length * unit.per_second)
    ax.set_xlabel(f"time since the start ({unit.name})")
    return unit


def say(ax: Axes, words: str) -> None:
    """Say in the middle of empty Axes why they are empty."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=ink(ax))
    ax.set_xticks([])
    ax.set_yticks([])


def frame(ax: Axes) -> None:
    """Leave of the frame what carries numbers."""
    ax.spines[["top", "right"]].set_visible(False)
