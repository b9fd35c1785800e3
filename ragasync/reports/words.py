"""A result in words: one line, a few lines, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence

from ragasync.outcomes.facts import Finished
from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync.reports.accounting import Account, account_of
from ragasync.reports.kinds import Kind, kinds_of, one_line

KINDS_SHOWN = 5
"""How many kinds of errors a display tells apart; a table has all."""

LEAST_ITEMS, LEAST_SECONDS = 20, 0.1
"""What a run must have done before one can say where its time goes."""


def headline(result: Finished) -> str:
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


def summary(result: Finished) -> str:
    """Return the counts, the times and the commonest errors as a few lines of text."""
    lines = [headline(result)]
    lines += [f"  {name}: {value}" for name, value in figures(result)]
    kinds = kinds_of(result.columns)
    if kinds:
        lines.append("errors:")
    for kind in kinds[:KINDS_SHOWN]:
        index = result.columns.index_of(kind.first_row)
        message = f": {one_line(kind.example)}" if kind.example else ""
        name = one_line(kind.error_type)
        lines.append(f"  {kind.count:,} × {name}{message} (item {index:,})")
    if len(kinds) > KINDS_SHOWN:
        lines.append(f"  {remaining(kinds)}")
    return "\n".join(lines)


def remaining(kinds: Sequence[Kind]) -> str:
    """Return how many errors there are beside the commonest kinds."""
    rest = kinds[KINDS_SHOWN:]
    return f"{sum(kind.count for kind in rest):,} more of {len(rest):,} other kinds"


def figures(result: Finished) -> list[tuple[str, str]]:
    """Return what there is to say of the whole run beside its counts: names and values."""
    columns = result.columns
    finished = columns.status.count(DONE) + columns.status.count(FAILED)
    spent: float = sum(columns.seconds)
    found: list[tuple[str, str]] = []
    if finished and result.seconds > 0:
        found.append(("speed", f"{per_second(finished / result.seconds)} items a second"))
    if finished and spent:
        found.append(("mean time in calls", duration(spent / finished)))
    retried = len(columns) - columns.attempts.count(0) - columns.attempts.count(1)
    if retried:
        found.append(("retried", "1 item" if retried == 1 else f"{retried:,} items"))
    if columns.waited is not None and (waited := sum(columns.waited)):
        found.append(("waited for the rate limit", f"{duration(waited)}, all items together"))
    if columns.backed_off is not None and (backed_off := sum(columns.backed_off)):
        found.append(("backed off", f"{duration(backed_off)}, all items together"))
    return found


def explain(result: Finished) -> str:
    """Return in plain words where the time of a run's lanes went, and which knob would help."""
    finished = result.columns.status.count(DONE) + result.columns.status.count(FAILED)
    lanes = result.facts.max_concurrency
    if not lanes:
        return f"{headline(result)}\nHow it ran is not known: this result was not made by a job."
    if finished < LEAST_ITEMS or result.seconds < LEAST_SECONDS:
        return (
            f"{headline(result)}\nToo little to say where the time goes: "
            f"{LEAST_ITEMS} items and {LEAST_SECONDS:g} s are the least."
        )
    account = account_of(result)
    lines = [
        headline(result),
        f"Lane time, {lanes:,} calls at once for {duration(result.seconds)}:",
        *_table(account),
    ]
    if account.backed_off:
        lines.append(
            f"Beside it, items waited {duration(account.backed_off)} between attempts; "
            f"that holds no lane."
        )
    if result.facts.runs > 1:
        lines.append(
            f"{result.facts.runs} runs are merged here; the time of outcomes that a later run "
            f"replaced may stand under idle."
        )
    return "\n".join([*lines, _advice(account)])


def _table(account: Account) -> list[str]:
    """Return the parts of the lane time, aligned."""
    parts = {
        "in calls": account.work,
        "waiting for the rate limit": account.limiter,
        "waiting for input": account.source,
        "idle": account.idle,
    }
    return [
        f"  {name:<27}{duration(part):>12}{part / account.lane_seconds:>7.0%}"
        for name, part in parts.items()
    ]


def _advice(account: Account) -> str:
    """Return what dominates, and which knob would help."""
    shares = (account.work, account.limiter, account.source, account.idle)
    largest = max(shares)
    if largest == account.limiter:
        return (
            "The rate limit is what holds this job back: a higher rate would help, if the "
            "service allows one; more concurrency would not."
        )
    if largest == account.source:
        return "The input is what holds this job back: its source gives items too slowly."
    if largest == account.work:
        return (
            "The calls themselves take the time: a larger max_concurrency would help, if the "
            "service bears it."
        )
    return _advice_on_idle(account)


def _advice_on_idle(account: Account) -> str:
    """Return why lanes stood idle."""
    if account.backed_off > account.idle / 2:
        return (
            "Retries are what hold this job back: lanes stood idle while items waited between "
            "attempts. Look at the errors, errors_dataframe() has them."
        )
    if account.tail > account.idle / 2:
        return (
            "A few slow items at the end are what hold this job back, while the other lanes had "
            "nothing left to do: a timeout cuts such calls short, and slow items first would help."
        )
    return (
        "The lanes were idle most of the time: fewer calls at once would do as well, "
        "or the event loop was busy with something else."
    )


def duration(seconds: float) -> str:
    """Return a length of time to be read: `0.42 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def per_second(rate: float) -> str:
    """Return a rate to be read, to three digits or to the unit."""
    return f"{rate:,.0f}" if rate >= 99.5 else f"{rate:.3g}"
