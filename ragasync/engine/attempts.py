"""One attempt at the call of a ticket: admitted, made, and its end handed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from ragasync.calls.caller import Caller, StuckCalls
from ragasync.clock import Clock
from ragasync.engine.admission import LimiterWait
from ragasync.engine.error_handling import ErrorHandler
from ragasync.engine.recorder import Recorder
from ragasync.engine.retry_queue import PendingCall, RetryQueue
from ragasync.errors import AttemptTimeout
from ragasync.foreign_errors import is_a
from ragasync.limits.adaptive import ConcurrencyController
from ragasync.limits.limiter import WeightError
from ragasync.outcomes.activity import ActivityMonitor
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")

StartDecision: TypeAlias = Literal["now", "later", "never"]
"""Whether a call may begin: later, when the run is paused or its worker is one too many."""


class Attempts(Generic[T, R]):
    """
    Makes the calls that are not plain: batches, hops, retries, and all calls that have limits.

    Args:
        plan: how to call.
        calls: what to call.
        admission: the limits to pass first.
        recording: takes the outcomes of items that can never pass them.
        after: decides what follows.
        parked: where a ticket goes that may not begin now.
        held: keeps the slot of a call that nobody can interrupt.
        clock: the run's clock.
        is_cancelled: says whether the run has cancelled the current worker.

    Attributes:
        seconds: the time spent in calls, added up.
        calls: how many calls were made.
        activity: notes when they were under way, if somebody wants to know.
        adapting: watches each, where the bound on calls at once follows what they meet.
    """

    def __init__(
        self,
        plan: BatchSettings[T, R],
        calls: Caller,
        admission: LimiterWait,
        recording: Recorder[T, R],
        after: ErrorHandler[T, R],
        parked: RetryQueue[T],
        held: StuckCalls,
        clock: Clock,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._is_cancelled = is_cancelled
        self._plan, self._calls, self._admission = plan, calls, admission
        self._recording, self._after, self._parked = recording, after, parked
        self._held, self._clock = held, clock
        self.seconds = 0.0
        self.calls = 0
        self.activity: ActivityMonitor | None = None
        self.adapting: ConcurrencyController | None = None

    async def make(
        self, ticket: PendingCall[T], worker: int, permission: Callable[[], StartDecision]
    ) -> None:
        """Pass the gate and make the call of a ticket, if it still may be made then."""
        # Who may not begin takes nothing from the limiters, before the wait and after it.
        passes = self._admission.is_open or permission() != "now"
        try:
            if not (passes or await self._admitted(ticket, worker, lambda: permission() == "now")):
                return
        except asyncio.CancelledError:
            self._parked.park(ticket, 0.0)  # unless the run ends, another worker takes it up
            raise
        match permission():
            case "never":
                return
            case "later":
                self._parked.park(ticket, 0.0)  # another worker takes it up, or this one later
                return
        if self._after.gave_up_late(ticket, worker):
            return
        began = self._clock()
        if ticket.started < 0:
            ticket.started = began
        self.calls += 1
        if self.activity is not None:
            self.activity.call_started(began)
        try:
            await self._make_now(ticket, began, worker)
        finally:
            ended = self._clock()
            self.seconds += ended - began
            if self.activity is not None:
                self.activity.call_ended(began, ended)

    def failed_at_once(
        self, index: int, item: T, error: BaseException, began: float, worker: int
    ) -> bool:
        """Hand on the failure of a plain call; return whether it must go on up."""
        if self.activity is not None:
            self.activity.add(began, self._clock())
        return self._after.raised(
            PendingCall((index,), (item,), started=began), error, began, worker
        )

    async def _make_now(self, ticket: PendingCall[T], began: float, worker: int) -> None:
        """Make the call, and hand its end on."""
        after = self._after
        try:
            answer = await self._call(ticket)
        except (AttemptTimeout, asyncio.CancelledError) as error:
            ended = self._clock()
            if not after.is_of_the_run(error):
                await self._until_returned(ticket, error, began, ended, worker)
                after.failed(ticket, error, began, worker, ended=ended)
            else:
                after.raised(ticket, error, began, worker)
                raise
        except BaseException as error:
            if after.raised(ticket, error, began, worker):
                raise
        else:
            if self._plan.grouped:
                after.hop_returned(ticket, answer, began, worker)
            else:
                after.succeeded(ticket, answer, began, worker)

    async def _until_returned(
        self, ticket: PendingCall[T], error: BaseException, began: float, ended: float, worker: int
    ) -> None:
        """Hold the slot of a call that was given up and goes on, until its thread is free."""
        call = self._calls.take_abandoned()
        while call is not None:
            try:
                await self._held.until_returned(call)
                return
            except asyncio.CancelledError:
                if self._is_cancelled():
                    ticket.add_attempt(ended - began)
                    self._recording.record_failure(ticket, error, worker)
                    raise

    async def _call(self, ticket: PendingCall[T]) -> Any:
        """Make the call of a ticket, and have it watched if somebody learns from it."""
        call = self._call_now(ticket)
        return await (call if self.adapting is None else self.adapting.watch(call))

    async def _call_now(self, ticket: PendingCall[T]) -> Any:
        """Make the call of a ticket, in the way that the plan says."""
        if self._plan.grouped:
            return await self._calls.call_group(
                ticket.items, ticket.indices, isolate=ticket.suspect
            )
        if self._plan.batched:
            items = list(ticket.items)
            return await self._calls.call_batch(items, ticket.indices, isolate=ticket.suspect)
        return [await self._calls.call_one(ticket.items[0])]

    async def _admitted(
        self, ticket: PendingCall[T], worker: int, wanted: Callable[[], bool]
    ) -> bool:
        """Wait for the gate; return whether it has let the call through."""
        try:
            await self._admission.wait(ticket, self._clock, wanted)
        except ValueError as error:  # an item weighs too much, or its weight cannot be computed
            cause = error.__cause__
            if len(ticket) > 1:
                for half in ticket.halves():
                    self._parked.park(half, 0.0)
            elif is_a(error, WeightError) and is_a(cause, Exception):
                self._failed_before(ticket, cause, worker)
            else:
                self._recording.record_failure(ticket, error, worker)
            return False
        except Exception as error:  # a limiter's own trouble is the call's, not the source's
            self._failed_before(ticket, error, worker)
            return False
        return True

    def _failed_before(self, ticket: PendingCall[T], error: Exception, worker: int) -> None:
        """Hand on an error that arose before the call was made."""
        failed_at = self._clock()
        if ticket.started < 0:
            ticket.started = failed_at  # as of a call: the wait lies before
        self._after.failed(ticket, error, failed_at, worker)
