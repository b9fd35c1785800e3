"""The run of a whole job: its outcomes in columns, its progress, its statistics and its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable
from typing import Generic, TypeVar, cast

from ragasync._engine.controls import InnerStages, RunControls
from ragasync._engine.item_sources import Items, check_items, length_of
from ragasync._engine.run import execute
from ragasync._limits.limiter import Limiter, RateLimiter
from ragasync._outcomes.activity import ActivityMonitor
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._outcomes.stats import Limit, RunSettings, RunStats, SourceKind, StageStats, Where
from ragasync._reports.summary import counted
from ragasync._reports.time_breakdown import StageMeter, bottleneck
from ragasync.clock import Clock, Heartbeat, loop_clock
from ragasync.dataframe_items import DataFrameRows
from ragasync.error_text import add_note, show_in_one_line
from ragasync.errors import IncompleteRun
from ragasync.foreign_errors import attribute, is_a
from ragasync.progress_callbacks import (
    LimitedBy,
    Progress,
    ProgressCallback,
    RateMeter,
    SafeCallback,
    StageName,
)
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings
from ragasync.usage import warn_of_unreported

T = TypeVar("T")
R = TypeVar("R")

SAMPLES = 9
"""The number of latest samples of `limited_by` from which progress shows the most frequent."""


class JobRun(Generic[T, R]):
    """
    One run over a finite input that keeps all outcomes: `process` awaits it, a Job controls it.

    Args:
        on_result: called with the result, however the run ends.
        inner: the stages inside the function of a pipeline's run; None for any other run.

    Attributes:
        columns: the outcomes so far.
        total: the number of items to process, if known.
        run: the controls of the run.

    Raises:
        TypeError: `items` cannot be iterated, or is one text.
        ValueError: `total` or `max_items` is negative.
    """

    def __init__(
        self,
        settings: BatchSettings[T, R],
        items: Items[T],
        progress_callback: ProgressCallback | None,
        *,
        total: int | None,
        max_items: int | None,
        on_result: Callable[[BatchResult[R]], None],
        inner: InnerStages | None = None,
    ) -> None:
        source, known, labels = check_items(items, total, max_items)
        self._report = SafeCallback(progress_callback)
        self._on_result = on_result
        self._source = source_kind(source)
        self._length = length_of(source)
        in_memory = isinstance(source, list | range | DataFrameRows)
        self.columns: Columns[T, R] = Columns(
            source if in_memory else [], open_ended=not in_memory, labels=labels
        )
        self.total = known if known is None or max_items is None else min(max_items, known)
        self._max_items = max_items
        self._items = [source]
        self.run = RunControls(settings, inner)
        self._clock: Clock = time.monotonic
        self._began: float | None = None
        self._cpu_before: float | None = None
        self._cpu_seconds: float | None = None
        self._seconds: float | None = None
        self._rate_meter: RateMeter | None = None
        self._samples: tuple[LimitedBy, ...] = ()
        self._stage_meter = StageMeter()

    async def complete(self) -> BatchResult[R]:
        """
        Run to the end and return the result.

        Raises:
            Exception: what the source or the resources raised, or a RunAsyncError.
            CancelledError: the run was cancelled. Like every error from here, it has a note of what
                was done, and `on_result` has been called with the partial result.
        """
        self._clock = loop_clock(asyncio.get_running_loop())
        self._began = self._clock()
        self._rate_meter = RateMeter(self._clock)
        if self._clock is time.monotonic:  # CPU time cannot be compared with virtual seconds
            self._cpu_before = time.process_time()
        try:
            with Heartbeat(self._beat):
                await execute(
                    self.run,
                    self._items.pop(),  # whose items this object must not keep alive
                    self.columns,
                    total=self.total,
                    max_items=self._max_items,
                    on_item=self.columns.append if self.columns.open_ended else None,
                )
        except BaseException as error:
            result = self._end(complete=False)
            if is_a(error, IncompleteRun):
                error.result = result
            add_note(error, self.what_was_done())
            if is_a(error, asyncio.CancelledError):
                show_in_one_line(error, self.what_was_done())
            del self, result  # otherwise an error that is kept would keep them alive
            raise
        return self._end()

    def result(self) -> BatchResult[R]:
        """Make a result of the outcomes so far, which no longer changes."""
        return self._result_of(self.columns.snapshot())

    def progress(self) -> Progress:
        """Make a snapshot of the progress."""
        done, failed = self._counts()
        total = self._total_now()
        left = None if total is None else total - done - failed
        ran = done + failed - self.run.totals.journaled
        paused_for, pause = (0.0, "") if self._seconds is not None else self.run.pause_in_force
        if self._seconds is not None:
            left, rate = 0, ran / self._seconds if self._seconds > 0 else 0.0
        else:
            rate = self._rate_meter.rate(ran) if self._rate_meter else 0.0
        return Progress(
            done=done,
            failed=failed,
            total=total,
            retried=self.run.totals.retried,
            in_flight=self.run.live.in_flight,
            rate=rate,
            eta=left / rate if left is not None and rate > 0 else None,
            limited_by=self._limited_by(),
            max_concurrency=self.run.max_concurrency,
            seconds=self._elapsed(),
            recalled=self.run.totals.journaled,
            tokens=self.run.usage.usage.tokens,
            cost=self.run.usage.usage.cost,
            finished_cost=self.columns.finished_cost,
            paused_for=paused_for,
            pause=pause if paused_for else "",
            halt=self.run.halt.why if self._seconds is None and self.run.halt.ongoing else "",
        )

    def _counts(self) -> tuple[int, int]:
        """Count the items that are done, and those that failed."""
        return self.columns.status.count(DONE), self.columns.status.count(FAILED)

    def _total_now(self) -> int | None:
        """The number of items to process, as far as it is known by now."""
        if self._seconds is None:
            return self.total
        came = len(self.columns)
        return came if self._max_items is None else min(self._max_items, came)

    def recent_stages(self) -> tuple[tuple[StageStats, ...], float]:
        """
        The statistics of a pipeline's stages over the last seconds, and how many seconds these are.

        Once the job has ended, over the whole run.
        """
        stages, seconds = self.run.stages, self._elapsed()
        if self._seconds is not None:
            return stages, seconds
        return self._stage_meter.recent(stages, seconds)

    def _limited_by(self) -> LimitedBy | StageName:
        """The most frequent of the latest samples: a single one may be a momentary state."""
        seen = self._samples or (self.run.limited_by,)
        most = max(seen, key=seen.count)
        stage = None if most == "paused" else bottleneck(*self.recent_stages())
        return most if stage is None else cast("StageName", stage.name)

    def forget_limits(self) -> None:
        """Drop the samples of what limited the run: a setting has changed."""
        self._samples = ()

    def _beat(self) -> None:
        """Sample the run and report its progress, at each heartbeat."""
        finished = sum(self._counts())
        if self._rate_meter is not None:
            self._rate_meter.update(finished - self.run.totals.journaled)
        self._samples = (*self._samples[1 - SAMPLES :], self.run.limited_by)
        if self.run.inner is not None and self._stage_meter.is_due(seconds := self._elapsed()):
            self._stage_meter.update(self.run.stages, seconds)
        try:
            self._report(finished, self.total, self.run.totals.journaled)
        except (KeyboardInterrupt, SystemExit) as error:  # raised from here, it would end the loop
            self.run.abort(error)

    def _end(self, *, complete: bool = True) -> BatchResult[R]:
        """Close the columns, pass on the result, and report progress for the last time."""
        self._seconds, self._cpu_seconds = self._elapsed(), self._cpu_so_far()
        if len(self.columns) == self._max_items or self.run.stopped_because is not None:
            complete = False
        self.columns.close(None if complete else self._length)
        result = self._result_of(self.columns)
        self._on_result(result)
        self._report(sum(self._counts()), self._total_now(), self.run.totals.journaled)
        self._report.close()
        self._warn_of_idle_budgets()
        return result

    def _warn_of_idle_budgets(self) -> None:
        """Warn if a budget was given and calls reported nothing; a pipeline does it itself."""
        settings, done = self.run.settings, self._counts()[0]
        if self.run.inner is None and done > self.run.totals.journaled:
            warn_of_unreported(settings.max_tokens, settings.max_cost, self.run.usage.usage)

    def _elapsed(self) -> float:
        """The seconds from the start until now, or until the end."""
        if self._seconds is not None:
            return self._seconds
        return 0.0 if self._began is None else self._clock() - self._began

    def _cpu_so_far(self) -> float | None:
        """The CPU time of this process since the start, if it is known."""
        if self._cpu_seconds is not None or self._cpu_before is None:
            return self._cpu_seconds
        return time.process_time() - self._cpu_before

    def _result_of(self, columns: Columns[T, R]) -> BatchResult[R]:
        """Make a result of columns, without copying them."""
        stats = run_stats(self.run, self._source, self._cpu_so_far())
        return BatchResult.of(
            columns, seconds=self._elapsed(), stopped_because=self.run.stopped_because, stats=stats
        )

    def what_was_done(self) -> str:
        """Describe how much was done, where it is kept, and the threads that still run."""
        done, failed = self._counts()
        note = (
            f"ragasync: {done:,} of {len(self.columns):,} items were done and {failed:,} had "
            f"failed; `last_result` of the processor keeps them"
        )
        if threads := self.run.live.running_threads:
            still = f"{counted(threads, 'thread')} {'is' if threads == 1 else 'are'} still"
            note += f"; {still} in a call and cannot be interrupted"
        return note


def run_stats(run: RunControls, source: SourceKind, cpu_seconds: float | None) -> RunStats:
    """Collect the statistics of a run, so far or at its end."""
    settings = run.settings
    on_loop: Where = "loop" if settings.is_async else "threads"
    shared = settings.items_per_call > 1  # else each item of a call would count its time
    rates = [_rate_of(limiter) for limiter in settings.limiters]
    own_rate = run.rate
    own = () if own_rate is None else (Limit(own_rate),)
    history = run.concurrency_history.steps()
    return RunStats(
        max_concurrency=max((limit for _, limit in history), default=run.max_concurrency),
        concurrency_history=history,
        adapted=run.adaptive,
        input_waited=run.totals.input_seconds,
        limited=bool(settings.limiters),
        worked=run.totals.call_seconds if shared else None,
        limiter_waited=run.totals.limiter_seconds if shared else None,
        cpu_seconds=cpu_seconds,
        settings=RunSettings(
            where=on_loop if settings.executor is None else "executor",
            source=source,
            batch_size=settings.batch_size if settings.batched else 0,
            bounded_by_weight=settings.max_batch_weight is not None,
            timeout=settings.timeout,
            retry_delay=settings.retry.base_delay,
            rate=min((rate for rate in (*rates, own_rate) if rate is not None), default=None),
            limits=(*map(limit_of, settings.limiters), *own),
        ),
        stages=run.stages,
        counters=run.counters,
        pauses=run.all_pauses,
        usage=run.usage.usage,
        earlier_usage=run.usage.earlier,
        journal=run.usage.journal,
        input_blocked=run.totals.input_blocked_seconds,
        halt=run.halt,
    )


def stage_stats(name: str, run: RunControls, activity: ActivityMonitor, ended: int) -> StageStats:
    """Collect the statistics of a stage that has a run of its own."""
    settings = run.settings
    own = () if run.rate is None else (run.rate,)
    rates = [*map(_rate_of, settings.limiters), *own]
    # Next to a limiter of tokens, the strictest is unknown; of several, none stands for all.
    known = None not in rates and len(settings.limiters) < 2
    return StageStats(
        name,
        run.max_concurrency,
        activity.seconds_so_far,
        run.totals.limiter_seconds,
        settings.batch_size if settings.batched else 0,
        min((rate for rate in rates if rate is not None), default=None) if known else None,
        activity.calls,
        ended=ended,
        in_flight=run.live.in_flight,
        waiting=run.live.waiting_at_limiter,
        busy=(activity.snapshot(),),
        adaptive=run.adaptive,
        own_rate=run.rate,
        extra_slot_seconds=activity.extra_slot_seconds,
        on_executor=settings.executor is not None,
        tokens=run.usage.usage.tokens,
        cost=run.usage.usage.cost,
    )


def limit_of(limiter: Limiter) -> Limit:
    """The setting of a limiter, as far as it tells."""
    rate, burst, window = (
        value if isinstance(value := attribute(limiter, name), int | float) else None
        for name in ("rate", "_explicit_burst", "window")
    )
    unit = "tokens" if attribute(limiter, "unit") == "tokens" else "requests"
    return Limit(rate, burst, window, limiter.weight is not None, limiter.weight, unit)


def source_kind(source: object) -> SourceKind:
    """The kind of a source."""
    if isinstance(source, AsyncIterable):
        return "async"
    return "list" if isinstance(source, list | tuple | range | DataFrameRows) else "iterator"


def _rate_of(limiter: Limiter) -> float | None:
    """The calls per second that a limiter allows, if it counts calls."""
    if not isinstance(limiter, RateLimiter) or limiter.unit != "requests":
        return None
    return limiter.rate if limiter.weight is None else None
