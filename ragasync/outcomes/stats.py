"""What a run knows about itself beside its items, and what the tellers need of a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

from ragasync.outcomes.activity import Utilization
from ragasync.outcomes.bounds import Bounds, shifted, worker_seconds
from ragasync.outcomes.columns import Columns
from ragasync.outcomes.pauses import ExecutorHalt, ServicePauses

Where: TypeAlias = Literal["", "loop", "threads", "executor"]
"""Where the calls of a run are made; empty where nobody knows."""

SourceKind: TypeAlias = Literal["", "list", "iterator", "async"]
"""What the items of a run come from; empty where nobody knows."""


@dataclass(frozen=True, slots=True)
class Limit:
    """
    What a rate limiter allowed, for a run like this one.

    Args:
        rate: a second, in calls or in weight; None where the limiter does not say.
        burst: the burst that was set; None for the usual one.
        window: the seconds in which it never admits more than `rate * window`; None without that.
        weighs: whether it counts the weight of items, not calls.
        weight: what an item weighs. It is left behind when the result is pickled.
    """

    rate: float | None
    burst: float | None = None
    window: float | None = None
    weighs: bool = False
    weight: Callable[..., float] | None = field(default=None, compare=False)

    @property
    def is_known(self) -> bool:
        """Whether a limiter like it can be made."""
        return self.rate is not None and (self.weight is not None or not self.weighs)

    def __reduce__(self) -> tuple[object, ...]:
        return Limit, (self.rate, self.burst, self.window, self.weighs)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """
    What a run was told, as far as that says why it took its time.

    Args:
        where: where its calls are made.
        source: what its items come from.
        batch_size: the most items in one call; 0 where each goes alone.
        bounded_by_cost: whether batches are bounded by weight too.
        timeout: seconds for an attempt, or None.
        retry_delay: the base of the back-off, in seconds.
        rate: the calls a second of its strictest limiter, or None.
        limits: of all of its limiters, its own included.
    """

    where: Where = ""
    source: SourceKind = ""
    batch_size: int = 0
    bounded_by_weight: bool = False
    timeout: float | None = None
    retry_delay: float = 0.0
    rate: float | None = None
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class StageStats:
    """
    How busy one stage of a pipeline was.

    Args:
        name: the stage.
        max_concurrency: the most calls of it at once.
        worked: seconds in its calls, added up.
        limiter_waited: seconds that its calls waited for the rate limit, added up.
        batch_size: the most items in one call; 0 where each goes alone.
        rate: the calls a second of its strictest limiter, or None.
        calls: the calls that have ended, each attempt.
        tokens: what its calls reported to have used; see `note_usage`.
        cost: what they reported to have cost; likewise.
        ended: the items that have left it, well or not: chunks of `embed`, documents of others.
        in_flight: the calls that are being made now.
        waiting: those that wait for the rate limit now.
        busy: when its calls were under way, a record a run.
    """

    name: str
    max_concurrency: int
    worked: float
    limiter_waited: float = 0.0
    batch_size: int = 0
    rate: float | None = None
    calls: int = 0
    tokens: int = 0
    cost: float = 0.0
    ended: int = 0
    in_flight: int = 0
    waiting: int = 0
    busy: tuple[Utilization, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class RunStats:
    """
    What a run knows about itself beside its items' outcomes.

    Where one call serves many items, each of them records the whole call; only the engine knows
    how long its workers were really busy, and says so in `worked` and `limiter_waited`.

    Args:
        max_concurrency: the largest number of calls that were allowed at once; 0: not known.
        input_waited: seconds that workers spent waiting for the source, added up.
        limited: whether a rate limiter was in force.
        worked: seconds that workers spent in calls, added up; None: to be told from the items.
        limiter_waited: seconds that workers waited for the rate limit; None: told from the items.
        runs: how many runs were merged into this one.
        cpu_seconds: processor seconds of this process during the run; None on a virtual clock.
        settings: what the run was told.
        stages: where it is a pipeline, how busy each of its stages was.
        counters: what else was counted, with the count: ("pruned", 12).
        concurrency_history: the limits on concurrent calls, where they changed: ((0.0, 4),
            (1.2, 8)), each with the seconds since the run began at which it came into force.
        adapted: whether the run moved it by itself.
        pauses: how often and how long the service asked to be left alone.
        input_blocked: seconds for which reading the source blocked the event loop.
        halt: for how long the workers of an executor started nothing, and why.
    """

    max_concurrency: int = 0
    input_waited: float = 0.0
    limited: bool = False
    worked: float | None = None
    limiter_waited: float | None = None
    runs: int = 1
    cpu_seconds: float | None = None
    settings: RunSettings = RunSettings()
    stages: tuple[StageStats, ...] = ()
    counters: tuple[tuple[str, int], ...] = ()
    concurrency_history: Bounds = ()
    adapted: bool = False
    pauses: ServicePauses = field(default_factory=ServicePauses)
    input_blocked: float = 0.0
    halt: ExecutorHalt = field(default_factory=ExecutorHalt)

    def worker_seconds(self, begin: float, end: float) -> float:
        """Return the seconds that workers were allowed between two instants, over all workers."""
        return worker_seconds(
            self.concurrency_history or ((0.0, self.max_concurrency),), begin, end
        )

    @property
    def tokens(self) -> int:
        """What the calls of all stages reported to have used."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def cost(self) -> float:
        """What the calls of all stages reported to have cost."""
        return sum(stage.cost for stage in self.stages)

    def merged_with(self, later: RunStats, seconds: float = 0.0) -> RunStats:
        """
        Return the facts of both runs together; what only one of them knows is told anew.

        Args:
            later: the facts of the later run.
            seconds: how long this one took.
        """
        return RunStats(
            max_concurrency=max(self.max_concurrency, later.max_concurrency),
            input_waited=self.input_waited + later.input_waited,
            limited=self.limited or later.limited,
            worked=_sum(self.worked, later.worked),
            limiter_waited=_sum(self.limiter_waited, later.limiter_waited),
            runs=self.runs + later.runs,
            cpu_seconds=_sum(self.cpu_seconds, later.cpu_seconds),
            settings=later.settings,
            stages=_merged(self.stages, later.stages, seconds),
            counters=_both(self.counters, later.counters),
            concurrency_history=self._bounds_with(later, seconds),
            adapted=self.adapted or later.adapted,
            pauses=self.pauses.merged_with(later.pauses),
            input_blocked=self.input_blocked + later.input_blocked,
            halt=self.halt.merged_with(later.halt),
        )

    def _bounds_with(self, later: RunStats, seconds: float) -> Bounds:
        """Return the bounds of both runs, where one of them was moved."""
        if not (self.concurrency_history or later.concurrency_history):
            return ()
        earlier = shifted(self.concurrency_history, self.max_concurrency, 0.0)
        return (*earlier, *shifted(later.concurrency_history, later.max_concurrency, seconds))


