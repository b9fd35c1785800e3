"""A result in words: its title, facts, errors and time; and how numbers are written."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import compress, pairwise
from typing import Any, Protocol

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync._outcomes.stats import RunResult, StageStats
from ragasync._reports.error_groups import ErrorGroup, ErrorGroups, group_errors
from ragasync._reports.percentiles import Percentiles, time_percentiles
from ragasync._reports.time_breakdown import TimeBreakdown
from ragasync.errors import JournaledError
from ragasync.foreign_errors import is_a
from ragasync.object_views import duration, short_view

MAX_COST_DIGITS = 9
"""Digits after the point of a cost; anything smaller counts as nothing."""


MIN_BLOCKED_SECONDS = 0.05
"""A source that blocked the event loop for a shorter time is not mentioned."""


class Printer(Protocol):
    """The printer that IPython passes to an object's pretty-print method."""

    def text(self, obj: str, /) -> None:
        """Print a text."""


class MultilineText(str):
    """A text of several lines that IPython prints as is, not as a quoted string."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Printer, _cycle: bool) -> None:
        """Print the text in IPython."""
        printer.text(self)


def title(result: RunResult) -> str:
    """Write the counts and the time of a result: `1 of 2 done, 1 failed in 1.2 ms`."""
    status = result.columns.status
    parts = [f"{status.count(DONE):,} of {len(result.columns):,} done"]
    for code, name in ((FAILED, "failed"), (CANCELLED, "cancelled"), (PENDING, "pending")):
        if status.count(code):
            parts.append(f"{status.count(code):,} {name}")
    line = f"{', '.join(parts)} in {duration(result.seconds)}"
    if result.stopped_because is None:
        return line
    return f"{line}: stopped because {one_line(result.stopped_because)}"


def summary(result: RunResult) -> str:
    """Write the counts, times and most common errors of a result in a few lines."""
    lines = [title(result)]
    lines += [f"  {name}: {value}" for name, value in facts(result)]
    lines += error_lines(group_errors(result.columns), result.columns)
    return MultilineText("\n".join(lines))


def facts(result: RunResult) -> list[tuple[str, str]]:
    """List the facts about a whole run, apart from its counts: names and values."""
    columns = result.columns
    recalled = recalled_count(columns)
    finished = columns.status.count(DONE) + columns.status.count(FAILED) - recalled
    cut_short = sum(columns.seconds[row] for row in columns.rows_with(CANCELLED, PENDING))
    call_seconds: float = sum(columns.seconds) - cut_short
    found: list[tuple[str, str]] = []
    if recalled:
        found.append(("from the journal", counted(recalled, "item")))
    if result.stats.stages and (skipped := _skipped_count(columns)):
        found.append(("skipped", counted(skipped, "item")))
    found += [(name, f"{count:,}") for name, count in result.stats.counters]
    found += usage_facts(result.stats.usage.tokens, result.stats.usage.cost)
    if finished and result.seconds > 0:
        found.append(("speed", f"{per_second(finished / result.seconds)} items a second"))
    if finished and call_seconds:
        found.append(("mean time in calls", duration(call_seconds / finished)))
    times = time_percentiles(result)
    if times.calls is not None and any(times.calls):
        found.append(("calls", percentiles_text(times.calls)))
    retried = len(columns) - columns.attempts.count(0) - columns.attempts.count(1)
    if retried:
        found.append(("retried", counted(retried, "item")))
    if to_retry := _to_be_retried(columns):
        found.append(("pending, to be retried", to_retry))
    if columns.waited is not None and (waited := sum(columns.waited)):
        found.append(("waited for the rate limit", _sum_text(waited, times.waits)))
    if columns.backed_off is not None and (backed_off := sum(columns.backed_off)):
        found.append(("backed off", _sum_text(backed_off, times.backoffs)))
    return found


def _sum_text(seconds: float, each: Percentiles | None) -> str:
    """Write the time that all items spent together, and the percentiles of single items."""
    return f"{duration(seconds)} over all items" + (
        f"; {percentiles_text(each)} each" if each else ""
    )


def _to_be_retried(columns: Columns[Any, Any]) -> str:
    """Count the items that were to be retried when the run stopped, and name their errors."""
    if not (columns.history and columns.status.count(PENDING)):
        return ""
    logs = (log for row, log in columns.history.items() if columns.status[row] == PENDING)
    errors = Counter(log[-1].error for log in logs)
    if not errors:
        return ""
    (most_common, _), *others = errors.most_common()
    mostly = ", most often" if others else ","
    return f"{counted(errors.total(), 'item')}{mostly} after {one_line(most_common)}"


def usage_facts(
    tokens: int, cost: float, projected_cost: float | None = None
) -> list[tuple[str, str]]:
    """List the tokens and the cost, as far as calls reported them: names and values."""
    found = [("tokens", f"{tokens:,}")] if tokens else []
    if cost:
        of_all = "" if projected_cost is None else f" of about {cost_text(projected_cost)}"
        found.append(("cost", f"{cost_text(cost)}{of_all}"))
    return found


def recalled_count(columns: Columns[Any, Any]) -> int:
    """Count the outcomes that a journal had from an earlier run, without a new attempt."""
    if not columns.attempts.count(0):
        return 0
    done = sum(not tries for tries in compress(columns.attempts, columns.mask(DONE)))
    return done + sum(is_a(error, JournaledError) for error in columns.errors.values())


def _skipped_count(columns: Columns[Any, Any]) -> int:
    """Count the documents that a pipeline skipped because they were unreadable."""
    return sum(getattr(value, "skipped", None) is not None for value in columns.results)


# ── errors in words ─────────────────────────────────────────────────────────────────────────────


def error_lines(groups: ErrorGroups, columns: Columns[Any, Any], ungrouped: int = 0) -> list[str]:
    """Write the most common error groups, a line each, and the number of errors left out."""
    if not groups.count:
        return []
    lines = ["errors:"]
    for group in groups.most_common():
        name, message, item = error_parts(group, columns)
        lines.append(f"  {group.count:,} × {name}{': ' if message else ''}{message} {item}")
    return lines + [f"  {line}" for line in errors_left_out(groups, ungrouped)]


def error_parts(group: ErrorGroup, columns: Columns[Any, Any]) -> tuple[str, str, str]:
    """The parts of an error group's line: the type, the first message, and its item."""
    row = group.first_row
    if columns.labels is None:
        item = f"(item {columns.index_of(row):,})"
    else:  # of a DataFrame or Series
        item = f"(item {short_view(columns.label_of(row), 40)})"
    return one_line(group.error_type), one_line(group.example), item


