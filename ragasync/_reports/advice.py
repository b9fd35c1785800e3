"""The explanation of a run: where its time went, and the setting that would make it faster."""

from __future__ import annotations

import math
from textwrap import wrap

from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._outcomes.stats import RunResult, StageStats
from ragasync._reports.limit_advice import (
    binding_limit,
    has_plain_limit,
    keep_others,
    limit_name,
    per_minute,
)
from ragasync._reports.summary import (
    MultilineText,
    adaptive_note,
    incident_notes,
    merge_note,
    one_line,
    per_second,
    percentile_table,
    stage_table,
    title,
    worker_count,
    worker_table,
)
from ragasync._reports.time_breakdown import RunDiagnosis, bottleneck, diagnose, utilization
from ragasync.object_views import duration

MIN_ITEMS, MIN_SECONDS = 10, 0.1
"""The least that a run must have done to be explained."""

LINE_CHARS = 96

CPU_BOUND = 0.6
"""CPU cores in use, on average, from which the calls of a run count as computing."""

INSTANT_CALL = 0.001
"""Seconds below which a call ends before another could start."""

OVERHEAD_PER_ITEM = 50e-6
"""Seconds per item below which the time goes into this process, not into a service."""

SLOW_FACTOR = 3.0
"""A call that takes this many times the median is called slow."""

NEAR_LIMIT = 0.85
"""The share of a limiter's rate from which the limiter is as much in the way as the workers."""

PARTLY_FULL = 0.75
"""Mean fill of batches below which this is worth a remark."""

MOSTLY_FAILED = 0.4
"""The share of the time in calls from which failed calls are the main problem."""


def explain(result: RunResult) -> str:
    """Explain where the time of a run went, and which setting would help."""
    notes = incident_notes(result)
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
            *stage_table(stages, result.seconds),
        ]
        advice = advise_on_stages(diagnosis, stages)
    else:
        table = [
            f"Time of the workers ({worker_count(result)}), {duration(result.seconds)} each:",
            *worker_table(diagnosis.breakdown),
        ]
        advice = advise(diagnosis)
    text = _wrap(advice + adaptive_note(result) + notes)
    table += percentile_table(result)
    return MultilineText("\n".join([title(result), *table, *merge_note(result), *text]))


def _wrap(text: str) -> list[str]:
    """Wrap a text into lines."""
    return wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False)


def advise(run: RunDiagnosis) -> str:
    """Name the bottleneck of a run, and the setting that would help."""
    time = run.breakdown
    parts = {
        _on_limiter: time.limiter,
        _on_source: time.source,
        _on_calls: time.work,
        _on_retries: time.retrying,
        _on_tail: time.tail,
        _on_idle: time.idle,
    }
    rule = max(parts, key=parts.__getitem__)
    if rule in (_on_calls, _on_tail, _on_idle) and (text := _on_blocked_loop(run)):
        return text
    return rule(run)


def _on_blocked_loop(run: RunDiagnosis) -> str:
    """Advice on calls that compute or block the event loop; empty if they do neither."""
    settings, calls, cores = run.settings, run.calls, run.cpu_cores
    if settings.where == "threads" and cores >= CPU_BOUND:
        return (
            f"The calls compute rather than wait: this process kept {cores:.1f} cores busy, and "
            f"threads share one core for Python code. Processes have a core each: "
            f"executor=ProcessPoolExecutor() would help; a larger max_concurrency would not."
        )
    if settings.where != "loop":
        return ""
    per_item = run.seconds / calls.items
    instant = calls.mean < INSTANT_CALL and (cores >= CPU_BOUND or not calls.overlapped)
    if per_item < OVERHEAD_PER_ITEM or instant:
        return (
            f"The calls take almost no time: the run took {1e6 * per_item:,.0f} µs per item and "
            f"waited for nothing. No setting would help."
        )
    if cores >= CPU_BOUND:
        return (
            "The function computes on the event loop, so only one call runs at a time. Make it a "
            "plain def and pass executor=ProcessPoolExecutor(), which uses all cores; a larger "
            "max_concurrency would not help."
        )
    if run.workers > 1 and not calls.overlapped:
        return (
            f"No two calls ran concurrently, although {run.workers:,} were allowed: the function "
            f"seems to block the event loop, for example with time.sleep, a long computation, or "
            f"a client without await. Make it a plain def, which runs on threads, or await an "
            f"async client in it."
        )
    return ""


# ── limits, input, calls ────────────────────────────────────────────────────────────────────────


