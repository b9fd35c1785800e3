"""The live panel of a job: drawn seldom while it runs, still HTML when it has ended."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ragasync.clock import Clock
from ragasync.notebook.controls import Controls, Steered
from ragasync.notebook.drawing import INTERVAL
from ragasync.notebook.failures import AT_THE_END, Failures
from ragasync.notebook.front_end import in_kernel, show_bundle
from ragasync.notebook.panel_html import panel_text, still_bundle
from ragasync.notebook.showing import Showing
from ragasync.notebook.throttle import Throttle
from ragasync.notebook.ticker import Ticker
from ragasync.outcomes.columns import Columns


class Panel:
    """
    What a notebook shows of one job, in as many places as it is displayed in.

    All places show the same widgets, so that a click in one is seen in all. When the job has
    ended, each gets still HTML in their stead.

    Args:
        job: what the buttons act on.
        look: returns what the job is doing; called from any thread.
        columns: the outcomes of the job, for its errors.
        clock: what tells the seconds between two drawings.
    """

    def __init__(
        self,
        job: Steered,
        look: Callable[[], Showing],
        columns: Columns[Any, Any],
        clock: Clock = time.monotonic,
    ) -> None:
        self._job, self._look = job, look
        self._failures = Failures(columns)
        self._controls: Controls | None = None
        self._places: list[str] = []
        self._ticker = Ticker(self._tick)
        self._throttle = Throttle(INTERVAL / 2, clock)  # two may tick, each at its own interval
        self._still: dict[str, object] | None = None
        # One drawing at a time: clicks come in other threads, and so do ticks beside a busy cell.
        self._drawing = threading.RLock()

    def __repr__(self) -> str:
        state = "still" if self._still is not None else "live" if self._places else "not shown"
        return f"<Panel {state}, in {len(self._places)} places>"

    def show(self) -> None:
        """Show it here, beside where it is shown already; outside of a kernel as text."""
        with self._drawing:
            if self._job.done and self._still is None:
                self._end()
            elif self._still is None:
                self._failures.look()
            if not in_kernel():
                sys.stdout.write(f"{panel_text(self._look(), self._failures)}\n")
            elif self._still is not None:
                show_bundle(self._still)
            else:
                self._show_live()

    def flush(self) -> None:
        """
        Show the end everywhere, if it has come; for whoever waited for it, in their own thread.

        Also where it was shown already: a front end may have dropped that, as output of a cell
        that had ended.
        """
        with self._drawing:
            if not self._places or not self._job.done:
                return
            if self._still is None:
                self._guarded(self._end)
            else:
                self._guarded(self._replace)
            self._places.clear()

    def _show_live(self) -> None:
        """Show the widgets, with text and HTML for front ends that have none."""
        showing = self._look()
        bundle = still_bundle(showing, self._failures)
        if self._controls is None:
            with suppress(ImportError):  # without: text and HTML it is, replaced at the end
                self._controls = Controls(self._job, self._look, self._clicked)
        if self._controls is not None:
            self._controls.draw(showing, self._failures)
            bundle = {**self._controls.box._repr_mimebundle_(), **bundle}
        self._places.append(show_bundle(bundle))
        if len(self._places) == 1:
            self._ticker.begin()

    def _tick(self) -> bool:
        """Draw, if nobody has just done so; say whether to go on."""
        with self._drawing:
            if self._still is None and self._throttle.due():
                self._guarded(self._refresh)
            return self._still is None and bool(self._places)

    def _clicked(self) -> None:
        """Show what a click has changed."""
        with self._drawing:
            if self._still is None:
                self._guarded(self._refresh)

    def _refresh(self) -> None:
        """Bring the widgets up to date, or end them with the job."""
        if self._job.done:
            self._end()
        else:
            self._failures.look()
            if self._controls is not None:
                self._controls.draw(self._look(), self._failures)

    def _end(self) -> None:
        """Put still HTML in the place of the widgets, and free them."""
        self._ticker.stop()
        self._failures.look(AT_THE_END)
        self._still = still_bundle(self._look(), self._failures)
        self._replace()
        if self._controls is not None:
            self._controls.close()
            self._controls = None

    def _replace(self) -> None:
        """Show the end in every place."""
        assert self._still is not None
        for place in self._places:
            show_bundle(self._still, place)

    def _guarded(self, draw: Callable[[], None]) -> None:
        """Draw; after an error nothing is drawn any more, and the job goes on without."""
        try:
            draw()
        except Exception as error:
            self._ticker.stop()
            self._places.clear()
            warnings.warn(
                f"the panel of a job cannot be drawn: {error!r}; the job goes on without it",
                RuntimeWarning,
                stacklevel=2,
            )
