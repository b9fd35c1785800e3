"""How the ends of calls become outcomes, and when there were enough failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from ragasync.engine.retry_queue import PendingCall
from ragasync.engine.stopping import ErrorLimit, InitialFailures
from ragasync.error_text import TracebackArchive
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a
from ragasync.outcomes.outcome import CallSuccess, Outcome, RecordSuccess, Status
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")


class OutcomeSink(Protocol[T, R]):
    """Where outcomes go: the columns of a result, or the reader of a stream."""

    @property
    def is_full(self) -> bool:
        """Whether no new item should be begun for now."""

    @property
    def has_success(self) -> bool:
        """Whether any item is done."""

    def unfinished(self, limit: int | None) -> int:
        """Return how many of the items that were to run have no outcome, or a cancelled one."""

    def fast_recorder(self, worker: int, started_at: float) -> RecordSuccess[R]:
        """Make the recorder of one worker: a closure for plain successes on the fast path."""

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Record that all items of a call succeeded."""

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Record any other outcome, with its traceback as text."""


class Recorder(Generic[T, R]):
    """
    Writes what became of the items of a call.

    Args:
        plan: how many errors are enough.
        sink: where outcomes go.
        archive: makes texts of tracebacks.
        stop: called with the reason when there were enough errors.
        zero: the instant that the run began, before its resources were opened.

    Attributes:
        zero: likewise.
    """

    def __init__(
        self,
        plan: BatchSettings[T, R],
        sink: OutcomeSink[T, R],
        archive: TracebackArchive,
        stop: Callable[[str], None],
        started_at: float,
    ) -> None:
        self._sink, self._archive, self._stop = sink, archive, stop
        self._errors = ErrorLimit(plan.max_errors, plan.max_error_rate)
        self._initial = InitialFailures(plan.max_initial_failures)
        self.started_at = started_at

    def drop_sink(self) -> None:
        """Drop the sink: the run is over."""
        del self._sink

    def fast_recorder(self, worker: int) -> RecordSuccess[R]:
        """Return the sink's recorder; where a share of errors stops the job, one that counts."""
        record = self._sink.fast_recorder(worker, self.started_at)
        if not self._errors.counts_successes:
            return record
        note = self._errors.note_successes

        def record_and_note(index: int, value: R, began: float, ended: float) -> None:
            record(index, value, began, ended)
            note()

        return record_and_note

    def record_success(
        self,
        ticket: PendingCall[T],
        values: Sequence[R],
        worker: int,
        seconds: Sequence[float] | None = None,
    ) -> None:
        """Record the values of a call, and where items took times of their own, these."""
        call = CallSuccess(
            ticket.indices,
            ticket.items,
            values,
            ticket.attempts,
            max(0.0, ticket.started - self.started_at),
            ticket.seconds if seconds is None else seconds,
            ticket.waited,
            ticket.backed_off,
            ticket.batch if ticket.batch >= 0 else None,
            worker,
            ticket.history,
        )
        self._sink.record_call(call)
        if self._errors.counts_successes:
            self._errors.note_successes(len(ticket))

    def record_failure(self, ticket: PendingCall[T], error: BaseException, worker: int) -> None:
        """Make the error the outcome of every item of the call."""
        stage = None
        if is_a(error, StageFailure):
            stage, error = error.stage, error.error
        stack = self._archive.keep(error)
        for place in range(len(ticket)):
            self._record(ticket, place, "failed", worker, error=error, stack=stack, stage=stage)
            if because := self._errors.note_failure():
                self._stop(because)

    def record_cancelled(self, ticket: PendingCall[T], worker: int) -> None:
        """Record every item of a call as cancelled."""
        for place in range(len(ticket)):
            self._record(ticket, place, "cancelled", worker)

    @property
    def defers_parts(self) -> bool:
        """Whether the parts of a failed batch are to wait for further batches."""
        return self._initial.defers_parts

    def note_failed_call(self, ticket: PendingCall[T], error: BaseException) -> bool:
        """
        Note that a call is not made again as it was; stop where all calls so far failed alike.

        Returns:
            Whether they did, now or before, so that it is of no use to split this one.
        """
        if because := self._initial.note(error, ticket.is_part, self._sink.has_success):
            self._stop(because)
        return self._initial.have_stopped

    def _record(
        self,
        ticket: PendingCall[T],
        place: int,
        status: Status,
        worker: int,
        *,
        error: BaseException | None = None,
        stack: str | None = None,
        stage: str | None = None,
    ) -> None:
        """Hand the outcome of one item of a call that did not succeed to the sink."""
        outcome: Outcome[T, R] = Outcome(
            index=ticket.indices[place],
            item=ticket.items[place],
            status=status,
            error=error,
            attempts=ticket.attempts,
            started=max(0.0, ticket.started - self.started_at),
            seconds=ticket.seconds,
            waited=ticket.waited,
            backed_off=ticket.backed_off,
            batch=ticket.batch if ticket.batch >= 0 else None,
            stage=stage,
            worker=worker,
            history=ticket.history,
        )
        self._sink.record(outcome, stack)
