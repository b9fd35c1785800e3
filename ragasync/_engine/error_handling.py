"""What follows a call: its outcome is recorded, or it is retried, split or failed, or all stop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from ragasync._bridge.interrupts import Interrupted
from ragasync._calls.caller import returned_coroutine
from ragasync._calls.groups import GroupResult
from ragasync._engine.controls import RunControls
from ragasync._engine.recorder import Recorder
from ragasync._engine.retry_queue import PendingCall, RetryQueue
from ragasync._engine.workers import WorkerPool
from ragasync._outcomes.outcome import Attempt
from ragasync._outcomes.stats import wall_time_in
from ragasync._retries.classify import FATAL, may_split, should_split
from ragasync._retries.retry_after import retry_after_of
from ragasync.clock import Clock
from ragasync.error_text import describe, safe_message
from ragasync.errors import (
    JobStopped,
    SerializationError,
    StageFailure,
    WorkerDied,
    as_run_async_error,
)
from ragasync.foreign_errors import is_a, is_error, leaves_of
from ragasync.object_views import duration
from ragasync.usage import NO_USAGE

T = TypeVar("T")
R = TypeVar("R")

_ENDS_A_RUN = (KeyboardInterrupt, SystemExit, GeneratorExit)


NextStep: TypeAlias = float | Literal["split", "fail", "stop"]
"""
What follows a call that raised: a retry after this many seconds, a call for each half of its batch,
or the error as the outcome of all its items, which may also stop the job.
"""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt of a call: its error, its times on the run's clock, and its worker."""

    error: BaseException
    started: float
    ended: float
    worker: int

    @property
    def seconds(self) -> float:
        """The duration of the attempt."""
        return self.ended - self.started


