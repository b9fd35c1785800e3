"""A panel of sliders for a forecast: what other calls at once, or another rate, would take."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from html import escape
from typing import Any

from ragasync.limits.limiter import RateLimiter
from ragasync.notebook.widgets import Slider, WidgetFactory, concurrency_steps, rate_steps
from ragasync.outcomes.outcome import DONE
from ragasync.reports.html import COLORS, QUIET, TEXT, element
from ragasync.reports.summary import duration, per_second
from ragasync.simulation.forecast import THOROUGH, Forecast
from ragasync.simulation.forecast_view import STEADY, forecast_html, forecast_text
from ragasync.simulation.projection import Interval, commonest_limit, projected

PAUSE = 0.1
"""Seconds between two answers while somebody drags."""


class Explorer:
    """
    Sliders for calls at once and calls a second, and beside them what would come of it.

    Each drag is answered by three short runs, so that the numbers are rougher than those of
    `forecast`. Where there are no widgets, it is the forecast as text.

    Args:
        made: the forecast to begin with.
    """

    def __init__(self, made: Forecast) -> None:
        self._made, self._made_of = made, made._made_of
        self.under = under = self._made_of.under
        self._others = tuple(each for each in under.limiters if each is not under.strictest)
        self._longest = made.interval[1]
        self._due: asyncio.TimerHandle | None = None
        self.box: Any = None

    def __repr__(self) -> str:
        return forecast_text(self._made)

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        """Return widgets with text and HTML for front ends that have none."""
        still: dict[str, object] = {
            "text/plain": repr(self),
            "text/html": forecast_html(self._made),
        }
        if self.box is None:
            try:
                self._make_widgets()
            except ImportError:
                return still
        return {**self.box._repr_mimebundle_(), **still}

    def _make_widgets(self) -> None:
        """Make the sliders and the place for what comes of them."""
        making, under = WidgetFactory(), self.under
        self._answer = making.html("forecast", self._html(self._made.makespan, self._made.interval))
        at_once = Slider[int](
            making,
            "concurrency-slider",
            concurrency_steps(under.max_concurrency),
            under.max_concurrency,
            write="{:,}".format,
            on_drag=lambda value: self.turn(max_concurrency=value),
            tooltip="The most calls at once",
        )
        rate = Slider[float | None](
            making,
            "rate-slider",
            rate_steps(under.rate or 1.0),
            under.rate,
            write=lambda value: "no bound" if value is None else per_second(value),
            on_drag=lambda value: self.turn(rate=value),
            tooltip="The most calls a second",
        )
        rows = []
        for words, slider in (("calls at once", at_once), ("calls a second", rate)):
            slider.widget.continuous_update = True
            label = making.label("knob", words)
            rows.append(making.box("HBox", [label, slider.widget], "row", align_items="center"))
        self.box = making.box("VBox", [self._answer, *rows], "explorer")

    def turn(self, *, max_concurrency: int = 0, rate: float | None = -1.0) -> None:
        """
        Set a knob, and show what comes of it: soon, for many drags come at once.

        Args:
            max_concurrency: the most calls at once; 0 leaves it.
            rate: the most calls a second, in place of the strictest limiter of calls; None for no
                bound, a negative number leaves it. All other limiters stay.
        """
        if max_concurrency:
            self.under = replace(self.under, max_concurrency=max_concurrency)
        if rate is None or rate > 0:
            own = () if rate is None else (RateLimiter(rate),)
            self.under = replace(self.under, limiters=(*self._others, *own))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.draw()
            return
        if self._due is None:
            self._due = loop.call_later(PAUSE, self.draw)

    def draw(self) -> None:
        """Answer, and show it."""
        self._due = None
        made_of, made = self._made_of, self._made
        # Three of the runs that it was made of, under other circumstances: the quickest, the
        # slowest, and one between; a drag is to be answered at once.
        before = [run.makespan for run in made_of.runs]
        order = sorted(range(len(before)), key=before.__getitem__)
        seeds = (order[0], order[len(order) // 2], order[-1])
        runs = projected(made_of.pilot, self.under, made.n_items, THOROUGH, seeds=seeds)
        quick, usual, slow = (
            run.makespan / before[seed] for run, seed in zip(runs, seeds, strict=True)
        )
        interval = (made.interval[0] * quick, made.interval[1] * slow)
        self._answer.value = self._html(made.makespan * usual, interval, commonest_limit(runs))

    def _html(self, makespan: float, interval: Interval, limited_by: str = "") -> str:
        """Return what comes of it: words, and the interval as a bar on the longest so far."""
        self._longest = max(self._longest, interval[1])
        whole = self._longest or 1.0
        low, high = (duration(each) for each in interval)
        told = (
            f"{self._made.n_items:,} items in {duration(makespan)} ({low} to {high}), "
            f"limited by {limited_by or self._made.limited_by}"
        )
        start, end = interval[0] / whole, interval[1] / whole
        parts = (
            element("div", f"flex:none;width:{start:.2%};background:{COLORS[DONE]}"),
            element(
                "div",
                f"flex:none;width:{end - start:.2%};min-width:2px;"
                f"background:{COLORS[DONE]};opacity:0.4",
            ),
        )
        frame = (
            "display:flex;height:8px;margin:4px 0;border-radius:4px;overflow:hidden;"
            "background:rgba(128,128,128,0.25)"
        )
        scale = element("div", QUIET, escape(f"the bar is {duration(whole)} long"))
        return element(
            "div",
            f"{TEXT};{STEADY}",
            element("div", "", escape(told)),
            element("div", frame, *parts),
            scale,
        )
