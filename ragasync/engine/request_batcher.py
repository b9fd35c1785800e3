"""A run that stays open: many callers, each of whom awaits the values of its own items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

from ragasync.bridge.interrupts import Interrupted
from ragasync.clock import loop_clock
from ragasync.engine.controls import RunControls
from ragasync.engine.item_queue import QueuedItems
from ragasync.engine.run import execute
from ragasync.engine.telling import stage_stats
from ragasync.error_text import NoArchive
from ragasync.errors import JobStopped
from ragasync.lazy_task import create_lazy_task
from ragasync.outcomes.activity import ActivityMonitor
from ragasync.outcomes.outcome import CallSuccess, Outcome, RecordSuccess
from ragasync.outcomes.stats import StageStats
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")


class RequestFailed(Exception):
    """
    An envelope: an error that ended an order.

    Attributes:
        error: what was raised.
        places: the places of the items in the order that it is the error of.
        stage: the stage that it names, if it does.
    """

    def __init__(self, error: BaseException, place: int, stage: str | None) -> None:
        super().__init__(error, place, stage)
        self.error = error
        self.places = [place]
        self.stage = stage


class _Order(Generic[R]):
    """Items that one caller awaits together: `size` of them, of which `first` has the index."""

    __slots__ = ("failure", "first", "future", "missing", "values")

    def __init__(self, first: int, size: int) -> None:
        self.first = first
        self.missing = size
        self.values: list[Any] = [None] * size
        self.failure: RequestFailed | None = None
        self.future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()

    def fill(self, index: int, value: R) -> None:
        """Put a value in its place."""
        self.values[index - self.first] = value
        self.missing -= 1
        if not self.missing:
            self.complete()

    def complete(self) -> None:
        """Give the caller the values, if it still waits."""
        if not self.future.done():
            self.future.set_result(self.values)

    def fail(self, index: int, error: BaseException, stage: str | None) -> None:
        """End the order with its first error; items that share it are named too."""
        place = index - self.first
        if not self.future.done():
            self.failure = RequestFailed(error, place, stage)
            self.future.set_exception(self.failure)
        elif self.failure is not None and self.failure.error is error:
            self.failure.places.append(place)


class _Orders(Generic[T, R]):
    """Where outcomes go: to the orders that their items came from."""

    is_full = False
    has_success = False
    activity: ActivityMonitor

    def __init__(self) -> None:
        self.of: dict[int, _Order[R]] = {}

    def unfinished(self, limit: int | None) -> int:  # noqa: ARG002
        """Return none: an order that is open when the run ends hears why."""
        return 0

    def add(self, first: int, size: int) -> asyncio.Future[list[R]]:
        """Open an order for so many items from this index on; return what gets their values."""
        order: _Order[R] = _Order(first, size)
        self.of.update(dict.fromkeys(range(first, first + size), order))
        return order.future

    def wanted_of(self, rows: list[tuple[int, T]]) -> list[tuple[int, T]]:
        """Return the items that somebody still waits for; the others are struck off."""
        wanted = [row for row in rows if not self.of[row[0]].future.done()]
        if len(wanted) < len(rows):
            for index in {index for index, _ in rows} - {index for index, _ in wanted}:
                del self.of[index]
        return wanted

    def fast_recorder(
        self,
        worker: int,  # noqa: ARG002
        started_at: float,  # noqa: ARG002
    ) -> RecordSuccess[R]:
        """Make the recorder of one worker, for the fast path."""
        take, ended = self.of.pop, self.activity.add_ended_now

        def record(index: int, value: R, began: float, end: float) -> None:
            ended(end - began)
            self.has_success = True
            take(index).fill(index, value)

        return record

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Hand the values of a call to the orders that its items came from."""
        self.has_success = True
        take = self.of.pop
        for index, value in zip(call.indices, call.values, strict=True):
            order = take(index)
            order.values[index - order.first] = value  # as `fill` does, for there are many
            order.missing -= 1
            if not order.missing:
                order.complete()

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:  # noqa: ARG002
        """Hand a failure to its order; the stack goes with the error itself."""
        if outcome.error is None:
            return  # the run is ending, and tells all that are still open why
        self.of.pop(outcome.index).fail(outcome.index, outcome.error, outcome.stage)