class ErrorHandler(Generic[T, R]):
    """Decides what follows a call, above all one that failed."""

    def __init__(
        self,
        controls: RunControls,
        pool: WorkerPool,
        retries: RetryQueue[T],
        recorder: Recorder[T, R],
        clock: Clock,
    ) -> None:
        self._controls, self._pool, self._retries = controls, pool, retries
        self._recorder, self._clock = recorder, clock
        self._settings, self._policy = controls.settings, controls.settings.retry

    # ── calls that returned ─────────────────────────────────────────────────────────────────────

    def on_success(
        self, call: PendingCall[T], values: Sequence[R], started: float, worker: int
    ) -> None:
        """Record the values of a call; an error in an item's position is the error of that item."""
        if self._retries.has_deferred:
            self._retries.release_deferred()  # a batch succeeded, so not all batches fail alike
        if errors := self._errors_among(values):
            self._on_partial_success(call, values, errors, started, worker)
            return
        call.add_attempt(self._clock() - started)
        self._recorder.record_success(call, values, worker)

    def _errors_among(self, values: Sequence[R]) -> dict[int, BaseException]:
        """Find the values that are errors or that the policy rejects, by position."""
        errors = errors_among(values, batched=self._settings.batched)
        if self._policy.retry_on_result is not None:
            for position, value in enumerate(values):
                if position not in errors and (rejected := self._policy.reject(value)) is not None:
                    errors[position] = rejected
        return errors

    def _on_partial_success(
        self,
        call: PendingCall[T],
        values: Sequence[R],
        errors: dict[int, BaseException],
        started: float,
        worker: int,
    ) -> None:
        """Record the values of some items; each of the others fails as if it had been alone."""
        ended = self._clock()
        if done := [position for position in range(len(call)) if position not in errors]:
            part = call.subset(done)
            part.add_attempt(ended - started)
            self._recorder.record_success(part, [values[position] for position in done], worker)
        for position, error in errors.items():
            failed = FailedAttempt(error, started, ended, worker)
            self.on_failure(call.single_item(position), failed)

    def on_group_result(
        self, call: PendingCall[T], result: GroupResult, started: float, worker: int
    ) -> None:
        """
        Record each item of a group by itself; each that failed is retried by itself.

        Items that its worker has not called, because others took too long, are shared among all
        workers.
        """
        if (group_size := self._controls.group_size) is not None:
            group_size.add(result.seconds)
            if (called := len(result.seconds)) < len(call):
                share = math.ceil((len(call) - called) / self._controls.max_concurrency)
                for part in call.uncalled(called, min(share, group_size.current)):
                    self._retries.push(part)
                call = call.subset(range(called))
        if result.usage:
            call.add_usage([result.usage.get(place, NO_USAGE) for place in range(len(call))])
        if not result.errors and self._policy.retry_on_result is None:
            call.add_attempt(0.0)  # the items have times of their own
            seconds = [call.seconds + seconds for seconds in result.seconds]
            self._recorder.record_success(call, result.values, worker, seconds)
            return
        at = started
        for position, item in enumerate(result.take()):
            single = call.single_item(position)
            error: BaseException | None = item.error
            if error is None:
                error = self._policy.reject(item.value)
            if error is None:
                single.add_attempt(item.seconds)
                self._recorder.record_success(single, (item.value,), worker)
            else:
                self.on_failure(single, FailedAttempt(error, at, at + item.seconds, worker))
            at += item.seconds

    # ── calls that raised ───────────────────────────────────────────────────────────────────────

    def on_error(
        self, call: PendingCall[T], error: BaseException, started: float, worker: int
    ) -> bool:
        """
        Handle an error, and return whether it must propagate.

        An interrupt, and a cancellation by the run itself, end this worker. A cancellation that
        nobody here asked for is the call's own failure, like any other error.
        """
        if ends_a_run(error) or self.ends_this_run(error):
            self.on_cancelled(call, error, started, worker)
            return True
        self.on_failure(call, FailedAttempt(error, started, self._clock(), worker))
        return False

    def ends_this_run(self, error: BaseException) -> bool:
        """
        Whether an error is the cancellation of the run rather than a failure of the call.

        A call that blocks in run_async sees an interrupt, or the end of what surrounds the run,
        before the run itself does, because it blocks the run's loop.
        """
        if is_a(error, Interrupted):
            return True
        return is_a(error, asyncio.CancelledError) and self._pool.is_cancelled()

    def on_cancelled(
        self, call: PendingCall[T], error: BaseException, started: float, worker: int
    ) -> None:
        """Record the items of a call that was cut off by the end of the run."""
        if is_a(error, Interrupted):
            self._controls.interrupted(error)
        call.add_attempt(self._clock() - started)
        self._recorder.record_cancelled(call, worker)

    def on_failure(self, call: PendingCall[T], failed: FailedAttempt) -> None:
        """Decide what follows the failure of a call, and do it."""
        error, worker = failed.error, failed.worker
        crashed = is_a(error, WorkerDied) and self._settings.executor is not None
        if crashed and (suspects := self._suspects(call)):
            self._isolate(suspects, failed)
            return
        call.add_attempt(failed.seconds)
        if self._pause_as_asked(error):
            self._leave_pending(call, failed)
            return
        if (hopeless := _why_no_call_can_succeed(error)) is not None:
            self.fail(call, error, worker, stops_run=True)
            self._controls.abort(hopeless)
            return
        try:
            step = self._next_step(call, failed)
        except Exception as problem:  # the user's own predicate raised
            self.fail(call, problem, worker)
            return
        self._follow(step, call, failed)

    def _next_step(self, call: PendingCall[T], failed: FailedAttempt) -> NextStep:
        """
        Decide between a retry, a split and a failure of a call that raised.

        A batch is split immediately when the service refused its content (400, 413, 422), or when a
        value or their number was wrong; after its retries on other errors; and never when smaller
        batches cannot help (a bug in the function, a bad key, a rate limit).
        """
        error = failed.error
        delay = self._policy.decide(
            error,
            retries=call.retries.spent,
            elapsed=failed.ended - call.started,
            # If the limiters delay the retry, resuming them by hand ends its wait too.
            limiters_paused=self._controls.paused_for > 0.0,
        )
        if delay is FATAL:
            return "stop"
        if len(call) > 1 and should_split(error):
            return "split"
        if delay is not None:
            return delay
        # The error of a whole group is no item's own: one of them cannot be pickled.
        can_split = len(call) > 1 and (self._settings.grouped or may_split(error))
        return "split" if can_split else "fail"

    def _follow(self, step: NextStep, call: PendingCall[T], failed: FailedAttempt) -> None:
        """Take the next step; a run that is stopping leaves calls without a final error pending."""
        error = failed.error
        if step == "fail" or step == "stop":
            self.fail(call, error, failed.worker, stops_run=step == "stop")
            if step == "stop" or self._settings.fail_fast:
                self._controls.stop(_why_fatal(error), cancel=True)
            else:
                self._recorder.note_failed_call(call, error)
            return
        if step == "split" and self._recorder.note_failed_call(call, error):
            self.fail(call, error, failed.worker)  # all its parts would fail the same way
            return
        if self._controls.stopping:
            self._leave_pending(call, failed)
            return
        if step == "split":
            self._log_attempt(call, failed)
            self._split(call)
        else:
            # The delay that is reported includes the time for which the limiters hold the retry.
            delay, backed_off = max(step, retry_after_of(error) or 0.0), call.backed_off
            self._log_attempt(call, failed, delay)
            call.retries.spent += 1
            if self._policy.max_elapsed is not None:
                call.last_error = error
            self._policy.notify(call.attempts, error, delay, backed_off)
            self._retries.push(call, step)

    def _split(self, call: PendingCall[T]) -> None:
        """
        Queue the halves of a failed batch.

        Until it is known whether every batch fails, they are deferred: if a second one fails alike
        the run stops, without a call for each item.
        """
        call.last_error = None
        queue = self._retries.defer if self._recorder.defers_parts else self._retries.push
        for half in call.halves():
            queue(half)
        if self._retries.has_deferred and not self._recorder.defers_parts:
            self._retries.release_deferred()

    def _suspects(self, call: PendingCall[T]) -> list[PendingCall[T]]:
        """List what may have crashed a worker process, unless this call ran there alone."""
        if self._settings.grouped and len(call) > 1:
            return [call.single_item(position) for position in range(len(call))]
        return [] if call.isolate else [call]

    def _isolate(self, suspects: Sequence[PendingCall[T]], failed: FailedAttempt) -> None:
        """Retry each suspect where it harms no other, without a delay; most are innocent."""
        for call in suspects:
            call.add_attempt(failed.seconds)
            if self._controls.stopping:
                self._leave_pending(call, failed)
                continue
            call.isolate = True
            self._log_attempt(call, failed)
            self._retries.push(call)

    def _pause_as_asked(self, error: BaseException) -> bool:
        """
        Pause the limiters if the service asks for it by Retry-After, whatever its status.

        Returns:
            Whether that is longer than the policy waits, so that the run stops and leaves the call
            of this response, like the rest, pending.
        """
        seconds = retry_after_of(error)
        if not seconds:
            return False
        asked = f"{describe(error)} asks to wait {duration(seconds)}, until {wall_time_in(seconds)}"
        self._controls.pauses = self._controls.pauses.with_reply(self._clock(), seconds, asked)
        longest = self._policy.max_retry_after
        if seconds <= longest:
            self._controls.pause_limiters(seconds)
            return False
        self._controls.stop(f"{asked}: that is more than max_retry_after={longest:g} s")
        return True

    def fail_if_past_deadline(self, call: PendingCall[T], worker: int) -> bool:
        """Fail a call whose retry would start after the policy's max_elapsed."""
        max_elapsed = self._policy.max_elapsed
        if max_elapsed is None or call.last_error is None:
            return False
        if self._clock() - call.started < max_elapsed:
            return False
        self.fail(call, call.last_error, worker)
        return True

    def fail(
        self, call: PendingCall[T], error: BaseException, worker: int, *, stops_run: bool = False
    ) -> None:
        """Make the error the outcome of every item of the call."""
        self._recorder.record_failure(call, error, worker, stops_run=stops_run)

    def _leave_pending(self, call: PendingCall[T], failed: FailedAttempt) -> None:
        """Record the attempts of a call that would be tried again if the run went on."""
        self._keep_attempt(call, failed)
        self._recorder.record_pending(call)

    def _log_attempt(self, call: PendingCall[T], failed: FailedAttempt, delay: float = 0.0) -> None:
        """Keep a record of an attempt that is not the last, and count items that are retried."""
        if call.attempts == 1:
            self._controls.totals.retried += len(call)
        self._keep_attempt(call, failed, delay)
        # What came after its end: the rest of its group, or a thread that had to return first.
        call.backed_off += max(0.0, self._clock() - failed.ended)

    def _keep_attempt(
        self, call: PendingCall[T], failed: FailedAttempt, delay: float = 0.0
    ) -> None:
        """Keep a record of an attempt."""
        since_start = failed.started - self._recorder.started_at
        waited = max(0.0, call.waited - sum(earlier.waited for earlier in call.history))
        described = describe(failed.error)
        call.history += (
            Attempt(since_start, failed.seconds, described, delay, waited, failed.worker),
        )


