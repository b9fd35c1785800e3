"""The view of a job: its state as a repr, as text and as HTML; stages of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync._outcomes.stats import StageStats, wall_time_in
from ragasync._reports.error_groups import LiveErrorGroups
from ragasync._reports.html import (
    BAR_FRAME,
    COLORS,
    TABULAR,
    colored_count,
    error_rows,
)
from ragasync._reports.summary import (
    clock_time,
    counted,
    error_lines,
    one_line,
    per_second,
    usage_facts,
)
from ragasync._reports.time_breakdown import bottleneck, utilization
from ragasync._reports.timeline import STATE_COLORS, WORK
from ragasync.object_views import QUIET, TEXT, duration, element
from ragasync.progress_callbacks import LimitedBy, Progress, StageName

LIMIT_TEXTS: dict[LimitedBy | StageName, str] = {
    "rate": "calls wait for the rate limit",
    "concurrency": "the maximum number of calls is in flight",
    "retries": "the remaining items wait for their retries",
    "input": "the source yields items no faster",
    "paused": "nothing is sent for now",
    "last calls": "all others have ended",
}

BOTTLENECK_MARK = "▸"

STAGE_COLUMN_PIXELS = (122, 122, 128, 80)
"""Widths of the columns of stages, so that nothing moves when a number grows."""

STAGE_COLUMN_CHARS = (15, 20, 18, 0)
"""The same in characters."""


@dataclass(frozen=True, slots=True)
class ConcurrencySetting:
    """
    A setting of a job for the number of concurrent calls, as it is shown.

    Args:
        value: the maximum number of concurrent calls now.
        adaptive: whether the job adapts that number.
        name: the attribute of the job.
        label: its label in the panel.
        noun: what it counts.
        css: the first part of the CSS classes of its widgets.
        is_rated: whether the job's `rate` limits these calls.
    """

    value: int
    adaptive: bool = False
    name: str = "max_concurrency"
    label: str = "concurrency"
    noun: str = "call"
    css: str = ""
    is_rated: bool = True

    @property
    def tooltip(self) -> str:
        """A description for its slider."""
        return f"{self.name}: the maximum number of concurrent {self.noun}s"


@dataclass(frozen=True, slots=True)
class JobView:
    """
    The state of a job at one moment, as far as it is shown.

    Args:
        because: why it stops or stopped early, or None.
        concurrency: the settings for the number of concurrent calls.
        rate: the job's own rate limit in calls per second, or None.
        speed: the current calls per second.
        final_status: the status of each item, once the job has ended.
        stages: the stages of a pipeline, over the last seconds.
        stage_seconds: how many seconds these are.
        has_limiter: whether a rate limiter of the processor applies as well.
        rate_noun: what the rate limit counts.
        rate_label: the label of its slider.
    """

    ended: bool
    because: str | None
    cancelled: bool
    paused: bool
    progress: Progress
    concurrency: tuple[ConcurrencySetting, ...]
    rate: float | None
    speed: float
    final_status: bytes | bytearray = b""
    stages: tuple[StageStats, ...] = ()
    stage_seconds: float = 0.0
    has_limiter: bool = False
    rate_noun: str = "call"
    rate_label: str = "calls a second"

    @property
    def rated_concurrency(self) -> int:
        """The maximum number of concurrent calls that the rate limit applies to."""
        (rated,) = [each.value for each in self.concurrency if each.is_rated]
        return rated

    @property
    def waits_for_rate(self) -> bool:
        """Whether calls wait for the rate limit."""
        return self.progress.limited_by == "rate" or any(stage.waiting for stage in self.stages)

    @property
    def is_starting(self) -> bool:
        """Whether no call has begun yet, so that nothing limits the job."""
        now = self.progress
        began = now.in_flight or now.finished > now.recalled or now.retried
        return now.limited_by == "concurrency" and not began

    @property
    def state(self) -> str:
        """The state of the job in one word."""
        if self.cancelled:
            return "cancelled" if self.ended else "cancelling"
        if self.because is not None:
            return "stopped" if self.ended else "stopping"
        return "ended" if self.ended else "paused" if self.paused else "running"

    @property
    def share(self) -> float:
        """The share of the items that have ended; 0 if the total is unknown."""
        total = self.progress.total
        if not total:
            return float(self.ended and not self.final_status)
        return min(self.progress.finished / total, 1.0)


# ── text ────────────────────────────────────────────────────────────────────────────────────────


def repr_line(view: JobView) -> str:
    """Write the repr of a job."""
    first, *rest = progress_text(view)
    facts = [first, *(text for _, text in _counts(view)), *rest]
    if view.because is not None and not view.cancelled:
        facts.append(_status_line(view))
    elif view.state == "running" and (pause := _pause_text(view.progress)):
        facts.append(pause)
    elif view.state == "running" and not view.stages and not view.is_starting:
        facts.append(f"limited by {view.progress.limited_by}")
    if lines := stage_lines(view):
        facts.append("busy: " + ", ".join(f"{line.name} {line.share:.0%}" for line in lines))
    return f"<Job {view.state}: {', '.join([*facts, limits_text(view)])}>"


def panel_text(view: JobView, errors: LiveErrorGroups) -> str:
    """Write a panel as a few lines of text."""
    lines = [
        f"Job {view.state}: {' · '.join(progress_text(view))}",
        " · ".join(text for _, text in _counts(view)),
        *_stages_text(stage_lines(view)),
        _status_line(view),
        limits_text(view),
        *error_lines(errors.groups, errors.columns, errors.backlog),
    ]
    return "\n".join(line for line in lines if line)


def progress_text(view: JobView) -> list[str]:
    """Write the progress of a job: items, speed, time."""
    now = view.progress
    total = "?" if now.total is None else f"{now.total:,}"
    facts = [f"{now.finished:,} of {total}", f"{per_second(now.rate)} items/s"]
    if view.ended:
        return [*facts, f"{duration(now.seconds)} in all"]
    facts.append(f"{clock_time(now.seconds)} so far")
    if now.eta is not None and view.state == "running":
        facts.append(f"{clock_time(now.eta)} left")
    return facts


def limits_text(view: JobView) -> str:
    """Write the limits of a job that can be changed while it runs."""
    settings = (
        counted(setting.value, f"concurrent {setting.noun}") + " (auto)" * setting.adaptive
        for setting in view.concurrency
    )
    return f"at most {', '.join(settings)}, {rate_text(view)}"


def rate_text(view: JobView) -> str:
    """Write the job's own rate limit."""
    if view.rate is None:
        return "at the rate of its limiter" if view.has_limiter else "job.rate not set"
    noun = view.rate_noun if view.rate == 1 else f"{view.rate_noun}s"
    return f"{per_second(view.rate)} {noun} a second"


