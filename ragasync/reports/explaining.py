"""Why a run took its time, in plain words and a small table, and which knob would help."""

from __future__ import annotations

from textwrap import wrap

from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.reports.adapted import found_bound
from ragasync.reports.advice import advice
from ragasync.reports.advice_on_stages import advice_on_stages, stage_table
from ragasync.reports.case import case_of
from ragasync.reports.error_groups import one_line
from ragasync.reports.shape import shape_of
from ragasync.reports.summary import Text, duration, headline
from ragasync.reports.time_breakdown import TimeBreakdown, account_of

LEAST_ITEMS, LEAST_SECONDS = 10, 0.1
"""What a run must have done before one can say where its time goes."""

BLOCKED_SECONDS = 0.05
"""Seconds for which a source may block the loop, and it is not worth a sentence."""

WIDTH = 96
"""The letters of a line."""


def explain(result: RunResult) -> str:
    """Return in plain words where the time of a run went, and which knob would help."""
    more = _of_the_service(result) + _of_the_executor(result) + _of_the_source(result)
    finished = result.columns.status.count(DONE) + result.columns.status.count(FAILED)
    workers = result.stats.max_concurrency
    if not workers:
        return Text(
            f"{headline(result)}\nHow it ran is not known: this result was not made by a job."
        )
    if finished < LEAST_ITEMS or result.seconds < LEAST_SECONDS:
        return Text(
            f"{headline(result)}\nToo little to say where the time goes: "
            f"{LEAST_ITEMS} items and {LEAST_SECONDS:g} s are the least."
            + "".join(f"\n{line}" for line in _wrapped(more))
        )
    account = account_of(result)
    case = case_of(result, account, shape_of(result, account))
    if stages := result.stats.stages:
        table = [
            f"What the calls of each stage did for {duration(result.seconds)}:",
            *stage_table(stages, result.seconds),
        ]
        told = advice_on_stages(case, stages)
    else:
        table = [
            f"What the workers ({_workers(result)}) did, {duration(result.seconds)} each:",
            *_table(account),
        ]
        told = advice(case)
    sentences = _wrapped(told + found_bound(result) + more)
    return Text("\n".join([headline(result), *table, *_of_merged_runs(result), *sentences]))


def _table(account: TimeBreakdown) -> list[str]:
    """Return the parts of the worker time, aligned; back-off, which holds no worker, is below."""
    parts = {
        "in calls": account.work,
        "waiting for the rate limit": account.limiter,
        "waiting for input": account.source,
        "idle until retries were due": account.retrying,
        "idle, nothing left to begin": account.tail,
        "idle otherwise": account.idle,
    }
    lines = [
        f"  {name:<28}{duration(part):>12}{part / account.worker_seconds:>7.0%}"
        for name, part in parts.items()
    ]
    backed_off = f"  {'items in back-off':<28}{duration(account.backed_off):>12}"
    return [*lines, f"{backed_off}      – (holds no worker)"]


def _wrapped(text: str) -> list[str]:
    """Return a text as lines."""
    return wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _of_the_service(result: RunResult) -> str:
    """Return how long the service asked to be left alone, if it did."""
    pauses = result.stats.pauses
    if not pauses.count:
        return ""
    times = "once" if pauses.count == 1 else f"{pauses.count:,} times"
    last = "" if pauses.count == 1 else "the last time "
    return (
        f" The service asked {times} to be left alone (Retry-After), {duration(pauses.seconds)} in "
        f"all: {last}{one_line(pauses.reply)}."
    )


def _of_the_executor(result: RunResult) -> str:
    """Return for how long the workers of an executor started nothing, if they did."""
    halt = result.stats.halt
    if not halt.why:
        return ""
    return f" Nothing came back from the executor for {duration(halt.seconds)}: {halt.why}."


def _of_the_source(result: RunResult) -> str:
    """Return how long reading the source held up everything else, if it did."""
    blocked = result.stats.input_blocked
    if blocked < BLOCKED_SECONDS:
        return ""
    return (
        f" Reading the input blocked the event loop for {duration(blocked)}, in which no call went "
        f"on: a source that is slow is read on a thread from then on. A list, or an async "
        f"generator, would not block it at all."
    )


def _workers(result: RunResult) -> str:
    """Return how many workers there were, as it was asked for."""
    workers = result.stats.max_concurrency
    return (
        f'max_concurrency="auto", {workers} at most'
        if result.stats.adapted
        else (f"max_concurrency={workers}")
    )


def _of_merged_runs(result: RunResult) -> list[str]:
    """Return what is to be said where several runs were merged."""
    if result.stats.runs == 1:
        return []
    runs = f"{result.stats.runs} runs are merged here; "
    return [f"{runs}the time of outcomes that a later run replaced may stand under idle."]
