"""The stages of a pipeline as a running job shows them: a line each, in words and in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ragasync.outcomes.stats import StageStats
from ragasync.reports.elements import QUIET, element
from ragasync.reports.spans import STATE_COLOURS, WORK
from ragasync.reports.stages import busiest, share_busy
from ragasync.reports.summary import counted

MARK = "▸"
"""Stands before the stage that holds the others back."""

WIDTHS = (122, 122, 128, 80)
"""Pixels of the columns, so that nothing moves when a number grows."""

LETTERS = (15, 20, 18, 0)
"""The same in letters."""


@dataclass(frozen=True, slots=True)
class StageLine:
    """
    What there is to say of one stage.

    Args:
        name: the stage.
        facts: its calls in flight, the items that have left it, and how busy it is.
        share: how busy it is, from 0 to 1.
        holds: whether it holds the others back.
    """

    name: str
    facts: tuple[str, ...]
    share: float
    holds: bool


def stage_lines(stages: Sequence[StageStats], seconds: float, *, ended: bool) -> list[StageLine]:
    """
    Return what there is to say of each stage.

    Args:
        stages: what the run knows of them.
        seconds: how long it has run.
        ended: whether it has ended, so that nothing is in flight.
    """
    holds = busiest(stages, seconds)
    return [
        StageLine(
            stage.name,
            (
                _at_once(stage, ended=ended),
                counted(stage.ended, "chunk" if stage.name == "embed" else "document"),
                f"{share_busy(stage, seconds):.0%} busy",
            ),
            share_busy(stage, seconds),
            stage is holds,
        )
        for stage in stages
    ]


def holding_back(stages: Sequence[StageStats], seconds: float) -> str:
    """Return which stage holds the others back, and how; or nothing."""
    stage = busiest(stages, seconds)
    if stage is None:
        return ""
    why = "its calls wait for the rate limit"
    if stage.limiter_waited <= stage.worked:
        why = f"its calls are under way {share_busy(stage, seconds):.0%} of the time"
    return f"{stage.name} holds the others back: {why}"


def stages_text(lines: Sequence[StageLine]) -> list[str]:
    """Return the lines as aligned text."""
    texts = []
    for line in lines:
        cells = zip((line.name, *line.facts), LETTERS, strict=True)
        text = " ".join(f"{cell:<{width}}" for cell, width in cells)
        texts.append(f"{MARK if line.holds else ' '} {text}".rstrip())
    return texts


def stages_html(lines: Sequence[StageLine]) -> str:
    """Return the lines as a grid whose columns keep their places; nothing without any."""
    if not lines:
        return ""
    return element("div", "margin:4px 0", *map(_row, lines))


def stages_in_short(lines: Sequence[StageLine]) -> str:
    """Return how busy each is, for the repr of a job."""
    return "busy: " + ", ".join(f"{line.name} {line.share:.0%}" for line in lines)


def _row(line: StageLine) -> str:
    """Return one stage, with how busy it is as a thin bar too."""
    name = f"{MARK} {line.name}" if line.holds else line.name
    width, *others = WIDTHS
    weight = "font-weight:600" if line.holds else QUIET
    bar = element(
        "span",
        "flex:0 0 40px;height:6px;margin-right:8px;background:rgba(128,128,128,0.25)",
        element(
            "span",
            f"display:block;height:6px;width:{line.share:.0%};background:{STATE_COLOURS[WORK]}",
        ),
    )
    cells = zip(line.facts, others, strict=True)
    return element(
        "div",
        "display:flex;align-items:center;white-space:nowrap",
        element("span", f"flex:0 0 {width}px;overflow:hidden;{weight}", escape(name)),
        bar,
        *(element("span", f"flex:0 0 {wide}px", escape(cell)) for cell, wide in cells),
    )


def _at_once(stage: StageStats, *, ended: bool) -> str:
    """Return the calls of a stage that are made now, and that wait to be."""
    if ended:
        return f"{stage.max_concurrency:,} at once"
    if stage.waiting:
        return f"{stage.in_flight:,} of {stage.max_concurrency:,}, {stage.waiting:,} waiting"
    return f"{stage.in_flight:,} of {stage.max_concurrency:,} in flight"
