"""How many items came to their end in each stretch of a run."""

from __future__ import annotations

from dataclasses import dataclass

from ragasync.outcomes.facts import Finished
from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.reports.reading import Reading


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    Counts of the items that were done and that failed in equal stretches of a run.

    `seconds` is the length of all stretches together.
    """

    seconds: float
    done: list[int]
    failed: list[int]

    @property
    def peak(self) -> int:
        """The most items in one stretch."""
        return max(map(int.__add__, self.done, self.failed), default=0)

    @property
    def peak_rate(self) -> float:
        """The most items a second, over one stretch."""
        return self.peak * len(self.done) / self.seconds


def timeline_of(result: Finished, stretches: int = 60) -> Timeline | None:
    """
    Count when items ended, or return None where no time is known.

    An item ends when it began, plus its time in calls and between attempts.

    Args:
        result: a BatchResult.
        stretches: how many equal parts the run is cut into.
    """
    import numpy as np

    columns = result.columns
    taken = Reading(columns, range(len(columns)))
    ends = taken.seconds(columns.started) + taken.seconds(columns.seconds)
    ends += taken.seconds(columns.backed_off)
    begun = ends[~np.isnan(ends)]
    length = max(result.seconds, float(begun.max(initial=0.0)))
    if not length:
        return None
    status = np.frombuffer(bytes(columns.status), dtype="uint8")[: len(columns)]

    def counts(code: int) -> list[int]:
        """Count the items of one status."""
        chosen = ends[(status == code) & ~np.isnan(ends)]
        found: list[int] = np.histogram(chosen, bins=stretches, range=(0.0, length))[0].tolist()
        return found

    return Timeline(length, counts(DONE), counts(FAILED))
