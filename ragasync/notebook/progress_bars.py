"""Progress bars: a widget in a notebook, tqdm elsewhere; both are progress callbacks."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any, Self

from ragasync._outcomes.outcome import DONE
from ragasync._reports.html import COLORS
from ragasync._reports.summary import clock_time, one_line, per_second
from ragasync.arguments import explains_arguments
from ragasync.clock import Clock, running_loop
from ragasync.notebook.widgets import (
    REFRESH_INTERVAL,
    capturing_output,
    in_kernel,
    keep_widgets,
    show_bundle,
)
from ragasync.object_views import TEXT, element

REPEATED_END = 1.0
"""Seconds within which the same last report, repeated, does not start another run."""


@dataclass(frozen=True, slots=True)
class ProgressState:
    """
    The progress of a run at one moment.

    Attributes:
        done: the items that have ended.
        total: all items, None if unknown.
        seconds: the time since the start of the run, or since the first report of a bar that is
            called by hand.
        counted: the items that have ended since then, without those that a journal had.
    """

    done: int
    total: int | None
    seconds: float
    counted: int

    @property
    def rate(self) -> float | None:
        """Items per second; None if it is not known yet."""
        return self.counted / self.seconds if self.seconds > 0 and self.counted > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """The estimated seconds left; None if they are not known."""
        rate = self.rate
        return None if self.total is None or rate is None else (self.total - self.done) / rate


class Throttle:
    """A throttle for something that happens often and is drawn seldom."""

    def __init__(self, interval: float, clock: Clock) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")

    def __repr__(self) -> str:
        return f"<Throttle every {self._interval:g} s>"

    def due(self) -> bool:
        """Check whether the interval has passed; if so, start the next one."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._interval
        return True


