"""What a run can tell of itself beside its outcomes, for whoever asks why it took its time."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from ragasync.foreign_errors import attribute
from ragasync.limits.limiter import Limiter, RateLimiter
from ragasync.outcomes.activity import ActivityMonitor
from ragasync.outcomes.stats import Limit, RunSettings, RunStats, SourceKind, StageStats, Where
from ragasync.settings import BatchSettings

if TYPE_CHECKING:
    from ragasync.engine.controls import RunControls


def run_stats(run: RunControls, source: SourceKind, computed: float | None) -> RunStats:
    """
    Return the stats of a run, so far or at its end.

    Args:
        run: the run.
        source: what its items come from, as `kind_of` says.
        computed: processor seconds since it began, or None.
    """
    plan = run.plan
    shared = plan.items_per_call > 1  # items of one call would count its time many times
    rates = [_rate_of(limiter) for limiter in plan.limiters]
    own_rate = run.rate
    own = () if own_rate is None else (Limit(own_rate),)
    bounds = run.concurrency_history.steps()
    return RunStats(
        max_concurrency=max((bound for _, bound in bounds), default=run.max_concurrency),
        concurrency_history=bounds,
        adapted=run.adaptive,
        input_waited=run.totals.input_seconds,
        limited=bool(plan.limiters),
        worked=run.totals.call_seconds if shared else None,
        limiter_waited=run.totals.limiter_seconds if shared else None,
        cpu_seconds=computed,
        settings=RunSettings(
            where=_where(plan),
            source=source,
            batch_size=plan.batch_size if plan.batched else 0,
            bounded_by_weight=plan.max_batch_weight is not None,
            timeout=plan.timeout,
            retry_delay=plan.retry.base_delay,
            rate=min((rate for rate in (*rates, own_rate) if rate is not None), default=None),
            limits=(*map(limit_of, plan.limiters), *own),
        ),
        stages=run.stages(),
        counters=run.counters(),
        pauses=run.all_pauses,
        input_blocked=run.totals.input_blocked_seconds,
        halt=run.halt,
    )


def stage_stats(name: str, run: RunControls, activity: ActivityMonitor, ended: int) -> StageStats:
    """
    Return how busy a stage is whose run this is.

    Args:
        name: the stage.
        run: its run.
        activity: has noted when its calls were under way.
        ended: how many items have left it.
    """
    plan = run.plan
    rates = [_rate_of(limiter) for limiter in plan.limiters]
    known = None not in rates  # beside one that weighs tokens, nobody knows which of them holds
    return StageStats(
        name,
        plan.max_concurrency,
        activity.seconds_so_far,
        run.totals.limiter_seconds,
        plan.batch_size if plan.batched else 0,
        min((rate for rate in rates if rate is not None), default=None) if known else None,
        activity.calls,
        ended=ended,
        in_flight=run.in_flight,
        waiting=run.waiting_at_limiter,
        busy=(activity.snapshot(),),
    )


def limit_of(limiter: Limiter) -> Limit:
    """Return what a limiter allows, as far as it says."""
    rate, burst, window = (
        value if isinstance(value := attribute(limiter, name), int | float) else None
        for name in ("rate", "_explicit_burst", "window")
    )
    return Limit(rate, burst, window, limiter.weight is not None, limiter.weight)


def kind_of(source: object) -> SourceKind:
    """Return what sort of source this is."""
    if isinstance(source, AsyncIterable):
        return "async"
    return "list" if isinstance(source, list | tuple | range) else "iterator"


def _rate_of(limiter: Limiter) -> float | None:
    """Return how many calls a second a limiter allows, if it counts calls."""
    return limiter.rate if isinstance(limiter, RateLimiter) and limiter.weight is None else None


def _where(plan: BatchSettings[Any, Any]) -> Where:
    """Return where the calls are made."""
    if plan.executor is not None:
        return "executor"
    return "loop" if plan.is_async else "threads"
