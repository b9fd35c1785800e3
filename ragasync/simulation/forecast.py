"""forecast: how long a run will take, what limits it, and the effect of changing one setting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ragasync._limits.limiter import Limiter, RateLimiter
from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._reports.html import BAR_FRAME, COLORS, TABULAR, fact_lines
from ragasync._reports.summary import cost_text, counted, per_second
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, explains_arguments
from ragasync.notebook.widgets import Slider, WidgetFactory, concurrency_steps, rate_steps
from ragasync.object_views import QUIET, TEXT, duration, element
from ragasync.progress_callbacks import LimitedBy
from ragasync.result import BatchResult
from ragasync.simulation.pilot import USE_PILOT, Pilot, Scenario, UsePilot, pilot_of, scenario_of
from ragasync.simulation.projection import (
    LEVEL,
    ForecastInputs,
    Interval,
    WhatIf,
    interval_of,
    mean_requests,
    most_common_limit,
    project,
    share_interval,
    total_interval,
    what_if_dataframe,
    what_if_rows,
)
from ragasync.simulation.resampling import estimate_overhead

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Forecast:
    """
    The expected duration of a run, computed from a pilot.

    Times are in seconds. An interval contains the truth with the probability `level`, if the
    service behaves as it did in the pilot.

    Example:
        >>> from ragasync.simulation import forecast, simulate
        >>> pilot = simulate(200, max_concurrency=4, latency=0.5)
        >>> ahead = forecast(pilot, 10_000, max_concurrency=10)
        >>> round(ahead.makespan), ahead.limited_by
        (500, 'concurrency')

    Attributes:
        n_items: the number of items in the run.
        makespan: the duration of the run, the median.
        interval: its interval.
        level: the probability with which the truth lies in an interval.
        limited_by: what limits the run: "rate", "concurrency", "retries" or "input".
        requests: the mean number of calls, retries included.
        requests_interval: its interval.
        failed: the mean number of items that fail.
        failed_interval: its interval; its upper end is above 0 even if none failed in the pilot.
        tokens: the tokens of all items, as those of the pilot reported them; 0 without reports.
        tokens_interval: its interval.
        cost: their cost.
        cost_interval: its interval.
        notes: remarks about the pilot and the assumptions of the forecast.
    """

    n_items: int
    makespan: float
    interval: Interval
    level: float
    limited_by: LimitedBy
    requests: float
    requests_interval: Interval
    failed: float
    failed_interval: Interval
    tokens: float
    tokens_interval: Interval
    cost: float
    cost_interval: Interval
    notes: tuple[str, ...]
    _inputs: ForecastInputs = field(repr=False, compare=False)

    @cached_property
    def what_if(self) -> tuple[WhatIf, ...]:
        """The effect of changing one setting, a row for each; the first row is no change."""
        return what_if_rows(self._inputs)

    def to_dataframe(self) -> pd.DataFrame:
        """
        The what-if table as a DataFrame.

        Returns:
            | column | dtype | |
            |---|---|---|
            | change | string | in words; the first row is the forecast itself |
            | setting | string | the argument that is changed; missing in the first row |
            | value | Float64 | its new value; missing if that is not a number |
            | makespan | float64 | seconds |
            | ratio | float64 | the makespan as a share of the forecast's |
            | limited_by | category | rate, concurrency, retries, input: always all four |
        """
        return what_if_dataframe(self.what_if)

    def explore(self) -> ForecastExplorer:
        """Open a panel with sliders for the concurrency and the rate."""
        return ForecastExplorer(self._inputs, self._static_bundle)

    def __repr__(self) -> str:
        return f"<Forecast {self._title()}>"

    def _repr_html_(self) -> str:
        """The forecast as HTML that needs no style sheet, no script and no kernel."""
        name = element("span", "font-weight:600", "Forecast")
        longest = max(row.makespan for row in self.what_if)
        notes = (element("div", QUIET, escape(note)) for note in self.notes)
        return element(
            "div",
            f"{TEXT};{TABULAR}",
            element("div", "margin-bottom:6px", f"{name} {escape(self._title())}"),
            *fact_lines(self._facts()),
            element("div", "margin-top:8px", *(_what_if_row(row, longest) for row in self.what_if)),
            element("div", "margin-top:8px", *notes),
        )

    def _static_bundle(self) -> dict[str, object]:
        """The forecast as a MIME bundle of text and HTML."""
        lines = [f"Forecast: {self._title()}"]
        lines += [f"  {name}: {value}" for name, value in self._facts()]
        lines += [
            f"  {row.change:<24}{duration(row.makespan):>12}{row.ratio:>7.2f}  {row.limited_by}"
            for row in self.what_if
        ]
        text = "\n".join([*lines, *self.notes])
        return {"text/plain": text, "text/html": self._repr_html_()}

    def _title(self) -> str:
        """The forecast as one line."""
        low, high = map(duration, self.interval)
        span = "" if low == high else f" ({low} to {high})"
        parts = [
            f"{counted(self.n_items, 'item')} in {duration(self.makespan)}{span}",
            f"limited by {self.limited_by}",
            f"{self.requests:,.0f} requests",
        ]
        if round(self.failed):
            parts.append(f"{self.failed:,.0f} to fail")
        if self.tokens:
            parts.append(f"{_with_interval(self.tokens, self.tokens_interval)} tokens")
        if self.cost:
            cost = _with_interval(self.cost, self.cost_interval, cost_text)
            parts.append(f"a cost of {cost}")
        return ", ".join(parts)

    def _facts(self) -> list[tuple[str, str]]:
        """The names and values below the title."""
        found = [
            ("requests", _with_interval(self.requests, self.requests_interval)),
            ("items that fail", _with_interval(self.failed, self.failed_interval)),
        ]
        if self.tokens:
            found.append(("tokens", _with_interval(self.tokens, self.tokens_interval)))
        if self.cost:
            found.append(("cost", _with_interval(self.cost, self.cost_interval, cost_text)))
        return [*found, ("level of the intervals", f"{self.level:.0%}")]


def _with_interval(
    value: float, interval: Interval, write: Callable[[float], str] = "{:,.0f}".format
) -> str:
    """A number with its interval, unless both ends read the same."""
    low, high = map(write, interval)
    return write(value) if low == high else f"{write(value)} ({low} to {high})"


@explains_arguments
def forecast(
    result: BatchResult[Any],
    n_items: int,
    *,
    max_concurrency: int | None = None,
    rate_limiter: Limiter | Sequence[Limiter] | UsePilot | None = USE_PILOT,
    batch_size: int | None = None,
    retry: AsyncRetry | None = None,
    error_rate: float | None = None,
    timeout: float | timedelta | None = None,
) -> Forecast:
    """
    Forecast the duration of a run from a pilot of about 200 items.

    The real engine runs on a virtual clock, with calls drawn from the pilot's. A run of some
    hundred calls is simulated, and the throughput of its middle is extended to all items. Each run
    draws from another pilot that might have been, which gives the interval. A forecast takes some
    seconds, whatever `n_items`, and is the same for the same arguments. Settings that are not
    passed are those of the pilot.

    Args:
        result: the result of `process(items, max_items=200)`. All other items are assumed to be
            like these, so do not choose easy ones.
        n_items: the number of items in the whole run.
        max_concurrency: the highest number of calls in flight. The latency is assumed not to
            depend on it.
        rate_limiter: a RateLimiter or several, which are copied, never used; None for no limit.
            The default is all limiters of the pilot, with the weights that items had there.
        batch_size: the maximum number of items in a call. The latency is assumed not to depend on
            it.
        retry: the retry policy; the default has the delays of the pilot.
        error_rate: the share of attempts that fail with a transient error, from 0 to 1.
        timeout: seconds for an attempt.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, or one that the pilot cannot supply; or a pilot
            without finished or successful items or without times, a merged result, or the result
            of a pipeline.

    Example:
        >>> from ragasync import forecast, simulate
        >>> pilot = simulate(200, max_concurrency=4, latency=0.5)  # or processor.process(...)
        >>> forecast(pilot, 10_000, max_concurrency=10)
        <Forecast 10,000 items in 8 min 20 s, limited by concurrency, 10,000 requests>
    """
    check_count("n_items", n_items, at_least=1)
    pilot = pilot_of(result)
    scenario = scenario_of(
        pilot,
        max_concurrency=max_concurrency,
        rate_limiter=rate_limiter,
        batch_size=batch_size,
        retry=retry,
        error_rate=error_rate,
        timeout=timeout,
    )
    return _forecast(pilot, scenario, n_items)


def _forecast(pilot: Pilot, scenario: Scenario, n_items: int) -> Forecast:
    """Simulate a scenario and summarize its runs."""
    low, high, note = estimate_overhead(pilot)
    runs = project(pilot, scenario, n_items)
    inputs = ForecastInputs(pilot, scenario, n_items, (low, high), runs)
    failed = fmean(run.failed for run in runs)
    few, many = share_interval(failed / n_items, pilot.finished)
    tokens, tokens_interval = total_interval(pilot.tokens, n_items)
    cost, cost_interval = total_interval(pilot.costs, n_items)
    return Forecast(
        n_items=n_items,
        makespan=inputs.makespan,
        interval=inputs.interval,
        level=LEVEL,
        limited_by=inputs.limited_by,
        requests=mean_requests(runs),
        requests_interval=interval_of([run.requests for run in runs]),
        failed=failed,
        failed_interval=(few * n_items, many * n_items),
        tokens=tokens,
        tokens_interval=tokens_interval,
        cost=cost,
        cost_interval=cost_interval,
        notes=tuple(filter(None, (*pilot.notes, note, *_assumptions(pilot, scenario)))),
        _inputs=inputs,
    )


def _assumptions(pilot: Pilot, scenario: Scenario) -> tuple[str, ...]:
    """The assumptions of a forecast, for its notes."""
    stats = pilot.result.stats
    notes = []
    if scenario.max_concurrency > stats.max_concurrency:
        notes.append(
            f"Calls are assumed to take as long with {scenario.max_concurrency:,} in flight as "
            f"with the pilot's {stats.max_concurrency:,}."
        )
    if scenario.batch_size:
        notes.append("A call is assumed to take as long whatever the size of its batch.")
    if pilot.tokens:
        notes.append("An item is assumed to use as many tokens as in the pilot, retries included.")
    return tuple(notes)


REFRESH_DELAY = 0.1
"""Seconds between a drag and its result, in which further drags are waited for."""


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