class ProgressBar(ABC):
    """
    A progress callback that draws a bar at most ten times per second, and always at the end.

    The end is `done == total`, `close()`, or the end of the `with` block. A report after that
    starts another run with a new bar, and so does a report with a smaller count. The running loop
    draws a report that came too early a moment later, so that the bar of a job that stops early
    shows its last count.

    If items have already ended at the first report, the run may be over at any moment, and a bar
    would cost more than many such runs: it gets one a moment later if it still runs, otherwise
    only its last state.

    Attributes:
        recalled: the items that a journal had; the run sets it, and the speed does not count them.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._throttle = Throttle(REFRESH_INTERVAL, clock)
        self._running = False
        self._shown = False
        self._done = 0
        self._total: int | None = None
        self._started_at, self._done_at_start, self._ended_at = 0.0, 0, float("-inf")
        self._begun_at: float | None = None
        self.recalled = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "running" if self._running else "idle"
        total = "?" if self._total is None else f"{self._total:,}"
        return f"<{type(self).__name__} {self._done:,} of {total}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin_run(self) -> None:
        """Note that a run starts now; a run that calls this bar does it before its first report."""
        self.close()
        self._begun_at, self.recalled, self._ended_at = self._clock(), 0, float("-inf")

    def __call__(self, done: int, total: int | None = None) -> None:
        """Report the progress of the job."""
        if self._is_repeated_end(done, total):
            return
        if self._running and done < self._done:
            self.close()
        starts = not self._running
        if starts:
            self._start_run(done)
        self._done, self._total = done, total
        if done == total:
            self.close()
        elif (starts and self._must_show_first()) or self._throttle.due():
            self._show()
        else:
            self._show_later()

    def close(self) -> None:
        """Draw the last state and end the bar of this run; does nothing between runs."""
        if not self._running:
            return
        self._running = False
        self._cancel_timer()
        self._ended_at = self._clock()
        if self._shown:
            self._end(self._state())
        else:
            self._show_end(self._state())

    @abstractmethod
    def _start(self, state: ProgressState) -> None:
        """Show a new bar."""

    @abstractmethod
    def _draw(self, state: ProgressState) -> None:
        """Update the bar."""

    @abstractmethod
    def _end(self, state: ProgressState) -> None:
        """Leave the bar in its last state."""

    def _show_end(self, state: ProgressState) -> None:
        """Show the last state of a run that ended before it had a bar."""
        self._start(state)
        self._end(state)

    def _start_run(self, done: int) -> None:
        """Start a run at its first report."""
        self._running, self._shown = True, False
        if self._begun_at is None:
            self._started_at, self._done_at_start = self._clock(), done
        else:
            self._started_at, self._done_at_start = self._begun_at, 0
        self._begun_at = None
        self._throttle = Throttle(REFRESH_INTERVAL, self._clock)
        self._throttle.due()

    def _must_show_first(self) -> bool:
        """Whether the first report is drawn immediately: no items ended yet, or no loop runs."""
        return self._done == 0 or running_loop() is None

    def _show(self) -> None:
        """Draw the progress of the run, on its bar or on a new one."""
        self._cancel_timer()
        show = self._draw if self._shown else self._start
        show(self._state())
        self._shown = True

    def _is_repeated_end(self, done: int, total: int | None) -> bool:
        """Whether this report repeats the end of the last run."""
        same = (done, total) == (self._done, self._total)
        return not self._running and same and self._clock() - self._ended_at < REPEATED_END

    def _state(self) -> ProgressState:
        """The progress of the run now."""
        seconds = self._clock() - self._started_at
        counted = self._done - self._done_at_start - self.recalled
        return ProgressState(self._done, self._total, seconds, counted)

    def _show_later(self) -> None:
        """Schedule a draw of a report that came too early, if a loop is running."""
        if self._timer is None and (loop := running_loop()) is not None:
            self._timer = loop.call_later(REFRESH_INTERVAL, self._on_timer)

    def _on_timer(self) -> None:
        """Draw the last report, unless a later one has been drawn."""
        self._timer = None
        if self._running and self._throttle.due():
            self._show()

    def _cancel_timer(self) -> None:
        """Cancel the scheduled draw."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TqdmProgress(ProgressBar):
    """
    A progress bar of tqdm, in a terminal or a notebook.

    Example:
        >>> from ragasync import AsyncBatchProcessor, TqdmProgress
        >>> processor = AsyncBatchProcessor(str)
        >>> result = processor.process_sync(range(100), TqdmProgress("to text", unit="item"))
        >>> result.success_count
        100

    Args:
        description: a text in front of the bar.
        clock: returns the current time in seconds.
        tqdm_kwargs: further arguments of `tqdm.auto.tqdm`, such as `unit`, `file`, `leave`.
    """

    def __init__(
        self, description: str = "", *, clock: Clock = time.monotonic, **tqdm_kwargs: object
    ) -> None:
        super().__init__(clock)
        self.description = description
        self._kwargs = tqdm_kwargs
        self._bar: Any = None

    def _start(self, state: ProgressState) -> None:
        """Show a new bar."""
        from tqdm.auto import tqdm

        make: Callable[..., Any] = tqdm
        before = state.done - state.counted
        own = {"desc": self.description or None, "total": state.total, "initial": before}
        self._bar = make(**{**own, **self._kwargs})
        if hasattr(self._bar, "start_t"):  # a disabled bar has none
            self._bar.start_t -= state.seconds  # tqdm counts the speed from there
        self._draw(state)

    def _draw(self, state: ProgressState) -> None:
        """Update the bar."""
        self._bar.total, self._bar.n = state.total, state.done
        self._bar.refresh()

    def _end(self, state: ProgressState) -> None:
        """Leave the bar in its last state."""
        self._draw(state)
        self._bar.close()
        self._bar = None


