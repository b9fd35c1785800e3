"""What a run knows about itself beside its items, and what the tellers need of a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ragasync.outcomes.columns import Columns


@dataclass(frozen=True, slots=True)
class RunFacts:
    """
    What a run knows about itself beside its items' outcomes.

    Where one call serves many items, each of them records the whole call; only the engine knows
    how long its lanes were really busy, and says so in `worked` and `limiter_waited`.

    Args:
        max_concurrency: the largest number of calls that were allowed at once; 0: not known.
        input_waited: seconds that lanes spent waiting for the source, added up.
        limited: whether a rate limiter was in force.
        worked: seconds that lanes spent in calls, added up; None: to be told from the items.
        limiter_waited: seconds that lanes waited for the rate limit; None: told from the items.
        runs: how many runs were merged into this one.
    """

    max_concurrency: int = 0
    input_waited: float = 0.0
    limited: bool = False
    worked: float | None = None
    limiter_waited: float | None = None
    runs: int = 1

    def merged_with(self, later: RunFacts) -> RunFacts:
        """Return the facts of both runs together; what only one of them knows is told anew."""
        return RunFacts(
            max_concurrency=max(self.max_concurrency, later.max_concurrency),
            input_waited=self.input_waited + later.input_waited,
            limited=self.limited or later.limited,
            worked=_sum(self.worked, later.worked),
            limiter_waited=_sum(self.limiter_waited, later.limiter_waited),
            runs=self.runs + later.runs,
        )


NO_FACTS = RunFacts()
"""What is known of a run that nobody watched."""


def _sum(earlier: float | None, later: float | None) -> float | None:
    """Add two times, where both are known."""
    return None if earlier is None or later is None else earlier + later


class Finished(Protocol):
    """What tables, words and HTML need of a result: its columns, and how the run went."""

    @property
    def columns(self) -> Columns[Any, Any]:
        """The outcomes."""

    @property
    def seconds(self) -> float:
        """The makespan."""

    @property
    def stopped_because(self) -> str | None:
        """Why the job ended early, or None."""

    @property
    def facts(self) -> RunFacts:
        """What the run knows about itself."""
