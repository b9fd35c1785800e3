"""The explanation of a run: a table of where the time went, and advice on what would help."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from textwrap import wrap

from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._outcomes.stats import RunResult, StageStats
from ragasync._reports.advice import advise, advise_on_stages
from ragasync._reports.summary import MultilineText, duration, one_line, title
from ragasync._reports.time_breakdown import TimeBreakdown, diagnose

MIN_ITEMS, MIN_SECONDS = 10, 0.1
"""The least that a run must have done to be explained."""

MIN_BLOCKED_SECONDS = 0.05
"""A source that blocked the event loop for a shorter time is not mentioned."""

LINE_CHARS = 96


def explain(result: RunResult) -> str:
    """Explain where the time of a run went, and which setting would help."""
    notes = _service_note(result) + _executor_note(result) + _source_note(result)
    finished = result.columns.status.count(DONE) + result.columns.status.count(FAILED)
    if not result.stats.max_concurrency:
        return MultilineText(
            f"{title(result)}\nNothing is known about the run: this result was not made by a job."
        )
    if finished < MIN_ITEMS or result.seconds < MIN_SECONDS:
        return MultilineText(
            f"{title(result)}\nThe run was too short to explain: "
            f"it takes at least {MIN_ITEMS} items and {MIN_SECONDS:g} s."
            + "".join(f"\n{line}" for line in _wrap(notes))
        )
    diagnosis = diagnose(result)
    if stages := result.stats.stages:
        table = [
            f"Time of each stage's calls during {duration(result.seconds)}:",
            *_stage_table(stages, result.seconds),
        ]
        advice = advise_on_stages(diagnosis, stages)
    else:
        table = [
            f"Time of the workers ({_workers(result)}), {duration(result.seconds)} each:",
            *_worker_table(diagnosis.breakdown),
        ]
        advice = advise(diagnosis)
    text = _wrap(advice + _adaptive_note(result) + notes)
    return MultilineText("\n".join([title(result), *table, *_merge_note(result), *text]))


def _worker_table(breakdown: TimeBreakdown) -> list[str]:
    """The table of worker time; back-off, which holds no worker, is its last line."""
    parts = {
        "in calls": breakdown.work,
        "waiting for the rate limit": breakdown.limiter,
        "waiting for input": breakdown.source,
        "idle until retries were due": breakdown.retrying,
        "idle, no items left to start": breakdown.tail,
        "idle otherwise": breakdown.idle,
    }
    lines = [
        f"  {name:<28}{duration(part):>12}{part / breakdown.worker_seconds:>7.0%}"
        for name, part in parts.items()
    ]
    backed_off = f"  {'items in back-off':<28}{duration(breakdown.backed_off):>12}"
    return [*lines, f"{backed_off}      – (holds no worker)"]


def _stage_table(stages: tuple[StageStats, ...], seconds: float) -> list[str]:
    """The table of a pipeline's stages, a line each."""
    lines = [f"  {'':<16}{'max calls':>10}{'in calls':>10}{'rate limit':>12}{'idle':>7}"]
    for stage in stages:
        slots = stage.max_concurrency * seconds
        work, limiter = min(1.0, stage.worked / slots), min(1.0, stage.limiter_waited / slots)
        lines.append(
            f"  {stage.name:<16}{stage.max_concurrency:>10,}{work:>10.0%}{limiter:>12.0%}"
            f"{max(0.0, 1 - work - limiter):>7.0%}"
        )
    return lines


def _wrap(text: str) -> list[str]:
    """Wrap a text into lines."""
    return wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False)


def _workers(result: RunResult) -> str:
    """The number of workers, as the argument that set it."""
    workers = result.stats.max_concurrency
    if result.stats.adapted:
        return f'max_concurrency="auto", at most {workers}'
    return f"max_concurrency={workers}"


# ── notes on what else happened ─────────────────────────────────────────────────────────────────


def _adaptive_note(result: RunResult) -> str:
    """A sentence on the concurrency that max_concurrency="auto" settled at."""
    stats = result.stats
    if not stats.adapted:
        return ""
    if not stats.concurrency_history:
        return f' max_concurrency="auto" had no reason to change from {stats.max_concurrency}.'
    seconds: defaultdict[int, float] = defaultdict(float)
    for (since, bound), (until, _) in pairwise([*stats.concurrency_history, (result.seconds, 0)]):
        seconds[bound] += max(0.0, until - since)
    longest = max(seconds, key=seconds.__getitem__)
    bounds = [bound for _, bound in stats.concurrency_history]
    return (
        f' max_concurrency="auto" allowed {longest:,} concurrent calls most of the time, and '
        f"varied between {min(bounds):,} and {max(bounds):,}."
    )


def _service_note(result: RunResult) -> str:
    """A sentence on the pauses that the service asked for by Retry-After."""
    pauses = result.stats.pauses
    if not pauses.count:
        return ""
    times = "once" if pauses.count == 1 else f"{pauses.count:,} times"
    last = "" if pauses.count == 1 else "the last time "
    return (
        f" The service asked for a pause {times} (Retry-After), {duration(pauses.seconds)} in "
        f"all: {last}{one_line(pauses.reply)}."
    )


def _executor_note(result: RunResult) -> str:
    """A sentence on the time in which the workers of an executor started nothing."""
    halt = result.stats.halt
    if not halt.why:
        return ""
    return f" Nothing came back from the executor for {duration(halt.seconds)}: {halt.why}."


def _source_note(result: RunResult) -> str:
    """A sentence on a source that blocked the event loop."""
    blocked = result.stats.input_blocked
    if blocked < MIN_BLOCKED_SECONDS:
        return ""
    return (
        f" Reading the input blocked the event loop for {duration(blocked)}, during which no call "
        f"made progress. A slow source is read on a thread once this is noticed; a list or an "
        f"async generator would not block the loop at all."
    )


def _merge_note(result: RunResult) -> list[str]:
    """A line on merged runs, whose times are incomplete."""
    runs = result.stats.runs
    if runs == 1:
        return []
    return [f"{runs} runs are merged; time of outcomes that a later run replaced counts as idle."]
