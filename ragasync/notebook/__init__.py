"""What a notebook shows while a job runs: progress bars and, later, panels and plots."""

from ragasync.notebook.progress import TqdmProgress, WidgetProgress

__all__ = ["TqdmProgress", "WidgetProgress"]