def _on_limiter(run: RunDiagnosis) -> str:
    """Advice on a rate limit."""
    calls, settings = run.calls, run.settings
    if not run.limited and settings.rate is None:
        return (
            f"The service asked for pauses (Retry-After), and these pauses are the bottleneck. "
            f"{_on_rate_limit_errors(run)}"
        )
    possible = run.workers / calls.mean if calls.mean else math.inf
    is_plain = has_plain_limit(settings)
    limit = None if is_plain else binding_limit(run)
    name = "rate limit" if is_plain else limit_name(limit) if limit else "strictest of the limits"
    text = (
        f"The {name} is the bottleneck: it admitted "
        f"{per_second(run.calls_per_second)} calls a second"
    )
    if possible < math.inf:
        text += f", while {run.workers:,} concurrent calls could reach {per_second(possible)}"
    if limit is not None and limit.rate is not None:
        text += f". If the service allows it, {per_minute(2 * limit.rate)} would help"
        text += keep_others(settings)
    elif settings.rate is None or not is_plain:
        text += f". A higher rate would help, if the service allows it{keep_others(settings)}"
    else:
        setting = "rate_limiter=RateLimiter({})" if run.limited else "job.rate = {}"
        faster = round_rate(min(2 * settings.rate, possible))
        text += f". If the service allows it, a higher rate would help: {setting.format(faster)}"
    if settings.batch_size and (limit is None or not (limit.weighs or limit.unit == "tokens")):
        text += f". So would more items per call: batch_size={2 * settings.batch_size}"
    if run.workers_needed < run.workers:
        text += f". More concurrency would not help; max_concurrency={run.workers_needed} is enough"
    return f"{text}."


def _on_source(run: RunDiagnosis) -> str:
    """Advice on a slow source."""
    calls = run.calls
    text = (
        f"The input is the bottleneck: its source yielded "
        f"{per_second(calls.items / run.seconds)} items a second"
    )
    if calls.mean:
        possible = run.workers / calls.mean * calls.items / calls.calls
        text += f", while {run.workers:,} concurrent calls could take {per_second(possible)}"
    text += ". Let the source prefetch items, or fetch several concurrently"
    if run.workers_needed < run.workers:
        text += f"; max_concurrency={run.workers_needed} is enough"
    return f"{text}."


def _on_calls(run: RunDiagnosis) -> str:
    """Advice on a run whose workers were in calls most of the time."""
    calls, settings = run.calls, run.settings
    if calls.failed_seconds > MOSTLY_FAILED * run.breakdown.work:
        return _on_failed_calls(run)
    fill = calls.items / calls.calls / settings.batch_size if settings.batch_size else 1.0
    if fill < PARTLY_FULL and calls.calls > run.workers:
        return _on_partial_batches(run)
    if run.adaptive:
        return _on_adaptive_calls(run)
    more = min(2 * run.workers, math.ceil(calls.calls))
    if settings.rate is not None and run.calls_per_second > NEAR_LIMIT * settings.rate:
        return (
            f"This run was almost as fast as its settings allow: "
            f"{per_second(run.calls_per_second)} calls a second, with a rate limit of "
            f"{per_second(settings.rate)}, and its workers were in calls most of the time. To go "
            f"faster, raise both: max_concurrency={more} and "
            f"{_request_limit(run, 2 * settings.rate)}."
        )
    text = (
        f"The calls themselves take the time, {duration(calls.mean)} each: a larger "
        f"max_concurrency would help, if the service can take it. Try max_concurrency={more}"
    )
    if settings.where == "executor":
        text = (
            f"The calls themselves take the time: more workers in the executor would help, if "
            f"there are idle cores, with a max_concurrency to match. Try max_concurrency={more}"
        )
    if more == 2 * run.workers:
        text += ", which would take about half the time"
    if settings.batch_size:
        text += f", or batch_size={2 * settings.batch_size}, if larger batches take little longer"
    return f"{text}."


def _request_limit(run: RunDiagnosis, rate: float) -> str:
    """Write another limit of requests as a setting, which must not drop the other limits."""
    if has_plain_limit(run.settings):
        return f"rate_limiter=RateLimiter({round_rate(rate)})"
    return f"a limit of requests of {per_minute(rate)}, with all other limits as they are"


