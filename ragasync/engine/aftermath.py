"""What is done when a call has ended: its outcome recorded, or its next attempt arranged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ragasync.bridge.wrong_loop import explain_wrong_loop
from ragasync.calling.executors import HopItem
from ragasync.clock import Clock
from ragasync.engine.backoff import BackoffLine
from ragasync.engine.judging import GiveUp, Halve, judge
from ragasync.engine.stopping import ErrorLimit
from ragasync.engine.ticket import Ticket
from ragasync.errors import JobStopped, RunAsyncError, StageFailure, WorkerDied
from ragasync.limits.gate import Gate
from ragasync.outcomes.outcome import Attempt, Outcome, Status
from ragasync.outcomes.tracebacks import TracebackArchive
from ragasync.plan import Plan
from ragasync.retries.replies import retry_after_of, status_of

T = TypeVar("T")
R = TypeVar("R")


class Sink(Protocol[T, R]):
    """Where outcomes go: the columns of a result, or the reader of a stream."""

    @property
    def is_full(self) -> bool:
        """Whether no new item should be begun for now."""

    def recorder(self) -> Callable[[int, R, float, float, int], None]:
        """Return what records a plain success: index, value, started, seconds, lane."""

    def settle(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Record any other outcome, with its traceback as text."""


class Stops(Protocol):
    """What a failure may do to the whole run."""

    stopping: bool

    def stop(self, because: str, *, cancel: bool = False) -> None:
        """Start nothing more; cancel what is in flight if asked."""

    def abort(self, error: BaseException) -> None:
        """Stop at once, and have this error raised."""


