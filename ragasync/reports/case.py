"""What is known of a run when somebody asks how it could be faster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ragasync.outcomes.stats import Finished, RunSettings
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


def case_of(result: Finished, account: TimeBreakdown, shape: CallStatistics) -> RunDiagnosis:
    """Put together what is known of a run."""
    facts = result.facts
    computed = 0.0 if facts.computed is None else facts.computed / result.seconds
    return RunDiagnosis(
        facts.max_concurrency,
        result.seconds,
        facts.limited,
        facts.adapted,
        computed,
        account,
        shape,
        facts.knobs,
    )
