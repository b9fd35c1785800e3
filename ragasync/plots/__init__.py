"""Pictures of a result in matplotlib: what ran when, how long calls took, how fast it went."""

from ragasync.plots.latency import plot_latency
from ragasync.plots.throughput import plot_throughput
from ragasync.plots.timeline import plot_timeline

__all__ = ["plot_latency", "plot_throughput", "plot_timeline"]