def _on_adaptive_calls(run: RunDiagnosis) -> str:
    """Advice on calls that take the time, where max_concurrency="auto" chose their number."""
    text = f"The calls themselves take the time, {duration(run.calls.mean)} each"
    rate, size = run.settings.rate, run.settings.batch_size
    if rate is not None and run.calls_per_second > NEAR_LIMIT * rate:
        text += f", and the rate limit is near: {_request_limit(run, 2 * rate)} would help, if "
        text += "the service allows it"
    else:
        text += ", and as many ran concurrently as the service seems to take"
    return f"{text}. So would batch_size={2 * size}." if size else f"{text}."


def _on_partial_batches(run: RunDiagnosis) -> str:
    """Advice on batches that were not full."""
    settings, calls = run.settings, run.calls
    text = (
        f"Batches were not full: a call had {calls.items / calls.calls:.1f} items on average, "
        f"while batch_size={settings.batch_size} allows more."
    )
    if settings.bounded_by_weight:
        return f"{text} They are bounded by weight: a larger max_batch_weight would help."
    if settings.source == "async":
        return f"{text} The source yields items too slowly to fill them: let it prefetch."
    return f"{text} Batches that fail are split in half: see error_summary(result)."


# ── failures and retries ────────────────────────────────────────────────────────────────────────


def _on_failed_calls(run: RunDiagnosis) -> str:
    """Advice on a run that spent much of its time in calls that failed."""
    calls, settings, error = run.calls, run.settings, run.calls.slowest_error
    text = (
        f"{calls.failed_seconds / run.breakdown.work:.0%} of the time in calls was spent in calls "
        f"that failed, most of it with {one_line(error.text)}."
    )
    if error.text.startswith("AttemptTimeout") and settings.timeout:
        if (shorter := round_up(SLOW_FACTOR * calls.p95)) < settings.timeout:
            return (
                f"{text} 95% of successful calls took at most {duration(calls.p95)}: "
                f"timeout={shorter:g} would end the others sooner; so would a smaller retry_count."
            )
        return f"{text} A smaller retry_count would end them sooner."
    if error.rate_limited:
        return f"{text} {_on_rate_limit_errors(run)}"
    return f"{text} Look at these errors first: error_summary(result) counts the items that failed."


def _on_retries(run: RunDiagnosis) -> str:
    """Advice on workers that waited for retries."""
    calls, settings = run.calls, run.settings
    text = (
        f"Retries are the bottleneck: {calls.retried:,} items were retried, mostly after "
        f"{one_line(calls.error.text)}, and workers were idle until the retries were due."
    )
    if calls.error.rate_limited:
        return f"{text} {_on_rate_limit_errors(run)}"
    options = []
    if run.workers > 1 and not run.adaptive:
        options.append(
            f"If the service is overloaded, fewer concurrent calls would help: "
            f"max_concurrency={run.workers // 2}."
        )
    if settings.retry_delay:
        otherwise = "If it is not" if options else "If it does not need the time"
        shorter = f"retry_delay={settings.retry_delay / 2:g}"
        options.append(f"{otherwise}, a shorter back-off would: {shorter}.")
    return " ".join([text, *options])


def _on_rate_limit_errors(run: RunDiagnosis) -> str:
    """Advice on how to stay below the limit of a service."""
    rate = run.calls.done / run.seconds
    text = "The service rejects calls that come too fast"
    if not rate:
        return f"{text}: a rate limiter below its limit would avoid that."
    return (
        f"{text}: {per_second(rate)} a second succeeded. A rate limiter avoids the rejected calls: "
        f"try {_request_limit(run, rate)}, and raise it from there."
    )


# ── idle workers ────────────────────────────────────────────────────────────────────────────────


def _on_tail(run: RunDiagnosis) -> str:
    """Advice on workers that were idle after the last item had started."""
    calls, settings = run.calls, run.settings
    if calls.calls <= run.workers and settings.batch_size and calls.items > calls.calls:
        smaller = max(1, math.ceil(calls.items / (2 * run.workers)))
        return (
            f"There were only {calls.calls:.0f} calls for {run.workers:,} workers: smaller "
            f"batches would use all of them. Try batch_size={smaller}."
        )
    if calls.calls <= run.workers:
        return (
            f"All calls ran concurrently, so only faster calls would help; "
            f"max_concurrency={max(1, round(calls.calls))} is enough."
        )
    if calls.slowest < SLOW_FACTOR * calls.median:
        return (
            f"The workers ran out of items at the end: there are too few for {run.workers:,} "
            f"concurrent calls; max_concurrency={run.workers_needed} is almost as fast."
        )
    text = (
        f"A few slow items at the end are the bottleneck, while the other workers had "
        f"nothing left to do: item {calls.slowest_index:,} took {duration(calls.slowest)}, the "
        f"median is {duration(calls.median)}. Starting slow items first would help"
    )
    shorter = round_up(SLOW_FACTOR * calls.p95)
    if settings.where != "threads" and shorter < calls.slowest / 2:
        return f"{text}, and timeout={shorter:g} would end such calls early and retry them."
    return f"{text}."


