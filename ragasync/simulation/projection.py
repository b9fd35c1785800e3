"""
From simulated runs of a few hundred calls to the whole run, with an interval.

The what-if table compares the projection with that of runs in which one setting is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, median, stdev
from typing import TYPE_CHECKING, TypeAlias

from ragasync._reports.time_breakdown import time_breakdown
from ragasync.progress_callbacks import LimitedBy
from ragasync.simulation.pilot import Pilot, Scenario
from ragasync.simulation.resampling import SimulatedRun, sample_size, simulate_run

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.9
"""The probability with which the truth lies in an interval."""

ITEMS_PER_CALL_COST = 20
"""The number of items of a batch that take as long to simulate as a call."""

RUNS = 12
"""The number of simulated runs of a forecast, if they are short."""

CALLS = 300
"""The calls of each run; what lies beyond is projected from the throughput of its middle."""

MIN_WAVES = 8
"""The calls of each run as a multiple of its concurrency, at least."""

WHAT_IF_RUNS = 3
"""The runs for each change: few are enough, as each meets the same calls as its counterpart."""

LIMITS: tuple[LimitedBy, ...] = ("rate", "concurrency", "retries", "input")

Interval: TypeAlias = "tuple[float, float]"


@dataclass(frozen=True, slots=True)
class ProjectedRun:
    """A simulated run, projected to all items."""

    makespan: float
    requests: float
    failed: float
    limited_by: LimitedBy


@dataclass(frozen=True, slots=True)
class ForecastInputs:
    """
    What a forecast was computed from, so that other scenarios can be compared with it.

    Args:
        overhead: the lowest and the highest factor on simulated times.
        runs: the projected runs.
    """

    pilot: Pilot
    scenario: Scenario
    n_items: int
    overhead: Interval
    runs: Sequence[ProjectedRun]

    @property
    def makespan(self) -> float:
        """The expected duration of the run, in seconds: the median."""
        low, high = self.overhead
        return median(run.makespan for run in self.runs) * math.sqrt(low * high)

    @property
    def interval(self) -> Interval:
        """The interval of the makespan, in seconds."""
        low, high = interval_of([run.makespan for run in self.runs])
        return low * self.overhead[0], high * self.overhead[1]

    @property
    def limited_by(self) -> LimitedBy:
        """What limits most of the runs."""
        return most_common_limit(self.runs)


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


def project(
    pilot: Pilot,
    scenario: Scenario,
    n_items: int,
    *,
    rate_factor: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> list[ProjectedRun]:
    """
    Simulate and project a run, once for each of several pilots that might have been.

    `rate_factor` is the factor on the rates of all limiters; by default, there are as many `seeds`
    as are affordable.
    """
    sample = sample_size(pilot, scenario, n_items)
    simulated = _items_to_simulate(n_items, scenario, sample)
    chosen = range(_affordable_runs(simulated, scenario)) if seeds is None else seeds
    runs = (
        simulate_run(pilot, scenario, simulated, n_items, seed=seed, rate_factor=rate_factor)
        for seed in chosen
    )
    return [_project(run, pilot, scenario, n_items, sample, rate_factor) for run in runs]


def interval_of(values: Sequence[float]) -> Interval:
    """
    The interval around the median that contains a share LEVEL of such values.

    It is computed from logarithms, because durations are skewed. With few values it is wider, by
    the first term of Student's t (Abramowitz and Stegun, Handbook of Mathematical Functions,
    26.7.5).
    """
    middle = median(values)
    if len(values) < 2 or min(values) == max(values) or min(values) <= 0:
        return middle, middle
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    t = z + (z**3 + z) / (4 * (len(values) - 1))
    spread = math.exp(t * stdev(map(math.log, values)))
    return middle / spread, middle * spread


def share_interval(share: float, count: int) -> Interval:
    """
    The interval of a share observed among `count` items.

    Edwin Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal
    of the American Statistical Association 22, 1927: a share of 0 does not mean that it is 0.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / scale
    low = 0.0 if not share else max(0.0, centre - half)
    return low, 1.0 if share == 1 else min(1.0, centre + half)


def total_interval(values: Sequence[float], count: int) -> tuple[float, Interval]:
    """
    The expected total of `count` values like these, and its interval.

    The deviation is that of the mean of these values, times `count`, and that of the new values.
    """
    total = fmean(values) * count if values else 0.0
    if len(values) < 2:
        return total, (total, total)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    t = z + (z**3 + z) / (4 * (len(values) - 1))
    half = t * stdev(values) * math.sqrt(count**2 / len(values) + count)
    return total, (max(0.0, total - half), total + half)


def most_common_limit(runs: Sequence[ProjectedRun]) -> LimitedBy:
    """What limits most of these runs."""
    limits = [run.limited_by for run in runs]
    return max(limits, key=limits.count)


def mean_requests(runs: Sequence[ProjectedRun]) -> float:
    """The mean number of calls."""
    return fmean(run.requests for run in runs)


