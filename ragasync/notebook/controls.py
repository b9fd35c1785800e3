"""The widgets of a live panel: facts, buttons and sliders, and the latest errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ragasync.notebook import knobs
from ragasync.notebook.failures import Failures
from ragasync.notebook.panel_html import facts_html, failures_html
from ragasync.notebook.panel_view import JobView
from ragasync.notebook.sliders import Slider
from ragasync.notebook.widgets import WidgetFactory
from ragasync.reports.summary import per_second

KEPT = 16
"""How many ended panels keep their view, for pages that no replacement reaches."""

_kept: deque[list[Any]] = deque()

PAUSE = "Begin no further call; those in flight go on to their end"
CANCEL = "Cancel what is in flight and end the job; what is done is kept"


class Steered(Protocol):
    """What a panel needs of a job."""

    max_concurrency: int
    rate: float | None

    @property
    def done(self) -> bool:
        """Whether it has ended."""

    @property
    def paused(self) -> bool:
        """Whether it begins no further call for now."""

    def pause(self) -> None:
        """Begin no further call."""

    def resume(self) -> None:
        """Go on."""

    def cancel(self) -> None:
        """End it."""

    def _view(self) -> JobView:
        """Return what there is to show of it."""


class Controls:
    """
    The widgets with which a running job is watched and steered.

    Args:
        job: what they act on.
        showing: what there is to show of it.
        failures: its errors.
        clicked: called after every click or drag, in whatever thread it came.
    """

    def __init__(
        self, job: Steered, showing: JobView, failures: Failures, clicked: Callable[[], object]
    ) -> None:
        self._job, self._clicked = job, clicked
        self._making = WidgetFactory()
        self._facts = self._making.html("facts", facts_html(showing))
        self._pause = self._button("Pause", "pause", self._pause_or_resume, PAUSE)
        self._cancel = self._button("Cancel", "cancel", self._cancel_once, CANCEL)
        rows = [
            self._row(self._pause, f"{showing.noun}s at once", self._knob_of_calls(showing)),
            self._row(self._cancel, f"{showing.noun}s a second", self._knob_of_rate(showing)),
        ]
        # Errors last, so that no button moves when some come.
        self._errors = self._making.html("errors", failures_html(failures))
        self.box = self._making.box("VBox", [self._facts, *rows, self._errors], "panel")
        self.draw(showing, failures)

    def __repr__(self) -> str:
        return f"<Controls: {self._at_once!r}, {self._rate!r}>"

    def draw(self, showing: JobView, failures: Failures) -> None:
        """Bring the widgets up to date: a message for each that has changed."""
        self._facts.value = facts_html(showing)
        self._errors.value = failures_html(failures)
        self._at_once.follow(showing.max_concurrency)
        self._rate.follow(showing.rate)
        paused = self._job.paused
        self._pause.description = "Resume" if paused else "Pause"
        self._pause.tooltip = "Go on" if paused else PAUSE
        self._pause.disabled = self._cancel.disabled = showing.cancelled
        self._fewer.disabled = showing.max_concurrency == 1
        self._faster.disabled = showing.rate is None

    def end(self, still: str) -> None:
        """
        Leave nothing but still HTML, and free the rest in the kernel and in the front end.

        A page that was loaded anew while the job ran does not learn that the output of its cell
        was replaced: it has the widgets, and finds the end in them. So the latest few stay.
        """
        self._facts.value = still
        self.box.children = [self._facts]
        view = [self.box, self.box.layout, self._facts, self._facts.layout, self._facts.style]
        self._making.close(keep=view)
        _kept.append(view)
        while len(_kept) > KEPT:
            for model in _kept.popleft():
                model.close()

    def close(self) -> None:
        """Free all widgets."""
        self._making.close()

    def _knob_of_calls(self, showing: JobView) -> list[Any]:
        """Return what turns how many calls are made at once."""
        self._fewer = self._button("−", "fewer", self._allow_fewer, "Fewer calls at once")
        self._more = self._button("+", "more", self._allow_more, "More calls at once")
        self._at_once = Slider[int](
            self._making,
            "concurrency-slider",
            knobs.at_once_notches(showing.max_concurrency),
            showing.max_concurrency,
            read="{:,}".format,
            turn=lambda value: self._act(lambda: self._allow_at_once(value)),
            tooltip="The most calls at once",
        )
        return [self._fewer, self._at_once.widget, self._more]

    def _knob_of_rate(self, showing: JobView) -> list[Any]:
        """Return what turns how many calls are made in a second."""
        self._slower = self._button("−", "slower", self._slow_down, "Fewer calls a second")
        self._faster = self._button("+", "faster", self._speed_up, "More calls a second")
        self._rate = Slider[float | None](
            self._making,
            "rate-slider",
            knobs.rate_notches(max(showing.speed, showing.rate or 0)),
            showing.rate,
            read=lambda value: "no bound" if value is None else per_second(value),
            turn=lambda value: self._act(lambda: self._allow_a_second(value)),
            tooltip="The most calls a second",
        )
        return [self._slower, self._rate.widget, self._faster]

    def _row(self, button: Any, name: str, knob: list[Any]) -> Any:
        """Return a button and a knob, side by side; rows are alike, so that they are a grid."""
        label = self._making.label("knob", name)
        children = [button, label, *knob]
        return self._making.box("HBox", children, "row", align_items="center", margin="0 0 0 -2px")

    def _button(self, text: str, name: str, act: Callable[[], None], tooltip: str) -> Any:
        """Return a button that does something and has the panel drawn anew."""
        return self._making.button(text, name, lambda: self._act(act), tooltip)

    # ── clicks and drags ────────────────────────────────────────────────────────────────────

    def _act(self, act: Callable[[], None]) -> None:
        """Do something with a job that has not ended, and have the panel drawn anew."""
        if not self._job.done:
            act()
        self._clicked()

    def _pause_or_resume(self) -> None:
        """Do what the button says."""
        if self._job.paused:
            self._job.resume()
        else:
            self._job.pause()

    def _cancel_once(self) -> None:
        """Cancel the job; a second time would cut its clean-up short."""
        if not self._job._view().cancelled:
            self._job.cancel()

    def _allow_fewer(self) -> None:
        """Allow fewer calls at once."""
        self._job.max_concurrency = knobs.fewer(self._job.max_concurrency)

    def _allow_more(self) -> None:
        """Allow more calls at once."""
        self._job.max_concurrency = knobs.more(self._job.max_concurrency)

    def _allow_at_once(self, value: int) -> None:
        """Allow so many calls at once."""
        self._job.max_concurrency = value

    def _allow_a_second(self, value: float | None) -> None:
        """Allow so many calls a second."""
        self._job.rate = value

    def _slow_down(self) -> None:
        """Allow fewer calls a second, beginning with what the job does now."""
        job = self._job
        job.rate = knobs.slower(job.rate, job._view().speed, job.max_concurrency)

    def _speed_up(self) -> None:
        """Allow more calls a second, up to no bound at all."""
        now = self._job._view()
        speed = now.speed if now.state == "running" else 0.0
        holds_back = now.progress.limited_by == "rate"
        self._job.rate = knobs.faster(self._job.rate, speed, holds_back=holds_back)
