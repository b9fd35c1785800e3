"""What happened in each stretch of a run: how many items ended, and what their calls did."""

from __future__ import annotations

from dataclasses import dataclass

from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.reports.spans import STATES, names_of, noun_of, occupancy, spans_of
from ragasync.reports.timed import length_of, timed


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    Counts of items and of calls in equal stretches of a run, `seconds` long together.

    `done` and `failed` say how many items ended in each stretch. `calls` says how many calls
    there were at once on average, by what they did: WORK, LIMITER (both hold a worker) or BACKOFF;
    `names` what these are called, and `noun` what a call is. The stretches go through all `runs`
    that were merged, end to end.
    """

    seconds: float
    done: list[int]
    failed: list[int]
    calls: dict[int, list[float]]
    names: dict[int, str]
    noun: str
    runs: int

    @property
    def peak(self) -> int:
        """The most items in one stretch."""
        return max(map(int.__add__, self.done, self.failed), default=0)

    @property
    def peak_rate(self) -> float:
        """The most items a second, over one stretch."""
        return self.peak * len(self.done) / self.seconds

    @property
    def most_at_once(self) -> float:
        """The most calls at once, whatever they did, on average over one stretch."""
        return max(map(sum, zip(*self.calls.values(), strict=True)), default=0.0)


def timeline_of(result: RunResult, stretches: int = 60) -> Timeline | None:
    """
    Count when items ended and what calls did, or return None where no time is known.

    Args:
        result: a BatchResult.
        stretches: how many equal parts the run is cut into.
    """
    import numpy as np

    items = timed(result)
    length = length_of(result, items)
    if not length:
        return None
    edges = np.linspace(0.0, length, stretches + 1)

    def counts(code: int) -> list[int]:
        """Count the items of one status."""
        found: list[int] = np.histogram(items.end[items.status == code], edges)[0].tolist()
        return found

    spans = spans_of(result.columns, items)
    calls = {
        state: occupancy(spans.start[chosen], spans.end[chosen], edges).tolist()
        for state in STATES
        for chosen in [spans.state == state]
    }
    return Timeline(
        seconds=length,
        done=counts(DONE),
        failed=counts(FAILED),
        calls=calls,
        names=names_of(result.stats),
        noun=noun_of(result.stats),
        runs=result.stats.runs,
    )
