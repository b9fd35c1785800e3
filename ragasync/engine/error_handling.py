"""What is done when a call has ended: its outcome recorded, or its next attempt arranged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ragasync.bridge.interrupts import Interrupted
from ragasync.calls.caller import returned_coroutine
from ragasync.calls.groups import GroupResult
from ragasync.clock import Clock
from ragasync.engine.judging import GIVE_UP, HALVE, Fail, Split, TryAgain, judge
from ragasync.engine.recorder import Recorder
from ragasync.engine.retry_queue import PendingCall, RetryQueue
from ragasync.error_text import describe, safe_message
from ragasync.errors import JobStopped, SerializationError, StageFailure, WorkerDied
from ragasync.foreign_errors import is_a, is_error, leaves_of
from ragasync.limits.combined import CombinedLimiter
from ragasync.loop_errors import as_run_async_error
from ragasync.outcomes.stats import ServicePauses, wall_time_in
from ragasync.reports.summary import duration
from ragasync.retries.http import retry_after_of
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")


_INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Stops(Protocol):
    """What a failure may do to the whole run."""

    stopping: bool
    pauses: ServicePauses

    def is_cancelled(self) -> bool:
        """Return whether the run has cancelled the current worker."""

    def stop(self, because: str, *, cancel: bool = False) -> None:
        """Start nothing more; cancel what is in flight if asked."""

    def abort(self, error: BaseException) -> None:
        """Stop at once, and have this error raised."""

    def interrupted(self, error: Interrupted) -> None:
        """Stop at once because of an interrupt that a call got."""


class ErrorHandler(Generic[T, R]):
    """
    Decides what follows from calls, the failed ones above all.

    Args:
        plan: the retry policy.
        recording: writes the outcomes.
        gate: closed for a while when a reply asks for it by Retry-After.
        parked: where tickets wait for their next attempt.
        run: what may have to be stopped.
        clock: the run's clock.
    """

    def __init__(
        self,
        plan: BatchSettings[T, R],
        recording: Recorder[T, R],
        gate: CombinedLimiter,
        parked: RetryQueue[T],
        run: Stops,
        clock: Clock,
    ) -> None:
        self._plan, self._recording, self._gate = plan, recording, gate
        self._parked, self._run, self._clock = parked, run, clock
        self.retried = 0

    def succeeded(
        self, ticket: PendingCall[T], values: Sequence[R], began: float, worker: int
    ) -> None:
        """Record the values of a call; an error that stands in an item's place is that item's."""
        if self._parked.holds_any:
            self._parked.release()  # a batch succeeded: the parts of another need not wait
        if errors := _errors_among(values, returned=self._plan.batched):
            self._succeeded_in_part(ticket, values, errors, began, worker)
            return
        ticket.add_attempt(self._clock() - began)
        self._recording.record_success(ticket, values, worker)

    def _succeeded_in_part(
        self,
        ticket: PendingCall[T],
        values: Sequence[R],
        errors: dict[int, BaseException],
        began: float,
        worker: int,
    ) -> None:
        """Record the values of some items, and let each of the others fail as if it were alone."""
        ended = self._clock()
        if done := [place for place in range(len(ticket)) if place not in errors]:
            part = ticket.some(done)
            part.add_attempt(ended - began)
            self._recording.record_success(part, [values[place] for place in done], worker)
        for place, error in errors.items():
            self.failed(ticket.alone(place), error, began, worker, ended=ended)

    def hop_returned(
        self, ticket: PendingCall[T], reply: GroupResult, began: float, worker: int
    ) -> None:
        """Record each item of a hop by itself; each that failed goes on alone."""
        if not reply.errors:
            ticket.add_attempt(0.0)  # the items have times of their own
            seconds = [ticket.seconds + seconds for seconds in reply.seconds]
            self._recording.record_success(ticket, reply.values, worker, seconds)
            return
        at = began
        for place, item in enumerate(reply.take()):
            alone = ticket.alone(place)
            if item.error is None:
                alone.add_attempt(item.seconds)
                self._recording.record_success(alone, (item.value,), worker)
            else:
                self.failed(alone, item.error, at, worker, ended=at + item.seconds)
            at += item.seconds

    def raised(
        self, ticket: PendingCall[T], error: BaseException, began: float, worker: int
    ) -> bool:
        """
        Arrange what follows from a call that raised; return whether the error must go on up.

        An interrupt, and a cancellation by the run itself, end this worker. A cancellation that
        nobody here asked for is the call's own failure, like any other error.
        """
        if ends_a_run(error) or self.is_of_the_run(error):
            if is_a(error, Interrupted):
                self._run.interrupted(error)
            ticket.add_attempt(self._clock() - began)
            self._recording.record_cancelled(ticket, worker)
            return True
        self.failed(ticket, error, began, worker)
        return False

    def is_of_the_run(self, error: BaseException) -> bool:
        """
        Return whether an error is the cancellation of the run, and no failure of a call.

        A call that blocks in run_async hears of an interrupt, or of the end of what is around the
        run, before the run itself does: its loop stood still, or others have to hand it on.
        """
        if is_a(error, Interrupted):
            return True
        return is_a(error, asyncio.CancelledError) and self._run.is_cancelled()

    def failed(
        self,
        ticket: PendingCall[T],
        error: BaseException,
        began: float,
        worker: int,
        *,
        ended: float | None = None,
    ) -> None:
        """Arrange what follows from a call that failed: a retry, halves, or a failure."""
        ended = self._clock() if ended is None else ended
        crashed = is_a(error, WorkerDied) and self._plan.executor is not None
        if crashed and (parts := self._suspects(ticket)):
            self._go_apart(parts, error, began, ended, worker)
            return
        ticket.add_attempt(ended - began)
        if self._keeps_away(error):
            return
        if (no_use := _why_no_call_can_succeed(error)) is not None:
            self._recording.record_failure(ticket, error, worker)
            self._run.abort(no_use)
            return
        try:
            verdict = judge(
                error,
                self._plan.retry,
                items=len(ticket),
                retries=ticket.retries.spent,
                elapsed=ended - ticket.started,
                held=self._gate.paused_for > 0.0,  # so that whoever ends the pause ends the wait
            )
        except Exception as problem:  # the caller's own predicate raised
            self._recording.record_failure(ticket, problem, worker)
        else:
            if verdict is GIVE_UP and self._plan.grouped and len(ticket) > 1:
                verdict = HALVE  # no item's own error: one of them cannot travel
            self._follow(verdict, ticket, error, began, ended, worker)

    def _keeps_away(self, error: BaseException) -> bool:
        """
        Send nothing while the service wants to be left alone, whatever the status of its reply.

        Returns:
            Whether that is longer than the policy waits, so that the run stops and leaves the
            call of this reply, like the rest, to another run.
        """
        seconds = retry_after_of(error)
        if not seconds:
            return False
        asked = f"{describe(error)} asks to wait {duration(seconds)}, until {wall_time_in(seconds)}"
        self._run.pauses = self._run.pauses.with_reply(self._clock(), seconds, asked)
        if seconds <= self._plan.retry.max_retry_after:
            self._gate.pause(seconds)
            return False
        most = self._plan.retry.max_retry_after
        self._run.stop(f"{asked}: that is more than max_retry_after={most:g} s")
        return True

    def gave_up_late(self, ticket: PendingCall[T], worker: int) -> bool:
        """Give up a ticket whose retry would begin past the deadline; return whether it was so."""
        deadline = self._plan.retry.max_elapsed
        if deadline is None or ticket.error is None:
            return False
        if self._clock() - ticket.started < deadline:
            return False
        self._recording.record_failure(ticket, ticket.error, worker)
        return True

    def _park_now(self, ticket: PendingCall[T]) -> None:
        """Have a ticket tried as soon as a worker is free."""
        self._parked.park(ticket, 0.0)

    def _suspects(self, ticket: PendingCall[T]) -> list[PendingCall[T]]:
        """Return what a worker may have died of, if that is not this very call for sure."""
        if self._plan.grouped and len(ticket) > 1:
            return [ticket.alone(place) for place in range(len(ticket))]
        return [] if ticket.suspect else [ticket]

    def _go_apart(
        self,
        parts: Sequence[PendingCall[T]],
        error: BaseException,
        began: float,
        ended: float,
        worker: int,
    ) -> None:
        """Try each part again where it harms no other: free, as most of them are innocent."""
        if self._run.stopping:
            return
        for part in parts:
            part.add_attempt(ended - began)
            part.suspect = True
            self._log(part, error, began, ended, worker)
            self._parked.park(part, 0.0)

    def _log(
        self,
        ticket: PendingCall[T],
        error: BaseException,
        began: float,
        ended: float,
        worker: int,
        delay: float = 0.0,
    ) -> None:
        """Keep what became of an attempt that is not the last."""
        if ticket.attempts == 1:
            self.retried += len(ticket)
        ticket.log(
            began - self._recording.started_at, ended - began, describe(error), delay, worker
        )
        # What lies between: the rest of its hop, or a thread past its time that had to return.
        ticket.backed_off += max(0.0, self._clock() - ended)

    def _follow(
        self,
        verdict: Any,
        ticket: PendingCall[T],
        error: BaseException,
        began: float,
        ended: float,
        worker: int,
    ) -> None:
        """Carry out a verdict; a run that is stopping leaves what is not final as pending."""
        if isinstance(verdict, Fail):
            self._recording.record_failure(ticket, error, worker)
            if verdict.stops_the_job or self._plan.fail_fast:
                self._run.stop(_fatal(error), cancel=True)
            else:
                self._recording.note_failed_call(ticket, error)
            return
        if isinstance(verdict, Split) and self._recording.note_failed_call(ticket, error):
            self._recording.record_failure(ticket, error, worker)  # as all its parts would
            return
        if self._run.stopping:
            return
        delay = told = 0.0
        if isinstance(verdict, TryAgain):
            delay = verdict.delay
            told = max(delay, retry_after_of(error) or 0.0)  # for as long the gate holds it
        self._log(ticket, error, began, ended, worker, told)
        if isinstance(verdict, Split):
            ticket.error = None
            put = self._parked.hold if self._recording.defers_parts else self._park_now
            for half in ticket.halves():
                put(half)
            if self._parked.holds_any and not self._recording.defers_parts:
                self._parked.release()
        else:
            ticket.retries.spent += 1
            if self._plan.retry.max_elapsed is not None:
                ticket.error = error
            self._plan.retry.notify(ticket.attempts, error, told)
            self._parked.park(ticket, delay)


def ends_a_run(error: BaseException) -> bool:
    """Return whether an error is an interrupt or an exit, by itself or in a group."""
    return any(is_a(each, _INTERRUPTS) for each in leaves_of(error))


def _errors_among(values: Sequence[Any], *, returned: bool) -> dict[int, BaseException]:
    """
    Return what of some values is no value, by place: a coroutine that nobody awaits.

    Args:
        values: what a call gave.
        returned: whether an exception that was returned counts as raised, too.
    """
    kinds = set(map(type, values))
    coroutines = any(issubclass(kind, Coroutine) for kind in kinds)
    if not (coroutines or (returned and any(issubclass(kind, BaseException) for kind in kinds))):
        return {}
    errors: dict[int, BaseException] = {}
    for place, value in enumerate(values):
        if is_a(value, Coroutine):
            errors[place] = returned_coroutine(value)
        elif returned and is_error(value):
            errors[place] = value
    return errors


def _why_no_call_can_succeed(error: BaseException) -> Exception | None:
    """Return what to raise where every other call must fail as this did."""
    if is_a(error, SerializationError) and error.function:
        return error
    return as_run_async_error(error)


def _fatal(error: BaseException) -> str:
    """Return why an error stops the whole run; a part that stopped has said it already."""
    where = ""
    if is_a(error, StageFailure):
        where, error = f" (in stage {error.stage})", error.error
    if is_a(error, JobStopped):
        return safe_message(error)
    return f"a fatal error{where}: {describe(error)}"