_NOT_SORTED = "not sorted by kind; job.result.error_summary() sorts all of them"


def errors_left_out(groups: ErrorGroups, ungrouped: int = 0) -> list[str]:
    """Write the number of errors in other groups, and of those not grouped yet."""
    errors, other_groups = groups.others()
    lines = [f"{errors:,} more, of {counted(other_groups, 'other kind')}"] if other_groups else []
    return [*lines, f"{ungrouped:,} more, {_NOT_SORTED}"] if ungrouped else lines


# ── the time of a run ───────────────────────────────────────────────────────────────────────────


def worker_table(breakdown: TimeBreakdown) -> list[str]:
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


def percentile_table(result: RunResult) -> list[str]:
    """The table of the percentiles of calls, waits and back-off, as far as they occurred."""
    rows = time_percentiles(result).named()
    if not rows:
        return []
    header = f"  {'':<36}{'p50':>12}{'p95':>12}{'p99':>12}"
    return [header] + [
        f"  {name:<36}" + "".join(f"{duration(seconds):>12}" for seconds in times)
        for name, times in rows
    ]


def stage_table(stages: tuple[StageStats, ...], seconds: float) -> list[str]:
    """The table of a pipeline's stages, a line each."""
    lines = [f"  {'':<16}{'max calls':>10}{'in calls':>10}{'rate limit':>12}{'idle':>7}"]
    for stage in stages:
        slots = stage.slot_seconds(seconds) or math.inf
        work, limiter = min(1.0, stage.worked / slots), min(1.0, stage.limiter_waited / slots)
        lines.append(
            f"  {stage.name:<16}{stage.max_concurrency:>10,}{work:>10.0%}{limiter:>12.0%}"
            f"{max(0.0, 1 - work - limiter):>7.0%}"
        )
    return lines


