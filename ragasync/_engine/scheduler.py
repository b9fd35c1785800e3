"""The scheduler: what a worker does next, who is woken, what interrupts the fast path."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Callable, Iterable
from contextvars import Context
from typing import Generic, Literal, TypeAlias, TypeVar

from ragasync._calls.caller import Caller
from ragasync._calls.executors import count_workers
from ragasync._engine.batching import Batcher
from ragasync._engine.controls import LiveRun, RunControls
from ragasync._engine.detached_items import DetachedItems
from ragasync._engine.item_sources import IN_MEMORY, ReadOptions, SourceFactory, open_source
from ragasync._engine.recorder import Recorder
from ragasync._engine.retry_queue import PendingCall, RetryQueue
from ragasync._engine.run_journal import LOOK_AHEAD, Reader
from ragasync._engine.workers import Interrupt, WorkerPool
from ragasync.clock import Clock
from ragasync.progress_callbacks import LimitedBy

T = TypeVar("T")
R = TypeVar("R")

WAKE_AT_ONCE = 4
"""The most workers that are woken in one turn of the loop."""

StartDecision: TypeAlias = Literal["now", "later", "never"]
"""Whether a call may start: later if the run is paused or its worker has to retire."""


class Scheduler(LiveRun, Generic[T, R]):
    """
    Decides what each worker does next: a retry that is due, new items, or wait.

    Workers ask it only off the fast path. One worker is woken at a time; each that starts a call
    has the next one woken if there is more to start. Make it on the run's loop.

    Args:
        caller: its function, whose time limits do not count while the source blocks the loop.

    Attributes:
        items: the items that are not called yet.
        batches: makes calls of them.
        retries: the calls that wait for their next attempt.
    """

    def __init__(
        self,
        controls: RunControls,
        pool: WorkerPool,
        detached: DetachedItems[T, R],
        caller: Caller,
        source: Iterable[T] | AsyncIterable[T] | SourceFactory[T],
        recorder: Recorder[T, R],
        *,
        total: int | None,
        max_items: int | None,
        on_item: Callable[[int, T], None] | None,
        clock: Clock,
        context: Context,
    ) -> None:
        super().__init__(controls.setup, caller)
        self._controls, self._pool, self._detached = controls, pool, detached
        self._extend_deadlines = caller.extend_deadlines
        self._recorder, self._total = recorder, total
        self._clock, self._context = clock, context
        self._loop = asyncio.get_running_loop()
        settings = self._settings = controls.settings
        self._executor_workers = count_workers(settings.executor)
        self._is_plain = not settings.batched and not settings.grouped and settings.journal is None
        if not settings.is_async and settings.timeout is not None:
            self._is_plain = False  # a thread that outlives its time limit keeps its worker
        if settings.retry.retry_on_result is not None:
            self._is_plain = False  # a value is no success before the predicate has seen it
        self.retries: RetryQueue[T] = RetryQueue(
            clock, self._check_retries, self._on_retry_due, context
        )
        options = ReadOptions(
            max_items,
            on_item,
            ahead=controls.max_concurrency * settings.items_per_call,
            on_change=self._on_input,
            on_blocked=self._on_blocked_by_source,
            may_use_thread=not settings.reads_on_loop and sys.platform != "emscripten",
            clock=clock,
            context=context.copy(),
        )
        self.items = open_source(source, options)
        # Looking up items on a thread takes a turn of the loop, so a list's are looked up together.
        on_thread = settings.journal is not None and settings.journal.has_slow_keys
        ahead = LOOK_AHEAD if on_thread and isinstance(source, list) else 1
        select_new = recorder.select_new if recorder.has_journal else None
        reader = self._reader = Reader(self.items, clock, select_new, ahead)
        self.batches = Batcher(self.items, reader, self._batch_size, settings, clock, recorder)
        self._is_in_memory = type(source) in IN_MEMORY
        self._waking = False
        self._to_wake = 1
        pool.set_interrupt("pause", controls.paused)
        pool.set_interrupt("input pause", controls.input_paused)
        pool.set_interrupt("rate limit", not controls.limits_are_open)

    async def recall_rest(self) -> None:
        """Record what the journal has of the rest of a source in memory, and call for nothing."""
        has_journal = self._recorder.has_journal
        while self._is_in_memory and not self.source_ended and not self._recorder.is_full:
            if await self._reader.take(LOOK_AHEAD if has_journal else 1) and not has_journal:
                break  # there is a rest, of which nothing is known

    def close(self) -> None:
        """Stop the timers of retries."""
        self.retries.close()

    def clear(self) -> None:
        """Drop the items that this run has not called."""
        self.items.clear()
        self.batches.clear()
        self.retries.clear()

    # ── what a worker does next ─────────────────────────────────────────────────────────────────

    async def next_call(self, worker: int) -> PendingCall[T] | Literal["fast path"] | None:
        """
        Find the next call of a worker, or None if the worker has to end.

        "fast path" lets it take new items by itself until it is interrupted.
        """
        controls, pool = self._controls, self._pool
        while True:
            if pool.needs_yield:
                await pool.yield_to_loop()
            if controls.stopping or pool.over_limit:
                pool.retire(worker)
                return None
            if not controls.paused:
                if self.retries and (call := self.retries.pop_due()) is not None:
                    self.wake_next()
                    return call
                if self._has_input and self._may_read:
                    if self._may_take_fast_path:
                        if self._controls.inner is None:
                            self.wake_next()
                        return "fast path"  # of a pipeline, only some items need a worker
                    if (call := await self.batches.next()) is not None:
                        self.wake_next()
                        return call
                    continue
                # No further batch will show whether all fail alike, so the parts need not wait.
                if self.retries.has_deferred and self.items.no_more_expected:
                    self.wake_next()
                    return self.retries.pop_deferred()
            if self._is_over:
                controls.stopping = True
                pool.wake_all()
                return None
            if self.source_ended:
                controls.source_ended()
            await self._wait_for_work()

    def may_start(self) -> StartDecision:
        """Whether a call may start now: things may have changed while it waited for the limiter."""
        if self._controls.stopping:
            return "never"
        return "later" if self._controls.paused or self._pool.over_limit else "now"

    def can_progress_beside(self, stuck: int) -> bool:
        """Whether anything can still happen while calls past their time limit keep workers."""
        pool = self._pool
        if stuck >= self._executor_workers:
            return False  # what was sent to the executor waits there behind them
        if len(pool.tasks) - pool.idle > stuck:
            return True
        return pool.limit > stuck and not self.is_drained

    @property
    def is_drained(self) -> bool:
        """Whether no call can start unless one of those in flight leads to it."""
        return self.source_ended and not self.retries

    @property
    def source_ended(self) -> bool:
        """Whether the last item has been read and its call started."""
        return self.items.exhausted and not self.batches.left_over

    @property
    def _is_over(self) -> bool:
        """Whether nothing is left to do for any worker; asked by one that has nothing to do."""
        if not self.is_drained or self._detached:
            return False
        return self._pool.idle == len(self._pool.tasks) - 1

    @property
    def _has_input(self) -> bool:
        """Whether a new item may be ready that no worker is putting into a batch."""
        if self.batches.filling:
            return False
        return self.items.has_ready or self.batches.left_over

    @property
    def _may_read(self) -> bool:
        """Whether a new item may be started."""
        return not (self._retries_full or self._controls.input_paused or self._recorder.is_full)

    @property
    def _may_take_fast_path(self) -> bool:
        """Whether every new item is one plain call, which needs no permission and no watching."""
        if not self._is_plain or self._controls.controller is not None:
            return False
        is_open = self._controls.limits_are_open  # also when a pause has ended by itself
        self._pool.set_interrupt("rate limit", not is_open)
        return is_open

    def _batch_size(self, read: int) -> int:
        """Size the next batch, given how many items were read."""
        size = self._settings.next_size(read, self._total, self._controls.max_concurrency)
        group_size = self._controls.group_size
        return size if group_size is None else min(size, group_size.current)

    async def _wait_for_work(self) -> None:
        """Wait until woken; if it is for new items, count the time as the source's."""
        for_input = not self._controls.paused and self._may_read and not self.items.exhausted
        since = self._clock()
        try:
            await self._pool.wait_for_work()
        finally:
            if for_input:
                self._controls.totals.input_seconds += self._clock() - since

    # ── retries ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _retries_full(self) -> bool:
        """Whether so many items are in back-off that no new one may start."""
        return self.retries.items >= max(64, 8 * self._controls.max_concurrency)

    def _check_retries(self) -> None:
        """Interrupt the fast path while a retry is due or too many items are in back-off."""
        self._pool.set_interrupt("retries", self.retries.has_due or self._retries_full)

    def _on_retry_due(self) -> None:
        """Have a worker take a retry that has become due."""
        self._check_retries()
        self.notify()

    # ── waking workers ──────────────────────────────────────────────────────────────────────────

    def notify(self, *, everyone: bool = False) -> None:
        """
        Have a worker, or every one, see what has changed.

        One is enough if there is something to start, since each worker that starts a call has the
        next one woken.
        """
        self._pool.set_interrupt("output", self._recorder.is_full)
        if everyone:
            self._pool.wake_all()
        elif not self._pool.wake() and self._may_start_another:
            self._pool.spawn()

    @property
    def _may_start_another(self) -> bool:
        """Whether there is something to do for one more worker."""
        if self._controls.stopping or self._controls.paused:
            return False
        if self.retries.has_due or (self._has_input and self._may_read):
            return True
        return self.retries.has_deferred and self.items.no_more_expected

    def wake_next(self) -> None:
        """Have the next worker woken in the next turn of the loop, once this one's call runs."""
        if not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake_workers, context=self._context)

    def _wake_workers(self) -> None:
        """
        Wake or spawn workers if there is something to do; they will have the next ones woken.

        In the first turn it is one, because calls that return immediately need no second worker.
        Each turn that finds more to do doubles that, up to a limit, because a turn of the loop is
        expensive while threads compete for the interpreter.
        """
        self._waking = False
        self._pool.loop_turned()
        if not self._may_start_another:
            self._to_wake = 1
            return
        for _ in range(self._to_wake):
            if not self._pool.wake():
                self._pool.spawn()
        self._to_wake = min(2 * self._to_wake, WAKE_AT_ONCE)

    def _on_input(self) -> None:
        """Have new items, or the end of the source, seen to."""
        if self.batches.filling:
            return  # by the worker that fills a batch
        if self.items.has_ready:
            self.wake_next()  # once, however many items come in this turn of the loop
        else:
            self.notify()

    def _on_blocked_by_source(self, seconds: float) -> None:
        """Count the time during which reading the source blocked the loop, against no call."""
        self._controls.totals.input_seconds += seconds
        self._controls.totals.input_blocked_seconds += seconds
        self._extend_deadlines(seconds)

    # ── what the controls of a live run need ────────────────────────────────────────────────────

    def set_interrupt(self, reason: Interrupt, wanted: bool = True) -> None:
        """Make workers leave the fast path after their current call, until the reason is gone."""
        self._pool.set_interrupt(reason, wanted)

    def request_turn(self) -> None:
        """Have workers let the loop turn after their current call."""
        self._pool.request_turn()

    def resize(self, max_concurrency: int) -> None:
        """Change the number of workers."""
        history = self._controls.concurrency_history
        history.note(self._clock() - self._recorder.started_at, max_concurrency)
        self._pool.limit = max_concurrency
        self._check_retries()  # their bound depends on the concurrency
        self.notify()

    def cancel_calls(self, *, only_waiting: bool) -> None:
        """Cancel the calls in flight, or only those that wait for the rate limit."""
        self._pool.cancel_soon(self._pool.at_limiter if only_waiting else None)
        if not only_waiting:
            self._detached.cancel()

    @property
    def in_flight(self) -> int:
        """The number of calls in flight."""
        pool = self._pool
        idle = pool.idle + len(pool.at_limiter) + self.batches.filling
        return max(0, len(pool.tasks) - idle) + len(self._detached)

    @property
    def waiting_at_limiter(self) -> int:
        """The number of calls that wait for the rate limit."""
        return len(self._pool.at_limiter)

    @property
    def waits_for(self) -> LimitedBy:
        """What the workers wait for: one that waits is enough to tell, more would wait with it."""
        if self._pool.at_limiter:
            return "rate"
        may_read = not (self._controls.paused or self._controls.input_paused)
        if may_read and (self._pool.idle or self.batches.filling):
            if self.retries.items:
                return "retries"
            return "last calls" if self.source_ended else "input"
        return "concurrency"

    @property
    def owner_is_cancelled(self) -> bool:
        """Whether the task that owns the run has been cancelled."""
        return self._pool.owner_is_cancelled
