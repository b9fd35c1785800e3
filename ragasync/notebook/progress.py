"""Progress bars: of ipywidgets where a notebook shows them, else of tqdm."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any

from ragasync.clock import Clock
from ragasync.notebook.drawing import ProgressDrawing, ProgressState
from ragasync.notebook.front_end import in_kernel, show_bundle
from ragasync.notebook.panel_view import clock_time
from ragasync.outcomes.outcome import DONE
from ragasync.reports.error_groups import one_line
from ragasync.reports.html import COLOURS, TEXT, element
from ragasync.reports.summary import per_second


class TqdmProgress(ProgressDrawing):
    """
    Show a job's progress as tqdm does, in a terminal or a notebook.

    Example:
        >>> from ragasync import AsyncBatchProcessor, TqdmProgress
        >>> processor = AsyncBatchProcessor(str)
        >>> result = processor.process_sync(range(100), TqdmProgress(desc="to text", unit="item"))
        >>> result.success_count
        100

    Args:
        clock: what tells the seconds between two drawings.
        tqdm_kwargs: handed on to `tqdm.auto.tqdm`, such as `desc`, `unit`, `file`, `leave`.
    """

    def __init__(self, *, clock: Clock = time.monotonic, **tqdm_kwargs: object) -> None:
        super().__init__(clock)
        self._kwargs = tqdm_kwargs
        self._bar: Any = None

    def _start(self, reading: ProgressState) -> None:
        """Show a new bar."""
        from tqdm.auto import tqdm

        make: Callable[..., Any] = tqdm
        self._bar = make(**{"total": reading.total, "initial": reading.done, **self._kwargs})

    def _draw(self, reading: ProgressState) -> None:
        """Bring the bar up to date."""
        self._bar.total, self._bar.n = reading.total, reading.done
        self._bar.refresh()

    def _end(self, reading: ProgressState) -> None:
        """Leave the bar in its last state."""
        self._draw(reading)
        self._bar.close()
        self._bar = None


class WidgetProgress(ProgressDrawing):
    """
    Show a job's progress as a bar in the notebook, and as still HTML once it is over.

    What stays in the saved notebook needs no kernel. Outside of a kernel it is a `TqdmProgress`.

    Example:
        >>> from ragasync import AsyncBatchProcessor, WidgetProgress
        >>> processor = AsyncBatchProcessor(str)
        >>> result = processor.process_sync(range(100), WidgetProgress("to text"))
        >>> result.success_count
        100

    Args:
        description: words in front of the bar.
        clock: what tells the seconds.
    """

    def __init__(self, description: str = "", *, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.description = description
        self._text: TqdmProgress | None = None
        self._bar: Any = None
        self._place = ""

    def _start(self, reading: ProgressState) -> None:
        """Show a new bar."""
        if not in_kernel():
            self._text = TqdmProgress(clock=self._clock, desc=self.description or None)
            self._text._start(reading)
            return
        import ipywidgets

        self._text = None
        self._bar = ipywidgets.HTML(bar_html(self.description, reading), layout={"margin": "0"})
        self._place = show_bundle(
            {**self._bar._repr_mimebundle_(), **still_bundle(self.description, reading)}
        )

    def _draw(self, reading: ProgressState) -> None:
        """Bring the bar up to date, in one message."""
        if self._text is not None:
            self._text._draw(reading)
            return
        self._bar.value = bar_html(self.description, reading)

    def _end(self, reading: ProgressState) -> None:
        """Put still HTML in the place of the widget, and free it."""
        if self._text is not None:
            self._text._end(reading)
            return
        show_bundle(still_bundle(self.description, reading, ended=True), self._place)
        for model in (self._bar.style, self._bar.layout, self._bar):
            model.close()

    def _leave(self, reading: ProgressState) -> None:
        """Show still HTML alone, for the price of one message."""
        if not in_kernel():
            super()._leave(reading)
            return
        show_bundle(still_bundle(self.description, reading, ended=True))


def still_bundle(
    description: str, reading: ProgressState, *, ended: bool = False
) -> dict[str, object]:
    """Return a bar and its counts as text and as HTML that needs no kernel."""
    line = progress_line(reading, ended=ended)
    name = one_line(description)
    return {
        "text/plain": f"{name}: {line}" if name else line,
        "text/html": bar_html(description, reading, ended=ended),
    }


def bar_html(description: str, reading: ProgressState, *, ended: bool = False) -> str:
    """Return a bar and its counts as HTML: the live bar looks the same, so that nothing jumps."""
    name = one_line(description)
    share = reading.done / reading.total if reading.total else float(reading.done == reading.total)
    filled = element("div", f"width:{min(share, 1):.1%};height:8px;background:{COLOURS[DONE]}")
    return element(
        "div",
        f"display:flex;align-items:center;gap:12px;{TEXT}",
        *([element("span", "", escape(name))] if name else []),
        element("div", "flex:0 0 240px;height:8px;background:rgba(128,128,128,0.25)", filled),
        element("span", "", escape(progress_line(reading, ended=ended))),
    )


def progress_line(reading: ProgressState, *, ended: bool = False) -> str:
    """Return the counts as one line, such as `1,234 / 5,000 · 312/s · 0:12 left`."""
    count = f"{reading.done:,}"
    parts = [count if reading.total is None else f"{count} / {reading.total:,}"]
    if reading.rate is not None:
        parts.append(f"{per_second(reading.rate)}/s")
    if ended:
        early = "" if reading.done == reading.total else "stopped after "
        parts.append(f"{early}{clock_time(reading.seconds)}")
    elif reading.left is not None:
        parts.append(f"{clock_time(reading.left)} left")
    elif reading.rate is not None:
        parts.append(clock_time(reading.seconds))
    return " · ".join(parts)
