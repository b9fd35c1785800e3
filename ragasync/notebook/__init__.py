"""
Progress bars and the live panel of a job in a notebook.

Files, from the output upwards:
    widgets.py        shows and replaces outputs; makes and closes widgets; sliders and their steps
    progress_bars.py  TqdmProgress, WidgetProgress: progress bars for progress callbacks
    panel_view.py     JobView: the state of a job as its repr, as text and as HTML
    controls.py       the widgets of a panel: facts, buttons, sliders, errors
    panel.py          Panel: shows a job, refreshes it, takes snapshots, replaces it by static HTML

A job in the last line of a cell creates its panel, which shows static HTML, then widgets. Up to
ten times per second the panel asks the job for a JobView, groups the errors that are new, and
updates the widgets; clicks and drags change the job directly. At the end static HTML replaces
everything, so that the saved notebook needs no kernel.
"""

from ragasync.notebook.progress_bars import TqdmProgress, WidgetProgress

__all__ = ["TqdmProgress", "WidgetProgress"]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)
