"""The widgets of a live panel: facts, buttons, and the latest errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ragasync.notebook import knobs
from ragasync.notebook.failures import Failures
from ragasync.notebook.panel_html import facts_html, failures_html
from ragasync.notebook.showing import Showing, calls, rate_bound

KEPT = 16
"""How many ended panels keep their view, for pages that no replacement reaches."""

_kept: deque[list[Any]] = deque()


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

    def _showing(self) -> Showing:
        """Return what there is to show of it."""


class Controls:
    """
    The widgets with which a running job is watched and steered.

    Buttons alone: they send a message of their own, which arrives on every kernel also while a
    cell awaits, where a slider's second change does not.

    Args:
        job: what the buttons act on.
        clicked: called after every click, in whatever thread the click came.
    """

    def __init__(self, job: Steered, clicked: Callable[[], object]) -> None:
        import ipywidgets

        self._widgets: Any = ipywidgets
        self._job, self._clicked = job, clicked
        self._owned: list[Any] = []
        self._narrow, self._wide = self._owns(
            ipywidgets.Layout(width="28px"), ipywidgets.Layout(width="72px")
        )
        self._facts = self._html("ragasync-facts")
        self._errors = self._html("ragasync-errors")
        self._pause = self._button("Pause", "ragasync-pause", self._pause_or_resume)
        self._cancel = self._button("Cancel", "ragasync-cancel", self._cancel_once)
        self._cancel.tooltip = "Cancel what is in flight and end the job; what is done is kept"
        self._at_once, self._rate = self._label("ragasync-at-once"), self._label("ragasync-rate")
        self._fewer = self._button("−", "ragasync-fewer", self._allow_fewer, "Fewer calls at once")
        self._more = self._button("+", "ragasync-more", self._allow_more, "More calls at once")
        self._slower = self._button("−", "ragasync-slower", self._slow_down, "Fewer calls a second")
        self._faster = self._button("+", "ragasync-faster", self._speed_up, "More calls a second")
        self.box: Any = self._arranged()

    def draw(self, showing: Showing, failures: Failures) -> None:
        """Bring the widgets up to date: a message for each that has changed."""
        self._facts.value = facts_html(showing)
        self._errors.value = failures_html(failures)
        self._at_once.value = calls(showing.max_concurrency, "at once")
        self._rate.value = rate_bound(showing)
        paused = self._job.paused
        self._pause.description = "Resume" if paused else "Pause"
        self._pause.tooltip = "Go on" if paused else "Begin no further call; those in flight go on"
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
        _close([model for model in self._owned if not any(model is kept for kept in view)])
        _kept.append(view)
        while len(_kept) > KEPT:
            _close(_kept.popleft())

    def close(self) -> None:
        """Free all widgets."""
        _close(self._owned)

    def _arranged(self) -> Any:
        """Return all widgets in their places: errors last, so that no button moves for them."""
        layout = self._widgets.Layout
        row = layout(flex_flow="row wrap", align_items="center", margin="4px 0 4px -2px")
        knobs_of = (
            self._knob(self._fewer, self._at_once, self._more),
            self._knob(self._slower, self._rate, self._faster),
        )
        buttons = self._widgets.HBox([self._pause, self._cancel, *knobs_of], layout=row)
        around = layout(overflow="hidden")
        box = self._widgets.VBox([self._facts, buttons, self._errors], layout=around)
        box.add_class("ragasync-panel")
        self._owns(row, buttons, around, box)
        return box

    def _knob(self, lower: Any, value: Any, higher: Any) -> Any:
        """Return a value between the buttons that turn it."""
        layout = self._widgets.Layout(align_items="center", margin="0 0 0 12px")
        knob = self._widgets.HBox([lower, value, higher], layout=layout)
        self._owns(layout, knob)
        return knob

    def _html(self, name: str) -> Any:
        """Return a place for HTML."""
        made = self._widgets.HTML(layout={"margin": "0"})
        made.add_class(name)
        self._owns(made.layout, made.style, made)
        return made

    def _label(self, name: str) -> Any:
        """Return a place for a value, wide enough for most of them, so that no button moves."""
        made = self._widgets.Label(layout={"min_width": "124px", "justify_content": "center"})
        made.add_class(name)
        self._owns(made.layout, made.style, made)
        return made

    def _button(self, text: str, name: str, act: Callable[[], None], tooltip: str = "") -> Any:
        """Return a button that does something and has the panel drawn anew."""
        layout = self._narrow if len(text) == 1 else self._wide
        made = self._widgets.Button(description=text, tooltip=tooltip, layout=layout)
        made.add_class(name)

        def on_click(_: object) -> None:
            if not self._job.done:
                act()
            self._clicked()

        made.on_click(on_click)
        self._owns(made.style, made)
        return made

    def _owns(self, *models: Any) -> tuple[Any, ...]:
        """Keep models to be closed at the end."""
        self._owned.extend(models)
        return models

    # ── clicks ──────────────────────────────────────────────────────────────────────────────

    def _pause_or_resume(self) -> None:
        """Do what the button says."""
        if self._job.paused:
            self._job.resume()
        else:
            self._job.pause()

    def _cancel_once(self) -> None:
        """Cancel the job; a second time would cut its clean-up short."""
        if not self._job._showing().cancelled:
            self._job.cancel()

    def _allow_fewer(self) -> None:
        """Allow fewer calls at once."""
        self._job.max_concurrency = knobs.fewer(self._job.max_concurrency)

    def _allow_more(self) -> None:
        """Allow more calls at once."""
        self._job.max_concurrency = knobs.more(self._job.max_concurrency)

    def _slow_down(self) -> None:
        """Allow fewer calls a second, beginning with what the job does now."""
        job = self._job
        job.rate = knobs.slower(job.rate, job._showing().speed, job.max_concurrency)

    def _speed_up(self) -> None:
        """Allow more calls a second, up to no bound at all."""
        now = self._job._showing()
        speed = now.speed if now.state == "running" else 0.0
        holds_back = now.progress.limited_by == "rate"
        self._job.rate = knobs.faster(self._job.rate, speed, holds_back=holds_back)


def _close(models: list[Any]) -> None:
    """Free models in the kernel and in the front end."""
    for model in models:
        model.close()
