"""A job's panel as HTML and as text that state the same facts."""

from __future__ import annotations

from html import escape

from ragasync.notebook.failures import Failures
from ragasync.notebook.panel_view import (
    JobView,
    bounds,
    counts,
    held_back,
    lines_of_stages,
    progress_text,
)
from ragasync.notebook.stages_shown import stages_html, stages_text
from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.reports.error_groups import Kind, one_line
from ragasync.reports.html import COLOURS, MONO, QUIET, TEXT, element
from ragasync.reports.summary import remaining

STEADY = "font-variant-numeric:tabular-nums"
"""Digits of one width, so that nothing moves when a number changes."""


def still_bundle(showing: JobView, failures: Failures) -> dict[str, object]:
    """Return a panel that needs no kernel: what a saved notebook shows of a job."""
    return {
        "text/plain": panel_text(showing, failures),
        "text/html": element(
            "div",
            TEXT,
            facts_html(showing),
            element("div", QUIET, escape(bounds(showing))),
            failures_html(failures),
        ),
    }


def panel_text(showing: JobView, failures: Failures) -> str:
    """Return a panel as a few lines of text."""
    lines = [
        f"Job {showing.state}: {' · '.join(progress_text(showing))}",
        " · ".join(text for _, text in counts(showing)),
        *stages_text(lines_of_stages(showing)),
        held_back(showing),
        bounds(showing),
    ]
    kinds = failures.commonest
    lines += ["errors:"] if kinds else []
    for kind in kinds:
        name, message, place = _parts(kind)
        lines.append(f"  {kind.count:,} × {name}{': ' if message else ''}{message} {place}")
    lines += [f"  {line}" for line in _left_out(failures)]
    return "\n".join(line for line in lines if line)


def facts_html(showing: JobView) -> str:
    """Return the bar, the counts, and what holds the job back."""
    title, told = f"Job {showing.state}:", held_back(showing)
    return element(
        "div",
        f"{TEXT};{STEADY}",
        element(
            "div",
            "",
            element("span", "font-weight:600", title),
            escape(f" {' · '.join(progress_text(showing))}"),
        ),
        _bar(showing),
        element("div", "", *(_count(code, text) for code, text in counts(showing))),
        stages_html(lines_of_stages(showing)),
        element("div", f"{QUIET};overflow-wrap:anywhere", escape(told)) if told else "",
    )


def failures_html(failures: Failures) -> str:
    """Return the commonest kinds of errors, each with its first example; nothing without any."""
    rows = [_error(kind) for kind in failures.commonest]
    rows += [element("div", QUIET, escape(line)) for line in _left_out(failures)]
    if not rows:
        return ""
    return element("div", f"{TEXT};{STEADY}", *rows)


def _bar(showing: JobView) -> str:
    """Return the share of the items that ended, well and not."""
    finished = showing.progress.finished
    parts = []
    for code, count in ((DONE, showing.progress.done), (FAILED, showing.progress.failed)):
        if count:
            width = showing.share * count / finished
            parts.append(f"flex:none;width:{width:.2%};min-width:2px;background:{COLOURS[code]}")
    if not finished and showing.share:
        parts.append(f"flex:1;background:{COLOURS[DONE]}")  # no items at all, and it has ended
    frame = (
        "display:flex;height:8px;margin:4px 0;border-radius:4px;overflow:hidden;"
        "background:rgba(128,128,128,0.25)"
    )
    return element("div", frame, *(element("div", part) for part in parts))


def _count(code: int | None, text: str) -> str:
    """Return a count beside the colour that the bar has for it."""
    mark = "" if code is None else f"{element('span', f'color:{COLOURS[code]}', '■')} "
    return element("span", "margin-right:16px;white-space:nowrap", f"{mark}{escape(text)}")


def _parts(kind: Kind) -> tuple[str, str, str]:
    """Return what there is to say of one kind of error: type, first example, and where."""
    return one_line(kind.error_type), one_line(kind.example), f"(item {kind.first_row:,})"


def _left_out(failures: Failures) -> list[str]:
    """Return what is not shown kind by kind."""
    lines = remaining(*failures.others)
    if failures.left_over:
        lines.append(f"{failures.left_over:,} more, not grouped")
    return lines


def _error(kind: Kind) -> str:
    """Return one kind of error as a line."""
    name, message, place = map(escape, _parts(kind))
    said = f"{element('span', 'font-weight:600', name)}{': ' if message else ''}"
    text = f"{said}{element('span', MONO, message)} {element('span', QUIET, place)}"
    return element(
        "div",
        "display:flex;margin-top:2px",
        element("span", "flex:0 0 64px;text-align:right;padding-right:12px", f"{kind.count:,} ×"),
        element("span", "flex:1;min-width:0;overflow-wrap:anywhere", text),
    )
