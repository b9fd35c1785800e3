"""What a job shows of itself, in words: the same ones for its repr, as text, and in HTML."""

from __future__ import annotations

from dataclasses import dataclass

from ragasync.notebook.stages_shown import (
    StageLine,
    holding_back,
    stage_lines,
    stages_in_short,
)
from ragasync.outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync.outcomes.stats import StageStats, wall_time_in
from ragasync.progress import LimitedBy, Progress
from ragasync.reports.error_groups import one_line
from ragasync.reports.summary import counted, duration, per_second, usages

BECAUSE: dict[LimitedBy, str] = {
    "rate": "calls wait for the rate limit",
    "concurrency": "as many calls are in flight as may be",
    "retries": "what is left waits to be tried again",
    "input": "the source gives nothing faster",
    "paused": "nothing is sent for now",
}


@dataclass(frozen=True, slots=True)
class JobView:
    """
    What a job is doing at one moment.

    Args:
        ended: whether it has ended.
        because: why it stops or has stopped before its items did, if it does.
        cancelled: whether somebody has cancelled it.
        paused: whether it begins no further call for now.
        progress: how far it is.
        max_concurrency: the most calls at once.
        adapts: whether the job finds that number by itself.
        rate: the most calls a second, None for no bound.
        speed: calls a second at present.
        left: the statuses of its items, once it has ended.
        stages: where it is a pipeline, how busy each stage of it is.
    """

    ended: bool
    because: str | None
    cancelled: bool
    paused: bool
    progress: Progress
    max_concurrency: int
    rate: float | None
    speed: float
    left: bytes | bytearray = b""
    stages: tuple[StageStats, ...] = ()
    adaptive: bool = False

    @property
    def noun(self) -> str:
        """What its knobs count."""
        return "item" if self.stages else "call"

    @property
    def state(self) -> str:
        """One word for what it does."""
        if self.cancelled:
            return "cancelled" if self.ended else "cancelling"
        if self.because is not None:
            return "stopped" if self.ended else "stopping"
        return "ended" if self.ended else "paused" if self.paused else "running"

    @property
    def share(self) -> float:
        """The share of the items that have ended; 0 while nobody can tell."""
        total = self.progress.total
        if not total:
            return float(self.ended and not self.left)
        return min(self.progress.finished / total, 1.0)


def progress_text(showing: JobView) -> list[str]:
    """Return how far a job is, how fast, and how long it takes."""
    now = showing.progress
    total = "?" if now.total is None else f"{now.total:,}"
    facts = [f"{now.finished:,} of {total}", f"{per_second(now.rate)} items/s"]
    if showing.ended:
        return [*facts, f"{duration(now.seconds)} in all"]
    facts.append(f"{clock_time(now.seconds)} so far")
    if now.eta is not None and showing.state == "running":
        facts.append(f"{clock_time(now.eta)} left")
    return facts


def counts(showing: JobView) -> list[tuple[int | None, str]]:
    """Return the counts of a job, each with the status that it is of, or None."""
    now = showing.progress
    facts: list[tuple[int | None, str]] = [
        (DONE, f"{now.done:,} done"),
        (FAILED, f"{now.failed:,} failed"),
        (None, f"{now.retried:,} retried"),
    ]
    if now.recalled:
        facts.append((None, f"{now.recalled:,} from the journal"))
    facts += [(None, f"{name} {value}") for name, value in usages(now.tokens, now.cost)]
    if not showing.ended:
        return [*facts, (None, f"{now.in_flight:,} in flight")]
    for status, name in ((CANCELLED, "cancelled"), (PENDING, "pending")):
        if count := showing.left.count(status):
            facts.append((status, f"{count:,} {name}"))
    return facts


def held_back(showing: JobView) -> str:
    """Return what holds a job back, or why it stopped, or nothing."""
    if showing.cancelled:
        return "" if showing.ended else "cancelling: what is in flight cleans up"
    if showing.because is not None:
        return f"because {one_line(showing.because)}"
    if showing.ended:
        return ""
    if showing.paused:
        return "paused: no further call begins"
    if pause := service_pause(showing.progress):
        return pause
    if told := holding_back(showing.stages, showing.progress.seconds):
        return told
    limited_by = showing.progress.limited_by
    return f"limited by {limited_by}: {BECAUSE[limited_by]}"


def service_pause(now: Progress) -> str:
    """Return how long nothing is sent, until when, and who asked for it; or nothing."""
    if now.halt:
        return one_line(now.halt)
    if now.paused_for <= 0.0:
        return ""
    asked = f": {one_line(now.pause)}" if now.pause else ""
    until = wall_time_in(now.paused_for)
    return f"nothing is sent for {duration(now.paused_for)} more, until {until}{asked}"


def bounds(showing: JobView) -> str:
    """Return what a job is allowed."""
    at_once = counted(showing.max_concurrency, showing.noun)
    auto = " (auto)" if showing.adaptive else ""
    return f"at most {at_once} at once{auto}, {rate_bound(showing)}"


def lines_of_stages(showing: JobView) -> list[StageLine]:
    """Return what there is to say of each stage of a pipeline."""
    return stage_lines(showing.stages, showing.progress.seconds, ended=showing.ended)


def rate_bound(showing: JobView) -> str:
    """Return the bound on the rate, or that there is none."""
    if showing.rate is None:
        return "no rate bound"
    noun = showing.noun if showing.rate == 1 else f"{showing.noun}s"
    return f"{per_second(showing.rate)} {noun} a second"


def repr_line(showing: JobView) -> str:
    """Return the repr of a job."""
    first, *rest = progress_text(showing)
    facts = [first, *(text for _, text in counts(showing)), *rest]
    if showing.because is not None and not showing.cancelled:
        facts.append(held_back(showing))
    elif showing.state == "running" and (pause := service_pause(showing.progress)):
        facts.append(pause)
    elif showing.state == "running" and not showing.stages:
        facts.append(f"limited by {showing.progress.limited_by}")
    if lines := lines_of_stages(showing):
        facts.append(stages_in_short(lines))
    return f"<Job {showing.state}: {', '.join([*facts, bounds(showing)])}>"


def clock_time(seconds: float) -> str:
    """Return a length of time as a clock shows it: `0:12`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
