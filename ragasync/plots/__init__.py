"""
Plots of a result in matplotlib: what ran when, how long calls took, how fast items ended.

Files:
    charts.py      plot_latency, plot_throughput; the Axes, title, legend and time axis of all plots
    timeline.py    plot_timeline: calls on their workers, or areas of concurrency, or stages

A plot reads the times of a result's items into arrays (`ragasync._reports.timeline`), draws them
into one Axes with a few artists, and puts the counts into the title. It never changes the style
of the caller's figure: text and lines take the color of the axes' own labels, on dark and light.
"""

from ragasync.plots.charts import plot_latency, plot_throughput
from ragasync.plots.timeline import plot_timeline

__all__ = ["plot_latency", "plot_throughput", "plot_timeline"]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)
