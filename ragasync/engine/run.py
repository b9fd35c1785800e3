"""The window of workers that everything runs on: batches, streams, gathers, documents."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AsyncExitStack
from contextvars import Context, copy_context
from sys import getrefcount
from types import CoroutineType
from typing import Any, TypeVar
from weakref import getweakrefcount

from ragasync.bridge.interrupts import Interrupted
from ragasync.calls.caller import Caller, StuckCalls, returned_coroutine
from ragasync.clock import loop_clock
from ragasync.engine.attempts import Attempts
from ragasync.engine.batching import Batcher
from ragasync.engine.controls import Steering, current_run
from ragasync.engine.error_handling import ErrorHandler
from ragasync.engine.item_sources import ReadOptions, SourceFactory, open_source
from ragasync.engine.journal_skipping import LOOK_AHEAD, Reader
from ragasync.engine.journalling import NewOf, journalled
from ragasync.engine.recorder import OutcomeSink, Recorder
from ragasync.engine.retry_queue import PendingCall, RetryQueue
from ragasync.engine.workers import AT_ONCE, WorkerPool
from ragasync.error_text import TracebackArchive, add_note, describe
from ragasync.errors import IncompleteRun, SourceFailed
from ragasync.foreign_errors import is_a
from ragasync.isolation import TaskState
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")

FRESH: Any = object()
"""What a worker is to do next when nothing is special: run through new items in the hot loop."""


class Run(Steering[T, R]):
    """
    One run of a plan over a source.

    A fixed number of workers draw from one lazy iterator. Each calls, records, and draws again;
    nobody waits for the slowest of a group. What is not plain (a retry that is due, a batch, a
    pause, a limit) takes a worker out of its hot loop for as long as it needs.

    It is made anywhere, and belongs to the loop that awaits `run()`. On that loop its knobs may
    be turned while it runs: `pause`, `resume`, `resize`, `stop`, and the rate of its `gate`.

    Args:
        plan: what to call and how.
        source: any iterable or async iterable, or what makes a feed.
        sink: where outcomes go.
        total: how many items there are, where that is known: for opening workers and sizing hops.
        max_items: how many items to draw at most.
        keep: called with index and item when an item is drawn.
        archive: makes texts of tracebacks; by default one of the run's own.
    """

    def __init__(
        self,
        plan: BatchSettings[T, R],
        source: Iterable[T] | AsyncIterable[T] | SourceFactory[T],
        sink: OutcomeSink[T, R],
        *,
        total: int | None = None,
        max_items: int | None = None,
        on_item: Callable[[int, T], None] | None = None,
        archive: TracebackArchive | None = None,
    ) -> None:
        super().__init__(plan, sink)
        self._source = source
        self._archive = archive or TracebackArchive()
        self._total, self._limit, self._keep = total, max_items, on_item
        self._new_of: NewOf[T] | None = None
        self._is_plain = not plan.batched and not plan.grouped and plan.journal is None
        if not plan.is_async and plan.timeout is not None:
            self._is_plain = False  # a thread that outlives its time holds its slot

    async def run(self) -> None:
        """
        Run until every item has its outcome, or until stopped.

        Raises:
            RunAsyncError: the function uses an object of another event loop.
            Exception: what the source raised, or what opening and closing `resources` did.
        """
        try:
            await self._run()
        finally:
            self._let_go()

    async def _run(self) -> None:
        """Open what the run consists of, and wait for its end."""
        loop = asyncio.get_running_loop()
        self._loop, self._clock = loop, loop_clock(loop)
        self._zero = self._clock()
        async with AsyncExitStack() as stack:
            if self.plan.journal is not None:
                opened = journalled(self.plan.journal, self._sink, self._refuse, self)
                sink = await self._opening.wait_for(stack.enter_async_context(opened))
                if sink is not None:
                    self._sink, self._new_of = sink, sink.new_of
            resource = None
            if (manager := self.plan.make_resources()) is not None:
                resource = await self._opening.wait_for(stack.enter_async_context(manager))
            if self.stopping:
                return
            self._open_parts(stack, resource)
            await self._until_closed()
        if self.error is None:
            self._check_complete()
            return
        error, self.error = self.error, None
        self.raised_its_error = True
        try:
            raise error
        finally:
            del error  # or its traceback, this frame and it would hold each other

    def _let_go(self) -> None:
        """
        Drop the items and values that this run has seen.

        Its parts refer to each other, so they live until the collector of cycles comes by. What
        the result holds must not wait for that.
        """
        self._recalled = self.recalled
        if self._is_open:
            self._recording.drop_sink()
            self._feed.clear()
            self._batches.clear()
            self._parked.let_go()
        self._new_of = self._owner = None
        del self._sink, self._source, self._keep

    def _open_parts(self, stack: AsyncExitStack, resource: object) -> None:
        """Make what the run consists of, on its loop; the stack closes it."""
        self._context = copy_context()
        self._context.run(current_run.set, self)
        self._owner = asyncio.current_task()
        self._owner_cancels = self._owner.cancelling() if self._owner else 0
        self._workers = WorkerPool(self._work, self.max_concurrency, self._clock, self._context)
        self._calls = Caller(self.plan, self._loop, resource, self.is_cancelled)
        stack.callback(self._calls.close)
        self._parked: RetryQueue[T] = RetryQueue(self._clock, self.look_up, self._context)
        stack.callback(self._parked.close)
        self._recording = Recorder(self.plan, self._sink, self._archive, self.stop, self._zero)
        self._after = ErrorHandler(
            self.plan, self._recording, self.gate, self._parked, self, self._clock
        )
        held = StuckCalls(self.plan.timeout, self._goes_on_beside, self.stop)
        stack.callback(held.close)
        self._attempts = Attempts(
            self.plan,
            self._calls,
            self.admission,
            self._recording,
            self._after,
            self._parked,
            held,
            self._clock,
            self.is_cancelled,
        )
        reader = ReadOptions(
            self._limit,
            self._keep,
            ahead=self.max_concurrency * self.plan.items_per_call,
            on_change=self._input_came,
            on_blocked=self._held_up_by_source,
            may_use_thread=not self.plan.reads_on_loop and sys.platform != "emscripten",
            clock=self._clock,
            context=self._context.copy(),
        )
        self._feed = open_source(self._source, reader)
        stack.push_async_callback(self._close_source)
        drawing = Reader(self._feed, self._clock, self._new_of, self._looked_up_at_once)
        self._batches = Batcher(
            self._feed, drawing, self._next_size, self.plan, self._clock, self._refuse
        )

    async def _until_closed(self) -> None:
        """Open the workers and wait for the last to close; leave none behind."""
        self._is_open = True
        self._feed.start()
        if self.adaptive:
            self.adapt()
        self._workers.open_one()  # which opens the next when it has begun
        self.reconsider()
        try:
            await self._workers.all_closed()
        finally:
            self.stopping = True
            self.reconsider()  # a call that answers its cancellation with a value is the last
            await self._workers.cancel()
        self.error, self._workers.error = self.error or self._workers.error, None

    # ── a worker's life ───────────────────────────────────────────────────────────────────────

    async def _work(self, worker: int, context: Context, goes_on: bool) -> None:
        """
        Do what is next until this worker is to close, or a fresh task has to take it over.

        Args:
            worker: its number.
            context: that of the task.
            goes_on: whether it takes over from a task that was in the hot loop.
        """
        self._calls.enter_task()
        state = TaskState(context, self._context)
        try:
            goes_on = goes_on and self._workers.attend_at != AT_ONCE
            if goes_on and not await self._run_through(worker, state):
                self._replace(worker, goes_on=True)
                return
            while (ticket := await self._next(worker)) is not None:
                is_fresh = ticket is FRESH
                if is_fresh:
                    clean = await self._run_through(worker, state)
                else:
                    await self._attempts.make(ticket, worker, self._permission)
                    clean = state.is_clean()
                if not clean:
                    self._replace(worker, goes_on=is_fresh)
                    return
        except SourceFailed as failed:
            if is_a(failed.error, Interrupted):
                self.interrupted(failed.error)
            else:
                self.fail(failed.error, f"the source raised {describe(failed.error)}")
        except asyncio.CancelledError:
            if self.is_cancelled():
                raise
            self._replace(worker)  # by somebody else, between two calls
        except Exception as error:  # no item's, and not the source's: a fault of our own
            self.fail(error, f"ragasync itself failed with {describe(error)}")
        finally:
            self._calls.leave_task()
            del state  # a task, its cancellation and this frame would hold each other

    async def _run_through(self, worker: int, state: TaskState) -> bool:
        """
        Call and record one new item after the other: the hot loop.

        Everything in it is a local name, and the end of one call is the start of the next, because
        at a microsecond an item each look-up and each look at the clock shows. What it must not
        miss (a breath, a pause, a retry) is folded into one comparison with `attend_at`. What a
        call may leave behind for the next is compared here too, as TaskState explains.

        Returns:
            Whether this task may make a further call.
        """
        call, clock, workers = self._calls.call_one, self._clock, self._workers
        record = self._recording.fast_recorder(worker)  # a closure of the columns
        task, mapping, address = state.task, state.mapping, state.address
        cancelling, observers, references = task.cancelling, state.observers, getrefcount(task)
        began = clock()
        try:
            for index, item in self._feed.items:
                try:
                    value = await call(item)
                except BaseException as error:
                    if self._attempts.failed_at_once(index, item, error, began, worker):
                        raise
                    self.reconsider()
                    ended = clock()
                else:
                    ended = clock()
                    if type(value) is CoroutineType:
                        wrong = returned_coroutine(value)
                        self._attempts.failed_at_once(index, item, wrong, began, worker)
                    else:
                        record(index, value, began, ended)
                if (
                    cancelling()
                    or task._must_cancel
                    or getrefcount(task) != references
                    or getweakrefcount(task) != observers
                ):
                    return False
                if mapping.value != address:
                    if not state.has_same_bindings():
                        return False
                    address = state.address
                if ended >= workers.attend_at:
                    return True
                began = ended
            self._feed.on_exhausted()
            return True
        finally:
            # Errors that are kept refer to this frame, and it to all values and its task.
            del record, task, cancelling, state

    def _replace(self, worker: int, *, goes_on: bool = False) -> None:
        """Have a fresh task go on in this worker, unless nothing more is to begin."""
        if not self.stopping:
            self._workers.replace(worker, goes_on=goes_on)

    def is_cancelled(self) -> bool:
        """Return whether the run has cancelled the current worker, or is being cancelled."""
        return self.owner_is_cancelled or self._workers.has_cancelled(asyncio.current_task())

    async def _next(self, worker: int) -> Any:
        """Return a ticket, or FRESH for the hot loop, or None when this worker is to close."""
        workers = self._workers
        while True:
            if workers.out_of_breath:
                await workers.breathe()
            self.reconsider()
            if self.stopping or workers.surplus:
                workers.leave(worker)
                return None
            if not self.paused:
                if (ticket := self._parked.pop_due()) is not None:
                    self._call_the_next()
                    return ticket
                if self._has_more and self._may_draw:
                    if self._is_plain and self.gate.is_open:
                        self._call_the_next()
                        return FRESH
                    if (ticket := await self._batches.next()) is not None:
                        self._call_the_next()
                        return ticket
                    continue
            may_take_held = not self.paused and self._feed.no_more_expected
            if may_take_held and (ticket := self._parked.pop_held()) is not None:
                self._call_the_next()
                return ticket
            if self._is_over:
                self.stopping = True
                workers.wake_all()
                return None
            await self._rest()

    async def _rest(self) -> None:
        """Wait until woken; what the source keeps us waiting for is counted."""
        for_input = not self.paused and self._may_draw and not self._feed.exhausted
        began = self._clock()
        try:
            await self._workers.rest()
        finally:
            if for_input:
                self.input_waited += self._clock() - began

    def _held_up_by_source(self, seconds: float) -> None:
        """Count the time for which reading the source blocked the loop, but against no call."""
        self.input_waited += seconds
        self.input_blocked += seconds
        self._calls.extend_deadlines(seconds)

    async def _close_source(self) -> None:
        """Close the source; what that raises is its error, unless there is another already."""
        error = await self._feed.close(all_were_cancelled=self._workers.all_were_cancelled)
        if error is None:
            return
        if self.error is None:
            self.fail(error, f"the source raised {describe(error)}")
        else:
            add_note(self.error, f"ragasync: closing the source raised {describe(error)}")

    def _check_complete(self) -> None:
        """
        See that a run that nobody stopped has an outcome for every item.

        Raises:
            IncompleteRun: it has not; this is a fault of the engine.
        """
        if self._stop_was_asked:
            return
        unfinished = self._sink.unfinished(self._limit)
        if unfinished or not self._feed.exhausted or self._batches.left_over or self._parked:
            raise IncompleteRun(unfinished)

    @property
    def _looked_up_at_once(self) -> int:
        """How many items of a list are looked up together, where that takes a turn on a thread."""
        journal = self.plan.journal
        on_thread = journal is not None and journal.on_thread
        return LOOK_AHEAD if on_thread and isinstance(self._source, list) else 1

    def _next_size(self, drawn: int) -> int:
        """Return the most items to draw for the next call."""
        return self.plan.next_size(drawn, self._total, self.max_concurrency)

    def _refuse(self, index: int, item: T, error: BaseException) -> None:
        """Let an item fail that can go in no call."""
        self._recording.record_failure(PendingCall((index,), (item,)), error, worker=0)