def worker_count(result: RunResult) -> str:
    """The number of workers, as the argument that set it."""
    workers = result.stats.max_concurrency
    if result.stats.adapted:
        return f'max_concurrency="auto", at most {workers}'
    return f"max_concurrency={workers}"


# ── notes on what else happened ─────────────────────────────────────────────────────────────────


def adaptive_note(result: RunResult) -> str:
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


def incident_notes(result: RunResult) -> str:
    """Sentences on pauses by the service, a halted executor, and a source that blocked the loop."""
    notes = _service_note(result), _executor_note(result), _source_note(result)
    return "".join(notes) + _budget_note(result)


def _budget_note(result: RunResult) -> str:
    """A sentence on the budget that stopped the run, and on what the rest would take."""
    columns, usage = result.columns, result.stats.usage
    _, reached, bound = (result.stopped_because or "").partition(", which reaches ")
    if not reached:
        return ""
    name = bound.partition("=")[0]
    ended = columns.status.count(DONE) + columns.status.count(FAILED)
    left = len(columns) - ended
    note = f" The budget {one_line(bound)} stopped the run, and {counted(left, 'item')} are left"
    if name == "max_seconds":
        return f"{note}: with a journal, the same call continues."
    more = usage.tokens if name == "max_tokens" else usage.cost
    if ended:
        estimate = more * left / ended
        amount = f"{estimate:,.0f} tokens" if name == "max_tokens" else cost_text(estimate)
        note += f", which would take about {amount} more"
    return f"{note}: with a journal, the same call with a larger {name} continues."


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


def merge_note(result: RunResult) -> list[str]:
    """A line on merged runs, whose times are incomplete."""
    runs = result.stats.runs
    if runs == 1:
        return []
    return [f"{runs} runs are merged; time of outcomes that a later run replaced counts as idle."]


# ── numbers and texts, as they are displayed ────────────────────────────────────────────────────


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: `1 item`, `1,000 items`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def percentiles_text(times: Percentiles) -> str:
    """Write percentiles: `p50 42 ms, p95 1.20 s, p99 12.5 s`."""
    return f"p50 {duration(times.p50)}, p95 {duration(times.p95)}, p99 {duration(times.p99)}"


def clock_time(seconds: float) -> str:
    """Write a duration as a clock shows it: `0:12`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def per_second(rate: float) -> str:
    """Write a rate to three digits, or as a whole number."""
    return f"{rate:,.0f}" if rate >= 99.5 else f"{rate:.3g}"


def cost_text(amount: float) -> str:
    """
    Write a cost: `1,234.50`, `0.12`, `0.000345`; never with an exponent.

    It has no currency, because none was reported.
    """
    if amount >= 1 or amount <= 0:
        return f"{amount:,.2f}"
    digits = min(MAX_COST_DIGITS, max(2, 2 - math.floor(math.log10(amount))))
    whole, _, fraction = f"{amount:.{digits}f}".partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"


def one_line(text: str, max_chars: int = 160) -> str:
    """Fit a text into one line of a display: bounded, and with printable characters only."""
    start = text[: 4 * max_chars]
    line = " ".join(start.split()).encode("utf-8", "backslashreplace").decode()
    line = "".join(char if char.isprintable() else "�" for char in line)
    return line if len(line) <= max_chars and start == text else line[: max_chars - 1] + "…"
