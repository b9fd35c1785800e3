"""What is known of a run when somebody asks how it could be faster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ragasync.outcomes.facts import Finished, Knobs
from ragasync.reports.accounting import Account
from ragasync.reports.shape import Shape

FAR_OUT = 3.0
"""How many times longer than half of all calls one takes that is called slow."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a run when advice is asked for."""

    lanes: int
    seconds: float
    limited: bool
    adapted: bool
    computed: float
    account: Account
    shape: Shape
    knobs: Knobs

    @property
    def pace(self) -> float:
        """The calls a second."""
        return self.shape.calls / self.seconds

    @property
    def enough(self) -> int:
        """How many lanes would have done for the work there was, with one to spare."""
        return min(self.lanes, math.ceil(self.account.work / self.seconds) + 1)


def case_of(result: Finished, account: Account, shape: Shape) -> Case:
    """Put together what is known of a run."""
    facts = result.facts
    computed = 0.0 if facts.computed is None else facts.computed / result.seconds
    return Case(
        facts.max_concurrency,
        result.seconds,
        facts.limited,
        facts.adapted,
        computed,
        account,
        shape,
        facts.knobs,
    )