class Aftermath(Generic[T, R]):
    """
    Records what calls came to, and decides what follows from those that failed.

    Args:
        plan: the retry policy and the error limit.
        sink: where outcomes go.
        gate: closed for a while when the service says 429 with Retry-After.
        parked: where tickets wait for their next attempt.
        run: what may have to be stopped.
        archive: makes texts of tracebacks.
        clock: the run's clock.
    """

    def __init__(
        self,
        plan: Plan[T, R],
        sink: Sink[T, R],
        gate: Gate,
        parked: BackoffLine[T],
        run: Stops,
        archive: TracebackArchive,
        clock: Clock,
    ) -> None:
        self._plan, self._sink, self._gate = plan, sink, gate
        self._parked, self._run, self._clock = parked, run, clock
        self._zero = clock()
        self._archive = archive
        self._errors = ErrorLimit(plan.max_errors)
        self._batched = plan.batched or plan.in_hops
        self.zero = self._zero
        self.retried = 0
        self.record = self._recorder()

    def _recorder(self) -> Callable[[int, R, float, float, int], None]:
        """Return the sink's recorder; where a share of errors stops the job, one that counts."""
        record = self._sink.recorder()
        if not self._errors.counts_successes:
            return record
        note = self._errors.note_success

        def record_and_note(index: int, value: R, began: float, took: float, lane: int) -> None:
            record(index, value, began, took, lane)
            note()

        return record_and_note

    def succeeded(self, ticket: Ticket[T], values: Sequence[R], began: float, lane: int) -> None:
        """Record the values of a call."""
        self._count(ticket, began, self._clock())
        if ticket.attempts == 1 and not ticket.waited and not self._batched:
            self.record(ticket.indices[0], values[0], began - self._zero, ticket.seconds, lane)
            return
        for place, value in enumerate(values):
            self._settle(ticket, place, "done", lane, value=value)

    def hop_returned(
        self, ticket: Ticket[T], items: Sequence[HopItem], began: float, lane: int
    ) -> None:
        """Record each item of a hop by itself; each that failed goes on alone."""
        for place, item in enumerate(items):
            alone = ticket.alone(place)
            if item.error is None:
                self._count(alone, 0.0, item.seconds)
                self._settle(alone, 0, "done", lane, value=item.value)
            else:
                self.failed(alone, item.error, began, lane, ended=began + item.seconds)

    def failed(
        self,
        ticket: Ticket[T],
        error: Exception,
        began: float,
        lane: int,
        *,
        ended: float | None = None,
    ) -> None:
        """Arrange what follows from a call that raised: a retry, halves, or a failure."""
        ended = self._clock() if ended is None else ended
        if isinstance(error, WorkerDied) and self._plan.in_hops and len(ticket) > 1:
            for place in range(len(ticket)):  # nobody knows which of them the worker died of
                self.failed(ticket.alone(place), error, began, lane, ended=ended)
            return
        self._count(ticket, began, ended)
        if status_of(error) == 429 and (seconds := retry_after_of(error)):
            self._gate.pause(seconds)
        if (wrong_loop := _wrong_loop(error)) is not None:
            self.give_up(ticket, error, lane)
            self._run.abort(wrong_loop)
            return
        try:
            verdict = judge(
                error,
                self._plan.retry,
                items=len(ticket),
                retries=ticket.retries.spent,
                elapsed=ended - ticket.started,
            )
        except Exception as problem:  # the caller's own predicate raised
            self.give_up(ticket, problem, lane)
        else:
            self._follow(verdict, ticket, error, began, ended, lane)

    def broken_off(self, ticket: Ticket[T], error: BaseException, began: float, lane: int) -> bool:
        """Record a call that was cancelled; return whether the lane was, so that it must end."""
        self._count(ticket, began, self._clock())
        task = asyncio.current_task()
        own_doing = isinstance(error, asyncio.CancelledError) and not (task and task.cancelling())
        for place in range(len(ticket)):
            self._settle(ticket, place, "cancelled", lane, error=error if own_doing else None)
        return not own_doing

    def gave_up_late(self, ticket: Ticket[T], lane: int) -> bool:
        """Give up a ticket whose retry would begin past the deadline; return whether it was so."""
        deadline = self._plan.retry.deadline
        if deadline is None or ticket.error is None:
            return False
        if self._clock() - ticket.started < deadline:
            return False
        self.give_up(ticket, ticket.error, lane)
        return True

    def give_up(self, ticket: Ticket[T], error: Exception, lane: int) -> None:
        """Make the error the outcome of every item of the call."""
        stage = None
        if isinstance(error, StageFailure):
            stage, error = error.stage, error.error
        stack = self._archive.keep(error)
        for place in range(len(ticket)):
            self._settle(ticket, place, "failed", lane, error=error, stack=stack, stage=stage)
            if because := self._errors.note_failure():
                self._run.stop(because)

    def _follow(
        self,
        verdict: Any,
        ticket: Ticket[T],
        error: Exception,
        began: float,
        ended: float,
        lane: int,
    ) -> None:
        """Carry out a verdict; a run that is stopping leaves what is not final as pending."""
        if isinstance(verdict, GiveUp):
            self.give_up(ticket, error, lane)
            if verdict.stops_the_job:
                self._run.stop(_fatal(error), cancel=True)
            return
        if self._run.stopping:
            return
        if ticket.attempts == 1:
            self.retried += len(ticket)
        if isinstance(verdict, Halve):
            ticket.error = None
            for half in ticket.halves():
                self._parked.park(half, 0.0)
        else:
            ticket.retries.spent += 1
            attempt = Attempt(
                began - self._zero,
                ended - began,
                f"{type(error).__name__}: {error}",
                verdict.delay,
            )
            ticket.history = (*ticket.history, attempt)
            if self._plan.retry.deadline is not None:
                ticket.error = error
            self._plan.retry.announce(ticket.attempts, error, verdict.delay)
            self._parked.park(ticket, verdict.delay)

    def _count(self, ticket: Ticket[T], began: float, ended: float) -> None:
        """Add an attempt to a ticket."""
        ticket.attempts += 1
        ticket.seconds += ended - began

    def _settle(
        self,
        ticket: Ticket[T],
        place: int,
        status: Status,
        lane: int,
        *,
        value: R | None = None,
        error: BaseException | None = None,
        stack: str | None = None,
        stage: str | None = None,
    ) -> None:
        """Hand the outcome of one item of a call to the sink."""
        outcome = Outcome(
            index=ticket.indices[place],
            item=ticket.items[place],
            status=status,
            value=value,
            error=error,
            attempts=ticket.attempts,
            started=max(0.0, ticket.started - self._zero),
            seconds=ticket.seconds,
            waited=ticket.waited,
            backed_off=ticket.backed_off,
            batch=ticket.batch if ticket.batch >= 0 else None,
            stage=stage,
            lane=lane,
            history=ticket.history,
        )
        self._sink.settle(outcome, stack)
        if status == "done" and self._errors.counts_successes:
            self._errors.note_success()


def _fatal(error: Exception) -> str:
    """Return why an error stops the whole run; a part that stopped has said it already."""
    where = ""
    if isinstance(error, StageFailure):
        where, error = f" (in stage {error.stage})", error.error
    if isinstance(error, JobStopped):
        return str(error)
    return f"a fatal error{where}: {type(error).__name__}: {error}"


def _wrong_loop(error: Exception) -> RunAsyncError | None:
    """Return the error that says so, if the function uses an object of another event loop."""
    link: BaseException | None = error
    for _ in range(10):  # clients wrap errors in their own; and a chain of causes may be a circle
        if link is None or isinstance(link, RunAsyncError):
            return link
        if (explained := explain_wrong_loop(link)) is not None:
            explained.__cause__ = error
            return explained
        link = link.__cause__
    return None