@explains_arguments
class WidgetProgress(ProgressBar):
    """
    A progress bar in a notebook, replaced by static HTML at the end.

    The HTML in the saved notebook needs no kernel. Outside a kernel, this is a `TqdmProgress`.

    Example:
        >>> from ragasync import AsyncBatchProcessor, WidgetProgress
        >>> processor = AsyncBatchProcessor(str)
        >>> result = processor.process_sync(range(100), WidgetProgress("to text"))
        >>> result.success_count
        100

    Args:
        description: a text in front of the bar.
        clock: returns the current time in seconds.
    """

    def __init__(self, description: str = "", *, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.description = description
        self._tqdm: TqdmProgress | None = None
        self._bar: Any = None
        self._display_id = ""
        self._output: Any = None

    def begin_run(self) -> None:
        """Note that a run starts now, and which Output the current code displays in."""
        super().begin_run()
        self._output = capturing_output() if in_kernel() else None

    def _start(self, state: ProgressState) -> None:
        """Show a new bar."""
        if not in_kernel():
            self._tqdm = TqdmProgress(self.description, clock=self._clock)
            self._tqdm._start(state)
            return
        import ipywidgets

        self._tqdm = None
        self._bar = ipywidgets.HTML(bar_html(self.description, state), layout={"margin": "0"})
        self._output = self._output or capturing_output()
        self._display_id = show_bundle(
            {**self._bar._repr_mimebundle_(), **bar_bundle(self.description, state)},
            output=self._output,
        )

    def _draw(self, state: ProgressState) -> None:
        """Update the bar, in one message to the front end."""
        if self._tqdm is not None:
            self._tqdm._draw(state)
            return
        self._bar.value = bar_html(self.description, state)

    def _end(self, state: ProgressState) -> None:
        """Replace the widget by static HTML, and close it."""
        if self._tqdm is not None:
            self._tqdm._end(state)
            return
        models = [self._bar.style, self._bar.layout, self._bar]
        if self._output is not None:
            self._bar.value = bar_html(self.description, state, ended=True)
            keep_widgets(models, in_output=True)
            return
        show_bundle(bar_bundle(self.description, state, ended=True), self._display_id)
        for model in models:
            model.close()

    def _show_end(self, state: ProgressState) -> None:
        """Show static HTML without a widget, which takes a single message."""
        if not in_kernel():
            super()._show_end(state)
            return
        bundle = bar_bundle(self.description, state, ended=True)
        show_bundle(bundle, output=self._output or capturing_output())


def bar_bundle(description: str, state: ProgressState, *, ended: bool = False) -> dict[str, object]:
    """A bar and its counts, as text and as HTML that needs no kernel."""
    line = progress_line(state, ended=ended)
    name = one_line(description)
    return {
        "text/plain": f"{name}: {line}" if name else line,
        "text/html": bar_html(description, state, ended=ended),
    }


def bar_html(description: str, state: ProgressState, *, ended: bool = False) -> str:
    """A bar and its counts as HTML, equal for the widget and the end, so that nothing jumps."""
    name = one_line(description)
    share = state.done / state.total if state.total else float(state.done == state.total)
    filled = element("div", f"width:{min(share, 1):.1%};height:8px;background:{COLORS[DONE]}")
    return element(
        "div",
        f"display:flex;align-items:center;gap:12px;{TEXT}",
        *([element("span", "", escape(name))] if name else []),
        element("div", "flex:0 0 240px;height:8px;background:rgba(128,128,128,0.25)", filled),
        element("span", "", escape(progress_line(state, ended=ended))),
    )


def progress_line(state: ProgressState, *, ended: bool = False) -> str:
    """Write the counts as one line: `1,234 / 5,000 · 312/s · 0:12 left`."""
    count = f"{state.done:,}"
    parts = [count if state.total is None else f"{count} / {state.total:,}"]
    if state.rate is not None:
        parts.append(f"{per_second(state.rate)}/s")
    if ended:
        early = "" if state.done == state.total else "stopped after "
        parts.append(f"{early}{clock_time(state.seconds)}")
    elif state.seconds_left is not None:
        parts.append(f"{clock_time(state.seconds_left)} left")
    elif state.rate is not None:
        parts.append(clock_time(state.seconds))
    return " · ".join(parts)