def what_if_rows(inputs: ForecastInputs) -> tuple[WhatIf, ...]:
    """Compute a row for the forecast itself and one for each change."""
    makespan, pilot = inputs.makespan, inputs.pilot
    seeds = range(WHAT_IF_RUNS)
    rows = [WhatIf("as it is", "", None, makespan, 1.0, inputs.limited_by)]
    for words, setting, value, scenario, rate_factor in _changes(pilot, inputs.scenario):
        runs = project(pilot, scenario, inputs.n_items, rate_factor=rate_factor, seeds=seeds)
        pairs = zip(runs, inputs.runs, strict=False)
        ratio = median(run.makespan / before.makespan for run, before in pairs)
        limited_by = most_common_limit(runs)
        rows.append(WhatIf(words, setting, value, makespan * ratio, ratio, limited_by))
    return tuple(rows)


def _changes(
    pilot: Pilot, scenario: Scenario
) -> Iterator[tuple[str, str, float | None, Scenario, float]]:
    """Yield the changes worth a row: words, setting, value, scenario and factor on the rates."""
    workers, size = scenario.max_concurrency, scenario.batch_size
    for words, value in (("twice", 2 * workers), ("half", workers // 2)):
        if value:
            changed = replace(scenario, max_concurrency=value)
            yield f"{words} the concurrency", "max_concurrency", value, changed, 1.0
    if scenario.limiters:
        rate = None if scenario.rate is None else 2 * scenario.rate
        yield "twice the rate", "rate_limiter", rate, scenario, 2.0
    share = pilot.error_rate if scenario.error_rate is None else scenario.error_rate
    if share:
        fewer = (
            replace(scenario, error_factor=0.5)
            if scenario.error_rate is None
            else replace(scenario, error_rate=share / 2)
        )
        yield "half the errors", "error_rate", share / 2, fewer, 1.0
    if size:
        bigger = replace(scenario, batch_size=2 * size)
        yield "twice the batch size", "batch_size", 2 * size, bigger, 1.0


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


def _items_to_simulate(n_items: int, scenario: Scenario, sample: int) -> int:
    """
    The number of items to simulate, such that the last wave is as full as that of the whole run.

    Two rounds of the sample are the least from which the throughput of one can be read.
    """
    wave = scenario.max_concurrency * scenario.items_per_call
    calls = max(CALLS, 2 * sample, MIN_WAVES * scenario.max_concurrency)
    least = calls * scenario.items_per_call
    if n_items <= least + wave:
        return n_items
    return least - least % wave + n_items % wave


def _affordable_runs(items: int, scenario: Scenario) -> int:
    """The number of runs to simulate: fewer if each of them is long."""
    size = scenario.items_per_call
    cost = items / size * (1 + size / ITEMS_PER_CALL_COST)
    return max(min(RUNS, 5), min(RUNS, int(RUNS * 2 * CALLS / cost)))


def _project(
    run: SimulatedRun,
    pilot: Pilot,
    scenario: Scenario,
    n_items: int,
    sample: int,
    rate_factor: float,
) -> ProjectedRun:
    """Project a simulated run to all items."""
    simulated = run.result.total
    scale, beyond = n_items / simulated, n_items - simulated
    makespan = run.result.seconds
    if beyond:
        makespan += beyond * _seconds_per_item(run, scenario, sample)
    limited_by = _limit_of(run, scenario, rate_factor)
    if pilot.source_rate is not None and (least := n_items / pilot.source_rate) > makespan:
        makespan, limited_by = least, "input"
    failed = run.result.error_count * scale
    return ProjectedRun(makespan, run.calls * scale, failed, limited_by)


def _seconds_per_item(run: SimulatedRun, scenario: Scenario, sample: int) -> float:
    """
    The seconds per item in the middle of a run, without its start and its end.

    It is measured over half the run, in whole rounds of the sample, so that no call of the pilot
    counts twice as much as another, and in whole waves, so that steps are compared with steps.
    """
    ends, wave = run.ends, scenario.max_concurrency * scenario.items_per_call
    one_round = sample * scenario.items_per_call
    rounds = max(1, len(ends) // (2 * one_round)) * one_round
    span = min(max(1, round(rounds / wave)), max(1, len(ends) // wave - 1)) * wave
    first = max(1, (len(ends) - span) // (2 * wave)) * wave
    if first + span > len(ends):
        return run.result.seconds / run.result.total
    seconds = ends[first + span - 1] - ends[first - 1]
    return seconds / span * (len(ends) / run.result.total)


def _limit_of(run: SimulatedRun, scenario: Scenario, rate_factor: float) -> LimitedBy:
    """What limits a run: the rate or the workers, whichever is used more; or its retries."""
    seconds, times = run.result.seconds, time_breakdown(run.result)
    if not seconds:
        return "concurrency"
    allowed = None if scenario.rate is None else scenario.rate * rate_factor * seconds
    used = 0.0 if allowed is None else run.calls / allowed
    workers = times.worker_seconds
    # As shares of the workers' time.
    waited, worked = (times.limiter / workers, times.work / workers) if workers else (0.0, 0.0)
    if waited and max(used, waited) > worked:
        return "rate"
    if times.retrying > times.work:
        return "retries"
    return "concurrency"
