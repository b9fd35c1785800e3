"""The live panel of a job: refreshed while it runs, static HTML once it has ended."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from ragasync._bridge.run_async import background_loop
from ragasync._outcomes.columns import Columns
from ragasync._reports.error_groups import LiveErrorGroups
from ragasync.clock import Clock, running_loop
from ragasync.error_text import describe
from ragasync.errors import RunAsyncError
from ragasync.notebook.controls import ControllableJob, Controls
from ragasync.notebook.panel_view import JobView, static_bundle
from ragasync.notebook.widgets import REFRESH_INTERVAL, capturing_output, in_kernel, show_bundle
from ragasync.object_views import QUIET, TEXT, element

WIDGETS_AFTER = 1.0
"""Seconds that a job must have run to get widgets: for many short runs they would cost more."""


class Panel:
    """
    The panel of one job, in every output in which it is displayed.

    A job that has just started is shown as static HTML, and one that goes on as widgets. All
    outputs share these, so that a click in one is seen in all. When the job has ended, static HTML
    replaces the widgets, and the panel drops the job.
    """

    def __init__(self, job: ControllableJob, columns: Columns[Any, Any]) -> None:
        self._job: ControllableJob | None = job
        self._errors = LiveErrorGroups(columns)
        self._controls: Controls | None = None
        self._widgets_available = True  # until an import of ipywidgets fails
        self._in_output = False  # whether an ipywidgets.Output shows it, where only widgets change
        self._refresher: Refresher | None = None
        self._display_ids: list[str] = []
        self._snapshots = Snapshots()
        self._static: dict[str, object] = {}
        # One drawing at a time: clicks come in other threads, and so do refreshes during a cell
        # that blocks its loop. Reentrant, because a change of a slider calls back.
        self._drawing = threading.RLock()

    def __repr__(self) -> str:
        live = self._refresher is not None
        state = "live" if live else "static" if self._static else "not shown"
        return f"<Panel {state}, in {len(self._display_ids)} outputs>"

    def show(self) -> None:
        """Show the panel in the current output, or as text outside a kernel."""
        with self._drawing:
            job = self._running_job()
            bundle = self._static if job is None else self._static_bundle(job)
            if not in_kernel():
                sys.stdout.write(f"{bundle['text/plain']}\n")
            elif job is None:
                show_bundle(bundle)
            else:
                self._show_live(job, bundle)

    def flush(self) -> None:
        """
        Show the end of the job in every output, from the thread that waited for it.

        Also if it has been shown: a front end may drop an update that arrives after the cell it
        belongs to has ended.
        """
        with self._drawing:
            if self._job is None or self._job.done:
                self._guard(self._show_end)
                self._drop_outputs()

    def _running_job(self) -> ControllableJob | None:
        """The job while it runs; once it has ended, show its end and return None."""
        if self._job is not None and self._job.done:
            self._end(self._job)
        return self._job

    def _static_bundle(self, job: ControllableJob) -> dict[str, object]:
        """The panel without widgets."""
        view = job._view()
        self._errors.update_finally(view.progress.seconds)
        return static_bundle(view, self._errors)

    def _show_live(self, job: ControllableJob, bundle: dict[str, object]) -> None:
        """Show the widgets if they are due, with text and HTML for front ends without widgets."""
        in_output = capturing_output() is not None
        self._in_output |= in_output
        self._make_widgets_if_due(job)
        if self._controls is not None:
            self._controls.draw(job._view(), self._errors)
            bundle = self._with_widgets(bundle)
        self._display_ids.append(show_bundle(bundle))
        if self._widgets_available and not in_output:
            self._snapshots.show()
        if self._refresher is None:
            self._refresher = Refresher(self._refresh_once)
            self._refresher.start()

    def _make_widgets_if_due(self, job: ControllableJob) -> bool:
        """Make the widgets of a job that has run long enough; return whether any were made."""
        settled = self._controls is not None or not self._widgets_available
        if settled:
            return False
        if not self._in_output and job._view().progress.seconds < WIDGETS_AFTER:
            return False
        try:
            self._controls = Controls(job, job._view(), self._errors, self._refresh_once)
        except ImportError:  # the panel stays static until the end
            self._widgets_available = False
        return self._widgets_available

    def _with_widgets(self, bundle: dict[str, object]) -> dict[str, object]:
        """A bundle with the widgets, and with text and HTML for front ends without widgets."""
        assert self._controls is not None
        return {**self._controls.box._repr_mimebundle_(), **bundle}

    def _refresh_once(self) -> bool:
        """Refresh the panel on schedule or after a click; return whether to go on."""
        with self._drawing:
            if self._refresher is not None:
                self._guard(self._refresh)
            return self._refresher is not None

    def _refresh(self) -> None:
        """Update the widgets, make them if they are due, or end them with the job."""
        job = self._running_job()
        if job is None:
            return
        if self._make_widgets_if_due(job):
            bundle = self._with_widgets(self._static_bundle(job))
            for display_id in self._display_ids:
                show_bundle(bundle, display_id)
        if self._controls is not None:
            self._errors.update()
            view = job._view()
            self._controls.draw(view, self._errors)
            self._snapshots.refresh(view, self._errors)

    def _show_end(self) -> None:
        """Show the end in every output, again if it has been shown."""
        if self._job is not None:
            self._end(self._job)
        else:
            self._replace_outputs()

    def _end(self, job: ControllableJob) -> None:
        """Replace the widgets by static HTML, close them, and drop the job."""
        self._static = self._static_bundle(job)
        self._job = None
        self._replace_outputs()
        if self._controls is not None:
            self._controls.end(str(self._static["text/html"]), in_output=self._in_output)
            self._controls = None
        self._stop()

    def _replace_outputs(self) -> None:
        """Show static HTML in every output."""
        for display_id in self._display_ids:
            show_bundle(self._static, display_id)
        self._snapshots.clear()

    def _drop_outputs(self) -> None:
        """Stop drawing in any output."""
        self._display_ids.clear()
        self._snapshots.drop()

    def _stop(self) -> None:
        """Stop the refreshes, and close the widgets."""
        if self._refresher is not None:
            self._refresher.stop()
            self._refresher = None
        if self._controls is not None:
            self._controls.close()
            self._controls = None

    def _guard(self, draw: Callable[[], None]) -> None:
        """Draw; after an error the panel stops, and the job runs without it."""
        try:
            draw()
        except Exception as error:
            self._drop_outputs()
            with suppress(Exception):  # closing widgets may fail for the same reason
                self._stop()
            warnings.warn(
                f"the panel of a job cannot be drawn: {describe(error)}; the job runs without it",
                RuntimeWarning,
                stacklevel=2,
            )


# ── refreshes ───────────────────────────────────────────────────────────────────────────────────

BLOCKED_AFTER = 0.5
"""Seconds without a refresh after which a loop counts as blocked."""

MAX_THREAD_SHARE = 0.02
"""The maximum share of a thread's time for refreshes: on a slow machine they come less often."""


