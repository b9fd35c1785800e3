"""Statistics of a run: its limits over time, its pauses, its stages, and its settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeAlias

from ragasync._outcomes.activity import Utilization
from ragasync._outcomes.columns import Columns
from ragasync.usage import NO_USAGE, Usage

Where: TypeAlias = Literal["", "loop", "threads", "executor"]
"""Where the calls of a run are made; empty if unknown."""

SourceKind: TypeAlias = Literal["", "list", "iterator", "async"]
"""What the items of a run come from; empty if unknown."""

ConcurrencyHistory: TypeAlias = tuple[tuple[float, int], ...]
"""Concurrency limits in order, each with the second of the run at which it came into force."""

MAX_STEPS = 512
"""The most steps that a LimitHistory keeps."""

_HALF_A_DAY = 43_200.0


# ── settings ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Limit:
    """
    The setting of a rate limiter, from which a like one can be made.

    Args:
        rate: per second, in calls or in weight; None if the limiter does not tell.
        burst: the burst that was set; None for the default.
        window: the seconds in which it never admits more than `rate * window`; None without that.
        weighs: whether it counts the weight of items instead of calls.
        weight: the function that weighs an item. It is dropped when the result is pickled.
        unit: what it counts, apart from such a weight: "requests" or "tokens".
    """

    rate: float | None
    burst: float | None = None
    window: float | None = None
    weighs: bool = False
    weight: Callable[..., float] | None = field(default=None, compare=False)
    unit: str = "requests"

    @property
    def is_known(self) -> bool:
        """Whether a like limiter can be made."""
        return self.rate is not None and (self.weight is not None or not self.weighs)

    def __reduce__(self) -> tuple[object, ...]:
        return Limit, (self.rate, self.burst, self.window, self.weighs, None, self.unit)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """
    The settings of a run that explain where its time went.

    Args:
        where: where its calls are made.
        source: what its items come from.
        batch_size: the maximum number of items in one call; 0 if calls take single items.
        bounded_by_weight: whether batches are also bounded by weight.
        timeout: seconds per attempt, or None.
        retry_delay: the base of the back-off, in seconds.
        rate: calls per second of its strictest limiter, or None.
        limits: all of its limiters, including the job's own.
    """

    where: Where = ""
    source: SourceKind = ""
    batch_size: int = 0
    bounded_by_weight: bool = False
    timeout: float | None = None
    retry_delay: float = 0.0
    rate: float | None = None
    limits: tuple[Limit, ...] = ()


# ── the concurrency limit over time ───────────────────────────────────────────────────────────


class LimitHistory:
    """The concurrency limits of a run over time, in at most MAX_STEPS steps."""

    def __init__(self, first: int) -> None:
        self._steps: list[tuple[float, int]] = [(0.0, first)]

    def note(self, seconds: float, limit: int) -> None:
        """Add a limit that comes into force at this second of the run."""
        if self._steps[-1][0] >= seconds:
            self._steps.pop()
        self._steps.append((seconds, limit))
        if len(self._steps) > MAX_STEPS:
            del self._steps[1 : MAX_STEPS // 2 : 2]  # thin out the older half, but keep its ends

    def steps(self) -> ConcurrencyHistory:
        """The limits in order, or nothing if the limit never changed."""
        return tuple(self._steps) if len(self._steps) > 1 else ()


# ── pauses ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ServicePauses:
    """
    The pauses that replies with a Retry-After asked for.

    Attributes:
        count: the number of such replies.
        seconds: how long nothing was to be sent; overlapping pauses count once.
        until: the instant, on the run's clock, at which the latest pause ends.
        reply: what the reply that asked for that pause said, and the wall-clock time of its end.
    """

    count: int = 0
    seconds: float = 0.0
    until: float = float("-inf")
    reply: str = ""

    def with_reply(self, now: float, seconds: float, reply: str) -> ServicePauses:
        """Add a reply that asks for a pause of some seconds from now."""
        until = max(self.until, now + seconds)
        longer = until - max(self.until, now) if until > self.until else 0.0
        return ServicePauses(
            self.count + 1, self.seconds + longer, until, reply if longer else self.reply
        )

    def merged_with(self, later: ServicePauses) -> ServicePauses:
        """Add up the pauses of two runs, or of two stages."""
        last = later if later.count else self
        return ServicePauses(
            self.count + later.count, self.seconds + later.seconds, last.until, last.reply
        )


@dataclass(frozen=True, slots=True)
class ExecutorHalt:
    """
    A time in which the workers of an executor started no call.

    Attributes:
        seconds: how long, in total.
        why: what was wrong with them the last time, and what to do about it.
        ongoing: whether they are halted now.
    """

    seconds: float = 0.0
    why: str = ""
    ongoing: bool = False

    def merged_with(self, later: ExecutorHalt) -> ExecutorHalt:
        """Add up the halts of two runs."""
        last = later if later.why and (later.ongoing or not self.ongoing) else self
        return ExecutorHalt(self.seconds + later.seconds, last.why, self.ongoing or later.ongoing)


def wall_time_in(seconds: float) -> str:
    """The local time of day in some seconds, with the date if it may be another day."""
    try:
        then = datetime.now() + timedelta(seconds=seconds)
    except OverflowError:
        return "a day beyond the calendar"
    return then.strftime("%H:%M:%S" if seconds < _HALF_A_DAY else "%Y-%m-%d %H:%M")


# ── a stage, and a run ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StageStats:
    """
    The statistics of one stage of a pipeline.

    Args:
        name: the stage.
        max_concurrency: the maximum number of concurrent calls.
        worked: seconds in its calls, added up.
        limiter_waited: seconds that its calls waited for the rate limit, added up.
        batch_size: the maximum number of items in one call; 0 if calls take single items.
        rate: calls per second of its strictest limiter, or None.
        calls: finished calls, counting each attempt.
        tokens: the tokens that its calls reported; see `note_usage`.
        cost: the cost that its calls reported; see `note_usage`.
        ended: items that have left the stage, successfully or not: chunks for `embed`, documents
            for the others.
        in_flight: calls being made now.
        waiting: calls waiting for the rate limit now.
        busy: how many calls were in flight over time, one record per merged run.
        setting: the setting that allows more concurrent calls; empty if none would help.
        adaptive: whether the stage adapts `max_concurrency` to its service.
        own_rate: the rate limit that was set in the job, in calls per second, or None.
        slots: how many concurrent calls are of use; 0 for all of them. Those that compute on
            threads are fewer, because they share one interpreter lock.
        extra_slot_seconds: the call time that was allowed beyond these slots throughout, or below
            it if negative, because their number changed during the run.
        on_executor: whether its calls run on an executor.
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
    setting: str = ""
    adaptive: bool = False
    own_rate: float | None = None
    slots: int = 0
    extra_slot_seconds: float = 0.0
    on_executor: bool = False

    def slot_seconds(self, seconds: float) -> float:
        """The call time that was allowed in the first seconds of the run, added up over slots."""
        return (self.slots or self.max_concurrency) * seconds + self.extra_slot_seconds

    def since(self, earlier: StageStats, then: float) -> StageStats:
        """The calls and times since an instant of the run, at which `earlier` was taken."""
        return replace(
            self,
            worked=self.worked - earlier.worked,
            limiter_waited=self.limiter_waited - earlier.limiter_waited,
            calls=self.calls - earlier.calls,
            extra_slot_seconds=self.slot_seconds(then) - earlier.slot_seconds(then),
        )


