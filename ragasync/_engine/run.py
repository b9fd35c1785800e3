"""One run of the engine: open what it needs, let workers call for every item, close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AsyncExitStack
from contextvars import Context, copy_context
from sys import getrefcount
from types import CoroutineType
from typing import Generic, TypeVar
from weakref import getweakrefcount

from ragasync._bridge.interrupts import Interrupted
from ragasync._calls.caller import Caller, returned_coroutine
from ragasync._engine.attempts import CallRunner
from ragasync._engine.controls import RunControls, current_run
from ragasync._engine.detached_items import DetachedItems
from ragasync._engine.error_handling import ErrorHandler
from ragasync._engine.item_sources import SourceFactory
from ragasync._engine.recorder import OutcomeSink, Recorder
from ragasync._engine.retry_queue import PendingCall
from ragasync._engine.run_journal import RunJournal, open_run_journal
from ragasync._engine.scheduler import Scheduler
from ragasync._engine.workers import INTERRUPTED, TaskState, WorkerPool
from ragasync.clock import loop_clock
from ragasync.error_text import TracebackArchive, add_note, describe
from ragasync.errors import IncompleteRun, SourceFailed
from ragasync.foreign_errors import is_a
from ragasync.object_views import duration

T = TypeVar("T")
R = TypeVar("R")


async def execute(
    controls: RunControls,
    source: Iterable[T] | AsyncIterable[T] | SourceFactory[T],
    sink: OutcomeSink[T, R],
    *,
    total: int | None = None,
    max_items: int | None = None,
    on_item: Callable[[int, T], None] | None = None,
    archive: TracebackArchive | None = None,
    never_yield: bool = False,
) -> None:
    """
    Call for every item of a source, until each has its outcome or the run is stopped.

    Args:
        controls: the settings, and what can be changed while the run goes on.
        source: any iterable or async iterable, or a function that makes the ItemSource.
        sink: where outcomes go.
        total: how many items there are, if known, for the size of groups.
        max_items: how many items to read at most.
        on_item: called with index and item when an item is read.
        archive: turns tracebacks into text; by default one of the run's own.
        never_yield: whether nothing but the run is on the loop, so that workers need not yield.

    Raises:
        RunAsyncError: the function uses an object of another event loop.
        Exception: what the source raised, or what opening and closing `resources` raised.
    """
    run: Run[T, R] | None = None
    settings, setup = controls.settings, controls.setup
    loop = asyncio.get_running_loop()
    controls.begin(loop)
    clock = loop_clock(loop)
    started_at = clock()
    try:
        async with AsyncExitStack() as stack:
            if settings.max_seconds is not None:
                stack.callback(_limit_seconds(controls, settings.max_seconds).cancel)
            journal: RunJournal | None = None
            if settings.journal is not None:
                opening = open_run_journal(settings.journal, controls)
                journal = await setup.wait_for(stack.enter_async_context(opening))
            resource = None
            if (manager := settings.make_resources()) is not None:
                resource = await setup.wait_for(stack.enter_async_context(manager))
            if controls.inner is not None:
                opening_stages = controls.inner.open(controls)
                await setup.wait_for(stack.enter_async_context(opening_stages))
            if controls.stopping and not controls.stopped_early:
                return
            archive = archive or TracebackArchive()
            recorder = Recorder(
                settings, sink, journal, archive, controls.stop, controls.totals, started_at
            )
            run = Run(
                controls,
                source,
                recorder,
                resource=resource,
                total=total,
                max_items=max_items,
                on_item=on_item,
                never_yield=never_yield,
            )
            stack.push_async_callback(run.close)
            await run.until_done()
            if controls.stopped_early and controls.error is None:
                await run.recall_rest(max_items)
        run.raise_error()
        run.check_complete(max_items)
    finally:
        if run is not None:
            run.release()
        # An error that is kept refers to this frame, which must not keep the items alive.
        del run, source, sink, on_item


def _limit_seconds(controls: RunControls, max_seconds: float) -> asyncio.TimerHandle:
    """Stop a run after this many seconds, unless the returned timer is cancelled."""
    reason = f"{duration(max_seconds)} have passed, which reaches max_seconds={max_seconds:g}"
    loop = asyncio.get_running_loop()
    return loop.call_later(max_seconds, controls.usage.reach, reason, context=Context())


class Run(Generic[T, R]):
    """
    The workers of one run, and what they share.

    A fixed number of workers take items from one lazy source. Each calls the function, records the
    outcome and takes the next item, so nobody waits for the slowest call of a group. Plain calls
    run on the fast path, a loop in one task. Whatever is not plain (a retry that is due, a batch, a
    pause, a limit) interrupts it, and the worker asks the scheduler what to do next.

    Make it in the task that owns the run.
    """

    def __init__(
        self,
        controls: RunControls,
        source: Iterable[T] | AsyncIterable[T] | SourceFactory[T],
        recorder: Recorder[T, R],
        *,
        resource: object,
        total: int | None,
        max_items: int | None,
        on_item: Callable[[int, T], None] | None,
        never_yield: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop_clock(loop)
        self._controls, self._recorder = controls, recorder
        self._context = copy_context()
        self._context.run(current_run.set, controls)
        self._pool = WorkerPool(
            self._work,
            controls.max_concurrency,
            self._clock,
            self._context,
            never_yield=never_yield,
        )
        self._caller = Caller(
            controls.settings, loop, resource, self._pool.is_cancelled, controls.usage
        )
        inner = controls.inner
        self._detached: DetachedItems[T, R] = DetachedItems(
            None if inner is None else inner.begin,
            self._pool,
            recorder,
            self._fail_detached,
            self._on_last_detached,
            self._clock,
            self._context,
        )
        self._scheduler: Scheduler[T, R] = Scheduler(
            controls,
            self._pool,
            self._detached,
            self._caller,
            source,
            recorder,
            total=total,
            max_items=max_items,
            on_item=on_item,
            clock=self._clock,
            context=self._context,
        )
        self._errors = ErrorHandler(
            controls, self._pool, self._scheduler.retries, recorder, self._clock
        )
        self._runner = CallRunner(
            controls, self._pool, self._scheduler, self._caller, self._errors, self._clock
        )

    async def until_done(self) -> None:
        """Start the first worker and wait for the last to end; leave none behind."""
        controls, pool = self._controls, self._pool
        controls.live = self._scheduler
        self._scheduler.items.start()
        pool.spawn()  # which has the next one spawned when its first call runs
        try:
            await pool.join()
            if pool.error is None:
                await self._detached.join()
        finally:
            controls.stopping = True
            # A worker that answers its cancellation with a value must not take another item.
            pool.set_interrupt("stop")
            await pool.cancel()
            self._detached.cancel()
            for call in self._scheduler.retries.waiting:
                self._recorder.record_pending(call)
        controls.error, pool.error = controls.error or pool.error, None

    async def recall_rest(self, max_items: int | None) -> None:
        """
        Record what a journal has of the items that an early stop has left unread.

        If no item is left then, a budget that the last one reached has stopped nothing.
        """
        controls = self._controls
        await self._scheduler.recall_rest()
        is_whole = self._scheduler.is_drained and not self._recorder.unfinished(max_items)
        if is_whole and controls.stopped_because == controls.usage.reached:
            controls.withdraw_stop()

    async def close(self) -> None:
        """Close the source, timers and threads; an error of the source becomes the run's."""
        try:
            error = await self._scheduler.items.close(
                all_were_cancelled=self._pool.all_were_cancelled
            )
        finally:
            self._runner.close()
            self._scheduler.close()
            self._caller.close()
            self._recorder.write_held()
        if error is None:
            return
        if self._controls.error is None:
            self._controls.fail(error, f"the source raised {describe(error)}")
        else:
            note = f"ragasync: closing the source raised {describe(error)}"
            add_note(self._controls.error, note)

    def raise_error(self) -> None:
        """Raise what ended the run, if anything did."""
        error, self._controls.error = self._controls.error, None
        if error is None:
            return
        self._controls.raised_error = True
        try:
            raise error
        finally:
            del error  # otherwise its traceback, this frame and it would hold each other

    def check_complete(self, max_items: int | None) -> None:
        """
        Check that a run that nobody stopped has an outcome for every item.

        Raises:
            IncompleteRun: it has not, which is a fault of the engine.
        """
        if self._controls.stop_requested:
            return
        unfinished = self._recorder.unfinished(max_items)
        if unfinished or not self._scheduler.is_drained:
            raise IncompleteRun(unfinished)

    def release(self) -> None:
        """
        Drop the items and values that this run has seen.

        Its parts refer to each other, so they live until the cyclic garbage collector runs. The
        items and values of the result must not wait for that.
        """
        self._controls.detach(self._caller)
        self._controls.usage.close()
        self._pool.release_owner()
        self._recorder.drop_sink()
        self._detached.release()
        self._scheduler.clear()

    # ── the life of a worker ────────────────────────────────────────────────────────────────────

    async def _work(self, worker: int, on_fast_path: bool) -> None:
        """Make one call after the other until this worker has to end or to go on in a new task."""
        self._caller.enter_task()
        state = TaskState(self._controls.usage)
        try:
            on_fast_path = on_fast_path and self._pool.interrupt_at != INTERRUPTED
            if on_fast_path and not await self._fast_path(worker, state):
                self._replace(worker, on_fast_path=True)
                return
            while (call := await self._scheduler.next_call(worker)) is not None:
                if on_fast_path := call == "fast path":
                    is_clean = await self._fast_path(worker, state)
                else:
                    await self._runner.run(call, worker)
                    is_clean = state.is_clean()
                if not is_clean:
                    self._replace(worker, on_fast_path=on_fast_path)
                    return
        except SourceFailed as failed:
            if is_a(failed.error, Interrupted):
                self._controls.interrupted(failed.error)
            else:
                self._controls.fail(failed.error, f"the source raised {describe(failed.error)}")
        except asyncio.CancelledError:
            if self._pool.is_cancelled():
                raise
            self._replace(worker)  # somebody else cancelled its task between two calls
        except Exception as error:  # neither an item's nor the source's: a fault of the engine
            self._controls.fail(error, f"ragasync itself failed with {describe(error)}")
        finally:
            self._caller.leave_task()
            del state  # a task, its cancellation and this frame would hold each other

    async def _fast_path(self, worker: int, state: TaskState) -> bool:
        """
        Call the function and record its value for one new item after the other.

        Names are local, and the end of one call is the start of the next, because at a microsecond
        per item each attribute and each reading of the clock shows. Everything that this loop must
        not miss (a yield, a pause, a retry) is one comparison with `interrupt_at`. What a call may
        leave behind for the next one is checked here too, as TaskState explains.

        Returns:
            Whether this task may make a further call.
        """
        call, clock, pool = self._caller.call_one, self._clock, self._pool
        record = self._recorder.fast_recorder(worker)  # a closure over the sink's columns
        task, mapping, node, usage = state.task, state.mapping, state.node, state.usage
        cancelling, observers, references = task.cancelling, state.observers, getrefcount(task)
        contexts = -1 if state.is_deep else getrefcount(mapping)
        nodes, names = getrefcount(node), getrefcount(usage)
        items = self._scheduler.items
        begin = self._detached.begin if self._controls.inner is not None else None
        started = clock()
        try:
            for index, item in items.items:
                if begin is not None and begin(index, item, started):
                    ended = clock()  # of the begin: the item goes on without this worker
                else:
                    if begin is not None:
                        self._scheduler.wake_next()
                    try:
                        value = await call(item)
                    except BaseException as error:
                        if self._runner.fail_plain(index, item, error, started, worker):
                            raise
                        ended = clock()
                    else:
                        ended = clock()
                        if type(value) is CoroutineType:
                            wrong = returned_coroutine(value)
                            self._runner.fail_plain(index, item, wrong, started, worker)
                        else:
                            if usage.reported is not None:
                                self._recorder.add_usage(index, usage.take())
                            record(index, value, started, ended)
                # The task is clean if nobody has cancelled it or kept a reference to it ...
                if (
                    cancelling()
                    or task._must_cancel
                    or getrefcount(task) != references
                    or getweakrefcount(task) != observers
                ):
                    return False
                # ... and if no context variable was set and no copy of the context is left.
                if (
                    getrefcount(mapping) != contexts
                    or getrefcount(usage) != names
                    or (node is not None and getrefcount(node) != nodes)
                ):
                    if not state.renew():
                        return False
                    mapping, node, usage = state.mapping, state.node, state.usage
                    contexts = -1 if state.is_deep else getrefcount(mapping)
                    nodes, names = getrefcount(node), getrefcount(usage)
                if ended >= pool.interrupt_at:
                    return True
                started = ended
            items.on_exhausted()
            return True
        finally:
            # Errors that are kept refer to this frame, and it to all values and to its task.
            del record, task, cancelling, mapping, node, usage, state

    def _fail_detached(
        self, call: PendingCall[T], error: BaseException, started: float, worker: int
    ) -> None:
        """Handle the error of an item that no worker waited for."""
        if self._errors.on_error(call, error, started, worker):
            self._pool.fail(error)
            self._detached.cancel()

    def _on_last_detached(self) -> None:
        """Have a worker see whether the run is over."""
        self._scheduler.notify()

    def _replace(self, worker: int, *, on_fast_path: bool = False) -> None:
        """Let a worker go on in a new task, unless nothing more starts."""
        if not self._controls.stopping:
            self._pool.start(worker, on_fast_path=on_fast_path)
