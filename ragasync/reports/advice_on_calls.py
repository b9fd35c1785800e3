"""What would help where calls, their limits or their retries took most of the time."""

from __future__ import annotations

import math

from ragasync.reports.amounts import above, rounded
from ragasync.reports.case import FAR_OUT, RunDiagnosis
from ragasync.reports.error_groups import one_line
from ragasync.reports.summary import duration, per_second

NEAR = 0.85
"""The share of a limiter's rate, above which the limiter is as much in the way as the workers."""

PART_FULL = 0.75
"""How full batches are on average, below which that is worth a word."""

IN_VAIN = 0.4
"""The share of the time in calls that may go into calls that fail."""


def on_limiter(case: RunDiagnosis) -> str:
    """Return what to do about a rate limit."""
    shape, knobs = case.shape, case.knobs
    if not case.limited and knobs.rate is None:
        return (
            f"The service asked to wait (by Retry-After), and that is what held this job "
            f"back. {_slower(case)}"
        )
    possible = case.workers / shape.mean if shape.mean else math.inf
    told = (
        f"The rate limit is what holds this job back: it let {per_second(case.pace)} calls a "
        f"second through"
    )
    if possible < math.inf:
        told += f", where {case.workers:,} calls at once could make {per_second(possible)}"
    if knobs.rate is None:
        told += ". A higher rate would help, if the service allows one"
    else:
        knob = "rate_limiter=RateLimiter({})" if case.limited else "job.rate = {}"
        faster = rounded(min(2 * knobs.rate, possible))
        told += f". If the service allows it, a higher rate would help: {knob.format(faster)}"
    if knobs.batch_size:
        told += f". So would more items in a call: batch_size={2 * knobs.batch_size}"
    if case.enough < case.workers:
        told += f". More concurrency would not; max_concurrency={case.enough} does as well"
    return f"{told}."


def on_work(case: RunDiagnosis) -> str:
    """Return what to do where workers were in calls most of the time."""
    shape, knobs = case.shape, case.knobs
    if shape.wasted > IN_VAIN * case.account.work:
        return _on_waste(case)
    full = shape.items / shape.calls / knobs.batch_size if knobs.batch_size else 1.0
    if full < PART_FULL and shape.calls > case.workers:
        return _on_thin_batches(case)
    if case.adapted:
        return _on_work_that_adapts(case)
    faster = min(2 * case.workers, math.ceil(shape.calls))
    if knobs.rate is not None and case.pace > NEAR * knobs.rate:
        return (
            f"This run was about as fast as it was allowed to be: {per_second(case.pace)} calls a "
            f"second, where the rate limit is {per_second(knobs.rate)}, and its workers were in "
            f"calls most of the time. To go faster, raise both: max_concurrency={faster} and "
            f"rate_limiter=RateLimiter({rounded(2 * knobs.rate)})."
        )
    told = (
        f"The calls themselves take the time, {duration(shape.mean)} each: a larger "
        f"max_concurrency would help, if the service bears it. Try max_concurrency={faster}"
    )
    if knobs.where == "executor":
        told = (
            f"The calls themselves take the time: more workers in the executor would help, where "
            f"there are idle cores, with a max_concurrency to match. Try max_concurrency={faster}"
        )
    if faster == 2 * case.workers:
        told += ", which would take about half as long"
    if knobs.batch_size:
        told += f", or batch_size={2 * knobs.batch_size}, if larger batches take little longer"
    return f"{told}."


def _on_work_that_adapts(case: RunDiagnosis) -> str:
    """Return what to do where calls take the time, and there are as many as the service bears."""
    told = f"The calls themselves take the time, {duration(case.shape.mean)} each"
    rate, size = case.knobs.rate, case.knobs.batch_size
    if rate is not None and case.pace > NEAR * rate:
        told += f", and the rate limit is near: rate_limiter=RateLimiter({rounded(2 * rate)})"
        told += " would help, if the service allows it"
    else:
        told += ", and as many were made at once as the service was seen to bear"
    return f"{told}. So would batch_size={2 * size}." if size else f"{told}."


def _on_waste(case: RunDiagnosis) -> str:
    """Return what to do where calls were made in vain."""
    shape, knobs = case.shape, case.knobs
    told = (
        f"{shape.wasted / case.account.work:.0%} of the time in calls went into calls that "
        f"failed, most of them with {one_line(shape.cause)}."
    )
    shorter = above(FAR_OUT * shape.late)
    if shape.cause.startswith("AttemptTimeout") and knobs.timeout:
        if shorter < knobs.timeout:
            return (
                f"{told} 95 of 100 calls that end take {duration(shape.late)} at most: "
                f"timeout={shorter:g} gives the others up sooner; so does a smaller retry_count."
            )
        return f"{told} A smaller retry_count gives them up sooner."
    if shape.refused:
        return f"{told} {_slower(case)}"
    return f"{told} Look at these errors first: error_summary(result) counts what failed for good."


def _on_thin_batches(case: RunDiagnosis) -> str:
    """Return what to do where batches were not full."""
    knobs, shape = case.knobs, case.shape
    told = (
        f"Batches were not full: a call carried {shape.items / shape.calls:.1f} items on average, "
        f"where batch_size={knobs.batch_size} allows more."
    )
    if knobs.bounded_by_weight:
        return f"{told} They are bounded by weight: a larger max_batch_weight would help."
    if knobs.source == "async":
        return f"{told} The source gives items too slowly to fill them: let it fetch ahead."
    return f"{told} Batches that fail are halved: look at error_summary(result)."


def on_retries(case: RunDiagnosis) -> str:
    """Return what to do about a storm of retries."""
    shape, knobs = case.shape, case.knobs
    told = (
        f"Retries are what hold this job back: {shape.retried:,} items were tried again, mostly "
        f"after {one_line(shape.cause)}, and workers stood idle until they were due."
    )
    if shape.refused:
        return f"{told} {_slower(case)}"
    ways = []
    if case.workers > 1 and not case.adapted:
        ways.append(
            f"If it is the load that the service cannot bear, fewer calls at once would help: "
            f"max_concurrency={case.workers // 2}."
        )
    if knobs.retry_delay:
        otherwise = "If it is not" if ways else "If it does not need the time"
        ways.append(f"{otherwise}, a shorter back-off: retry_delay={knobs.retry_delay / 2:g}.")
    return " ".join([told, *ways])


def _slower(case: RunDiagnosis) -> str:
    """Return how to stay below what a service bears."""
    pace = case.shape.done / case.seconds
    told = "The service refuses calls that come too fast"
    if not pace:
        return f"{told}: a rate limiter below what it bears avoids that."
    return (
        f"{told}: {per_second(pace)} a second succeeded. A limiter saves the refused calls: try "
        f"rate_limiter=RateLimiter({rounded(pace)}), and raise it from there."
    )
