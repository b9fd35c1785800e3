"""The controls of a live panel: its facts, buttons, sliders and errors as widgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

from ragasync._reports.error_groups import LiveErrorGroups
from ragasync._reports.summary import per_second
from ragasync.notebook.panel_view import ConcurrencySetting, JobView, errors_html, facts_html
from ragasync.notebook.widgets import (
    Slider,
    WidgetFactory,
    concurrency_steps,
    keep_widgets,
    next_concurrency,
    next_rate,
    previous_concurrency,
    previous_rate,
    rate_steps,
)

PAUSE_TOOLTIP = "Start no new calls; calls in flight finish"
CANCEL_TOOLTIP = "Cancel the calls in flight and end the job; finished work is kept"


class ControllableJob(Protocol):
    """The part of a job that a panel uses; it also has the attributes of its concurrency."""

    rate: float | None

    @property
    def done(self) -> bool:
        """Whether the job has ended."""

    @property
    def paused(self) -> bool:
        """Whether the job is paused."""

    def pause(self) -> None:
        """Start no new calls."""

    def resume(self) -> None:
        """Start calls again."""

    def cancel(self) -> None:
        """Cancel the job."""

    def _view(self) -> JobView:
        """The state of the job now."""


@dataclass(frozen=True, slots=True)
class ConcurrencyControl:
    """The slider of a setting for concurrent calls, between two buttons, and its label."""

    label: str
    fewer: Any
    slider: Slider[int]
    more: Any

    @property
    def widgets(self) -> list[Any]:
        """The widgets of its row, after the label."""
        return [self.fewer, self.slider.widget, self.more]


class Controls:
    """
    The widgets that show a running job and control it.

    Args:
        after_action: called after every click or drag, in whatever thread it came.
    """

    def __init__(
        self,
        job: ControllableJob,
        view: JobView,
        errors: LiveErrorGroups,
        after_action: Callable[[], object],
    ) -> None:
        self._job, self._after_action = job, after_action
        self._factory = WidgetFactory()
        self._facts = self._factory.html("facts", facts_html(view))
        self._pause = self._button("Pause", "pause", self._pause_or_resume, PAUSE_TOOLTIP)
        self._cancel = self._button("Cancel", "cancel", self._cancel_once, CANCEL_TOOLTIP)
        self._concurrency = [self._concurrency_control(setting) for setting in view.concurrency]
        settings = [(each.label, each.widgets) for each in self._concurrency]
        settings.append((view.rate_label, self._rate_widgets(view)))
        buttons = [self._pause, self._cancel]
        rows = [
            self._row(button or self._factory.space("no-button", "72px"), label, widgets)
            for button, (label, widgets) in zip_longest(buttons, settings)
        ]
        # The errors come last, so that no button moves when the first error appears.
        self._errors = self._factory.html("errors", errors_html(errors))
        self.box = self._factory.box("VBox", [self._facts, *rows, self._errors], "panel")
        self.draw(view, errors)

    def __repr__(self) -> str:
        sliders = (*(each.slider for each in self._concurrency), self._rate)
        return f"<Controls: {', '.join(map(repr, sliders))}>"

    def draw(self, view: JobView, errors: LiveErrorGroups) -> None:
        """Update the widgets, with a message for each that has changed."""
        self._facts.value = facts_html(view)
        self._errors.value = errors_html(errors)
        for control, setting in zip(self._concurrency, view.concurrency, strict=True):
            control.slider.follow(setting.value)
            control.fewer.disabled = setting.value == 1
        self._rate.follow(view.rate)
        paused = self._job.paused
        self._pause.description = "Resume" if paused else "Pause"
        self._pause.tooltip = "Start calls again" if paused else PAUSE_TOOLTIP
        self._pause.disabled = self._cancel.disabled = view.cancelled
        self._faster.disabled = view.rate is None

    def end(self, html: str, *, in_output: bool = False) -> None:
        """
        Replace all widgets by static HTML, and close them in the kernel and in the front end.

        A page that was reloaded while the job ran does not learn that the output of its cell was
        replaced: it still has the widgets, and finds the HTML in them. So the latest few stay.
        """
        self._facts.value = html
        self.box.children = [self._facts]
        view = [self.box, self.box.layout, self._facts, self._facts.layout, self._facts.style]
        self._factory.close(keep=view)
        keep_widgets(view, in_output=in_output)

    def close(self) -> None:
        """Close all widgets."""
        self._factory.close()

    def _concurrency_control(self, setting: ConcurrencySetting) -> ConcurrencyControl:
        """Make the slider of a setting for concurrent calls, and its buttons."""
        job, name = self._job, setting.name

        def change(new_value: Callable[[int], int]) -> None:
            setattr(job, name, new_value(getattr(job, name)))

        fewer = self._button(
            "−",
            f"{setting.css}fewer",
            lambda: change(previous_concurrency),
            f"Fewer {setting.noun}s",
        )
        more = self._button(
            "+", f"{setting.css}more", lambda: change(next_concurrency), f"More {setting.noun}s"
        )
        slider = Slider[int](
            self._factory,
            f"{setting.css}concurrency-slider",
            concurrency_steps(setting.value),
            setting.value,
            write="{:,}".format,
            on_drag=lambda value: self._act(lambda: change(lambda _: value)),
            tooltip=setting.tooltip,
        )
        return ConcurrencyControl(setting.label, fewer, slider, more)

    def _rate_widgets(self, view: JobView) -> list[Any]:
        """Make the slider for the rate, between its buttons."""
        calls = f"{view.rate_noun}s a second"
        # Without a rate of the job's own, its limiter still holds: that is not "no limit".
        without = "limiter" if view.has_limiter else "no limit"
        self._slower = self._button("−", "slower", self._decrease_rate, f"Fewer {calls}")
        self._faster = self._button("+", "faster", self._increase_rate, f"More {calls}")
        self._rate = Slider[float | None](
            self._factory,
            "rate-slider",
            rate_steps(max(view.speed, view.rate or 0)),
            view.rate,
            write=lambda value: without if value is None else per_second(value),
            on_drag=lambda value: self._act(lambda: self._set_rate(value)),
            tooltip=f"rate: the maximum number of {calls}",
        )
        return [self._slower, self._rate.widget, self._faster]

    def _row(self, button: Any, name: str, widgets: list[Any]) -> Any:
        """Make a row of a button, a label and a slider; all rows have the same columns."""
        children = [button, self._factory.label("setting", name), *widgets]
        return self._factory.box("HBox", children, "row", align_items="center", margin="0 0 0 -2px")

    def _button(self, text: str, name: str, action: Callable[[], None], tooltip: str) -> Any:
        """Make a button whose click is shown on the panel immediately."""
        return self._factory.button(text, name, lambda: self._act(action), tooltip)

    # ── clicks and drags ────────────────────────────────────────────────────────────────────

    def _act(self, action: Callable[[], None]) -> None:
        """Control a job that has not ended, and update the panel."""
        if not self._job.done:
            action()
        self._after_action()

    def _pause_or_resume(self) -> None:
        """Pause or resume the job."""
        if self._job.paused:
            self._job.resume()
        else:
            self._job.pause()

    def _cancel_once(self) -> None:
        """Cancel the job, unless it is: a second time would cut its clean-up short."""
        if not self._job._view().cancelled:
            self._job.cancel()

    def _set_rate(self, value: float | None) -> None:
        """Set the calls per second."""
        self._job.rate = value

    def _decrease_rate(self) -> None:
        """Allow fewer calls per second, starting from the current speed."""
        job, now = self._job, self._job._view()
        job.rate = previous_rate(job.rate, now.speed, now.rated_concurrency)

    def _increase_rate(self) -> None:
        """Allow more calls per second, up to no limit."""
        now = self._job._view()
        speed = now.speed if now.state == "running" else 0.0
        self._job.rate = next_rate(self._job.rate, speed, limits_job=now.waits_for_rate)