NO_STATS = RunStats()
"""What is known of a run that nobody watched."""


def _sum(earlier: float | None, later: float | None) -> float | None:
    """Add two times, where both are known."""
    return None if earlier is None or later is None else earlier + later


def _merged(
    earlier: tuple[StageStats, ...], later: tuple[StageStats, ...], seconds: float
) -> tuple[StageStats, ...]:
    """Add up how busy the stages of two runs were; how they were set is told of the later."""
    before = {stage.name: stage for stage in earlier}
    unknown = StageStats("", 0, 0.0)
    return tuple(_sum_of(before.get(stage.name, unknown), stage, seconds) for stage in later)


def _sum_of(earlier: StageStats, later: StageStats, seconds: float) -> StageStats:
    """Return how busy a stage was in two runs, of which the earlier one took so long."""
    return replace(
        later,
        worked=earlier.worked + later.worked,
        limiter_waited=earlier.limiter_waited + later.limiter_waited,
        calls=earlier.calls + later.calls,
        tokens=earlier.tokens + later.tokens,
        cost=earlier.cost + later.cost,
        ended=earlier.ended + later.ended,
        busy=(
            *earlier.busy,
            *(replace(busy, began=busy.began + seconds) for busy in later.busy),
        ),
    )


def _both(
    earlier: tuple[tuple[str, int], ...], later: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    """Add up what was counted in two runs."""
    counts = dict(earlier)
    for what, count in later:
        counts[what] = counts.get(what, 0) + count
    return tuple(counts.items())


class RunResult(Protocol):
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
    def stats(self) -> RunStats:
        """What the run knows about itself."""
