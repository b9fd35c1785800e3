"""Forecast: how long the whole will take, what limits it, and what one knob would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from ragasync.arguments import check_count
from ragasync.limits.limiter import Limiter
from ragasync.progress import LimitedBy
from ragasync.result import BatchResult
from ragasync.retries.policy import AsyncRetry
from ragasync.simulation.circumstances import (
    USE_PILOT,
    AsInThePilot,
    Scenario,
    circumstances_of,
)
from ragasync.simulation.pilot import Pilot, pilot_of
from ragasync.simulation.projection import (
    LEVEL,
    Effort,
    Interval,
    Projected,
    commonest_limit,
    interval_of,
    mean_requests,
    projected,
    share_interval,
)
from ragasync.simulation.replay import estimate_overhead
from ragasync.simulation.what_ifs import WhatIf, what_if_frame, what_ifs

if TYPE_CHECKING:
    import pandas as pd

    from ragasync.simulation.explorer import Explorer

THOROUGH = Effort(runs=12, calls=300)
"""Some 4,000 calls for the forecast, and for what one knob would change a thousand each."""


@dataclass(frozen=True, slots=True)
class ForecastInputs:
    """
    What a forecast was made of, for those who turn its knobs.

    Args:
        pilot: what is drawn from.
        under: the knobs.
        drag: what to multiply by, at least and at most.
        runs: the runs that might have been.
    """

    pilot: Pilot
    under: Scenario
    drag: Interval
    runs: Sequence[Projected]


@dataclass(frozen=True)
class Forecast:
    """
    How a run of many items will go, by what a pilot run met.

    Times are in seconds. An interval is the span in which the truth lies `level` of the time,
    if the service goes on as it did in the pilot.

    Example:
        >>> from ragasync.simulation import forecast, simulate
        >>> pilot = simulate(200, max_concurrency=4, latency=0.5)
        >>> ahead = forecast(pilot, 10_000, max_concurrency=10)
        >>> round(ahead.makespan), ahead.limited_by
        (500, 'concurrency')

    Attributes:
        n_items: the items of the run.
        makespan: how long it will take, the median.
        interval: the span of that.
        level: how often the truth lies in an interval.
        limited_by: what will hold it back: "rate", "concurrency", "retries" or "input".
        requests: how many calls it will make, retries among them, on average.
        requests_interval: the span of that.
        failed: how many items will fail, on average.
        failed_interval: the span of that; above 0 also where none failed in the pilot.
        notes: what is to be said of the pilot, and of what the forecast takes for granted.
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
    _made_of: ForecastInputs = field(repr=False, compare=False)

    @cached_property
    def what_if(self) -> tuple[WhatIf, ...]:
        """What a change of one knob would do, a row each; the first is none."""
        made_of = self._made_of
        return what_ifs(
            made_of.pilot, made_of.under, self.n_items, THOROUGH, made_of.runs, self.makespan
        )

    def to_dataframe(self) -> pd.DataFrame:
        """
        Return the table of what one knob would change.

        Returns:
            | column | dtype | |
            |---|---|---|
            | change | string | in words; the first row is the forecast itself |
            | knob | string | the argument; missing in the first row |
            | value | Float64 | what it is changed to; missing where it is no number |
            | makespan | float64 | seconds |
            | ratio | float64 | as a share of the forecast itself |
            | limited_by | category | rate, concurrency, retries, input: always all four |
        """
        return what_if_frame(self.what_if)

    def explore(self) -> Explorer:
        """Return a panel whose sliders turn concurrency and rate; as text where there is none."""
        from ragasync.simulation.explorer import Explorer

        return Explorer(self)

    def __repr__(self) -> str:
        from ragasync.simulation.forecast_view import headline

        return f"<Forecast {headline(self)}>"

    def _repr_html_(self) -> str:
        from ragasync.simulation.forecast_view import forecast_html

        return forecast_html(self)


def forecast(
    result: BatchResult[Any],
    n_items: int,
    *,
    max_concurrency: int | None = None,
    rate_limiter: Limiter | Sequence[Limiter] | AsInThePilot | None = USE_PILOT,
    batch_size: int | None = None,
    retry: AsyncRetry | None = None,
    error_rate: float | None = None,
    timeout: float | None = None,
) -> Forecast:
    """
    Say how long a run of many items will take, by a pilot run of some 200.

    The real engine runs on a virtual clock, some thousand calls at a time, over calls drawn from
    the pilot's; the pace of its middle goes on for what is beyond them. Each run draws from
    another pilot that might have been, which gives the interval. It takes some seconds, whatever
    `n_items`, and gives the same for the same arguments. Knobs that are not passed are as in the
    pilot.

    Args:
        result: what `process(items, max_items=200)` returned. Its calls are taken to be like all
            others, so let them not be the easy ones.
        n_items: the items of the whole run.
        max_concurrency: the most calls at once. What calls take is not known to change with it.
        rate_limiter: a RateLimiter or several, copied and never touched; None for no limit. By
            default all that the pilot had, weighing items as they did there.
        batch_size: the most items in a call. A call is taken to last as long as in the pilot.
        retry: when to try again; by default with the delays that the pilot had.
        error_rate: the share of attempts that fail and may be tried again, from 0 to 1.
        timeout: seconds for an attempt.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range; a pilot that says nothing: empty, failed
            altogether, merged, a pipeline's, or without times; or a knob that it does not tell.

    Example:
        >>> from ragasync import forecast, simulate
        >>> pilot = simulate(200, max_concurrency=4, latency=0.5)  # or processor.process(...)
        >>> forecast(pilot, 10_000, max_concurrency=10)
        <Forecast 10,000 items in 8 min 20 s, limited by concurrency, 10,000 requests>
    """
    check_count("n_items", n_items, at_least=1)
    pilot = pilot_of(result)
    under = circumstances_of(
        pilot,
        max_concurrency=max_concurrency,
        rate_limiter=rate_limiter,
        batch_size=batch_size,
        retry=retry,
        error_rate=error_rate,
        timeout=timeout,
    )
    return _foreseen(pilot, under, n_items)


def _foreseen(pilot: Pilot, under: Scenario, n_items: int) -> Forecast:
    """Return the forecast."""
    low, high, told = estimate_overhead(pilot)
    runs = projected(pilot, under, n_items, THOROUGH)
    makespans = [run.makespan for run in runs]
    span = interval_of(makespans)
    makespan = median(makespans) * (low * high) ** 0.5
    failed = fmean(run.failed for run in runs)
    few, many = share_interval(failed / n_items, pilot.ended)
    return Forecast(
        n_items=n_items,
        makespan=makespan,
        interval=(span[0] * low, span[1] * high),
        level=LEVEL,
        limited_by=commonest_limit(runs),
        requests=mean_requests(runs),
        requests_interval=interval_of([run.requests for run in runs]),
        failed=failed,
        failed_interval=(few * n_items, many * n_items),
        notes=tuple(filter(None, (*pilot.notes, told, *_assumed(pilot, under)))),
        _made_of=ForecastInputs(pilot, under, (low, high), runs),
    )


def _assumed(pilot: Pilot, under: Scenario) -> tuple[str, ...]:
    """Return what the forecast takes for granted."""
    stats = pilot.result.stats
    notes = []
    if under.max_concurrency > stats.max_concurrency:
        notes.append(
            f"Calls are taken to last as long with {under.max_concurrency:,} at once as with the "
            f"pilot's {stats.max_concurrency:,}."
        )
    if under.batch_size:
        notes.append("A call is taken to last as long, whatever the size of its batch.")
    return tuple(notes)
