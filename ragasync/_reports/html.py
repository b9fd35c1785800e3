"""
HTML of a result: a fragment that needs no style sheet, no script and no kernel.

Charts are bars of HTML, not SVG, although SVG would allow more: a notebook that is not trusted
loses every image, and a result that somebody sends you is often viewed in such a notebook. Each
bar is one element whose parts are its padding and its borders, so that a chart stays within a few
kilobytes, and keeps its height on pages that use `box-sizing: border-box`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from typing import Any

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync._outcomes.stats import RunResult
from ragasync._reports.error_groups import ErrorGroup, ErrorGroups, group_errors
from ragasync._reports.summary import (
    error_parts,
    errors_left_out,
    facts,
    per_second,
    title,
)
from ragasync._reports.timeline import (
    BACKOFF,
    LIMITER,
    STATE_COLORS,
    WORK,
    Timeline,
    build_timeline,
)
from ragasync.object_views import MONO, QUIET, TEXT, duration, element

# JupyterLab drops `var(...)` from HTML that it does not trust. So whatever must be visible has a
# plain color that is readable on dark and on light; variables are only for values that can fall
# back to the inherited ones.
COLORS = {DONE: "#4c8dd6", FAILED: "#e0563f", CANCELLED: "#b8892b", PENDING: "#9a9a9a"}
NAMES = {DONE: "done", FAILED: "failed", CANCELLED: "cancelled", PENDING: "pending"}

SMALL = "font-size:11px"
TABULAR = "font-variant-numeric:tabular-nums"
"""Digits of equal width, so that nothing moves when a number changes."""

BAR_FRAME = (
    "display:flex;height:8px;margin:4px 0;border-radius:4px;overflow:hidden;"
    "background:rgba(128,128,128,0.25)"
)

ENDS_HEIGHT, CALLS_HEIGHT = 44, 32
"""The heights of the two charts, in pixels."""

MIN_PEAK = 10
"""Items that must have ended in one bin before their rate is worth a number."""

CALL_BINS_PER_BAR = 2
"""Bins of the timeline that share one bar of the call chart: calls vary less than item ends do."""

CHART_FRAME = (
    "display:flex;align-items:flex-end;height:{}px;margin-top:10px;border-bottom:1px solid #9a9a9a;"
    f"color:{STATE_COLORS[WORK]}"  # inherited by each border that has no color of its own
)


def result_html(result: RunResult) -> str:
    """Write a result as HTML that states the same facts as its summary."""
    name = element("span", "font-weight:600", "BatchResult")
    counts = (colored_count(code, f"{count:,} {NAMES[code]}") for code, count in _counts(result))
    return element(
        "div",
        TEXT,
        element("div", "margin-bottom:6px", f"{name} {escape(title(result))}"),
        _status_bar(result),
        element("div", "margin-top:4px", *counts),
        timeline_chart(build_timeline(result)),
        element("div", "margin-top:8px", *fact_lines(facts(result))),
        _errors(result),
    )


def _counts(result: RunResult) -> Iterable[tuple[int, int]]:
    """Yield each status that occurs, with its count."""
    status = result.columns.status
    return ((code, status.count(code)) for code in COLORS if status.count(code))


def _status_bar(result: RunResult) -> str:
    """A thin bar with the share of each status."""
    parts = (
        element("div", f"flex:{count} 1 2px;background:{COLORS[code]}")
        for code, count in _counts(result)
    )
    style = "display:flex;gap:1px;height:6px;border-radius:3px;overflow:hidden"
    return element("div", style, *parts)


def colored_count(status: int | None, text: str) -> str:
    """A count in words, after a square in the color of its status, if it is the count of one."""
    mark = "" if status is None else f"{element('span', f'color:{COLORS[status]}', '■')} "
    return element("span", "margin-right:16px;white-space:nowrap", f"{mark}{escape(text)}")


def fact_lines(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of facts about a whole run, each a name and a value."""
    for name, value in named:
        cells = (
            element("span", f"flex:0 0 170px;{QUIET}", escape(name)),
            element("span", "", escape(value)),
        )
        yield element("div", "display:flex", *cells)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def _errors(result: RunResult) -> str:
    """The most common error groups."""
    groups = group_errors(result.columns)
    if not groups.count:
        return ""
    heading = "1 kind of error" if len(groups) == 1 else f"{len(groups):,} kinds of errors"
    return element(
        "div",
        "margin-top:8px",
        element("div", "", heading),
        *error_rows(groups, result.columns),
    )


def error_rows(groups: ErrorGroups, columns: Columns[Any, Any], ungrouped: int = 0) -> list[str]:
    """The most common error groups, a row each, and the number of errors left out."""
    rows = [_error_row(group, columns) for group in groups.most_common()]
    left_out = errors_left_out(groups, ungrouped)
    return rows + [element("div", QUIET, escape(line)) for line in left_out]


