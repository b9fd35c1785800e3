"""From a few thousand calls on a virtual clock to the whole of a run, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median, stdev
from typing import TypeAlias

from ragasync.progress import LimitedBy
from ragasync.reports.time_breakdown import time_breakdown
from ragasync.simulation.circumstances import Scenario
from ragasync.simulation.pilot import Pilot
from ragasync.simulation.resampling import SimulatedRun, course_of, round_of

LEVEL = 0.9
"""How often the truth is to lie in an interval."""

BATCHED = 20
"""How many items of a batch take as long to simulate as a call."""

Interval: TypeAlias = "tuple[float, float]"


@dataclass(frozen=True, slots=True)
class Effort:
    """
    How much is run for an answer.

    Args:
        runs: how many runs, where they are short.
        calls: the calls of each; what is beyond goes on at the pace of its middle.
        waves: but at least so many for each call at once.
    """

    runs: int
    calls: int
    waves: int = 8

    def items(self, n_items: int, under: Scenario, dealt: int) -> int:
        """
        Return the items of a run, such that its last wave is as full as that of the whole.

        Args:
            n_items: the items of the whole.
            under: its knobs.
            dealt: how many calls are dealt out in a round: two rounds tell the pace of one.
        """
        wave = under.max_concurrency * under.items_per_call
        calls = max(self.calls, 2 * dealt, self.waves * under.max_concurrency)
        least = calls * under.items_per_call
        if n_items <= least + wave:
            return n_items
        return least - least % wave + n_items % wave

    def runs_of(self, items: int, under: Scenario) -> int:
        """Return how many runs: the fewer, the longer each of them is."""
        spent = items / under.items_per_call * (1 + under.items_per_call / BATCHED)
        return max(min(self.runs, 5), min(self.runs, int(self.runs * 2 * self.calls / spent)))


@dataclass(frozen=True, slots=True)
class Projected:
    """One run, as it would be with all items."""

    makespan: float
    requests: float
    failed: float
    limited_by: LimitedBy


def projected(
    pilot: Pilot,
    under: Scenario,
    n_items: int,
    effort: Effort,
    *,
    rate: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> list[Projected]:
    """
    Return what might become of a run, once for each of several pilots that might have been.

    Args:
        pilot: what to draw from.
        under: the knobs.
        n_items: the items of the run.
        effort: how much to run.
        rate: what the rates of all limiters are multiplied by.
        seeds: which runs, if not as many as the effort allows.
    """
    dealt = round_of(pilot, under, n_items)
    simulated = effort.items(n_items, under, dealt)
    chosen = range(effort.runs_of(simulated, under)) if seeds is None else seeds
    courses = (course_of(pilot, under, simulated, n_items, seed=seed, rate=rate) for seed in chosen)
    return [_whole(course, pilot, under, n_items, dealt, rate) for course in courses]


def interval_of(values: Sequence[float]) -> Interval:
    """
    Return the interval in which LEVEL of such values lie, around their median.

    Of logarithms, because what takes time is skewed. With few values it is wider, by the first
    term of Student's t (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5).
    """
    middle = median(values)
    if len(values) < 2 or min(values) == max(values) or min(values) <= 0:
        return middle, middle
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    t = z + (z**3 + z) / (4 * (len(values) - 1))
    spread = math.exp(t * stdev(map(math.log, values)))
    return middle / spread, middle * spread


def share_interval(share: float, seen: int) -> Interval:
    """
    Return the interval of a share that was seen among so many.

    Edwin Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal
    of the American Statistical Association 22, 1927: none seen is not none at all.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = (share + z * z / (2 * seen)) / (1 + z * z / seen)
    half = z * math.sqrt(share * (1 - share) / seen + (z / (2 * seen)) ** 2) / (1 + z * z / seen)
    low = 0.0 if not share else max(0.0, centre - half)
    return low, 1.0 if share == 1 else min(1.0, centre + half)


def commonest_limit(runs: Sequence[Projected]) -> LimitedBy:
    """Return what held most of these runs back."""
    limits = [run.limited_by for run in runs]
    return max(limits, key=limits.count)


def mean_requests(runs: Sequence[Projected]) -> float:
    """Return how many calls are made on average."""
    return fmean(run.requests for run in runs)


def _whole(
    course: SimulatedRun, pilot: Pilot, under: Scenario, n_items: int, dealt: int, rate: float
) -> Projected:
    """Return a run as it would be with all items."""
    simulated = course.result.total
    scale, beyond = n_items / simulated, n_items - simulated
    makespan = course.result.seconds
    if beyond:
        makespan += beyond * _seconds_an_item(course, under, dealt)
    limited_by = _limit_of(course, under, rate)
    if pilot.source_pace is not None and (least := n_items / pilot.source_pace) > makespan:
        makespan, limited_by = least, "input"
    failed = course.result.error_count * scale
    return Projected(makespan, course.calls * scale, failed, limited_by)


def _seconds_an_item(course: SimulatedRun, under: Scenario, dealt: int) -> float:
    """
    Return the pace in the middle of a run, where neither its start nor its end count.

    Between two ends of as many whole rounds, and of whole waves, as half of the run has, so that
    chance does not deal some calls twice, and steps are compared with steps.
    """
    ends, wave = course.ends, under.max_concurrency * under.items_per_call
    turn = dealt * under.items_per_call
    rounds = max(1, len(ends) // (2 * turn)) * turn
    span = min(max(1, round(rounds / wave)), max(1, len(ends) // wave - 1)) * wave
    first = max(1, (len(ends) - span) // (2 * wave)) * wave
    if first + span > len(ends):
        return course.result.seconds / course.result.total
    spent = ends[first + span - 1] - ends[first - 1]
    return spent / span * (len(ends) / course.result.total)


def _limit_of(course: SimulatedRun, under: Scenario, rate: float) -> LimitedBy:
    """Return what was used most of what there is: the rate, or the workers; else who kept them."""
    seconds, account = course.result.seconds, time_breakdown(course.result)
    if not seconds:
        return "concurrency"
    used = 0.0 if under.rate is None else course.calls / (under.rate * rate * seconds)
    waited = account.limiter / account.worker_seconds if account.worker_seconds else 0.0
    if waited and max(used, waited) > course.busy:
        return "rate"
    if account.retrying > account.work:
        return "retries"
    return "concurrency"
