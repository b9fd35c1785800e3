"""A forecast in words and as HTML that state the same facts."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.reports.html import COLORS, QUIET, TEXT, element
from ragasync.reports.summary import counted, duration
from ragasync.simulation.forecast import Forecast
from ragasync.simulation.projection import Interval
from ragasync.simulation.what_ifs import WhatIf

STEADY = "font-variant-numeric:tabular-nums"
"""Digits of one width, so that numbers stand below each other."""


def headline(made: Forecast) -> str:
    """Return a forecast as one line."""
    parts = [
        f"{counted(made.n_items, 'item')} in {duration(made.makespan)}{_span(made)}",
        f"limited by {made.limited_by}",
        f"{made.requests:,.0f} requests",
    ]
    if round(made.failed):
        parts.append(f"{made.failed:,.0f} to fail")
    return ", ".join(parts)


def facts_of(made: Forecast) -> list[tuple[str, str]]:
    """Return what there is to say beside the headline: names and values."""
    return [
        ("requests", _with(made.requests, made.requests_interval, "{:,.0f}".format)),
        ("items that fail", _with(made.failed, made.failed_interval, "{:,.0f}".format)),
        ("level of the intervals", f"{made.level:.0%}"),
    ]


def forecast_text(made: Forecast) -> str:
    """Return a forecast as a few lines of text."""
    lines = [f"Forecast: {headline(made)}"]
    lines += [f"  {name}: {value}" for name, value in facts_of(made)]
    lines += [
        f"  {row.change:<24}{duration(row.makespan):>12}{row.ratio:>7.2f}  {row.limited_by}"
        for row in made.what_if
    ]
    return "\n".join([*lines, *made.notes])


def forecast_html(made: Forecast) -> str:
    """Return a forecast as HTML that needs no style sheet, no script and no kernel."""
    name = element("span", "font-weight:600", "Forecast")
    lines = (
        element(
            "div",
            "display:flex",
            element("span", f"flex:0 0 170px;{QUIET}", escape(name)),
            element("span", "", escape(value)),
        )
        for name, value in facts_of(made)
    )
    longest = max(row.makespan for row in made.what_if)
    rows = (_row(row, longest) for row in made.what_if)
    notes = (element("div", QUIET, escape(note)) for note in made.notes)
    return element(
        "div",
        f"{TEXT};{STEADY}",
        element("div", "margin-bottom:6px", f"{name} {escape(headline(made))}"),
        *lines,
        element("div", "margin-top:8px", *rows),
        element("div", "margin-top:8px", *notes),
    )


def _row(row: WhatIf, longest: float) -> str:
    """Return what one change would do: a bar, and its numbers."""
    share = row.makespan / longest if longest else 0.0
    colour = COLORS[FAILED] if row.ratio > 1.005 else COLORS[DONE]
    bar = element("div", f"width:{share:.2%};min-width:2px;height:8px;background:{colour}")
    cells = (
        element("span", "flex:0 0 170px", escape(row.change)),
        element("span", "flex:0 0 80px;text-align:right", escape(duration(row.makespan))),
        element("span", "flex:0 0 56px;text-align:right", f"×{row.ratio:.2f}"),
        element("div", "flex:1;margin:0 12px;background:rgba(128,128,128,0.25)", bar),
        element("span", f"flex:0 0 90px;{QUIET}", escape(row.limited_by)),
    )
    return element("div", "display:flex;align-items:center", *cells)


def _span(made: Forecast) -> str:
    """Return the interval in brackets; nothing where it has no width that could be seen."""
    low, high = map(duration, made.interval)
    return "" if low == high else f" ({low} to {high})"


def _with(value: float, interval: Interval, read: Callable[[float], str]) -> str:
    """Return a value with its interval."""
    low, high = map(read, interval)
    return read(value) if low == high else f"{read(value)} ({low} to {high})"
