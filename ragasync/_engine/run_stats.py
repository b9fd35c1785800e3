"""The statistics of a run, and of a run that is one stage of a pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from ragasync._engine.controls import RunControls
from ragasync._limits.limiter import Limiter, RateLimiter
from ragasync._outcomes.activity import ActivityMonitor
from ragasync._outcomes.stats import Limit, RunSettings, RunStats, SourceKind, StageStats, Where
from ragasync.foreign_errors import attribute
from ragasync.settings import BatchSettings


def run_stats(run: RunControls, source: SourceKind, cpu_seconds: float | None) -> RunStats:
    """
    Collect the statistics of a run, so far or at its end.

    Args:
        run: the controls of the run.
        source: what its items come from; see `source_kind`.
        cpu_seconds: the CPU time since it began, or None.
    """
    settings = run.settings
    shared = settings.items_per_call > 1  # else each item of a call would count its time
    rates = [_rate_of(limiter) for limiter in settings.limiters]
    own_rate = run.rate
    own = () if own_rate is None else (Limit(own_rate),)
    history = run.concurrency_history.steps()
    return RunStats(
        max_concurrency=max((limit for _, limit in history), default=run.max_concurrency),
        concurrency_history=history,
        adapted=run.adaptive,
        input_waited=run.totals.input_seconds,
        limited=bool(settings.limiters),
        worked=run.totals.call_seconds if shared else None,
        limiter_waited=run.totals.limiter_seconds if shared else None,
        cpu_seconds=cpu_seconds,
        settings=RunSettings(
            where=_where(settings),
            source=source,
            batch_size=settings.batch_size if settings.batched else 0,
            bounded_by_weight=settings.max_batch_weight is not None,
            timeout=settings.timeout,
            retry_delay=settings.retry.base_delay,
            rate=min((rate for rate in (*rates, own_rate) if rate is not None), default=None),
            limits=(*map(limit_of, settings.limiters), *own),
        ),
        stages=run.stages(),
        counters=run.counters(),
        pauses=run.all_pauses,
        input_blocked=run.totals.input_blocked_seconds,
        halt=run.halt,
    )


def stage_stats(name: str, run: RunControls, activity: ActivityMonitor, ended: int) -> StageStats:
    """
    Collect the statistics of a stage that has a run of its own.

    Args:
        name: the stage.
        run: the controls of its run.
        activity: when its calls were in flight.
        ended: how many items have left it.
    """
    settings = run.settings
    rates = [_rate_of(limiter) for limiter in settings.limiters]
    known = None not in rates  # next to a limiter of tokens, the strictest is unknown
    return StageStats(
        name,
        settings.max_concurrency,
        activity.seconds_so_far,
        run.totals.limiter_seconds,
        settings.batch_size if settings.batched else 0,
        min((rate for rate in rates if rate is not None), default=None) if known else None,
        activity.calls,
        ended=ended,
        in_flight=run.in_flight,
        waiting=run.waiting_at_limiter,
        busy=(activity.snapshot(),),
    )


def limit_of(limiter: Limiter) -> Limit:
    """The setting of a limiter, as far as it tells."""
    rate, burst, window = (
        value if isinstance(value := attribute(limiter, name), int | float) else None
        for name in ("rate", "_explicit_burst", "window")
    )
    return Limit(rate, burst, window, limiter.weight is not None, limiter.weight)


def source_kind(source: object) -> SourceKind:
    """The kind of a source."""
    if isinstance(source, AsyncIterable):
        return "async"
    return "list" if isinstance(source, list | tuple | range) else "iterator"


def _rate_of(limiter: Limiter) -> float | None:
    """The calls per second that a limiter allows, if it counts calls."""
    return limiter.rate if isinstance(limiter, RateLimiter) and limiter.weight is None else None


def _where(settings: BatchSettings[Any, Any]) -> Where:
    """Where the calls of these settings are made."""
    if settings.executor is not None:
        return "executor"
    return "loop" if settings.is_async else "threads"
