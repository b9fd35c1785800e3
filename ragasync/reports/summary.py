"""A result in words: one line, and a few lines."""

from __future__ import annotations

from itertools import compress
from typing import Any, Protocol

from ragasync.errors import JournaledError
from ragasync.foreign_errors import is_a
from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync.outcomes.stats import RunResult
from ragasync.reports.error_groups import grouped, one_line
from ragasync.reports.money import cost_text


class Printer(Protocol):
    """What IPython hands to an object that wants to print itself."""

    def text(self, obj: str, /) -> None:
        """Print this."""


def headline(result: RunResult) -> str:
    """Return the counts and the time as one line, such as `1 of 2 done, 1 failed in 0.00 s`."""
    status = result.columns.status
    parts = [f"{status.count(DONE):,} of {len(result.columns):,} done"]
    for code, name in ((FAILED, "failed"), (CANCELLED, "cancelled"), (PENDING, "pending")):
        if status.count(code):
            parts.append(f"{status.count(code):,} {name}")
    line = f"{', '.join(parts)} in {duration(result.seconds)}"
    if result.stopped_because is None:
        return line
    return f"{line}: stopped because {one_line(result.stopped_because)}"


class Text(str):
    """A text of several lines, which IPython shows as they are instead of as a quoted string."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Printer, _cycle: bool) -> None:
        """Have IPython print it."""
        printer.text(self)


def summary(result: RunResult) -> str:
    """Return the counts, the times and the commonest errors as a few lines of text."""
    lines = [headline(result)]
    lines += [f"  {name}: {value}" for name, value in figures(result)]
    kinds = grouped(result.columns)
    if kinds.count:
        lines.append("errors:")
    for kind in kinds.commonest():
        index = result.columns.index_of(kind.first_row)
        message = f": {one_line(kind.example)}" if kind.example else ""
        name = one_line(kind.error_type)
        lines.append(f"  {kind.count:,} × {name}{message} (item {index:,})")
    lines += [f"  {line}" for line in remaining(*kinds.others())]
    return Text("\n".join(lines))


def remaining(errors: int, kinds: int) -> list[str]:
    """Return how many errors there are of kinds that are not told apart, if there are any."""
    return [f"{errors:,} more, of {counted(kinds, 'other kind')}"] if kinds else []


def figures(result: RunResult) -> list[tuple[str, str]]:
    """Return what there is to say of the whole run beside its counts: names and values."""
    columns = result.columns
    recalled = recalled_count(columns)
    finished = columns.status.count(DONE) + columns.status.count(FAILED) - recalled
    cut_short = sum(columns.seconds[row] for row in columns.rows_with(CANCELLED))
    spent: float = sum(columns.seconds) - cut_short
    found: list[tuple[str, str]] = []
    if recalled:
        found.append(("from the journal", counted(recalled, "item")))
    if result.stats.stages and (skipped := _skipped_count(columns)):
        found.append(("skipped", counted(skipped, "item")))
    found += [(what, f"{count:,}") for what, count in result.stats.counters]
    found += usages(result.stats.tokens, result.stats.cost)
    if finished and result.seconds > 0:
        found.append(("speed", f"{per_second(finished / result.seconds)} items a second"))
    if finished and spent:
        found.append(("mean time in calls", duration(spent / finished)))
    retried = len(columns) - columns.attempts.count(0) - columns.attempts.count(1)
    if retried:
        found.append(("retried", counted(retried, "item")))
    if columns.waited is not None and (waited := sum(columns.waited)):
        found.append(("waited for the rate limit", f"{duration(waited)}, all items together"))
    if columns.backed_off is not None and (backed_off := sum(columns.backed_off)):
        found.append(("backed off", f"{duration(backed_off)}, all items together"))
    return found


def usages(tokens: int, cost: float) -> list[tuple[str, str]]:
    """Return what was used, as far as it was reported: names and values."""
    found = [("tokens", f"{tokens:,}")] if tokens else []
    if cost:
        found.append(("cost", cost_text(cost)))
    return found


def _skipped_count(columns: Columns[Any, Any]) -> int:
    """Return how many items of a pipeline could not be read and were passed over."""
    return sum(getattr(value, "skipped", None) is not None for value in columns.results)


def recalled_count(columns: Columns[Any, Any]) -> int:
    """Return how many outcomes a journal had from an earlier run: no attempt was made for them."""
    if not columns.attempts.count(0):
        return 0
    done = sum(not tries for tries in compress(columns.attempts, columns.mask(DONE)))
    return done + sum(is_a(error, JournaledError) for error in columns.errors.values())


def counted(count: int, what: str) -> str:
    """Return a number of things to be read: `1 item`, `1,000 items`."""
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def duration(seconds: float) -> str:
    """Return a length of time to be read: `1.2 ms`, `0.42 s`, `2 min 05 s`, `1 h 02 min`."""
    if 1e-6 <= seconds < 0.01:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def per_second(rate: float) -> str:
    """Return a rate to be read, to three digits or to the unit."""
    return f"{rate:,.0f}" if rate >= 99.5 else f"{rate:.3g}"