def _counts(view: JobView) -> list[tuple[int | None, str]]:
    """List the counts of a job in words, each with the status that it counts, or None."""
    now = view.progress
    facts: list[tuple[int | None, str]] = [
        (DONE, f"{now.done:,} done"),
        (FAILED, f"{now.failed:,} failed"),
        (None, f"{now.retried:,} retried"),
    ]
    if now.recalled:
        facts.append((None, f"{now.recalled:,} from the journal"))
    projected = None if view.ended else now.projected_cost
    usage = usage_facts(now.tokens, now.cost, projected)
    facts += [(None, f"{name} {value}") for name, value in usage]
    if not view.ended:
        return [*facts, (None, f"{now.in_flight:,} in flight")]
    for status, name in ((CANCELLED, "cancelled"), (PENDING, "pending")):
        if count := view.final_status.count(status):
            facts.append((status, f"{count:,} {name}"))
    return facts


def _status_line(view: JobView) -> str:
    """Write what limits a job or why it stopped; empty if neither."""
    if view.cancelled:
        return "" if view.ended else "cancelling: calls in flight are cleaning up"
    if view.because is not None:
        return f"because {one_line(view.because)}"
    if view.ended:
        return ""
    if view.paused:
        what = "documents are loaded; those in progress finish" if view.stages else "calls start"
        return f"paused: no new {what}"
    if pause := _pause_text(view.progress):
        return pause
    if text := _bottleneck_text(view.stages, view.stage_seconds):
        return text
    if view.is_starting:
        return "starting: no call has begun yet"
    limited_by = view.progress.limited_by
    text = LIMIT_TEXTS.get(limited_by, "")
    return f"limited by {limited_by}: {text}" if text else f"limited by {limited_by}"


def _pause_text(now: Progress) -> str:
    """Write how long nothing is sent and who asked for it; empty if calls are being sent."""
    if now.halt:
        return one_line(now.halt)
    if now.paused_for <= 0.0:
        return ""
    asked = f": {one_line(now.pause)}" if now.pause else ""
    until = wall_time_in(now.paused_for)
    return f"nothing is sent for another {duration(now.paused_for)}, until {until}{asked}"


# ── HTML ────────────────────────────────────────────────────────────────────────────────────────


def static_bundle(view: JobView, errors: LiveErrorGroups) -> dict[str, object]:
    """A panel that needs no kernel: a saved notebook shows this of a job."""
    return {
        "text/plain": panel_text(view, errors),
        "text/html": element(
            "div",
            TEXT,
            facts_html(view),
            element("div", QUIET, escape(limits_text(view))),
            errors_html(errors),
        ),
    }


