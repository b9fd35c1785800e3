"""What a run consists of, and what it can say of itself while it runs."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextvars import Context
from typing import Any, Generic, TypeVar

from ragasync.calls.caller import Caller
from ragasync.clock import Clock
from ragasync.engine.admission import LimiterWait
from ragasync.engine.attempts import Attempts
from ragasync.engine.batching import Batcher
from ragasync.engine.error_handling import ErrorHandler
from ragasync.engine.item_sources import ItemSource
from ragasync.engine.journalling import JournalSink
from ragasync.engine.recorder import OutcomeSink, Recorder
from ragasync.engine.resources import CancellableSetup
from ragasync.engine.retry_queue import RetryQueue
from ragasync.engine.workers import WorkerPool
from ragasync.limits.combined import CombinedLimiter
from ragasync.outcomes.activity import ActivityMonitor
from ragasync.outcomes.stats import ExecutorHalt, LimitHistory, ServicePauses, StageStats
from ragasync.progress import LimitedBy
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")


class State(Generic[T, R]):
    """
    The state of a run, and all that follows from it by looking.

    Attributes:
        paused: whether no call is to begin for now.
        held_back: whether no new item is to be drawn for now.
        stopping: whether nothing more is to begin at all.
        input_waited: seconds that workers waited for the source, added up.
        input_blocked: seconds of these for which reading the source blocked the loop.
        admission: the calls that wait for the rate limit.
        stopped_early: whether it stopped so that calls in flight finish and the rest is pending.
        when_stopped_early: called with the reason when it does.
        pauses: how often and how long the service asked to be left alone.
        stages: where the calls of this run are those of a pipeline, tells of its stages.
        told: likewise, tells what else it has counted.
        runs_of_stages: likewise, tells which runs make the calls of its stages.
        adapts: whether it finds by itself how many calls at once the service bears.
        bounds: how many calls at once it has allowed so far.
    """

    _after: ErrorHandler[T, R]
    _attempts: Attempts[T, R]
    _batches: Batcher[T]
    _workers: WorkerPool
    _loop: AbstractEventLoop
    _calls: Caller
    _clock: Clock
    _feed: ItemSource[T]
    _parked: RetryQueue[T]
    _recording: Recorder[T, R]
    _is_plain: bool
    _context: Context

    def __init__(self, plan: BatchSettings[T, R], sink: OutcomeSink[T, R]) -> None:
        self.plan = plan
        self.gate = CombinedLimiter(plan.limiters)
        self.max_concurrency = plan.max_concurrency
        self.adaptive = plan.adaptive
        self.bounds = LimitHistory(plan.max_concurrency)
        self.paused = False
        self.held_back = False
        self.stopping = False
        self.stopped_because: str | None = None
        self.error: BaseException | None = None
        self.raised_its_error = False
        self._recalled = 0
        self._owner: asyncio.Task[Any] | None = None
        self._owner_cancels = 0
        self.input_waited = self.input_blocked = 0.0
        self.pauses = ServicePauses()
        self._stop_was_asked = self._is_cancelling = self.stopped_early = False
        self.when_stopped_early: Callable[[str], None] = _ignore
        self.stages: Callable[[], tuple[StageStats, ...]] = tuple
        self.told: Callable[[], tuple[tuple[str, int], ...]] = tuple
        self.runs_of_stages: Callable[[], tuple[State[Any, Any], ...]] = tuple
        self.admission = LimiterWait(self.gate, by_items=plan.grouped)
        self._sink = sink
        self._is_open = False
        self._calling = False
        self._wave = 1
        self._opening = CancellableSetup()

    @property
    def owner_is_cancelled(self) -> bool:
        """Whether somebody has cancelled the task that the run belongs to, since it opened."""
        return self._owner is not None and self._owner.cancelling() > self._owner_cancels

    @property
    def source_ended(self) -> bool:
        """Whether the last item has been drawn and begun, as far as that is known."""
        return self._is_open and self._feed.exhausted and not self._batches.left_over

    @property
    def limited_by(self) -> LimitedBy:
        """
        What holds the run back now, by what its workers are doing.

        Where one worker waits, more of them would only wait with it: so one is enough to tell.
        """
        if self.paused or self.gate.paused_for > 0.0 or self.halt.ongoing:
            return "paused"
        if len(self.admission) > 0:
            return "rate"
        may_draw = self._is_open and not self.paused and not self.held_back
        if may_draw and (self._workers.idle or self._batches.filling):
            return "retries" if self._parked.items else "input"
        return "concurrency"

    @property
    def pause_in_force(self) -> tuple[float, str]:
        """
        How many seconds the limits of this run, or of a stage, stay closed; and who asked for it.

        The latter is empty where no reply did: somebody has paused a limiter by hand, or for
        another job.
        """
        runs = (self, *self.runs_of_stages())
        held = max(runs, key=lambda run: run.gate.paused_for)
        return held.gate.paused_for, held.pauses.reply

    @property
    def all_pauses(self) -> ServicePauses:
        """What the replies to this run, and to its stages, have asked for."""
        pauses = self.pauses
        for run in self.runs_of_stages():
            pauses = pauses.merged_with(run.pauses)
        return pauses

    @property
    def own_halt(self) -> ExecutorHalt:
        """Whether the executor of this very run starts nothing."""
        return self._calls.halt if self._is_open else ExecutorHalt()

    @property
    def halt(self) -> ExecutorHalt:
        """Whether the executor of this run, or of a stage, starts nothing."""
        halts = (self.own_halt, *(run.own_halt for run in self.runs_of_stages()))
        return max(halts, key=lambda halt: (halt.ongoing, halt.seconds))  # they halt together

    @property
    def in_flight(self) -> int:
        """How many calls are being made now."""
        if not self._is_open:
            return 0
        workers = self._workers
        at_work = len(workers.tasks) - workers.idle - len(self.admission) - self._batches.filling
        return max(0, at_work)

    @property
    def worked(self) -> float:
        """Seconds that workers spent in calls outside of the hot loop, each call once."""
        return self._attempts.seconds if self._is_open else 0.0

    @property
    def calls(self) -> int:
        """How many calls were made outside of the hot loop, each attempt."""
        return self._attempts.calls if self._is_open else 0

    def tell_calls_to(self, activity: ActivityMonitor) -> None:
        """Have it noted when calls outside of the hot loop are under way, and when others fail."""
        self._attempts.activity = activity

    @property
    def retried(self) -> int:
        """How many items were or will be tried more than once."""
        return self._after.retried if self._is_open else 0

    @property
    def recalled(self) -> int:
        """How many outcomes came from a journal."""
        sink = getattr(self, "_sink", None)  # gone at the end
        return sink.recalled if isinstance(sink, JournalSink) else self._recalled

    @property
    def running_threads(self) -> int:
        """How many threads are inside a call."""
        return self._calls.running_threads if self._is_open else 0

    @property
    def _has_room(self) -> bool:
        """Whether so few items are in back-off that new ones may be begun."""
        return self._parked.items < max(64, 8 * self.max_concurrency)

    @property
    def _may_draw(self) -> bool:
        """Whether a new item may be begun."""
        return self._has_room and not self.held_back and not self._sink.is_full

    @property
    def _has_more(self) -> bool:
        """Whether a new item may be at hand, that no worker is putting into a batch."""
        if self._batches.filling:
            return False
        return self._feed.has_ready or self._batches.left_over

    @property
    def _may_begin(self) -> bool:
        """Whether there is something for a further worker to do."""
        if self.stopping or self.paused:
            return False
        if self._parked.has_due or (self._has_more and self._may_draw):
            return True
        return self._parked.holds_any and self._feed.no_more_expected

    @property
    def _none_to_begin(self) -> bool:
        """Whether no call can begin unless one of those in flight leads to it."""
        return self._feed.exhausted and not self._batches.left_over and not self._parked

    @property
    def _is_over(self) -> bool:
        """Whether nothing is left to do for any worker; asked by one that has nothing to do."""
        return self._none_to_begin and self._workers.idle == len(self._workers.tasks) - 1

    def _goes_on_beside(self, held: int) -> bool:
        """Whether anything can still happen while calls past their time hold so many workers."""
        workers = self._workers
        if len(workers.tasks) - workers.idle > held:
            return True
        return workers.limit > held and not self._none_to_begin


def _ignore(_: str) -> None:
    """Do nothing: nobody else has to stop too."""
