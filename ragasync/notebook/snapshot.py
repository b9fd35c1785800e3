"""What a panel leaves when its kernel dies: a copy in the notebook, seen when the panel is not."""

from __future__ import annotations

import time

from ragasync.notebook.failures import Failures
from ragasync.notebook.front_end import show_bundle
from ragasync.notebook.panel_html import still_bundle
from ragasync.notebook.panel_view import JobView
from ragasync.reports.html import QUIET, TEXT, element

MOMENT = 0.5
"""Seconds that a job must have run to get any: most that are shorter have ended before."""

SOONEST, LATEST = 1.0, 30.0
"""Seconds between two copies: a tenth of the run so far, within these bounds."""

# A page that finds no model writes "model not found" into the output itself, in whose stead the
# next output is shown. A front end that builds its pages otherwise shows no copy, as none was.
DEAD = ".jp-OutputArea-child:has(> .jp-OutputArea-output.jupyter-widgets)"
STYLE = (
    f"{DEAD}:has(+ .jp-OutputArea-child .ragasync-snapshot){{display:none}}"
    f"{DEAD} + .jp-OutputArea-child .ragasync-snapshot{{display:block !important}}"
)

NOTHING: dict[str, object] = {"text/plain": "", "text/html": ""}


class Snapshots:
    """
    Copies of a live panel, each an output right behind one that shows its widgets.

    A saved notebook has of widgets no more than their names. While there is no better place for
    what they show, each copy has it as HTML, and hides it as long as the widgets are there.
    """

    def __init__(self) -> None:
        self._places: list[str] = []
        self._due = MOMENT
        self._filled = False

    def __repr__(self) -> str:
        return f"<Snapshots in {len(self._places)} places>"

    def show(self) -> None:
        """Make a place for a copy behind what this cell has shown last."""
        self._places.append(show_bundle(NOTHING))
        self._due = MOMENT

    def refresh(self, showing: JobView, failures: Failures) -> None:
        """Bring the copies up to date, if it is time."""
        seconds = showing.progress.seconds
        if seconds < self._due:
            return
        self._due = seconds + min(max(seconds / 10, SOONEST), LATEST)
        self._filled = True
        bundle = _bundle(showing, failures)
        for place in self._places:
            show_bundle(bundle, place)

    def withdraw(self) -> None:
        """Leave nothing in their places: the panel itself has become still."""
        for place in self._places if self._filled else ():
            show_bundle(NOTHING, place)

    def forget(self) -> None:
        """Leave them as they are."""
        self._places.clear()


def _bundle(showing: JobView, failures: Failures) -> dict[str, object]:
    """Return a copy, with its style sheet; without words, or these would be seen twice."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    note = element("div", f"{TEXT};{QUIET}", f"as of {now}; the kernel that ran it has gone")
    still = str(still_bundle(showing, failures)["text/html"])
    return {
        "text/plain": "",
        "text/html": (
            f"<style>{STYLE}</style>"
            f'<div class="ragasync-snapshot" style="display:none">{note}{still}</div>'
        ),
    }
