"""The summary of a result: a title, facts, error groups; and how numbers are written."""

from __future__ import annotations

import math
from itertools import compress
from typing import Any, Protocol

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync._outcomes.stats import RunResult
from ragasync._reports.error_groups import ErrorGroup, ErrorGroups, group_errors
from ragasync.errors import JournaledError
from ragasync.foreign_errors import is_a

MAX_COST_DIGITS = 9
"""Digits after the point of a cost; anything smaller counts as nothing."""


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
    """Write the counts and the time of a result: `1 of 2 done, 1 failed in 0.00 s`."""
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
    cut_short = sum(columns.seconds[row] for row in columns.rows_with(CANCELLED))
    call_seconds: float = sum(columns.seconds) - cut_short
    found: list[tuple[str, str]] = []
    if recalled:
        found.append(("from the journal", counted(recalled, "item")))
    if result.stats.stages and (skipped := _skipped_count(columns)):
        found.append(("skipped", counted(skipped, "item")))
    found += [(name, f"{count:,}") for name, count in result.stats.counters]
    found += usage_facts(result.stats.tokens, result.stats.cost)
    if finished and result.seconds > 0:
        found.append(("speed", f"{per_second(finished / result.seconds)} items a second"))
    if finished and call_seconds:
        found.append(("mean time in calls", duration(call_seconds / finished)))
    retried = len(columns) - columns.attempts.count(0) - columns.attempts.count(1)
    if retried:
        found.append(("retried", counted(retried, "item")))
    if columns.waited is not None and (waited := sum(columns.waited)):
        found.append(("waited for the rate limit", f"{duration(waited)}, all items together"))
    if columns.backed_off is not None and (backed_off := sum(columns.backed_off)):
        found.append(("backed off", f"{duration(backed_off)}, all items together"))
    return found


def usage_facts(tokens: int, cost: float) -> list[tuple[str, str]]:
    """List the tokens and the cost, as far as calls reported them: names and values."""
    found = [("tokens", f"{tokens:,}")] if tokens else []
    if cost:
        found.append(("cost", cost_text(cost)))
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
    index = columns.index_of(group.first_row)
    return one_line(group.error_type), one_line(group.example), f"(item {index:,})"


def errors_left_out(groups: ErrorGroups, ungrouped: int = 0) -> list[str]:
    """Write the number of errors in other groups, and of those not grouped yet."""
    errors, other_groups = groups.others()
    lines = [f"{errors:,} more, of {counted(other_groups, 'other kind')}"] if other_groups else []
    return [*lines, f"{ungrouped:,} more, not grouped"] if ungrouped else lines


# ── numbers and texts, as they are displayed ────────────────────────────────────────────────────


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: `1 item`, `1,000 items`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """Write a duration: `1.2 ms`, `0.42 s`, `2 min 05 s`, `1 h 02 min`."""
    if 1e-6 <= seconds < 0.01:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


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
