"""The live panel of a job: drawn seldom while it runs, still HTML when it has ended."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ragasync.error_text import describe
from ragasync.notebook.controls import Controls, Steered
from ragasync.notebook.failures import Failures
from ragasync.notebook.front_end import in_kernel, show_bundle
from ragasync.notebook.panel_html import still_bundle
from ragasync.notebook.snapshot import Snapshots
from ragasync.notebook.ticker import Refresher
from ragasync.outcomes.columns import Columns

MOMENT = 1.0
"""Seconds that a job must have run to get widgets, which cost more than many a short run."""


class Panel:
    """
    What a notebook shows of one job, in as many places as it is displayed in.

    A job that has just begun is shown as still HTML, and one that goes on as widgets: the same
    in all places, so that a click in one is seen in all. When the job has ended, each gets still
    HTML in their stead, and the panel lets go of the job.

    Args:
        job: what it shows, from whatever thread draws, and what its buttons act on.
        columns: the outcomes of the job, for its errors.
    """

    def __init__(self, job: Steered, columns: Columns[Any, Any]) -> None:
        self._job: Steered | None = job
        self._failures = Failures(columns)
        self._controls: Controls | None = None
        self._has_widgets = True  # until it turns out that there are none
        self._ticker: Refresher | None = None
        self._places: list[str] = []
        self._snapshots = Snapshots()
        self._still: dict[str, object] = {}
        # One drawing at a time: clicks come in other threads, and so do ticks beside a busy cell.
        self._drawing = threading.RLock()

    def __repr__(self) -> str:
        state = "live" if self._ticker is not None else "still" if self._still else "not shown"
        return f"<Panel {state}, in {len(self._places)} places>"

    def show(self) -> None:
        """Show it here, beside where it is shown already; outside of a kernel as text."""
        with self._drawing:
            job = self._job_or_end()
            bundle = self._still if job is None else self._bundle_of(job)
            if not in_kernel():
                sys.stdout.write(f"{bundle['text/plain']}\n")
            elif job is None:
                show_bundle(bundle)
            else:
                self._show_live(job, bundle)

    def flush(self) -> None:
        """
        Show the end everywhere, if it has come; for whoever waited for it, in their own thread.

        Also where it was shown already: a front end may have dropped that, as output of a cell
        that had ended.
        """
        with self._drawing:
            if self._job is None or self._job.done:
                self._guarded(self._show_end)
                self._forget_places()

    def _job_or_end(self) -> Steered | None:
        """Return the job while it runs; when it has ended, see to that, and return None."""
        if self._job is not None and self._job.done:
            self._end(self._job)
        return self._job

    def _bundle_of(self, job: Steered) -> dict[str, object]:
        """Return what to show where there are no widgets."""
        showing = job._view()
        self._failures.look_at_all(showing.progress.seconds)
        return still_bundle(showing, self._failures)

    def _show_live(self, job: Steered, bundle: dict[str, object]) -> None:
        """Show the widgets, if it is time, with text and HTML for front ends that have none."""
        if self._is_due(job):
            self._make_widgets(job)
        if self._controls is not None:
            self._controls.draw(job._view(), self._failures)
            bundle = self._with_widgets(bundle)
        self._places.append(show_bundle(bundle))
        if self._has_widgets:
            self._snapshots.show()
        if self._ticker is None:
            self._ticker = Refresher(self._tick)
            self._ticker.begin()

    def _is_due(self, job: Steered) -> bool:
        """Return whether it is time to make widgets."""
        has_some = self._controls is not None or not self._has_widgets
        return not has_some and job._view().progress.seconds >= MOMENT

    def _make_widgets(self, job: Steered) -> None:
        """Make widgets; without ipywidgets it stays with HTML, replaced at the end."""
        try:
            self._controls = Controls(job, job._view(), self._failures, self._tick)
        except ImportError:
            self._has_widgets = False

    def _with_widgets(self, bundle: dict[str, object]) -> dict[str, object]:
        """Return what to show where there are widgets, and where there are none."""
        assert self._controls is not None
        return {**self._controls.box._repr_mimebundle_(), **bundle}

    def _tick(self) -> bool:
        """Draw, at its time or after a click; say whether to go on."""
        with self._drawing:
            if self._ticker is not None:
                self._guarded(self._refresh)
            return self._ticker is not None

    def _refresh(self) -> None:
        """Bring the widgets up to date, or end them with the job."""
        job = self._job_or_end()
        if job is None:
            return
        if self._is_due(job):
            self._make_widgets(job)
            if self._controls is not None:
                bundle = self._with_widgets(self._bundle_of(job))
                for place in self._places:
                    show_bundle(bundle, place)
        if self._controls is not None:
            self._failures.look()
            showing = job._view()
            self._controls.draw(showing, self._failures)
            self._snapshots.refresh(showing, self._failures)

    def _show_end(self) -> None:
        """Show the end in every place, once more if it was shown there already."""
        if self._job is not None:
            self._end(self._job)
        else:
            self._replace()

    def _end(self, job: Steered) -> None:
        """Put still HTML in the place of the widgets, free them, and let go of the job."""
        self._still = self._bundle_of(job)
        self._job = None
        self._replace()
        if self._controls is not None:
            self._controls.end(str(self._still["text/html"]))
            self._controls = None
        self._stop()

    def _replace(self) -> None:
        """Show the end in every place."""
        for place in self._places:
            show_bundle(self._still, place)
        self._snapshots.withdraw()

    def _forget_places(self) -> None:
        """Draw in no place any more."""
        self._places.clear()
        self._snapshots.forget()

    def _stop(self) -> None:
        """Tick no more, and free the widgets."""
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None
        if self._controls is not None:
            self._controls.close()
            self._controls = None

    def _guarded(self, draw: Callable[[], None]) -> None:
        """Draw; after an error nothing is drawn any more, and the job goes on without."""
        try:
            draw()
        except Exception as error:
            self._forget_places()
            with suppress(Exception):  # what cannot be drawn may not be freed either
                self._stop()
            warnings.warn(
                f"the panel of a job cannot be drawn: {describe(error)}; the job runs without it",
                RuntimeWarning,
                stacklevel=2,
            )