class Refresher:
    """
    Calls a function up to ten times per second, on the loop of the thread that starts it.

    A cell that computes blocks its loop; then the background loop takes over until the cell ends.
    The background loop does not do it all the time, because some front ends show nothing that
    another thread draws, and because the job itself may keep that loop busy.

    The calls run in an empty context. Otherwise the kernel would take their output for output of
    the cell that started them, which may have ended long ago, and not of the cell that runs now.

    Args:
        refresh: the function; it returns whether to go on. Two threads may call it concurrently.
        thread_time: returns the CPU seconds of the calling thread.
    """

    def __init__(self, refresh: Callable[[], bool], thread_time: Clock = time.thread_time) -> None:
        self._refresh = refresh
        self._thread_time = thread_time
        self._running = True
        self._next_on_home_loop = time.monotonic()

    def start(self) -> None:
        """Start, on the loop of this thread if one is running."""
        home = running_loop()
        if home is None:
            self._next_on_home_loop = float("-inf")
        else:
            home.call_later(REFRESH_INTERVAL, self._on_home_loop, home, context=Context())
        with suppress(RunAsyncError):  # without threads, only this loop can draw
            background = background_loop()
            if background is not home:
                background.call_soon_threadsafe(self._on_background_loop, background)

    def stop(self) -> None:
        """Stop; safe from any thread."""
        self._running = False

    def _on_home_loop(self, home: asyncio.AbstractEventLoop) -> None:
        """Refresh on the loop that started it."""
        before = self._thread_time()
        if self._running and self._refresh():
            cost = self._thread_time() - before
            pause = max(REFRESH_INTERVAL, cost / MAX_THREAD_SHARE)
            self._next_on_home_loop = time.monotonic() + pause
            home.call_later(pause, self._on_home_loop, home, context=Context())
        else:
            self._running = False

    def _on_background_loop(self, background: asyncio.AbstractEventLoop) -> None:
        """Refresh on the background loop if the home loop is blocked."""
        if not self._running:
            return
        is_blocked = time.monotonic() - self._next_on_home_loop > BLOCKED_AFTER
        if is_blocked and not self._refresh():
            self._running = False
            return
        background.call_later(REFRESH_INTERVAL, self._on_background_loop, background)