@dataclass(frozen=True, slots=True)
class RunStats:
    """
    The statistics of a run that its items' outcomes do not have.

    Where one call serves many items, each outcome has the time of the whole call. Only the engine
    knows how long its workers were busy: `worked` and `limiter_waited`.

    Args:
        max_concurrency: the largest concurrency limit of the run; 0 if unknown.
        input_waited: seconds that workers waited for the source, added up.
        limited: whether the run had a rate limiter.
        worked: seconds that workers spent in calls, added up; None: compute it from the items.
        limiter_waited: seconds that workers waited for the rate limit; None: as above.
        runs: the number of runs that were merged into this one.
        cpu_seconds: processor time of this process during the run; None on a virtual clock.
        settings: the settings of the run.
        stages: the statistics of each stage, if it was a pipeline.
        counters: further counts, by name: ("pruned", 12).
        concurrency_history: the concurrency limits, if they changed: ((0.0, 4), (1.2, 8)), each
            with the second of the run at which it came into force.
        adapted: whether the run adapted its limit (`max_concurrency="auto"`).
        pauses: the pauses that the service asked for.
        input_blocked: seconds for which reading the source blocked the event loop.
        halt: the time for which an executor's workers started nothing.
        usage: what its calls reported, together with earlier runs of the same journal.
        earlier_usage: what the journal had from earlier runs.
        journal: the id of the journal; empty without one.
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
    concurrency_history: ConcurrencyHistory = ()
    adapted: bool = False
    pauses: ServicePauses = field(default_factory=ServicePauses)
    input_blocked: float = 0.0
    halt: ExecutorHalt = field(default_factory=ExecutorHalt)
    usage: Usage = NO_USAGE
    earlier_usage: Usage = NO_USAGE
    journal: str = ""

    @property
    def _limits(self) -> ConcurrencyHistory:
        """The concurrency limits in order, also of a run whose limit never changed."""
        return self.concurrency_history or ((0.0, self.max_concurrency),)

    def worker_seconds(self, begin: float, end: float) -> float:
        """The worker time (workers times seconds) that was allowed between two instants."""
        limits = self._limits
        return sum(
            limit * max(0.0, min(later, end) - max(since, begin))
            for (since, limit), (later, _) in pairwise([*limits, (max(end, limits[-1][0]), 0)])
        )

    def merged_with(self, later: RunStats, seconds: float = 0.0) -> RunStats:
        """
        Add up the statistics of two runs; a time that one of them does not know becomes unknown.

        `seconds` is the makespan of this run.
        """
        counts = Counter(dict(self.counters))
        counts.update(dict(later.counters))
        return RunStats(
            max_concurrency=max(self.max_concurrency, later.max_concurrency),
            input_waited=self.input_waited + later.input_waited,
            limited=self.limited or later.limited,
            worked=_sum(self.worked, later.worked),
            limiter_waited=_sum(self.limiter_waited, later.limiter_waited),
            runs=self.runs + later.runs,
            cpu_seconds=_sum(self.cpu_seconds, later.cpu_seconds),
            settings=later.settings,
            stages=_merged_stages(self.stages, later.stages, seconds),
            counters=tuple(counts.items()),
            concurrency_history=self._history_with(later, seconds),
            adapted=self.adapted or later.adapted,
            pauses=self.pauses.merged_with(later.pauses),
            input_blocked=self.input_blocked + later.input_blocked,
            halt=self.halt.merged_with(later.halt),
            usage=self._usage_with(later),
            earlier_usage=self.earlier_usage,
            journal=later.journal or self.journal,
        )

    def _usage_with(self, later: RunStats) -> Usage:
        """Add up the usage of two runs; what a journal has of this one is in the later one's."""
        if self.journal and self.journal == later.journal:
            return max(self.usage, later.usage)
        return self.usage.plus(later.usage)

    def _history_with(self, later: RunStats, seconds: float) -> ConcurrencyHistory:
        """Join the limits of two runs, if those of either changed."""
        if not (self.concurrency_history or later.concurrency_history):
            return ()
        return (*self._limits, *((since + seconds, limit) for since, limit in later._limits))


