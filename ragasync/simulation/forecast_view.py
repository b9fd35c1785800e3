"""How a forecast is shown: as text, as HTML, and as a panel with sliders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from ragasync._limits.limiter import RateLimiter
from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._reports.html import BAR_FRAME, COLORS, QUIET, TABULAR, TEXT, element, fact_lines
from ragasync._reports.summary import duration, per_second
from ragasync.notebook.widgets import Slider, WidgetFactory, concurrency_steps, rate_steps
from ragasync.simulation.projection import (
    ForecastInputs,
    Interval,
    WhatIf,
    most_common_limit,
    project,
)

REFRESH_DELAY = 0.1
"""Seconds between a drag and its result, in which further drags are waited for."""

Facts = Sequence[tuple[str, str]]
"""The names and values below the title of a forecast."""


def forecast_text(title: str, facts: Facts, rows: Sequence[WhatIf], notes: Sequence[str]) -> str:
    """A forecast as a few lines of text."""
    lines = [f"Forecast: {title}"]
    lines += [f"  {name}: {value}" for name, value in facts]
    lines += [
        f"  {row.change:<24}{duration(row.makespan):>12}{row.ratio:>7.2f}  {row.limited_by}"
        for row in rows
    ]
    return "\n".join([*lines, *notes])


def forecast_html(title: str, facts: Facts, rows: Sequence[WhatIf], notes: Sequence[str]) -> str:
    """A forecast as HTML that needs no style sheet, no script and no kernel."""
    name = element("span", "font-weight:600", "Forecast")
    longest = max(row.makespan for row in rows)
    return element(
        "div",
        f"{TEXT};{TABULAR}",
        element("div", "margin-bottom:6px", f"{name} {escape(title)}"),
        *fact_lines(facts),
        element("div", "margin-top:8px", *(_what_if_row(row, longest) for row in rows)),
        element("div", "margin-top:8px", *(element("div", QUIET, escape(note)) for note in notes)),
    )


def _what_if_row(row: WhatIf, longest: float) -> str:
    """The effect of one change: a bar and its numbers."""
    share = row.makespan / longest if longest else 0.0
    color = COLORS[FAILED] if row.ratio > 1.005 else COLORS[DONE]
    bar = element("div", f"width:{share:.2%};min-width:2px;height:8px;background:{color}")
    cells = (
        element("span", "flex:0 0 170px", escape(row.change)),
        element("span", "flex:0 0 80px;text-align:right", escape(duration(row.makespan))),
        element("span", "flex:0 0 56px;text-align:right", f"×{row.ratio:.2f}"),
        element("div", "flex:1;margin:0 12px;background:rgba(128,128,128,0.25)", bar),
        element("span", f"flex:0 0 90px;{QUIET}", escape(row.limited_by)),
    )
    return element("div", "display:flex;align-items:center", *cells)


class ForecastExplorer:
    """
    A panel with sliders for the concurrency and the rate of a forecast.

    Each drag simulates three short runs, so its numbers are less exact than those of `forecast`.
    Without ipywidgets, the panel is the forecast as HTML or text.

    Args:
        inputs: what the forecast was computed from.
        static: returns the forecast as a MIME bundle of text and HTML.
    """

    def __init__(self, inputs: ForecastInputs, static: Callable[[], dict[str, object]]) -> None:
        self._inputs, self._static = inputs, static
        self.scenario = scenario = inputs.scenario
        self._other_limiters = tuple(
            limiter for limiter in scenario.limiters if limiter is not scenario.strictest_limiter
        )
        self._longest = inputs.interval[1]
        self._refresh: asyncio.TimerHandle | None = None
        self.box: Any = None

    def __repr__(self) -> str:
        return str(self._static()["text/plain"])

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        """The widgets, and text and HTML for front ends without widgets."""
        static = self._static()
        if self.box is None:
            try:
                self._make_widgets()
            except ImportError:
                return static
        return {**self.box._repr_mimebundle_(), **static}

    def _make_widgets(self) -> None:
        """Create the sliders, and the widget for their result."""
        factory, scenario, inputs = WidgetFactory(), self.scenario, self._inputs
        html = self._html(inputs.makespan, inputs.interval, inputs.limited_by)
        self._result = factory.html("forecast", html)
        concurrency = Slider[int](
            factory,
            "concurrency-slider",
            concurrency_steps(scenario.max_concurrency),
            scenario.max_concurrency,
            write="{:,}".format,
            on_drag=lambda value: self.change(max_concurrency=value),
            tooltip="The highest number of calls in flight",
        )
        rate = Slider[float | None](
            factory,
            "rate-slider",
            rate_steps(scenario.rate or 1.0),
            scenario.rate,
            write=lambda value: "no limit" if value is None else per_second(value),
            on_drag=lambda value: self.change(rate=value),
            tooltip="The highest number of calls per second",
        )
        rows = []
        for words, slider in (("concurrency", concurrency), ("rate", rate)):
            slider.widget.continuous_update = True
            label = factory.label("setting", words)
            rows.append(factory.box("HBox", [label, slider.widget], "row", align_items="center"))
        self.box = factory.box("VBox", [self._result, *rows], "explorer")

    def change(self, *, max_concurrency: int = 0, rate: float | None = -1.0) -> None:
        """
        Change a setting, and show the result after a moment, since drags come in quick succession.

        Args:
            max_concurrency: the highest number of calls in flight; 0 for no change.
            rate: calls per second, in place of the strictest limiter of calls; None for no such
                limit, a negative number for no change. All other limiters are kept.
        """
        if max_concurrency:
            self.scenario = replace(self.scenario, max_concurrency=max_concurrency)
        if rate is None or rate > 0:
            own = () if rate is None else (RateLimiter(rate),)
            self.scenario = replace(self.scenario, limiters=(*self._other_limiters, *own))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.refresh()
            return
        if self._refresh is None:
            self._refresh = loop.call_later(REFRESH_DELAY, self.refresh)

    def refresh(self) -> None:
        """Simulate the present settings and show the result."""
        self._refresh = None
        inputs = self._inputs
        # Three runs of the forecast with these settings, for a quick response: the fastest, the
        # slowest, and the one in between. What matters is how each compares with its counterpart.
        before = [run.makespan for run in inputs.runs]
        order = sorted(range(len(before)), key=before.__getitem__)
        seeds = (order[0], order[len(order) // 2], order[-1])
        runs = project(inputs.pilot, self.scenario, inputs.n_items, seeds=seeds)
        fast, usual, slow = (
            run.makespan / before[seed] for run, seed in zip(runs, seeds, strict=True)
        )
        low, high = inputs.interval
        html = self._html(
            inputs.makespan * usual, (low * fast, high * slow), most_common_limit(runs)
        )
        self._result.value = html

    def _html(self, makespan: float, interval: Interval, limited_by: str) -> str:
        """The makespan in words, and its interval as a bar relative to the longest so far."""
        self._longest = max(self._longest, interval[1])
        whole = self._longest or 1.0
        low, high = (duration(each) for each in interval)
        words = (
            f"{self._inputs.n_items:,} items in {duration(makespan)} ({low} to {high}), "
            f"limited by {limited_by}"
        )
        start, end = interval[0] / whole, interval[1] / whole
        bar = (
            element("div", f"flex:none;width:{start:.2%};background:{COLORS[DONE]}"),
            element(
                "div",
                f"flex:none;width:{end - start:.2%};min-width:2px;"
                f"background:{COLORS[DONE]};opacity:0.4",
            ),
        )
        return element(
            "div",
            f"{TEXT};{TABULAR}",
            element("div", "", escape(words)),
            element("div", BAR_FRAME, *bar),
            element("div", QUIET, escape(f"full width: {duration(whole)}")),
        )