def _on_idle(run: RunDiagnosis) -> str:
    """Advice on workers that were idle for no recorded reason."""
    text = "The workers were idle most of the time: "
    if run.settings.source == "iterator":
        return (
            f"{text}a source that waits for each item (a file, a database) blocks the event loop "
            f"meanwhile. Make it an async generator, or a list."
        )
    return (
        f"{text}the job was paused, or the event loop was busy with something else. If neither is "
        f"true, max_concurrency={run.workers_needed} is enough."
    )


# ── pipelines ───────────────────────────────────────────────────────────────────────────────────


def advise_on_stages(run: RunDiagnosis, stages: tuple[StageStats, ...]) -> str:
    """Name the bottleneck stage of a pipeline, and the setting that would help."""
    stage = bottleneck(stages, run.seconds)
    if stage is None:
        return (
            f"No stage was busy most of the time: documents waited for each other, or there were "
            f"too few of them. More concurrent documents would help: "
            f"max_concurrency={2 * stages[0].max_concurrency}."
        )
    if stage.limiter_waited > stage.worked:
        return _on_limited_stage(stage)
    return (
        f"The stage {stage.name} is the bottleneck: its calls were in progress "
        f"{utilization(stage, run.seconds):.0%} of the time. {_on_busy_stage(stage, run)}"
    )


def _on_limited_stage(stage: StageStats) -> str:
    """Advice on the rate limit of a stage."""
    text = f"The rate limit of {stage.name} is the bottleneck"
    if stage.rate is None:
        return f"{text}: a higher one would help, if the service allows it."
    text += (
        f". If the service allows it, a higher rate would help: {_higher_rate(stage.rate, stage)}"
    )
    if stage.batch_size:
        text += f". So would more chunks per call: batch_size={2 * stage.batch_size}"
    return f"{text}."


def _higher_rate(rate: float, stage: StageStats) -> str:
    """Write twice the rate of a stage as the setting that it comes from."""
    setting = "job.rate = {}" if rate == stage.own_rate else "rate_limiter=RateLimiter({})"
    return setting.format(round_rate(2 * rate))


def _on_busy_stage(stage: StageStats, run: RunDiagnosis) -> str:
    """Advice on a stage whose calls take the time."""
    if stage.name == "store" and not stage.setting:
        what = "all waiting documents together" if stage.batch_size else "one document at a time"
        return f"It stores {what}, in one call after the other: only a faster store would help."
    if stage.name == "embed" and not stage.setting:
        return "It computes, on all cores that it can use: only a faster embedder would help."
    if stage.on_executor:
        return (
            f"More workers in the executor would help, if there are idle cores, with concurrent "
            f"calls to match: {stage.setting}={2 * stage.max_concurrency}."
        )
    if stage.name != "store" and stage.name != "embed" and run.cpu_cores >= CPU_BOUND:
        return "They compute: executor=ProcessPoolExecutor() would use all cores."
    text = f"More concurrent calls would help: {stage.setting}={2 * stage.max_concurrency}"
    larger = f"batch_size={2 * stage.batch_size}" if stage.batch_size else ""
    if stage.adaptive:
        text = f'{stage.setting}="auto" allowed as many calls as the service seems to take'
        return f"{text}: {larger} would help, if larger batches take little longer."
    text = f"{text}, or {larger}, if larger batches take little longer." if larger else f"{text}."
    if stage.rate is not None and stage.calls > NEAR_LIMIT * stage.rate * run.seconds:
        text += f" Its rate limit is near, too: {_higher_rate(stage.rate, stage)}."
    return text


# ── values to try ───────────────────────────────────────────────────────────────────────────────


def round_rate(value: float) -> str:
    """Write a rate to try, as code: two digits, or a whole number."""
    if value >= 10:
        return f"{round(value, 1 - math.floor(math.log10(value))):.0f}"
    return f"{value:.2g}"


def round_up(value: float) -> float:
    """The next value with one digit that is no smaller: 0.3 for 0.21, 40.0 for 31."""
    if value <= 0:
        return 0.0
    step = 10.0 ** math.floor(math.log10(value))
    return round(math.ceil(value / step - 1e-9) * step, 12)
