"""The what-if table of a forecast: what a change of one setting would do, a row for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from ragasync.progress_callbacks import LimitedBy
from ragasync.simulation.pilot import Pilot
from ragasync.simulation.projection import ForecastInputs, most_common_limit, project
from ragasync.simulation.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

RUNS = 3
"""The runs for each change: few are enough, as each meets the same calls as its counterpart."""

LIMITS: tuple[LimitedBy, ...] = ("rate", "concurrency", "retries", "input")


@dataclass(frozen=True, slots=True)
class WhatIf:
    """
    The effect of one change.

    Args:
        change: the change in words; "as it is" for none.
        setting: the argument that it changes, or an empty string.
        value: the new value; None if it is not a number.
        makespan: the duration of the run with the change, in seconds.
        ratio: that as a share of the makespan without the change.
        limited_by: what limits the run with the change.
    """

    change: str
    setting: str
    value: float | None
    makespan: float
    ratio: float
    limited_by: LimitedBy


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of one setting."""

    words: str
    setting: str
    value: float | None
    scenario: Scenario
    rate_factor: float = 1.0


def what_if_rows(inputs: ForecastInputs) -> tuple[WhatIf, ...]:
    """Compute a row for the forecast itself and one for each change."""
    makespan = inputs.makespan
    rows = [WhatIf("as it is", "", None, makespan, 1.0, inputs.limited_by)]
    for change in _changes(inputs.pilot, inputs.scenario):
        runs = project(
            inputs.pilot,
            change.scenario,
            inputs.n_items,
            rate_factor=change.rate_factor,
            seeds=range(RUNS),
        )
        pairs = zip(runs, inputs.runs, strict=False)
        ratio = median(run.makespan / before.makespan for run, before in pairs)
        limited_by = most_common_limit(runs)
        rows.append(
            WhatIf(change.words, change.setting, change.value, makespan * ratio, ratio, limited_by)
        )
    return tuple(rows)


def _changes(pilot: Pilot, scenario: Scenario) -> Iterator[_Change]:
    """Yield the changes worth a row."""
    workers, size = scenario.max_concurrency, scenario.batch_size
    twice = replace(scenario, max_concurrency=2 * workers)
    yield _Change("twice the concurrency", "max_concurrency", 2 * workers, twice)
    if workers > 1:
        half = replace(scenario, max_concurrency=workers // 2)
        yield _Change("half the concurrency", "max_concurrency", workers // 2, half)
    if scenario.limiters:
        rate = None if scenario.rate is None else 2 * scenario.rate
        yield _Change("twice the rate", "rate_limiter", rate, scenario, rate_factor=2.0)
    if scenario.error_rate:
        fewer = replace(scenario, error_rate=scenario.error_rate / 2)
        yield _Change("half the errors", "error_rate", scenario.error_rate / 2, fewer)
    elif scenario.error_rate is None and (rate := pilot.error_rate):
        fewer = replace(scenario, error_factor=0.5)
        yield _Change("half the errors", "error_rate", rate / 2, fewer)
    if size:
        bigger = replace(scenario, batch_size=2 * size)
        yield _Change("twice the batch size", "batch_size", 2 * size, bigger)


def what_if_dataframe(rows: Sequence[WhatIf]) -> pd.DataFrame:
    """The rows as a DataFrame."""
    import pandas as pd

    return pd.DataFrame(
        {
            "change": pd.array([row.change for row in rows], dtype="string"),
            "setting": pd.array([row.setting or None for row in rows], dtype="string"),
            "value": pd.array([row.value for row in rows], dtype="Float64"),
            "makespan": pd.array([row.makespan for row in rows], dtype="float64"),
            "ratio": pd.array([row.ratio for row in rows], dtype="float64"),
            "limited_by": pd.Categorical([row.limited_by for row in rows], categories=LIMITS),
        }
    )
