"""The request batcher: concurrent callers share the batches, limits and retries of one run."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NoReturn, Self, TypeVar

from ragasync._bridge.interrupts import Interrupted
from ragasync._calls.groups import GroupSize
from ragasync._engine.controls import RunControls
from ragasync._engine.item_queue import QueuedItems
from ragasync._engine.job_run import stage_stats
from ragasync._engine.replies import Reply
from ragasync._engine.run import execute
from ragasync._outcomes.activity import ActivityMonitor
from ragasync._outcomes.outcome import CallSuccess, Outcome, RecordSuccess
from ragasync._outcomes.stats import StageStats
from ragasync.cancellation import create_lazy_task
from ragasync.clock import loop_clock
from ragasync.error_text import NoArchive
from ragasync.errors import JobStopped
from ragasync.settings import BatchSettings
from ragasync.usage import CallUsage, Usage, UsageTotals, current_call

T = TypeVar("T")
R = TypeVar("R")


class RequestFailed(Exception):
    """
    An envelope for the error of a request.

    Attributes:
        error: what was raised.
        positions: the positions, in the request, of the items that failed with it.
        stage: the stage that the error names, if it does.
    """

    def __init__(self, error: BaseException, position: int, stage: str | None) -> None:
        super().__init__(error, position, stage)
        self.error = error
        self.positions = [position]
        self.stage = stage


class _Request(Generic[R]):
    """The items that one caller awaits together; the first of them has the index `first`."""

    __slots__ = ("calls", "failure", "first", "future", "missing", "values")

    def __init__(
        self,
        first: int,
        values: list[Any],
        future: asyncio.Future[list[R]] | Reply[list[R]],
        calls: tuple[CallUsage | Reply[list[R]] | None, ...],
    ) -> None:
        self.first = first
        self.missing = len(values)
        self.values = values
        self.failure: RequestFailed | None = None
        self.future = future
        self.calls = calls

    def add_usage(self, usage: Usage) -> None:
        """Count usage for the calls that made the request; its run has counted it already."""
        for call in self.calls:
            if call is not None:
                call.attribute(usage)

    def fill(self, index: int, value: R) -> None:
        """Set the value of one item; the last one completes the request."""
        self.values[index - self.first] = value
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result(self.values)

    def fail(self, index: int, error: BaseException, stage: str | None) -> None:
        """Fail with the first error; later items that share it are added to its positions."""
        position = index - self.first
        if not self.future.done():
            self.failure = RequestFailed(error, position, stage)
            self.future.set_exception(self.failure)
        elif self.failure is not None and self.failure.error is error:
            self.failure.positions.append(position)


class _OpenRequests(Generic[T, R]):
    """The open requests by the index of each item: an OutcomeSink that completes them."""

    is_full = False

    def __init__(self, activity: ActivityMonitor) -> None:
        self._activity = activity
        self.has_success = False
        self.may_be_given_up = False
        self.by_index: dict[int, _Request[R]] = {}

    def add(self, request: _Request[R]) -> None:
        """Open a request; its future will have its values when they are all there."""
        indices = range(request.first, request.first + request.missing)
        self.by_index.update(dict.fromkeys(indices, request))

    def select_wanted(self, rows: list[tuple[int, T]]) -> list[tuple[int, T]]:
        """Drop the items whose callers no longer wait, and return the others."""
        if not self.may_be_given_up:
            return rows
        by_index = self.by_index
        wanted = [row for row in rows if not by_index[row[0]].future.done()]
        if len(wanted) < len(rows):
            for index in {index for index, _ in rows} - {index for index, _ in wanted}:
                del by_index[index]
        return wanted

    def note_given_up(self) -> None:
        """Note that the items of some request may not be wanted any more."""
        self.may_be_given_up = True

    def unfinished(self, limit: int | None) -> int:  # noqa: ARG002
        """Always 0: the callers of requests that are open at the end get an error."""
        return 0

    def fast_recorder(
        self,
        worker: int,  # noqa: ARG002
        started_at: float,  # noqa: ARG002
    ) -> RecordSuccess[R]:
        """Make the recorder of one worker, for the fast path."""
        pop, add_ended_now = self.by_index.pop, self._activity.add_ended_now

        def record(index: int, value: R, began: float, ended: float) -> None:
            add_ended_now(ended - began)  # the fast path itself reports only failed calls
            self.has_success = True
            pop(index).fill(index, value)

        return record

    def add_usage(self, index: int, usage: Usage) -> None:
        """Count usage for the calls that made the request of an item."""
        self.by_index[index].add_usage(usage)

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Set the values of a call's items, which may belong to several requests."""
        self.has_success = True
        pop = self.by_index.pop
        if call.usage is not None:
            for index, usage in zip(call.indices, call.usage, strict=True):
                self.by_index[index].add_usage(usage)
        for index, value in zip(call.indices, call.values, strict=True):
            request = pop(index)  # what `fill` does, without a call for each item
            request.values[index - request.first] = value
            request.missing -= 1
            if not request.missing and not request.future.done():
                request.future.set_result(request.values)

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:  # noqa: ARG002
        """Fail the request of an item; its traceback goes with the error itself."""
        if outcome.error is None:
            return  # cancelled: the run is ending, and fails all open requests with the reason
        request = self.by_index.pop(outcome.index)
        if outcome.tokens or outcome.cost:
            request.add_usage(Usage(1, outcome.tokens, outcome.cost))
        self.note_given_up()  # a request that has failed needs no further item
        request.fail(outcome.index, outcome.error, outcome.stage)


