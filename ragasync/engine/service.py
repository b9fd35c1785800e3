"""A run that stays open: many callers, each of whom awaits the values of its own items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

from ragasync.engine.engine import Run
from ragasync.engine.feed import PushFeed
from ragasync.errors import JobStopped
from ragasync.outcomes.outcome import Outcome
from ragasync.plan import Plan

T = TypeVar("T")
R = TypeVar("R")


class ItemError(Exception):
    """An envelope: the error of one item of an order, its place there, and the stage if it said."""

    def __init__(self, place: int, error: BaseException, stage: str | None) -> None:
        super().__init__(place, error, stage)
        self.place = place
        self.error = error
        self.stage = stage


class _Order(Generic[R]):
    """Items that one caller awaits together."""

    __slots__ = ("future", "missing", "values")

    def __init__(self, size: int, future: asyncio.Future[list[R]]) -> None:
        self.missing = size
        self.values: list[Any] = [None] * size
        self.future = future

    def fill(self, place: int, value: R) -> None:
        """Put a value in its place."""
        self.values[place] = value
        self.missing -= 1
        if self.missing == 0 and not self.future.done():
            self.future.set_result(self.values)

    def fail(self, place: int, error: BaseException, stage: str | None) -> None:
        """End the order with its first error."""
        if not self.future.done():
            self.future.set_exception(ItemError(place, error, stage))


class _Replies(Generic[T, R]):
    """Where the outcomes of a service go: to the orders that their items came from."""

    is_full = False

    def __init__(self) -> None:
        self.orders: dict[int, tuple[_Order[R], int]] = {}

    def recorder(self) -> Callable[[int, R, float, float, int], None]:
        """Return what records a plain success: index, value, started, seconds, lane."""
        take = self.orders.pop

        def record(index: int, value: R, _began: float, _took: float, _lane: int) -> None:
            order, place = take(index)
            order.fill(place, value)

        return record

    def settle(self, outcome: Outcome[T, R], stack: str | None = None) -> None:  # noqa: ARG002
        """Hand an outcome to its order; the stack goes with the error itself."""
        order, place = self.orders.pop(outcome.index)
        if outcome.ok:
            order.fill(place, outcome.value)  # type: ignore[arg-type]  # done: it has a value
        else:
            error = outcome.error or JobStopped("the call was cancelled")
            order.fail(place, error, outcome.stage)


class Service(Generic[T, R]):
    """
    The engine, fed by callers instead of a source.

    Items of different callers share batches, the concurrency, the limits and the retries of one
    plan; each caller gets the values of its own items, in order.

        async with Service(plan) as embed:
            vectors = await embed(texts)

    Args:
        plan: what to call and how.
    """

    def __init__(self, plan: Plan[T, R]) -> None:
        self._replies: _Replies[T, R] = _Replies()
        self._run: Run[T, R] = Run(plan, self._open, self._replies)
        self._feed: PushFeed[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()

    @property
    def backlog(self) -> int:
        """How many items wait or are in a call."""
        return len(self._replies.orders)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run.run(), name="ragasync service")
        self._task.add_done_callback(self._refuse_the_rest)
        await self._opened.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __call__(self, items: Sequence[T]) -> list[R]:
        """
        Return the value of each item.

        Raises:
            ItemError: the first of them that failed.
            JobStopped: the service stopped because of a fatal error.
        """
        if not items:
            return []
        if self._feed is None or self._task is None or self._task.done() or self._run.stopping:
            raise self._reason()
        order: _Order[R] = _Order(len(items), asyncio.get_running_loop().create_future())
        for place, item in enumerate(items):
            self._replies.orders[self._feed.pushed] = order, place
            self._feed.push(item)
        return await order.future

    def _open(
        self, keep: Callable[[int, T], None] | None, on_change: Callable[[], None]
    ) -> PushFeed[T]:
        """Make the feed of the run; from here on items can be taken."""
        self._feed = PushFeed(keep, on_change)
        self._opened.set()
        return self._feed

    def _reason(self) -> BaseException:
        """Return why nothing more is taken."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                return error
        return JobStopped(self._run.stopped_because or "the service is closed")

    def _refuse_the_rest(self, _: asyncio.Task[None]) -> None:
        """Let every order fail that is still open when the run ends."""
        self._opened.set()
        reason = self._reason()
        for order, _place in list(self._replies.orders.values()):
            if not order.future.done():
                order.future.set_exception(reason)
        self._replies.orders.clear()
