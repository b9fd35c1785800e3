"""forecast: how long a run will take, what limits it, and the effect of changing one setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ragasync._limits.limiter import Limiter
from ragasync._reports.summary import counted, duration
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count
from ragasync.progress_callbacks import LimitedBy
from ragasync.result import BatchResult
from ragasync.simulation.forecast_view import ForecastExplorer, forecast_html, forecast_text
from ragasync.simulation.pilot import Pilot, pilot_of
from ragasync.simulation.projection import (
    LEVEL,
    ForecastInputs,
    Interval,
    WhatIf,
    interval_of,
    mean_requests,
    project,
    share_interval,
    what_if_dataframe,
    what_if_rows,
)
from ragasync.simulation.resampling import estimate_overhead
from ragasync.simulation.scenario import USE_PILOT, Scenario, UsePilot, scenario_of

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
        return forecast_html(self._title(), self._facts(), self.what_if, self.notes)

    def _static_bundle(self) -> dict[str, object]:
        """The forecast as a MIME bundle of text and HTML."""
        text = forecast_text(self._title(), self._facts(), self.what_if, self.notes)
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
        return ", ".join(parts)

    def _facts(self) -> list[tuple[str, str]]:
        """The names and values below the title."""
        return [
            ("requests", _with_interval(self.requests, self.requests_interval)),
            ("items that fail", _with_interval(self.failed, self.failed_interval)),
            ("level of the intervals", f"{self.level:.0%}"),
        ]


def _with_interval(value: float, interval: Interval) -> str:
    """A number with its interval, unless both ends read the same."""
    low, high = (f"{end:,.0f}" for end in interval)
    return f"{value:,.0f}" if low == high else f"{value:,.0f} ({low} to {high})"


def forecast(
    result: BatchResult[Any],
    n_items: int,
    *,
    max_concurrency: int | None = None,
    rate_limiter: Limiter | Sequence[Limiter] | UsePilot | None = USE_PILOT,
    batch_size: int | None = None,
    retry: AsyncRetry | None = None,
    error_rate: float | None = None,
    timeout: float | None = None,
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
    return tuple(notes)
