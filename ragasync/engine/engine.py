"""The window of workers that everything runs on: batches, streams, gathers, documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from ragasync.calling.calls import Calls
from ragasync.calling.held import HeldSlots
from ragasync.clock import clock_of
from ragasync.engine.aftermath import Aftermath
from ragasync.engine.attempts import Attempts
from ragasync.engine.backoff import BackoffLine
from ragasync.engine.batches import Batches
from ragasync.engine.drawing import LOOK_AHEAD, Drawing
from ragasync.engine.feed import FeedMaker, open_feed
from ragasync.engine.journalling import NewOf, journalled
from ragasync.engine.lanes import Lanes
from ragasync.engine.recording import Recording, Sink
from ragasync.engine.steering import Steering, current_run
from ragasync.engine.ticket import Ticket
from ragasync.outcomes.tracebacks import TracebackArchive
from ragasync.plan import Plan
from ragasync.saying import named

T = TypeVar("T")
R = TypeVar("R")

FRESH: Any = object()
"""What a lane is to do next when nothing is special: run through new items in the hot loop."""


class Run(Steering[T, R]):
    """
    One run of a plan over a source.

    A fixed number of lanes draw from one lazy iterator. Each calls, records, and draws again;
    nobody waits for the slowest of a group. What is not plain (a retry that is due, a batch, a
    pause, a limit) takes a lane out of its hot loop for as long as it needs.

    It is made anywhere, and belongs to the loop that awaits `run()`. On that loop its knobs may
    be turned while it runs: `pause`, `resume`, `resize`, `stop`, and the rate of its `gate`.

    Args:
        plan: what to call and how.
        source: any iterable or async iterable, or what makes a feed.
        sink: where outcomes go.
        total: how many items there are, where that is known: for opening lanes and sizing hops.
        limit: how many items to draw at most.
        keep: called with index and item when an item is drawn.
        archive: makes texts of tracebacks; by default one of the run's own.
    """

    def __init__(
        self,
        plan: Plan[T, R],
        source: Iterable[T] | AsyncIterable[T] | FeedMaker[T],
        sink: Sink[T, R],
        *,
        total: int | None = None,
        limit: int | None = None,
        keep: Callable[[int, T], None] | None = None,
        archive: TracebackArchive | None = None,
    ) -> None:
        super().__init__(plan, sink)
        self._source = source
        self._archive = archive or TracebackArchive()
        self._total, self._limit, self._keep = total, limit, keep
        self._new_of: NewOf[T] | None = None
        self._is_plain = not plan.batched and not plan.in_hops and plan.journal is None
        if not plan.is_async and plan.timeout is not None:
            self._is_plain = False  # a thread that outlives its time holds its slot

    async def run(self) -> None:
        """
        Run until every item has its outcome, or until stopped.

        Raises:
            RunAsyncError: the function uses an object of another event loop.
            Exception: what the source raised, or what opening and closing `resources` did.
        """
        loop = asyncio.get_running_loop()
        self._loop, self._clock = loop, clock_of(loop)
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
        if self.error is not None:
            raise self.error

    def _open_parts(self, stack: AsyncExitStack, resource: object) -> None:
        """Make what the run consists of, on its loop; the stack closes it."""
        self._calls = Calls(self.plan, self._loop, resource)
        stack.callback(self._calls.close)
        self._parked: BackoffLine[T] = BackoffLine(self._clock, self.look_up)
        stack.callback(self._parked.close)
        self._recording = Recording(self.plan, self._sink, self._archive, self.stop, self._zero)
        self._after = Aftermath(
            self.plan, self._recording, self.gate, self._parked, self, self._clock
        )
        self._lanes = Lanes(self._work, self.max_concurrency, self._clock)
        held = HeldSlots(self.plan.timeout, self._goes_on_beside, self.stop)
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
        )
        self._feed = open_feed(
            self._source,
            self._limit,
            self._keep,
            ahead=self.max_concurrency * self.plan.items_a_call,
            on_change=self._input_came,
        )
        stack.push_async_callback(self._feed.close)
        drawing = Drawing(self._feed, self._clock, self._new_of, self._looked_up_at_once)
        self._batches = Batches(
            self._feed, drawing, self._next_size, self.plan, self._clock, self._refuse
        )

    async def _until_closed(self) -> None:
        """Open the lanes and wait for the last to close; leave none behind."""
        self._is_open = True
        if self.adapts:
            self.adapt()
        self._lanes.open_one()  # which opens the next when it has begun
        self.reconsider()
        try:
            await self._lanes.all_closed()
        finally:
            self.stopping = True
            self.reconsider()  # a call that answers its cancellation with a value is the last
            await self._lanes.cancel()
        self.error = self.error or self._lanes.error

    # ── a lane's life ───────────────────────────────────────────────────────────────────────

    async def _work(self, lane: int) -> None:
        """Do what is next until this lane is to close."""
        current_run.set(self)
        try:
            while (ticket := await self._next(lane)) is not None:
                if ticket is FRESH:
                    await self._run_through(lane)
                else:
                    await self._attempts.make(ticket, lane, self._permission)
        except (Exception, asyncio.CancelledError) as error:  # no item's: see the aftermath
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise
            self.fail(error, f"the source raised {named(error)}")

    async def _run_through(self, lane: int) -> None:
        """
        Call and record one new item after the other: the hot loop.

        Everything in it is a local name, and the end of one call is the start of the next, because
        at a microsecond an item each look-up and each look at the clock shows. What it must not
        miss (a breath, a pause, a retry) is folded into one comparison with `attend_at`.
        """
        call, clock, after, lanes = self._calls.one, self._clock, self._after, self._lanes
        record, zero = self._recording.record, self._recording.zero
        began = clock()
        for index, item in self._feed.fresh:
            try:
                value = await call(item)
            except Exception as error:
                self._attempts.failed_at_once(index, item, error, began, lane)
                self.reconsider()
                ended = clock()
            except BaseException as error:
                if after.broken_off(Ticket((index,), (item,), started=began), error, began, lane):
                    raise
                ended = clock()
            else:
                ended = clock()
                record(index, value, began - zero, ended - began, lane)
            if ended >= lanes.attend_at:
                return
            began = ended
        self._feed.ran_dry()

    async def _next(self, lane: int) -> Any:
        """Return a ticket, or FRESH for the hot loop, or None when this lane is to close."""
        lanes = self._lanes
        while True:
            if lanes.out_of_breath:
                await lanes.breathe()
            self.reconsider()
            if self.stopping or lanes.surplus:
                lanes.leave(lane)
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
            if self._is_over:
                self.stopping = True
                lanes.wake_all()
                return None
            await self._rest()

    async def _rest(self) -> None:
        """Wait until woken; what the source keeps us waiting for is counted."""
        for_input = not self.paused and self._may_draw and not self._feed.exhausted
        began = self._clock()
        try:
            await self._lanes.rest()
        finally:
            if for_input:
                self.input_waited += self._clock() - began

    @property
    def _looked_up_at_once(self) -> int:
        """How many items of a list are looked up together, where that takes a turn on a thread."""
        journal = self.plan.journal
        on_thread = journal is not None and journal.on_thread
        return LOOK_AHEAD if on_thread and isinstance(self._source, list) else 1

    def _next_size(self, drawn: int) -> int:
        """Return the most items to draw for the next call."""
        return self.plan.next_size(drawn, self._total, self.max_concurrency)

    def _refuse(self, index: int, item: T, error: Exception) -> None:
        """Let an item fail that can go in no call."""
        self._recording.give_up(Ticket((index,), (item,)), error, lane=0)
