"""Widgets and other outputs of a notebook: showing, making and closing them; sliders' steps."""

from __future__ import annotations

import math
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Generic, TypeVar

from ragasync.foreign_errors import guarded

REFRESH_INTERVAL = 0.1
"""Seconds between two updates: the front end drops messages that come much faster."""


def in_kernel() -> bool:
    """Check whether this is a Jupyter kernel, without importing IPython for it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def show_bundle(bundle: dict[str, object], display_id: str = "", output: Any = None) -> str:
    """
    Show a mime bundle, and return its display id.

    Args:
        bundle: the content by mime type; the front end shows the richest type that it supports.
        display_id: the display id of an earlier bundle to replace; by default, a new output.
        output: an ipywidgets.Output to show it in, also if that captures nothing now.
    """
    from IPython.display import display

    new_id = display_id or uuid.uuid4().hex
    # Entering an Output that captures would end that at the exit.
    with nullcontext() if output is None or output.msg_id else output:
        display(bundle, raw=True, display_id=new_id, update=bool(display_id))
    return new_id


def capturing_output() -> Any:
    """
    Find the ipywidgets.Output that captures what is displayed now; None if there is none.

    An Output ignores updates of a display, so that only a widget can change inside it.
    """
    ipywidgets, ipython = sys.modules.get("ipywidgets"), sys.modules.get("IPython")
    if ipywidgets is None or ipython is None:
        return None
    parent = guarded(lambda: ipython.get_ipython().kernel.get_parent()["header"]["msg_id"])
    widgets = guarded(lambda: list(ipywidgets.widgets.widget._instances.values()))
    for widget in widgets if isinstance(widgets, list) else ():
        if parent and isinstance(widget, ipywidgets.Output) and widget.msg_id == parent:
            return widget
    return None


VIEWS_KEPT = 16
"""The number of ended displays whose widgets stay, for pages that no replacement reaches."""

VIEWS_KEPT_IN_OUTPUTS = 256
"""The same for displays in an Output, which shows nothing once the widget is closed."""

_kept: deque[list[Any]] = deque()
_kept_in_outputs: deque[list[Any]] = deque()


def keep_widgets(models: list[Any], *, in_output: bool) -> None:
    """Keep the widgets of an ended display, and close those of the oldest."""
    kept, most = (_kept_in_outputs, VIEWS_KEPT_IN_OUTPUTS) if in_output else (_kept, VIEWS_KEPT)
    kept.append(models)
    while len(kept) > most:
        for model in kept.popleft():
            model.close()


N = TypeVar("N", int, float | None)

ROUND_NUMBERS = ("1", "1.2", "1.5", "2", "2.5", "3", "4", "5", "6", "8")
"""The steps within a power of ten, each about a quarter above the last."""

MAX_CONCURRENCY = 60_000
MIN_RATE = 0.01

CONCURRENCY_SLIDER_TOP = 64
"""The concurrency slider goes up to this, or to four times its first value."""

RATE_SLIDER_RANGE = (0.1, 1_000.0)
"""The range of the rate slider; its upper end is at least four times its first value."""

LIFT_FACTOR = 2.0
"""A rate above this many times the speed is lifted if it is not what limits the job."""

LIFT_FACTOR_LIMITED = 10.0
"""The same if it still seems to: the speed is an average over seconds, and clicks come faster."""


class WidgetFactory:
    """
    Makes widgets and closes them, with all of their models: each costs a message and memory.

    Widgets that want the same layout or style share it.
    """

    def __init__(self) -> None:
        import ipywidgets

        self._widgets: Any = ipywidgets
        self._models: list[Any] = []
        self._layouts: dict[str, Any] = {}
        self._styles: dict[str, Any] = {}

    def box(self, kind: str, children: list[Any], name: str, **layout: str) -> Any:
        """Make a box of widgets: "HBox" for a row, "VBox" for a column."""
        shared = self._layout(overflow="hidden", **layout)
        return self._make(kind, name, children=children, layout=shared)

    def html(self, name: str, value: str) -> Any:
        """Make a widget of HTML."""
        return self._make("HTML", name, value=value, layout=self._layout(margin="0"))

    def space(self, name: str, width: str) -> Any:
        """Make an empty space of fixed width, in place of a button."""
        return self._make("Label", name, value="", layout=self._layout(width=width, flex="none"))

    def label(self, name: str, value: str) -> Any:
        """Make a label of fixed width, so that the widgets after labels are aligned."""
        layout = self._layout(width="104px", margin="2px 0 2px 12px")
        return self._make("Label", name, value=value, layout=layout)

    def button(self, text: str, name: str, on_click: Callable[[], object], tooltip: str) -> Any:
        """Make a button."""
        width = "28px" if len(text) == 1 else "72px"
        layout = self._layout(width=width, padding="0", flex="none")
        button = self._make("Button", name, description=text, tooltip=tooltip, layout=layout)
        button.on_click(lambda _: on_click())
        return button

    def slider(self, name: str, options: list[str], index: int, tooltip: str) -> Any:
        """Make a slider over texts that reports a drag at its end."""
        return self._make(
            "SelectionSlider",
            name,
            options=options,
            index=index,
            continuous_update=False,
            tooltip=tooltip,
            # In a narrow output the bar shrinks before labels and buttons do.
            layout=self._layout(width="320px", min_width="140px", flex="0 9 auto"),
        )

    def close(self, keep: list[Any] | None = None) -> None:
        """Close all models, in the kernel and in the front end, except those to keep."""
        for model in self._models:
            if not any(model is kept for kept in keep or ()):
                model.close()

    def _layout(self, **traits: str) -> Any:
        """Make a layout, or share an equal one."""
        key = str(traits)
        if key not in self._layouts:
            self._layouts[key] = self._widgets.Layout(**traits)
            self._models.append(self._layouts[key])
        return self._layouts[key]

    def _make(self, kind: str, name: str, **traits: object) -> Any:
        """Make a widget with a CSS class for tests and style sheets, and a shared style."""
        if kind in self._styles:
            traits["style"] = self._styles[kind]
        made = getattr(self._widgets, kind)(_dom_classes=(f"ragasync-{name}",), **traits)
        self._models.append(made)
        if kind not in self._styles and hasattr(made, "style"):
            self._styles[kind] = made.style
            self._models.append(made.style)
        return made


class Slider(Generic[N]):
    """
    A slider over round numbers, which also shows any other number while it is the value.

    Args:
        name: the CSS class of its widget.
        steps: the numbers on the slider; None is above all others.
        write: writes a number as it is shown next to the slider.
        on_drag: called with the number that the user dragged to, in any thread.
    """

    def __init__(
        self,
        factory: WidgetFactory,
        name: str,
        steps: Iterable[N],
        value: N,
        *,
        write: Callable[[N], str],
        on_drag: Callable[[N], object],
        tooltip: str,
    ) -> None:
        self._steps: list[N] = list(steps)
        self._write: Callable[[N], str] = write
        self._on_drag: Callable[[N], object] = on_drag
        self._following = False
        self._lock = threading.RLock()
        self._shown: dict[str, N] = self._steps_with(value)
        texts = list(self._shown)
        self.widget: Any = factory.slider(name, texts, texts.index(write(value)), tooltip)
        self.widget.observe(self._on_index, "index")
        _reply_on_the_asking_subshell(self.widget)

    def __repr__(self) -> str:
        return f"<Slider at {self.widget.label}>"

    def follow(self, value: N) -> None:
        """Show a value without calling `on_drag`."""
        text = self._write(value)
        if self.widget.label == text:
            return
        # Setting new options selects the first of them for a moment; that is no drag.
        with self._lock, self.widget.hold_sync():
            self._following = True
            try:
                if text not in self._shown:
                    self._shown = self._steps_with(value)
                    self.widget.options = list(self._shown)
                self.widget.index = list(self._shown).index(text)
            finally:
                self._following = False

    def _steps_with(self, value: N) -> dict[str, N]:
        """The steps by their texts, in order, with this value among them."""
        numbers = {self._write(step): step for step in self._steps}
        numbers.setdefault(self._write(value), value)
        # None is above all numbers.
        by_number = sorted(numbers.items(), key=lambda each: (each[1] is None, each[1]))
        return dict(by_number)

    def _on_index(self, change: Any) -> None:
        """Report a drag."""
        with self._lock:
            if self._following:
                return
            dragged_to = list(self._shown.values())[change["new"]]
        # Outside the lock: `on_drag` may wait for a thread that waits for the lock in `follow`.
        self._on_drag(dragged_to)


def _reply_on_the_asking_subshell(widget: Any) -> None:
    """
    Make a kernel handle a widget's messages in the subshell to which the front end sent them.

    ipykernel 7.4 hands them to the thread that drew the widget last. While a cell awaits, that is
    the thread of the cell, which never reports to the front end that the message was handled; the
    front end then holds back the next drag. There is no public switch; if the method is gone,
    nothing is changed.
    """
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = lambda _, asked_in: asked_in


# ── steps ───────────────────────────────────────────────────────────────────────────────────────


def next_concurrency(value: int) -> int:
    """The next round number of concurrent calls."""
    higher = (int(step) for step in _nearby(value) if step.is_integer() and step > value)
    return max(value, min(next(higher), MAX_CONCURRENCY))


def previous_concurrency(value: int) -> int:
    """The previous round number of concurrent calls, at least 1."""
    lower = [int(step) for step in _nearby(value) if step.is_integer() and step < value]
    return max(1, lower[-1]) if value > 1 else 1


def previous_rate(rate: float | None, speed: float, concurrency: int) -> float:
    """
    The round rate below this one; below no limit, the current speed.

    Args:
        rate: calls per second, None for no limit.
        speed: the current calls per second; 0 if not known.
        concurrency: concurrent calls, used if the speed is not known.
    """
    if rate is None:
        # Start from the step above the speed, so that the first click gives a round number too.
        rate = next_step(speed or float(concurrency))
    return max(MIN_RATE, [step for step in _nearby(rate) if step < rate][-1])


def next_rate(rate: float | None, speed: float, *, limits_job: bool) -> float | None:
    """
    The round rate above this one, or None for no limit if it would not limit anything.

    Args:
        rate: calls per second, None for no limit.
        speed: the current calls per second; 0 if not known, or if the job does not run.
        limits_job: whether a rate limit is what limits the job.
    """
    if rate is None:
        return None
    higher = next_step(rate)
    lift_at = speed * (LIFT_FACTOR_LIMITED if limits_job else LIFT_FACTOR)
    return None if speed and higher > lift_at else higher


def concurrency_steps(value: int) -> list[int]:
    """The steps of a concurrency slider, given its first value."""
    steps = [1]
    while steps[-1] < min(max(CONCURRENCY_SLIDER_TOP, 4 * value), MAX_CONCURRENCY):
        steps.append(next_concurrency(steps[-1]))
    return steps


def rate_steps(value: float) -> list[float | None]:
    """The steps of a rate slider, given its first value; the last one is no limit."""
    lowest, highest = RATE_SLIDER_RANGE
    steps = [lowest]
    while steps[-1] < max(highest, 4 * value):
        steps.append(next_step(steps[-1]))
    return [*steps, None]


def next_step(value: float) -> float:
    """The next round number."""
    return next(step for step in _nearby(value) if step > value)


def _nearby(value: float) -> Iterator[float]:
    """Yield round numbers in order, from well below this value to well above."""
    power = math.floor(math.log10(value))
    for exponent in (power - 1, power, power + 1):
        for step in ROUND_NUMBERS:
            yield float(f"{step}e{exponent}")