class RequestBatcher(Generic[T, R]):
    """
    The engine, fed by callers instead of a source.

    Items of different callers share batches, the concurrency, the limits and the retries of one
    plan; each caller gets the values of its own items, in order.

        async with Service(plan) as embed:
            vectors = await embed(texts)

    Args:
        plan: what to call and how.
        nothing_soon: says, when items come, whether no caller has more, so that a batch that is
            not full need not wait.

    Attributes:
        run: the run, for whoever steers it or asks how it is.
        activity: when its calls were under way; there when it is open.
    """

    def __init__(
        self, plan: BatchSettings[T, R], no_more_expected: Callable[[], bool] = lambda: False
    ) -> None:
        self._no_more_expected = no_more_expected
        self._orders: _Orders[T, R] = _Orders()
        self.run = RunControls(plan)
        self._feed: QueuedItems[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._interrupted: Interrupted | None = None

    @property
    def has_stopped(self) -> bool:
        """Whether it takes nothing more: closed, or ended by an error."""
        return self._feed is None or self.run.stopping

    def stats(self, name: str) -> StageStats:
        """Return how busy it was so far, under the name of the stage that it is."""
        came = 0 if self._feed is None else self._feed.pushed
        return stage_stats(name, self.run, self.activity, came - len(self._orders.of))

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.activity = self._orders.activity = ActivityMonitor(loop_clock(loop))
        self._task = create_lazy_task(self._serve(), loop, name="ragasync service")
        self._task.add_done_callback(self._refuse_the_rest)
        try:
            await self._opened.wait()
            self._raise_of_resources()
        except asyncio.CancelledError:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._close()
        if kind is None:
            self._raise_of_resources()

    async def __call__(self, items: Sequence[T]) -> list[R]:
        """
        Return the value of each item.

        Raises:
            RequestFailed: the first of them that failed.
            JobStopped: the service stopped, because of a fatal error or at its end.
            RunAsyncError: it stopped because of an object of another event loop.
        """
        if self._feed is None or self.has_stopped:
            if self._task is not None:  # whose item ended it is to hear of it first
                await asyncio.wait([self._task])
            raise self._reason()
        if not items:
            return []
        values = self._orders.add(self._feed.pushed, len(items))
        self._feed.push(*items)
        return await values

    async def _serve(self) -> None:
        """Make the run; this is the task's life."""
        try:
            await execute(self.run, self._open, self._orders, archive=NoArchive())
        except Interrupted as error:  # a task keeps no CancelledError for more than one
            self._interrupted = error
            raise

    def _open(
        self, on_item: Callable[[int, T], None] | None, on_change: Callable[[], None]
    ) -> QueuedItems[T]:
        """Make the feed of the run; from here on items can be taken."""
        self.run.activity = self.activity
        self._feed = QueuedItems(
            on_item,
            on_change,
            no_more_expected=self._no_more_expected,
            select=self._orders.wanted_of,
        )
        self._opened.set()
        return self._feed

    async def _close(self) -> None:
        """End the run as one that has nothing left to do, so that its resources close likewise."""
        assert self._task is not None
        self.run.stop("the service is closed", cancel=True)
        await asyncio.wait([self._task])

    def _raise_of_resources(self) -> None:
        """Raise what opening or closing them did: no caller's, as the run's own error is."""
        task = self._task
        error = task.exception() if task and task.done() and not task.cancelled() else None
        if error is not None and not self.run.raised_error:
            raise error

    def _reason(self) -> BaseException:
        """Return why nothing more is taken."""
        if self._interrupted is not None:
            return self._interrupted
        if self.run.raised_error and self._task is not None and self._task.done():
            error = self._task.exception()
        else:
            error = self.run.error
        return error or JobStopped(self.run.stopped_because or "the service is closed")

    def _refuse_the_rest(self, task: asyncio.Task[None]) -> None:
        """Let every order fail that is still open when the run ends."""
        if not task.cancelled():
            task.exception()  # each caller gets it from here on
        self._opened.set()
        for order in list(self._orders.of.values()):
            if not order.future.done():
                order.future.set_exception(self._reason())
        self._orders.of.clear()
