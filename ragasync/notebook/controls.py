"""The widgets of a live panel: facts, buttons, and the latest errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ragasync.notebook import knobs
from ragasync.notebook.failures import Failures
from ragasync.notebook.panel_html import facts_html, failures_html
from ragasync.notebook.showing import Showing, calls, rate_bound

MOMENT = 0.5
"""Seconds that a job must have run to get buttons, which cost more than many a short run."""

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
        self._layouts: dict[str, Any] = {}
        self._styles: dict[str, Any] = {}
        self._facts = self._html("facts", "")
        self.box = self._box("VBox", [self._facts], "panel")
        self._has_buttons = False

    def draw(self, showing: Showing, failures: Failures) -> None:
        """Bring the widgets up to date: a message for each that has changed."""
        self._facts.value = facts_html(showing)
        if not self._has_buttons:
            if showing.progress.seconds < MOMENT:
                return
            self._add_buttons(showing)
        self._errors.value = failures_html(failures)
        self._at_once.value = calls(showing.max_concurrency, "at once")
        self._rate.value = rate_bound(showing)
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
        _close([model for model in self._owned if not any(model is kept for kept in view)])
        _kept.append(view)
        while len(_kept) > KEPT:
            _close(_kept.popleft())

    def close(self) -> None:
        """Free all widgets."""
        _close(self._owned)

    def _add_buttons(self, showing: Showing) -> None:
        """Make all beside the facts, with its first values: a message each."""
        self._pause = self._button("Pause", "pause", self._pause_or_resume, PAUSE)
        self._cancel = self._button("Cancel", "cancel", self._cancel_once, CANCEL)
        self._fewer = self._button("−", "fewer", self._allow_fewer, "Fewer calls at once")
        self._at_once = self._label("at-once", calls(showing.max_concurrency, "at once"))
        self._more = self._button("+", "more", self._allow_more, "More calls at once")
        self._slower = self._button("−", "slower", self._slow_down, "Fewer calls a second")
        self._rate = self._label("rate", rate_bound(showing))
        self._faster = self._button("+", "faster", self._speed_up, "More calls a second")
        self._errors = self._html("errors", "")
        # Errors last, so that no button moves when some come.
        self.box.children = [self._facts, self._row(), self._errors]
        self._has_buttons = True

    def _row(self) -> Any:
        """Return all buttons in a row, which breaks between the knobs where it is too long."""
        margin = {"align_items": "center", "margin": "0 0 0 12px"}
        knobs_of = (
            self._box("HBox", [self._fewer, self._at_once, self._more], "knob", **margin),
            self._box("HBox", [self._slower, self._rate, self._faster], "knob", **margin),
        )
        row = {"flex_flow": "row wrap", "align_items": "center", "margin": "4px 0 4px -2px"}
        return self._box("HBox", [self._pause, self._cancel, *knobs_of], "row", **row)

    def _box(self, kind: str, children: list[Any], name: str, **layout: str) -> Any:
        """Return widgets side by side or below each other."""
        arranged = self._layout(overflow="hidden", **layout)
        return self._made(kind, name, children=children, layout=arranged)

    def _html(self, name: str, value: str) -> Any:
        """Return a place for HTML."""
        return self._made("HTML", name, value=value, layout=self._layout(margin="0"))

    def _label(self, name: str, value: str) -> Any:
        """Return a place for a value, wide enough for most of them, so that no button moves."""
        layout = self._layout(min_width="124px", justify_content="center")
        return self._made("Label", name, value=value, layout=layout)

    def _button(self, text: str, name: str, act: Callable[[], None], tooltip: str) -> Any:
        """Return a button that does something and has the panel drawn anew."""
        layout = self._layout(width="28px" if len(text) == 1 else "72px", padding="0")
        made = self._made("Button", name, description=text, tooltip=tooltip, layout=layout)

        def on_click(_: object) -> None:
            if not self._job.done:
                act()
            self._clicked()

        made.on_click(on_click)
        return made

    def _layout(self, **traits: str) -> Any:
        """Return a layout, the same for all that want the same."""
        key = str(traits)
        if key not in self._layouts:
            self._layouts[key] = self._widgets.Layout(**traits)
            self._owned.append(self._layouts[key])
        return self._layouts[key]

    def _made(self, kind: str, name: str, **traits: object) -> Any:
        """Return a widget that has its class for tests and style sheets, and a style if any."""
        if kind in self._styles:
            traits["style"] = self._styles[kind]
        made = getattr(self._widgets, kind)(_dom_classes=(f"ragasync-{name}",), **traits)
        self._owned.append(made)
        if kind not in self._styles and hasattr(made, "style"):
            self._styles[kind] = made.style
            self._owned.append(made.style)
        return made

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
