"""The controls of a run: what a job's handle calls, before the run begins and while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ragasync._bridge.interrupts import Interrupted
from ragasync._calls.caller import Caller
from ragasync._calls.groups import GroupSize
from ragasync._engine.replies import Begun
from ragasync._engine.workers import Interrupt
from ragasync._limits.adaptive import ConcurrencyController
from ragasync._limits.combined import CombinedLimiter
from ragasync._outcomes.activity import ActivityMonitor
from ragasync._outcomes.stats import ExecutorHalt, LimitHistory, ServicePauses, StageStats
from ragasync.cancellation import CancellableSetup
from ragasync.clock import current_time
from ragasync.error_text import describe
from ragasync.progress_callbacks import LimitedBy
from ragasync.settings import BatchSettings
from ragasync.usage import UsageTotals

R = TypeVar("R")

current_run: ContextVar[RunControls] = ContextVar("current_run")
"""The controls of the run that the current call belongs to."""


@dataclass(slots=True)
class RunTotals:
    """
    What a run has counted so far, apart from outcomes; all times in seconds.

    Attributes:
        calls: calls off the fast path, each attempt.
        call_seconds: the time in these calls, each call once, however many items it has.
        limiter_seconds: the time that calls waited for the rate limit.
        input_seconds: the time that workers waited for the source.
        input_blocked_seconds: the part of it during which reading the source blocked the loop.
        retried: items with more than one attempt, made or planned.
        journaled: outcomes that came from a journal.
        shared_failure: status and text of the error of all calls, if that has stopped the run.
    """

    calls: int = 0
    call_seconds: float = 0.0
    limiter_seconds: float = 0.0
    input_seconds: float = 0.0
    input_blocked_seconds: float = 0.0
    retried: int = 0
    journaled: int = 0
    shared_failure: tuple[int, str] | None = None


class LiveRun:
    """
    A run as its controls see it; its scheduler is one whose workers are at work.

    As it is here, it stands for the run before its workers start and after they have ended.

    Args:
        setup: the opening of the journal and the resources, which is all that goes on at first.
        caller: the function, which threads may still be inside at the end; None before the start.
    """

    def __init__(self, setup: CancellableSetup, caller: Caller | None = None) -> None:
        self._setup, self._caller = setup, caller

    @property
    def in_flight(self) -> int:
        """The number of calls in flight."""
        return 0

    @property
    def waiting_at_limiter(self) -> int:
        """The number of calls that wait for the rate limit."""
        return 0

    @property
    def waits_for(self) -> LimitedBy:
        """What the workers wait for, if nothing is paused."""
        return "concurrency"

    @property
    def source_ended(self) -> bool:
        """Whether the last item has been read and its call started."""
        return False

    @property
    def owner_is_cancelled(self) -> bool:
        """Whether the task that owns the run has been cancelled."""
        return False

    @property
    def halt(self) -> ExecutorHalt:
        """Whether the executor starts nothing, and why."""
        return ExecutorHalt() if self._caller is None else self._caller.halt

    @property
    def running_threads(self) -> int:
        """The number of threads inside a call, which nothing can interrupt."""
        return 0 if self._caller is None else self._caller.running_threads

    def set_interrupt(self, reason: Interrupt, wanted: bool = True) -> None:
        """Make workers leave the fast path after their current call, until the reason is gone."""

    def request_turn(self) -> None:
        """Have workers let the loop turn after their current call."""

    def notify(self, *, everyone: bool = False) -> None:
        """Wake a worker, or every one, to see what has changed."""

    def resize(self, max_concurrency: int) -> None:
        """Change the number of workers."""

    def cancel_calls(self, *, only_waiting: bool) -> None:
        """Cancel the calls in flight, or only those that wait for the rate limit."""
        if not only_waiting:
            self._setup.cancel()


class InnerStages(Protocol):
    """The stages of a pipeline whose documents are the items of a run; each has its own calls."""

    def open(self, run: RunControls) -> AbstractAsyncContextManager[None]:
        """Open the stages for this run, on its own loop, and close them at its end."""

    def begin(self, item: Any) -> Begun[Any] | None:
        """Begin an item that needs no worker while it waits for shared calls; None if it does."""

    def source_ended(self) -> None:
        """Note that the run has read its last item, so that partial batches need not wait."""

    def stop_early(self, because: str) -> None:
        """Start no further call for which somebody pays: the run leaves items pending."""

    @property
    def stats(self) -> tuple[StageStats, ...]:
        """The statistics of each stage so far."""

    @property
    def counters(self) -> tuple[tuple[str, int], ...]:
        """Other counts of the run, by name."""

    @property
    def runs(self) -> tuple[RunControls, ...]:
        """The runs that make the calls of the stages."""


class RunControls:
    """
    The handle on a run, to steer it and to ask how it is.

    Made anywhere; used on the run's own loop from the moment that the run begins. Each method
    changes a setting and sets or clears the matching interrupt, which is all that the workers
    check, so that nobody polls these settings.

    Args:
        settings: what to call and how.
        inner: the stages inside the function of a pipeline's run; None for any other run.
        on_early_stop: called with the reason when a stop leaves items pending.
        on_resize: called when another number of calls is allowed.
        usage: what counts the usage; by default a total of its own, with the bounds of `settings`.

    Attributes:
        paused: whether no call starts for now.
        input_paused: whether no new item is read for now.
        stopping: whether nothing more starts at all.
        stop_requested: whether that is because somebody stopped it.
        stopped_because: why, if it stopped before its end.
        stopped_early: whether it stopped so that calls in flight finish and the rest is pending.
        error: what `execute` will raise.
        raised_error: whether `execute` has raised it.
        adaptive: whether the run finds its concurrency itself.
        controller: watches the calls that begin now, in order to find it.
        concurrency_history: the concurrency allowed so far.
        pauses: how often and how long the service asked for a pause.
        totals: what the run has counted.
        activity: notes when calls are in flight, if somebody wants to know.
        group_size: adapts the size of groups for an executor to their time; None if it is fixed.
        setup: the opening of the journal and the resources.
        live: the workers of the run, or what stands for them before they start and after they end.
    """

    def __init__(
        self,
        settings: BatchSettings[Any, Any],
        inner: InnerStages | None = None,
        on_early_stop: Callable[[str], None] = lambda _: None,
        on_resize: Callable[[], None] = lambda: None,
        usage: UsageTotals | None = None,
    ) -> None:
        self.settings, self.inner = settings, inner
        self._loop: asyncio.AbstractEventLoop | None = None
        if usage is None:
            usage = UsageTotals(settings.max_tokens, settings.max_cost, self._stop_from_any_thread)
        self.usage = usage
        self._on_early_stop, self._on_resize = on_early_stop, on_resize
        self._limiter = CombinedLimiter(settings.limiters) if settings.limiters else None
        self.max_concurrency = settings.max_concurrency
        self.concurrency_history = LimitHistory(settings.max_concurrency)
        self.paused = self.input_paused = False
        self.stopping = self.stop_requested = self.stopped_early = self._cancelling = False
        self.stopped_because: str | None = None
        self.error: BaseException | None = None
        self.raised_error = False
        self.pauses = ServicePauses()
        self.totals = RunTotals()
        self.activity: ActivityMonitor | None = None
        self.group_size: GroupSize | None = None
        self.setup = CancellableSetup()
        self.live = LiveRun(self.setup)
        self.adaptive = False
        self.controller: ConcurrencyController | None = None
        if settings.adaptive:
            self.adapt()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on this loop, and count usage also for the call that the run is a part of, if any."""
        self._loop = loop
        self.usage.attach()

    def detach(self, caller: Caller) -> None:
        """Control nothing more: the workers have ended, only threads may still be in a call."""
        self.live = LiveRun(self.setup, caller)

    @property
    def limiter(self) -> CombinedLimiter:
        """The limiters of the settings and the run's own, made when there is something to limit."""
        if self._limiter is None:
            self._limiter = CombinedLimiter()
        return self._limiter

    # ── what changes the run ────────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Start no further call until `resume`."""
        self.paused = True
        self.live.set_interrupt("pause")

    def resume(self) -> None:
        """Go on after `pause`, and end the pauses that services have asked for."""
        self.paused = False
        self.live.set_interrupt("pause", False)
        for run in (self, *self._stage_runs):
            if run._limiter is not None:
                run._limiter.resume()
            run.live.notify()

    def pause_input(self, paused: bool) -> None:
        """Read no new item for now, or go on: for pipelines, which know when there is room."""
        if paused == self.input_paused:
            return
        self.input_paused = paused
        self.live.set_interrupt("input pause", paused)
        if not paused:
            self.live.notify()

    def resize(self, max_concurrency: int) -> None:
        """
        Allow more or fewer calls in flight, and stop adapting that number.

        Surplus calls in flight are left to finish.
        """
        self.adaptive = False
        self._set_controller(None)
        self._resize(max_concurrency)

    def adapt(self) -> None:
        """Adapt the number of calls in flight to what the service can take, from now on."""
        self.adaptive = True
        self._set_controller(
            ConcurrencyController(self.max_concurrency, current_time, self._resize)
        )

    def _set_controller(self, controller: ConcurrencyController | None) -> None:
        """Let this controller watch the calls that begin from now on."""
        if self.controller is not None:
            self.controller.close()
        self.controller = controller

    def _resize(self, max_concurrency: int) -> None:
        """Allow this number of calls in flight."""
        if self.activity is not None:
            self.activity.limit_changed(self.max_concurrency, max_concurrency)
        self.max_concurrency = max_concurrency
        if not self.stopping:
            self.live.resize(max_concurrency)
        self._on_resize()

    def set_rate(self, rate: float | None) -> None:
        """Limit the calls per second of this run alone; None removes the limit."""
        self.limiter.rate = rate
        self.live.set_interrupt("rate limit", not self.limits_are_open)
        self.live.notify()

    def pause_limiters(self, seconds: float) -> None:
        """Close all limiters of the run, because a service has asked for a pause."""
        self.limiter.pause(seconds)
        self.live.set_interrupt("rate limit", not self.limits_are_open)

    def notify(self) -> None:
        """Have a worker see whether there is room for new outcomes again, or none any more."""
        self.live.notify()

    # ── what ends it ────────────────────────────────────────────────────────────────────────────

    def stop(self, because: str | None, *, cancel: bool = False) -> None:
        """Start nothing more; let calls in flight finish, or cancel them."""
        if not self.stopping:
            self.stopped_because = because
            if because is not None and not cancel:
                self.stopped_early = True
                self._on_early_stop(because)
        self.stopping = self.stop_requested = True
        self._cancelling = self._cancelling or cancel
        self.live.set_interrupt("stop")
        self.live.cancel_calls(only_waiting=not cancel)
        self.live.notify(everyone=True)
        # After an error of the source, the items that were read before it are still finished.
        if self.inner is not None and self.stopped_early and self.error is None:
            self.inner.stop_early(self.stopped_because or "")

    def withdraw_stop(self) -> None:
        """Forget an early stop that left no item without an outcome."""
        self.stopped_early, self.stopped_because = False, None

    def _stop_from_any_thread(self, because: str) -> None:
        """Stop, on whatever thread the last usage was reported."""
        loop = self._loop
        if loop is None or asyncio._get_running_loop() is loop:
            self.stop(because)
        else:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.stop, because)

    def fail(self, error: BaseException, because: str) -> None:
        """Start nothing more, let calls in flight finish, and raise this error at the end."""
        self.error = self.error or error
        self.stop(because)

    def abort(self, error: BaseException) -> None:
        """Cancel the calls in flight, and raise this error at the end."""
        self.error = self.error or error
        self.stop(describe(error), cancel=True)

    def interrupted(self, error: Interrupted) -> None:
        """
        Abort because a call that blocked in run_async was interrupted, and thereby the run.

        If the run is being cancelled anyway, the interrupt was a part of that.
        """
        if not (self._cancelling or self.live.owner_is_cancelled):
            self.abort(error)

    # ── how it is ───────────────────────────────────────────────────────────────────────────────

    @property
    def stages(self) -> tuple[StageStats, ...]:
        """The statistics of the stages inside the function, if it has any."""
        return () if self.inner is None else self.inner.stats

    @property
    def counters(self) -> tuple[tuple[str, int], ...]:
        """The other counts of these stages."""
        return () if self.inner is None else self.inner.counters

    @property
    def _stage_runs(self) -> tuple[RunControls, ...]:
        """The runs that make the calls of these stages."""
        return () if self.inner is None else self.inner.runs

    def source_ended(self) -> None:
        """Tell these stages that the last item has been read."""
        if self.inner is not None:
            self.inner.source_ended()

    @property
    def limits_are_open(self) -> bool:
        """Whether no limiter holds any call, so that calls need not ask."""
        return self._limiter is None or self._limiter.is_open

    @property
    def paused_for(self) -> float:
        """For how many more seconds a limiter of the run is paused."""
        return 0.0 if self._limiter is None else self._limiter.paused_for

    @property
    def rate(self) -> float | None:
        """The rate limit of this run alone, in calls per second."""
        return None if self._limiter is None else self._limiter.rate

    @property
    def limited_by(self) -> LimitedBy:
        """What limits the run now."""
        if self.paused or self.pause_in_force[0] > 0.0 or self.halt.ongoing:
            return "paused"
        return self.live.waits_for

    @property
    def pause_in_force(self) -> tuple[float, str]:
        """
        For how many more seconds the limiters of this run, or of a stage, stay closed, and why.

        The reason is empty if no response asked for it: somebody has paused a limiter by hand, or
        another job that shares it has.
        """
        runs = (self, *self._stage_runs)
        paused = max(runs, key=lambda run: run.paused_for)
        return paused.paused_for, paused.pauses.reply

    @property
    def all_pauses(self) -> ServicePauses:
        """The pauses that responses to this run and to its stages have asked for."""
        pauses = self.pauses
        for run in self._stage_runs:
            pauses = pauses.merged_with(run.pauses)
        return pauses

    @property
    def halt(self) -> ExecutorHalt:
        """Whether the executor of this run, or of a stage, starts nothing, and why."""
        halts = (self.live.halt, *(run.live.halt for run in self._stage_runs))
        return max(halts, key=lambda halt: (halt.ongoing, halt.seconds))  # they halt together