def facts_html(view: JobView) -> str:
    """The progress bar, the counts, the stages, and what limits the job."""
    status = _status_line(view)
    return element(
        "div",
        f"{TEXT};{TABULAR}",
        element(
            "div",
            "",
            element("span", "font-weight:600", f"Job {view.state}:"),
            escape(f" {' · '.join(progress_text(view))}"),
        ),
        _progress_bar(view),
        element("div", "", *(colored_count(code, text) for code, text in _counts(view))),
        _stages_html(stage_lines(view)),
        element("div", f"{QUIET};overflow-wrap:anywhere", escape(status)) if status else "",
    )


def errors_html(errors: LiveErrorGroups) -> str:
    """The most common error groups, each with its first example; empty if there are none."""
    rows = error_rows(errors.groups, errors.columns, errors.backlog)
    return element("div", f"{TEXT};{TABULAR}", *rows) if rows else ""


def _progress_bar(view: JobView) -> str:
    """A bar with the share of the items that are done, and of those that failed."""
    finished = view.progress.finished
    parts = []
    for code, count in ((DONE, view.progress.done), (FAILED, view.progress.failed)):
        if count:
            width = view.share * count / finished
            parts.append(f"flex:none;width:{width:.2%};min-width:2px;background:{COLORS[code]}")
    if not finished and view.share:
        parts.append(f"flex:1;background:{COLORS[DONE]}")  # a job that ended without any items
    return element("div", BAR_FRAME, *(element("div", part) for part in parts))


# ── stages of a pipeline ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StageLine:
    """
    The line of one stage.

    Args:
        name: the stage.
        facts: its calls in flight, the items that have left it, its utilization.
        share: its utilization, from 0 to 1.
        is_bottleneck: whether it limits the other stages.
    """

    name: str
    facts: tuple[str, ...]
    share: float
    is_bottleneck: bool


def stage_lines(view: JobView) -> list[StageLine]:
    """List the stages of a pipeline, a line each."""
    seconds = view.stage_seconds
    slowest = bottleneck(view.stages, seconds)
    return [
        StageLine(
            stage.name,
            (
                _stage_calls(stage, ended=view.ended),
                counted(stage.ended, "chunk" if stage.name == "embed" else "document"),
                f"{utilization(stage, seconds):.0%} busy",
            ),
            utilization(stage, seconds),
            stage is slowest,
        )
        for stage in view.stages
    ]


def _stage_calls(stage: StageStats, *, ended: bool) -> str:
    """Write the calls of a stage in flight, and those that wait for the rate limit."""
    if ended:
        return f"{stage.max_concurrency:,} concurrent"
    if stage.waiting:
        return f"{stage.in_flight:,} of {stage.max_concurrency:,}, {stage.waiting:,} waiting"
    return f"{stage.in_flight:,} of {stage.max_concurrency:,} in flight"


def _bottleneck_text(stages: Sequence[StageStats], seconds: float) -> str:
    """Write which stage limits a pipeline, and how; empty if none does."""
    stage = bottleneck(stages, seconds)
    if stage is None:
        return ""
    why = "its calls wait for the rate limit"
    if stage.limiter_waited <= stage.worked:
        why = f"its calls are in progress {utilization(stage, seconds):.0%} of the time"
    return f"limited by {stage.name}: {why}"


def _stages_text(lines: Sequence[StageLine]) -> list[str]:
    """Write the stages as aligned lines of text."""
    texts = []
    for line in lines:
        cells = zip((line.name, *line.facts), STAGE_COLUMN_CHARS, strict=True)
        text = " ".join(f"{cell:<{width}}" for cell, width in cells)
        texts.append(f"{BOTTLENECK_MARK if line.is_bottleneck else ' '} {text}".rstrip())
    return texts


def _stages_html(lines: Sequence[StageLine]) -> str:
    """The stages as a grid of fixed columns; empty if there are none."""
    if not lines:
        return ""
    return element("div", "margin:4px 0", *map(_stage_row, lines))


def _stage_row(line: StageLine) -> str:
    """The row of one stage, with its utilization as a thin bar."""
    name = f"{BOTTLENECK_MARK} {line.name}" if line.is_bottleneck else line.name
    width, *others = STAGE_COLUMN_PIXELS
    weight = "font-weight:600" if line.is_bottleneck else QUIET
    bar = element(
        "span",
        "flex:0 0 40px;height:6px;margin-right:8px;background:rgba(128,128,128,0.25)",
        element(
            "span",
            f"display:block;height:6px;width:{line.share:.0%};background:{STATE_COLORS[WORK]}",
        ),
    )
    cells = zip(line.facts, others, strict=True)
    return element(
        "div",
        "display:flex;align-items:center;white-space:nowrap",
        element("span", f"flex:0 0 {width}px;overflow:hidden;{weight}", escape(name)),
        bar,
        *(element("span", f"flex:0 0 {pixels}px", escape(cell)) for cell, pixels in cells),
    )
