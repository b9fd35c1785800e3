"""A result as a fragment of HTML that needs no style sheet, no script and no kernel."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ragasync.outcomes.facts import Finished
from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync.reports.kinds import Kind, kinds_of, one_line
from ragasync.reports.timeline import Timeline, timeline_of
from ragasync.reports.words import KINDS_SHOWN, duration, figures, headline, per_second, remaining

# JupyterLab drops `var(...)` from HTML that it does not trust. So what must be seen has a plain
# colour that reads on dark and on light, and variables are for what may fall back to inherited.
COLOURS = {DONE: "#4c8dd6", FAILED: "#e0563f", CANCELLED: "#b8892b", PENDING: "#9a9a9a"}
NAMES = {DONE: "done", FAILED: "failed", CANCELLED: "cancelled", PENDING: "pending"}

TEXT = "color:var(--jp-content-font-color1,inherit);font-size:13px;line-height:1.5;max-width:640px"
QUIET = "opacity:0.7"
MONO = "font-family:var(--jp-code-font-family,monospace);font-size:12px"
CHART_HEIGHT = 44


def result_html(result: Finished) -> str:
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
        _chart(timeline_of(result)),
        _figures(result),
        _errors(result),
    )


def element(tag: str, style: str, *children: str) -> str:
    """Return an element around children that are HTML already."""
    opening = f'<{tag} style="{style}">' if style else f"<{tag}>"
    return f"{opening}{''.join(children)}</{tag}>"


def _title(result: Finished) -> str:
    """Return the headline."""
    name = element("span", "font-weight:600", "BatchResult")
    return f"{name} {escape(headline(result))}"


def _counts(result: Finished) -> Iterable[tuple[int, int]]:
    """Yield the statuses that occur, with their counts."""
    status = result.columns.status
    return ((code, status.count(code)) for code in COLOURS if status.count(code))


def _shares(result: Finished) -> str:
    """Return a thin bar of the shares of the statuses."""
    parts = (
        element("div", f"flex:{count} 1 2px;background:{COLOURS[code]}")
        for code, count in _counts(result)
    )
    style = "display:flex;gap:1px;height:6px;border-radius:3px;overflow:hidden"
    return element("div", style, *parts)


def _legend(result: Finished) -> str:
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


def _chart(timeline: Timeline | None) -> str:
    """Return when items ended as bars, failures on top, with a line of text below."""
    if timeline is None or not timeline.peak:
        return ""
    scale = CHART_HEIGHT / timeline.peak
    bars = (
        _bar(done * scale, failed * scale)
        for done, failed in zip(timeline.done, timeline.failed, strict=True)
    )
    frame = (
        f"display:flex;align-items:flex-end;gap:1px;height:{CHART_HEIGHT + 2}px;margin-top:10px;"
        "border-bottom:1px solid #9a9a9a"
    )
    peak = f"items ended over time, at most {per_second(timeline.peak_rate)} a second"
    labels = ("0 s", peak, duration(timeline.seconds))
    axis = f"display:flex;justify-content:space-between;font-size:11px;{QUIET}"
    return element("div", frame, *bars) + element(
        "div", axis, *(element("span", "", label) for label in labels)
    )


def _bar(done: float, failed: float) -> str:
    """Return one stretch's bar; a single failure among many successes stays visible."""
    style = "flex:1"
    if done:
        style += f";height:{max(1, round(done))}px;background:{COLOURS[DONE]}"
    if failed:
        style += f";border-top:{max(2, round(failed))}px solid {COLOURS[FAILED]}"
    return element("div", style)


def _figures(result: Finished) -> str:
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


def _errors(result: Finished) -> str:
    """Return the commonest kinds of errors, folded."""
    kinds = kinds_of(result.columns)
    if not kinds:
        return ""
    rows = [_error(kind, result.columns.index_of(kind.first_row)) for kind in kinds[:KINDS_SHOWN]]
    if len(kinds) > KINDS_SHOWN:
        rows.append(element("div", QUIET, remaining(kinds)))
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
