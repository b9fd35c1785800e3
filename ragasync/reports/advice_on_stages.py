"""Which stage of a pipeline held a run back, and which knob would help."""

from __future__ import annotations

from ragasync.outcomes.stats import StageStats
from ragasync.reports.advice import COMPUTING
from ragasync.reports.amounts import rounded
from ragasync.reports.case import RunDiagnosis
from ragasync.reports.stages import busiest, share_busy


def stage_table(stages: tuple[StageStats, ...], seconds: float) -> list[str]:
    """Return what the calls of each stage did, a line each."""
    lines = [f"  {'':<16}{'at once':>8}{'in calls':>10}{'rate limit':>12}{'idle':>7}"]
    for stage in stages:
        workers = stage.max_concurrency * seconds
        work, limiter = min(1.0, stage.worked / workers), min(1.0, stage.limiter_waited / workers)
        lines.append(
            f"  {stage.name:<16}{stage.max_concurrency:>8,}{work:>10.0%}{limiter:>12.0%}"
            f"{max(0.0, 1 - work - limiter):>7.0%}"
        )
    return lines


def advice_on_stages(case: RunDiagnosis, stages: tuple[StageStats, ...]) -> str:
    """Return which stage held the run back, and what would help."""
    held = busiest(stages, case.seconds)
    if held is None:
        return (
            f"No stage was busy most of the time: documents waited for each other, or there were "
            f"too few of them. More at once would help: "
            f"max_concurrency={2 * stages[0].max_concurrency}."
        )
    if held.limiter_waited > held.worked:
        return _on_limited(held)
    return (
        f"The stage {held.name} is what holds this job back: its calls were under way "
        f"{share_busy(held, case.seconds):.0%} of the time. {_on_busy(held, case)}"
    )


def _on_limited(held: StageStats) -> str:
    """Return what to do about the rate limit of a stage."""
    told = f"The rate limit of {held.name} is what holds this job back"
    if held.rate is None:
        return f"{told}: a higher one would help, if the service allows it."
    told += (
        f". If the service allows it, a higher rate would help: "
        f"rate_limiter=RateLimiter({rounded(2 * held.rate)})"
    )
    if held.batch_size:
        told += f". So would more chunks in a call: batch_size={2 * held.batch_size}"
    return f"{told}."


def _on_busy(held: StageStats, case: RunDiagnosis) -> str:
    """Return what to do about a stage whose calls take the time."""
    twice = 2 * held.max_concurrency
    if held.name == "embed":
        return (
            f"More of them at once would help: embed_concurrency={twice}, or "
            f"batch_size={2 * held.batch_size}, if larger batches take little longer."
        )
    if held.name == "store" and held.max_concurrency == 1:
        return "It stores one document at a time: only a faster store would help."
    if held.name == "store":
        return f"More of them at once would help: embed_concurrency={twice}, which is its too."
    if case.computed >= COMPUTING:
        return "They compute: executor=ProcessPoolExecutor() has them use all cores."
    return f"More of them at once would help: max_concurrency={twice}."
