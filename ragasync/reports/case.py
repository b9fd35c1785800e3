"""What is known of a run when somebody asks how it could be faster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ragasync.outcomes.stats import RunResult, RunSettings
from ragasync.reports.shape import CallStatistics
from ragasync.reports.time_breakdown import TimeBreakdown

FAR_OUT = 3.0
"""How many times longer than half of all calls one takes that is called slow."""


@dataclass(frozen=True, slots=True)
class RunDiagnosis:
    """What is known of a run when advice is asked for."""

    workers: int
    seconds: float
    limited: bool
    adapted: bool
    computed: float
    account: TimeBreakdown
    shape: CallStatistics
    knobs: RunSettings

    @property
    def pace(self) -> float:
        """The calls a second."""
        return self.shape.calls / self.seconds

    @property
    def enough(self) -> int:
        """How many workers would have done for the work there was, with one to spare."""
        return min(self.workers, math.ceil(self.account.work / self.seconds) + 1)


def case_of(result: RunResult, account: TimeBreakdown, shape: CallStatistics) -> RunDiagnosis:
    """Put together what is known of a run."""
    stats = result.stats
    computed = 0.0 if stats.cpu_seconds is None else stats.cpu_seconds / result.seconds
    return RunDiagnosis(
        stats.max_concurrency,
        result.seconds,
        stats.limited,
        stats.adapted,
        computed,
        account,
        shape,
        stats.settings,
    )
