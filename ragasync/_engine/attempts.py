"""One attempt at a pending call: wait for the limits, make the call, hand on how it ended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ragasync._calls.caller import Caller, StuckCalls
from ragasync._calls.groups import MAX_GROUP_SECONDS
from ragasync._engine.controls import RunControls
from ragasync._engine.error_handling import ErrorHandler, FailedAttempt
from ragasync._engine.retry_queue import PendingCall
from ragasync._engine.scheduler import Scheduler
from ragasync._engine.workers import WorkerPool
from ragasync._limits.bucket import WeightError
from ragasync.clock import Clock
from ragasync.errors import AttemptTimeout
from ragasync.foreign_errors import is_a
from ragasync.usage import CallUsage, current_call

T = TypeVar("T")
R = TypeVar("R")


class CallRunner(Generic[T, R]):
    """
    Makes the calls off the fast path: batches, groups, retries, and all calls that have limits.
    """

    def __init__(
        self,
        controls: RunControls,
        pool: WorkerPool,
        scheduler: Scheduler[T, R],
        caller: Caller,
        errors: ErrorHandler[T, R],
        clock: Clock,
    ) -> None:
        self._controls, self._pool, self._scheduler = controls, pool, scheduler
        self._caller, self._errors, self._clock = caller, errors, clock
        self._settings = controls.settings
        self._stuck = StuckCalls(
            self._settings.timeout, scheduler.can_progress_beside, controls.stop
        )

    def close(self) -> None:
        """Stop the timer of calls past their time limit."""
        self._stuck.close()

    async def run(self, call: PendingCall[T], worker: int) -> None:
        """Wait for the limits and make the call, if it may still start then."""
        if not await self._pass_limits(call, worker):
            return
        if self._scheduler.may_start() != "now":
            # For another worker, or this one later; after a stop, it is recorded as pending.
            self._scheduler.retries.push(call)
            return
        if self._errors.fail_if_past_deadline(call, worker):
            return
        totals, activity, grant = self._controls.totals, self._controls.activity, call.grant
        started = self._clock()
        if call.started < 0:
            call.started = started
        totals.calls += 1
        if activity is not None:
            activity.call_started(started)
        if grant is not None:
            _current().limiters = grant.limiters
        try:
            await self._attempt(call, started, worker)
        finally:
            ended = self._clock()
            totals.call_seconds += ended - started
            if activity is not None:
                activity.call_ended(started, ended)
            if grant is not None:
                _current().limiters = ()
                grant.correct()

    def fail_plain(
        self, index: int, item: T, error: BaseException, started: float, worker: int
    ) -> bool:
        """Hand on the failure of a call on the fast path; return whether it must be raised on."""
        if self._controls.activity is not None:
            self._controls.activity.add(started, self._clock())
        call = PendingCall((index,), (item,), started=started)
        self._take_usage(call)
        return self._errors.on_error(call, error, started, worker)

    async def _attempt(self, call: PendingCall[T], started: float, worker: int) -> None:
        """Make the call, and hand on its value or its error."""
        errors = self._errors
        try:
            try:
                value = await self._call(call)
            finally:
                self._take_usage(call)
        except (AttemptTimeout, asyncio.CancelledError) as error:
            failed = FailedAttempt(error, started, self._clock(), worker)
            if errors.ends_this_run(error):
                errors.on_cancelled(call, error, started, worker)
                raise
            await self._wait_for_abandoned(call, failed)
            errors.on_failure(call, failed)
        except BaseException as error:
            if errors.on_error(call, error, started, worker):
                raise
        else:
            if self._settings.grouped:
                if call.grant is not None:
                    tokens = sum(each.tokens for each in value.usage.values())
                    call.grant.add(tokens, _current().take_covered())
                errors.on_group_result(call, value, started, worker)
            else:
                errors.on_success(call, value, started, worker)

    async def _call(self, call: PendingCall[T]) -> Any:
        """Make the call; a run with max_concurrency="auto" watches it."""
        coroutine = self._call_function(call)
        controller = self._controls.controller
        return await (coroutine if controller is None else controller.watch(coroutine))

    async def _call_function(self, call: PendingCall[T]) -> Any:
        """Call the function with one item, a list of items, or each of a group of items."""
        if self._settings.grouped:
            max_seconds = math.inf if self._controls.group_size is None else MAX_GROUP_SECONDS
            return await self._caller.call_group(
                call.items, call.indices, isolate=call.isolate, max_seconds=max_seconds
            )
        if self._settings.batched:
            items = list(call.items)
            return await self._caller.call_batch(items, call.indices, isolate=call.isolate)
        return [await self._caller.call_one(call.items[0])]

    async def _wait_for_abandoned(self, call: PendingCall[T], failed: FailedAttempt) -> None:
        """
        Wait until the thread or process of a call that was given up is free.

        Nothing can interrupt it, and a worker that went on meanwhile would exceed the concurrency.
        """
        abandoned = self._caller.take_abandoned()
        while abandoned is not None:
            try:
                await self._stuck.until_returned(abandoned)
                break
            except asyncio.CancelledError:
                if self._pool.is_cancelled():
                    self._take_usage(call)
                    call.add_attempt(failed.seconds)
                    self._errors.fail(call, failed.error, failed.worker)
                    raise
        self._take_usage(call)

    def _take_usage(self, call: PendingCall[T]) -> None:
        """Add what an attempt has reported to its call, a share for each item."""
        current = _current()
        if current.reported is None or (usage := current.take()) is None:
            return
        covered = current.take_covered()
        if call.grant is not None:
            call.grant.add(usage.tokens, covered)
        call.add_usage([usage] if len(call) == 1 else usage.divided(self._weights(call.items)))

    def _weights(self, items: Sequence[T]) -> Sequence[float]:
        """Weigh the items of a batch: by the user's function, or texts by their length."""
        weight = self._settings.weight
        if weight is None and all(type(item) is str for item in items):
            weight = len
        if weight is None:
            return [1.0] * len(items)
        try:
            return [max(0.0, float(weight(item))) for item in items]
        except Exception:  # it weighed them before; how to share a cost is no reason to fail them
            return [1.0] * len(items)

    # ── limits ──────────────────────────────────────────────────────────────────────────────────

    async def _pass_limits(self, call: PendingCall[T], worker: int) -> bool:
        """Wait until the limiters admit the call; return False if it can never pass."""
        call.grant = None  # that of the attempt before
        # A call that may not start takes nothing from the limiters, before the wait or after it.
        if self._controls.limits_are_open or self._scheduler.may_start() != "now":
            return True
        try:
            await self._wait_at_limiter(call)
        except ValueError as error:  # an item weighs too much, or its weight cannot be computed
            cause = error.__cause__
            if len(call) > 1:
                for half in call.halves():
                    self._scheduler.retries.push(half)
            elif is_a(error, WeightError) and is_a(cause, Exception):
                self._fail_before_call(call, cause, worker)
            else:
                self._errors.fail(call, error, worker)
            return False
        except asyncio.CancelledError:
            self._scheduler.retries.push(call)  # for another worker, unless the run ends
            raise
        except Exception as error:  # the limiter's own: not to be blamed on the source
            self._fail_before_call(call, error, worker)
            return False
        return True

    async def _wait_at_limiter(self, call: PendingCall[T]) -> None:
        """Wait until the limiters admit the call, if it is still wanted then; count the time."""
        task, since = asyncio.current_task(), self._clock()
        assert task is not None  # a coroutine runs in a task
        waiting = self._pool.at_limiter
        waiting.add(task)
        try:
            # Each item of a group is one request, although the group is one hand-over.
            requests = len(call) if self._settings.grouped else 1
            call.grant = await self._controls.limiter.admit(
                call.items, requests, wanted=lambda: self._scheduler.may_start() == "now"
            )
        finally:
            waiting.remove(task)
            waited = self._clock() - since
            call.waited += waited
            self._controls.totals.limiter_seconds += waited

    def _fail_before_call(self, call: PendingCall[T], error: Exception, worker: int) -> None:
        """Hand on an error that was raised before the call was made."""
        failed_at = self._clock()
        if call.started < 0:
            call.started = failed_at  # as if called: the wait lies before
        self._errors.on_failure(call, FailedAttempt(error, failed_at, failed_at, worker))


def _current() -> CallUsage:
    """What the current worker's calls report their usage to."""
    current = current_call.get()
    assert current is not None  # each worker has one
    return current