# ── snapshots ───────────────────────────────────────────────────────────────────────────────────

SNAPSHOT_AFTER = 0.5
"""Seconds that a job must have run to get a snapshot: most shorter ones have ended before."""

MIN_SNAPSHOT_INTERVAL, MAX_SNAPSHOT_INTERVAL = 1.0, 30.0
"""Bounds on the seconds between two snapshots; within them, a tenth of the run so far."""

# A page that has no model for a widget writes "model not found" into the output, which this style
# sheet hides, and shows the next output instead. In a front end with another page structure the
# snapshot stays hidden.
WIDGET_OUTPUT = ".jp-OutputArea-child:has(> .jp-OutputArea-output.jupyter-widgets)"
SNAPSHOT_STYLE = (
    f"{WIDGET_OUTPUT}:has(+ .jp-OutputArea-child .ragasync-snapshot){{display:none}}"
    f"{WIDGET_OUTPUT} + .jp-OutputArea-child .ragasync-snapshot{{display:block !important}}"
)

EMPTY_BUNDLE: dict[str, object] = {"text/plain": "", "text/html": ""}


class Snapshots:
    """
    Snapshots of a live panel, each an output right after the one that shows the widgets.

    A saved notebook contains only the ids of widgets. So that something is left if the kernel dies,
    each snapshot has the panel as HTML, hidden as long as the widgets are there.
    """

    def __init__(self) -> None:
        self._display_ids: list[str] = []
        self._due = SNAPSHOT_AFTER
        self._filled = False

    def show(self) -> None:
        """Add an empty output, to be filled later, after the last one of this cell."""
        self._display_ids.append(show_bundle(EMPTY_BUNDLE))
        self._due = SNAPSHOT_AFTER

    def refresh(self, view: JobView, errors: LiveErrorGroups) -> None:
        """Update the snapshots if they are due."""
        seconds = view.progress.seconds
        if seconds < self._due:
            return
        self._due = seconds + min(max(seconds / 10, MIN_SNAPSHOT_INTERVAL), MAX_SNAPSHOT_INTERVAL)
        self._filled = True
        bundle = _snapshot_bundle(view, errors)
        for display_id in self._display_ids:
            show_bundle(bundle, display_id)

    def clear(self) -> None:
        """Empty the snapshots: the panel itself is static now."""
        for display_id in self._display_ids if self._filled else ():
            show_bundle(EMPTY_BUNDLE, display_id)

    def drop(self) -> None:
        """Leave the snapshots as they are."""
        self._display_ids.clear()


def _snapshot_bundle(view: JobView, errors: LiveErrorGroups) -> dict[str, object]:
    """A snapshot with its style sheet; its text is empty, or text front ends would show it too."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    note = element("div", f"{TEXT};{QUIET}", f"as of {now}; the kernel that ran it is gone")
    panel = str(static_bundle(view, errors)["text/html"])
    return {
        "text/plain": "",
        "text/html": (
            f"<style>{SNAPSHOT_STYLE}</style>"
            f'<div class="ragasync-snapshot" style="display:none">{note}{panel}</div>'
        ),
    }