def _error_row(group: ErrorGroup, columns: Columns[Any, Any]) -> str:
    """The row of one error group: count, type, and the first example."""
    name, message, item = map(escape, error_parts(group, columns))
    start = f"{element('span', 'font-weight:600', name)}{': ' if message else ''}"
    example = element("span", MONO, message) if message else ""
    place = element("span", f"{QUIET};white-space:nowrap", item)
    return element(
        "div",
        "display:flex;margin-top:2px",
        element("span", "flex:0 0 64px;text-align:right;padding-right:12px", f"{group.count:,} ×"),
        element("span", "flex:1;min-width:0;overflow-wrap:anywhere", f"{start}{example} {place}"),
    )


# ── charts of the timeline ──────────────────────────────────────────────────────────────────────


def timeline_chart(timeline: Timeline | None) -> str:
    """Chart the ends of items over time, and the states of calls; empty without times."""
    if timeline is None or not timeline.peak:
        return ""
    return _ends_chart(timeline) + _calls_chart(timeline)


def _ends_chart(timeline: Timeline) -> str:
    """Chart the ends of items, failures on top, above a line of labels."""
    scale = ENDS_HEIGHT / timeline.peak
    bars = (
        _ends_bar(done * scale, failed * scale)
        for done, failed in zip(timeline.done, timeline.failed, strict=True)
    )
    runs = f", {timeline.runs} runs end to end" if timeline.runs > 1 else ""
    title = f"items ended over time{runs}"
    if timeline.peak >= MIN_PEAK:
        title += f", at most {per_second(timeline.peak_rate)} a second"
    labels = ("0 s", title, duration(timeline.seconds))
    return element("div", f"{CHART_FRAME.format(ENDS_HEIGHT + 2)};gap:1px", *bars) + element(
        "div",
        f"display:flex;justify-content:space-between;{SMALL};{QUIET}",
        *(element("span", "", label) for label in labels),
    )


def _ends_bar(done: float, failed: float) -> str:
    """The bar of one bin; a single failure among many successes stays visible."""
    style = "flex:1"
    if done:
        style += f";border-bottom:{max(1, round(done))}px solid"
    if failed:
        style += f";border-top:{max(2, round(failed))}px solid {COLORS[FAILED]}"
    return element("div", style)


def _calls_chart(timeline: Timeline) -> str:
    """Chart the states of calls: in calls below, then at the rate limit, then backing off."""
    if not timeline.peak_concurrency:
        return ""
    bars = (_calls_bar(*parts, len(list(equal))) for parts, equal in groupby(_heights(timeline)))
    means = {state: sum(calls) / len(calls) for state, calls in timeline.calls.items()}
    legend = (
        f"{element('span', f'color:{STATE_COLORS[state]}', '■')} "
        f"{element('span', QUIET, f'{_mean_text(mean)} {timeline.state_names[state]}')}"
        for state, mean in means.items()
        if mean
    )
    texts = (element("span", QUIET, f"mean concurrent {timeline.noun}:"), *legend)
    return element("div", CHART_FRAME.format(CALLS_HEIGHT), *bars) + element(
        "div", SMALL, *(element("span", "margin-right:10px", text) for text in texts)
    )


def _heights(timeline: Timeline) -> Iterator[tuple[int, int, int]]:
    """Yield the heights of the three parts of each bar of the call chart."""
    scale = CALLS_HEIGHT / timeline.peak_concurrency / CALL_BINS_PER_BAR
    bins = list(zip(*(timeline.calls[s] for s in (WORK, LIMITER, BACKOFF)), strict=True))
    for first in range(0, len(bins), CALL_BINS_PER_BAR):
        joined = bins[first : first + CALL_BINS_PER_BAR]
        work, limiter, backoff = map(sum, zip(*joined, strict=True))
        yield round(work * scale), round(limiter * scale), round(backoff * scale)


def _calls_bar(work: int, limiter: int, backoff: int, width: int) -> str:
    """One bar for neighboring bins of equal height."""
    style = f"flex:{width}"
    if limiter:
        style += f";padding-top:{limiter}px;background:{STATE_COLORS[LIMITER]}"
    if work:
        style += f";border-bottom:{work}px solid"
    if backoff:
        style += f";border-top:{backoff}px solid {STATE_COLORS[BACKOFF]}"
    return element("div", style)


def _mean_text(mean: float) -> str:
    """Write an average concurrency."""
    return f"{mean:,.0f}" if mean >= 99.5 else "under 0.01" if mean < 0.01 else f"{mean:.2g}"