class RequestBatcher(Generic[T, R]):
    """
    A run that is fed by callers instead of a source.

    Items of different callers share batches, the concurrency, the limits and the retries of one
    set of settings. Each caller gets the values of its own items, in order.

        async with RequestBatcher(settings) as embed:
            vectors = await embed(texts)

    Args:
        settings: the settings of the run.
        no_more_expected: says, when items arrive, whether no caller has more, so that a partial
            batch need not wait.
        on_early_stop: called with the reason when the run stops early, so that callers are refused.
        on_resize: called when another number of calls is allowed.
        max_wait: the seconds after which a partial batch is sent although items keep arriving.
        group_size: adapts the size of groups for an executor; None if it is fixed.
        usage: counts what its calls report; a call of another run that awaits it gets its part.

    Attributes:
        run: the controls of the run.
        activity: when its calls were in flight.
    """

    def __init__(
        self,
        settings: BatchSettings[T, R],
        *,
        no_more_expected: Callable[[], bool] = lambda: False,
        on_early_stop: Callable[[str], None] = lambda _: None,
        on_resize: Callable[[], None] = lambda: None,
        max_wait: float = math.inf,
        group_size: GroupSize | None = None,
        usage: UsageTotals | None = None,
    ) -> None:
        self._no_more_expected, self._max_wait = no_more_expected, max_wait
        self.activity = ActivityMonitor(loop_clock(asyncio.get_running_loop()))
        self._requests: _OpenRequests[T, R] = _OpenRequests(self.activity)
        self.run = RunControls(
            settings, on_early_stop=on_early_stop, on_resize=on_resize, usage=usage
        )
        self.run.activity, self.run.group_size = self.activity, group_size
        self._items: QueuedItems[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._interrupted: Interrupted | None = None

    @property
    def has_stopped(self) -> bool:
        """Whether it accepts no more requests: not open, closed, or ended by an error."""
        return self._items is None or self.run.stopping

    @property
    def has_success(self) -> bool:
        """Whether any call has succeeded."""
        return self._requests.has_success

    def stats(self, name: str) -> StageStats:
        """Its statistics so far, as those of the stage `name`."""
        arrived = 0 if self._items is None else self._items.pushed
        ended = arrived - len(self._requests.by_index)
        return stage_stats(name, self.run, self.activity, ended)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = create_lazy_task(self._serve(), loop, name="ragasync request batcher")
        self._task.add_done_callback(self._fail_open_requests)
        try:
            await self._opened.wait()
            self._raise_setup_error()
        except asyncio.CancelledError:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._close()
        if kind is None:
            self._raise_setup_error()

    def __call__(
        self,
        items: Sequence[T],
        counted_for: CallUsage | None = None,
        values: list[Any] | None = None,
    ) -> Awaitable[list[R]]:
        """
        Request the value of each item; await what this returns.

        Args:
            items: the items.
            counted_for: what they use is counted for it, and for the call, of another run, that
                the caller is in.
            values: a list with a None for each item, which gets the values as they arrive, also
                those of a request that fails; by default a new one.

        Raises:
            RequestFailed: the first item that failed.
            JobStopped: the run was stopped by a fatal error, or closed.
            RunAsyncError: the function uses an object of another event loop.
        """
        queue = self._items
        if queue is None or self.run.stopping:
            return self._refuse()
        values = [None] * len(items) if values is None else values
        future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self._requests.note_given_up()  # the task that awaits it may be cancelled
        request = _Request(queue.pushed, values, future, (current_call.get(), counted_for))
        self._open_request(request, items)
        return future

    def request(self, items: Sequence[T]) -> Reply[list[R]]:
        """Request the values of items while it has not stopped, for a callback."""
        queue = self._items
        assert queue is not None  # it is open
        reply: Reply[list[R]] = Reply(self._requests.note_given_up)
        self._open_request(_Request(queue.pushed, [None] * len(items), reply, (reply,)), items)
        return reply

    def _open_request(self, request: _Request[R], items: Sequence[T]) -> None:
        """Open a request, and queue its items."""
        assert self._items is not None  # it is open
        self._requests.add(request)
        if items:
            self._items.push(*items)
        else:
            request.future.set_result(request.values)

    @property
    def may_start_call(self) -> bool:
        """Whether it has room for a further call in flight."""
        return self.run.live.in_flight < self.run.max_concurrency

    def expectation_changed(self) -> None:
        """Ask `no_more_expected` again, which may have changed without an item."""
        if self._items is not None:
            self._items.expectation_changed()

    async def _refuse(self) -> NoReturn:
        """Raise the error for a request that cannot be made."""
        if self._task is not None:  # the caller whose item ended the run gets the error first
            await asyncio.wait([self._task])
        raise self._reason()

    async def _serve(self) -> None:
        """Execute the run, in a task of its own."""
        try:
            await execute(self.run, self._open, self._requests, archive=NoArchive())
        except Interrupted as error:  # a task raises its CancelledError only once
            self._interrupted = error
            raise

    def _open(
        self, on_item: Callable[[int, T], None] | None, on_change: Callable[[], None]
    ) -> QueuedItems[T]:
        """Make the item source of the run, which accepts requests from now on."""
        self._items = QueuedItems(
            on_item,
            on_change,
            no_more_expected=self._no_more_expected,
            select=self._requests.select_wanted,
            max_wait=self._max_wait,
        )
        self._opened.set()
        return self._items

    async def _close(self) -> None:
        """Stop the run and wait for its end; its resources close as after a normal end."""
        assert self._task is not None
        self.run.stop("the request batcher is closed", cancel=True)
        await asyncio.wait([self._task])

    def _raise_setup_error(self) -> None:
        """Raise what opening or closing resources raised: callers get only the run's own error."""
        task = self._task
        error = task.exception() if task and task.done() and not task.cancelled() else None
        if error is not None and not self.run.raised_error:
            raise error

    def _reason(self) -> BaseException:
        """The error for a request that cannot be made."""
        if self._interrupted is not None:
            return self._interrupted
        if self.run.raised_error and self._task is not None and self._task.done():
            error = self._task.exception()
        else:
            error = self.run.error
        return error or JobStopped(self.run.stopped_because or "the request batcher is closed")

    def _fail_open_requests(self, task: asyncio.Task[None]) -> None:
        """Fail the requests that are open when the run ends."""
        if not task.cancelled():
            task.exception()  # retrieved: callers get it from `_reason`
        self._opened.set()
        for request in list(self._requests.by_index.values()):
            if not request.future.done():
                request.future.set_exception(self._reason())
        self._requests.by_index.clear()