def ends_a_run(error: BaseException) -> bool:
    """Whether an error is an interrupt or an exit, by itself or in a group."""
    return any(is_a(each, _ENDS_A_RUN) for each in leaves_of(error))


def _why_no_call_can_succeed(error: BaseException) -> Exception | None:
    """Find what to raise if every other call must fail as this one did."""
    if is_a(error, SerializationError) and error.function:
        return error
    return as_run_async_error(error)


def _why_fatal(error: BaseException) -> str:
    """Say why an error stops the whole run; a run that stopped has said it already."""
    where = ""
    if is_a(error, StageFailure):
        where, error = f" (in stage {error.stage})", error.error
    if is_a(error, JobStopped):
        return safe_message(error)
    return f"a fatal error{where}: {describe(error)}"


def errors_among(values: Sequence[Any], *, batched: bool) -> dict[int, BaseException]:
    """
    Find the values that are errors, by position.

    A coroutine that nobody awaits is always an error. An exception is one only in the list that a
    batched function returns; a function of one item may return an exception as a plain value.
    """
    kinds = set(map(type, values))
    coroutines = any(issubclass(kind, Coroutine) for kind in kinds)
    if not (coroutines or (batched and any(issubclass(kind, BaseException) for kind in kinds))):
        return {}
    errors: dict[int, BaseException] = {}
    for position, value in enumerate(values):
        if is_a(value, Coroutine):
            errors[position] = returned_coroutine(value)
        elif batched and is_error(value):
            errors[position] = value
    return errors