NO_STATS = RunStats()
"""The statistics of a result that no run made."""


def _sum(earlier: float | None, later: float | None) -> float | None:
    """Add two times, if both are known."""
    return None if earlier is None or later is None else earlier + later


def _merged_stages(
    earlier: tuple[StageStats, ...], later: tuple[StageStats, ...], seconds: float
) -> tuple[StageStats, ...]:
    """Add up the stages of two runs; their settings are the later run's."""
    before = {stage.name: stage for stage in earlier}
    unknown = StageStats("", 0, 0.0)
    return tuple(_merged_stage(before.get(stage.name, unknown), stage, seconds) for stage in later)


def _merged_stage(earlier: StageStats, later: StageStats, seconds: float) -> StageStats:
    """Add up a stage of two runs, of which the earlier had this makespan."""
    return replace(
        later,
        worked=earlier.worked + later.worked,
        limiter_waited=earlier.limiter_waited + later.limiter_waited,
        calls=earlier.calls + later.calls,
        tokens=earlier.tokens + later.tokens,
        cost=earlier.cost + later.cost,
        ended=earlier.ended + later.ended,
        busy=(*earlier.busy, *(replace(busy, began=busy.began + seconds) for busy in later.busy)),
        extra_slot_seconds=earlier.slot_seconds(seconds)
        + 2 * later.extra_slot_seconds
        - later.slot_seconds(seconds),
    )


class RunResult(Protocol):
    """The part of a BatchResult that tables, plots and reports read."""

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
        """The statistics of the run."""
