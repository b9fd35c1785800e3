"""What would make a run faster: the argument to change, and where it can be told a value to try."""

from __future__ import annotations

import math

from ragasync.reports.advice_on_calls import on_limiter, on_retries, on_work
from ragasync.reports.amounts import above
from ragasync.reports.case import FAR_OUT, RunDiagnosis
from ragasync.reports.summary import duration, per_second

COMPUTING = 0.6
"""The share of a run that a processor was busy, above which its calls compute."""

AT_ONCE = 0.001
"""Seconds below which a call is over before another could begin beside it."""

AN_ITEM = 50e-6
"""Seconds an item below which it is this process, and no service, that takes the time."""


def advice(case: RunDiagnosis) -> str:
    """Return what held a run back most, and which knob would help."""
    account = case.account
    parts = {
        on_limiter: account.limiter,
        _on_source: account.source,
        on_work: account.work,
        on_retries: account.retrying,
        _on_tail: account.tail,
        _on_idle: account.idle,
    }
    rule = max(parts, key=parts.__getitem__)
    if rule in (on_work, _on_tail, _on_idle) and (text := _on_blocked_loop(case)):
        return text
    return rule(case)


def _on_blocked_loop(case: RunDiagnosis) -> str:
    """Return what to do where the calls compute, or keep the event loop to themselves."""
    knobs, shape, busy = case.knobs, case.shape, case.computed
    if knobs.where == "threads" and busy >= COMPUTING:
        return (
            f"The calls compute rather than wait: this process kept {busy:.1f} cores busy, and "
            f"threads share one for Python code. Processes have one each: "
            f"executor=ProcessPoolExecutor() would help; a larger max_concurrency would not."
        )
    if knobs.where != "loop":
        return ""
    each = case.seconds / shape.items
    if each < AN_ITEM or (shape.mean < AT_ONCE and (busy >= COMPUTING or not shape.overlapped)):
        return (
            f"The calls take next to no time: the run took {1e6 * each:,.0f} µs an item and waited "
            f"for nothing. No knob would help."
        )
    if busy >= COMPUTING:
        return (
            "The function computes on the event loop, so that one call runs at a time. Make it a "
            "plain def and pass executor=ProcessPoolExecutor(), which uses all cores; a larger "
            "max_concurrency would not help."
        )
    if case.workers > 1 and not shape.overlapped:
        return (
            f"No two calls ran at the same time, although {case.workers:,} were allowed: "
            f"the function seems to block the event loop, as time.sleep, long computing, or a "
            f"client without await does. Make it a plain def, which runs on threads, or await an "
            f"async client in it."
        )
    return ""


def _on_source(case: RunDiagnosis) -> str:
    """Return what to do about a slow source."""
    shape = case.shape
    told = (
        f"The input is what holds this job back: its source gave "
        f"{per_second(shape.items / case.seconds)} items a second"
    )
    if shape.mean:
        could = case.workers / shape.mean * shape.items / shape.calls
        told += f", where {case.workers:,} calls at once could take {per_second(could)}"
    told += ". Let the source fetch several items ahead, or at once"
    if case.enough < case.workers:
        told += f"; max_concurrency={case.enough} does as well"
    return f"{told}."


def _on_tail(case: RunDiagnosis) -> str:
    """Return why workers had nothing left to do."""
    shape, knobs = case.shape, case.knobs
    if shape.calls <= case.workers and knobs.batch_size and shape.items > shape.calls:
        smaller = max(1, math.ceil(shape.items / (2 * case.workers)))
        return (
            f"There were only {shape.calls:.0f} calls for {case.workers:,} workers: smaller "
            f"batches would give all of them something to do. Try batch_size={smaller}."
        )
    if shape.calls <= case.workers:
        return (
            f"All calls were under way at once, so that only quicker calls would help; "
            f"max_concurrency={max(1, round(shape.calls))} does as well."
        )
    if shape.slowest < FAR_OUT * shape.typical:
        return (
            f"The workers ran dry at the end: there is too little to do for {case.workers:,} calls "
            f"at once; max_concurrency={case.enough} does nearly as well."
        )
    told = (
        f"A few slow items at the end are what hold this job back, while the other workers had "
        f"nothing left to do: item {shape.slowest_index:,} took {duration(shape.slowest)}, half "
        f"of all calls {duration(shape.typical)} at most. Slow items first would help"
    )
    shorter = above(FAR_OUT * shape.late)
    if knobs.where != "threads" and shorter < shape.slowest / 2:
        return f"{told}, and timeout={shorter:g} would cut such calls short and try them again."
    return f"{told}."


def _on_idle(case: RunDiagnosis) -> str:
    """Return why workers may have stood idle with work at hand."""
    told = "The workers were idle most of the time: "
    if case.knobs.source == "iterator":
        return (
            f"{told}a source that waits for each item (a file, a database) keeps the event loop "
            f"from everything else meanwhile. Make it an async generator, or a list."
        )
    return (
        f"{told}the job was paused, or the event loop was busy with something else. Where that is "
        f"not so, max_concurrency={case.enough} does as well."
    )
