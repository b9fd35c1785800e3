"""A result as a fragment of HTML that needs no style sheet, no script and no kernel."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ragasync.outcomes.stats import RunResult
from ragasync.reports.chart import chart
from ragasync.reports.elements import COLOURS, MONO, NAMES, QUIET, TEXT, element
from ragasync.reports.error_groups import Kind, grouped, one_line
from ragasync.reports.summary import figures, headline, remaining
from ragasync.reports.timeline import timeline_of

__all__ = ["COLOURS", "MONO", "NAMES", "QUIET", "TEXT", "element", "result_html"]


def result_html(result: RunResult) -> str:
    """
    Return a result as HTML that states the same facts as its text.

    Args:
        result: a BatchResult.
    """
    return element(
        "div",
        TEXT,
        element("div", "margin-bottom:6px", _title(result)),
        _shares(result),
        _legend(result),
        chart(timeline_of(result)),
        _figures(result),
        _errors(result),
    )


def _title(result: RunResult) -> str:
    """Return the headline."""
    name = element("span", "font-weight:600", "BatchResult")
    return f"{name} {escape(headline(result))}"


def _counts(result: RunResult) -> Iterable[tuple[int, int]]:
    """Yield the statuses that occur, with their counts."""
    status = result.columns.status
    return ((code, status.count(code)) for code in COLOURS if status.count(code))


def _shares(result: RunResult) -> str:
    """Return a thin bar of the shares of the statuses."""
    parts = (
        element("div", f"flex:{count} 1 2px;background:{COLOURS[code]}")
        for code, count in _counts(result)
    )
    style = "display:flex;gap:1px;height:6px;border-radius:3px;overflow:hidden"
    return element("div", style, *parts)


def _legend(result: RunResult) -> str:
    """Return the counts, each beside its colour."""
    parts = (
        element(
            "span",
            "margin-right:16px;white-space:nowrap",
            element("span", f"color:{COLOURS[code]}", "■"),
            f" {count:,} {NAMES[code]}",
        )
        for code, count in _counts(result)
    )
    return element("div", "margin-top:4px", *parts)


def _figures(result: RunResult) -> str:
    """Return what there is to say of the whole run, a line each."""
    lines = (
        element(
            "div",
            "display:flex",
            element("span", f"flex:0 0 170px;{QUIET}", escape(name)),
            element("span", "", escape(value)),
        )
        for name, value in figures(result)
    )
    return element("div", "margin-top:8px", *lines)


def _errors(result: RunResult) -> str:
    """Return the commonest kinds of errors, folded."""
    kinds = grouped(result.columns)
    if not kinds.count:
        return ""
    index_of = result.columns.index_of
    rows = [_error(kind, index_of(kind.first_row)) for kind in kinds.commonest()]
    rows += [element("div", QUIET, line) for line in remaining(*kinds.others())]
    what = "1 kind of error" if len(kinds) == 1 else f"{len(kinds):,} kinds of errors"
    heading = element("summary", "cursor:pointer", what)
    return element("details", "margin-top:8px", heading, *rows)


def _error(kind: Kind, index: int) -> str:
    """Return one kind of error: how often, what, and the first example."""
    count = element(
        "span", "flex:0 0 64px;text-align:right;padding-right:12px", f"{kind.count:,} ×"
    )
    name = element("span", "font-weight:600", escape(one_line(kind.error_type)))
    message = f": {element('span', MONO, escape(one_line(kind.example)))}" if kind.example else ""
    place = element("span", f"{QUIET};white-space:nowrap", f"(item {index:,})")
    wrapped = "flex:1;min-width:0;overflow-wrap:break-word"
    text = element("span", wrapped, f"{name}{message} {place}")
    return element("div", "display:flex;margin-top:4px", count, text)
