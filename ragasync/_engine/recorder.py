"""The recorder: writes the outcomes of calls to a sink, and stops a run with too many errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ragasync._engine.controls import RunTotals
from ragasync._engine.error_limits import ErrorLimit, InitialFailures
from ragasync._engine.retry_queue import PendingCall
from ragasync._engine.run_journal import RunJournal
from ragasync._outcomes.outcome import CallSuccess, Outcome, RecordSuccess, Status
from ragasync.error_text import TracebackArchive
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a
from ragasync.settings import BatchSettings

if TYPE_CHECKING:
    from ragasync.journal.session import Lookup

T = TypeVar("T")
R = TypeVar("R")


class OutcomeSink(Protocol[T, R]):
    """A receiver of outcomes: the columns of a result, the buffer of a stream, or requests."""

    @property
    def is_full(self) -> bool:
        """Whether no new item should be started for now."""

    @property
    def has_success(self) -> bool:
        """Whether any item is done."""

    def unfinished(self, limit: int | None) -> int:
        """Count the items, among the first `limit`, that are cancelled or without outcome."""

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Take the outcome of one item, with the traceback of its error as text."""

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Take the outcomes of all items of a call that succeeded."""

    def fast_recorder(self, worker: int, started_at: float) -> RecordSuccess[R]:
        """Make the recorder of one worker: `record_call` for one item, as fast as can be."""


class Recorder(Generic[T, R]):
    """
    Turns pending calls that have ended into outcomes.

    Args:
        settings: the limits on errors.
        sink: takes the outcomes.
        journal: takes them too, if there is one, and knows those of earlier runs.
        archive: turns tracebacks into text.
        stop: called with the reason when there were too many errors.
        totals: counts the outcomes that came from the journal.
        started_at: the instant at which the run began, before its resources were opened.

    Attributes:
        started_at: the same instant.
    """

    def __init__(
        self,
        settings: BatchSettings[T, R],
        sink: OutcomeSink[T, R],
        journal: RunJournal | None,
        archive: TracebackArchive,
        stop: Callable[[str], None],
        totals: RunTotals,
        started_at: float,
    ) -> None:
        self._sink, self._journal = sink, journal
        self._archive, self._stop, self._totals = archive, stop, totals
        self._errors = ErrorLimit(settings.max_errors, settings.max_error_rate)
        self._initial = InitialFailures(settings.max_initial_failures)
        self.started_at = started_at

    @property
    def is_full(self) -> bool:
        """Whether no new item should be started: a reader, or the disk, has to catch up."""
        return self._sink.is_full or (self._journal is not None and self._journal.is_full)

    def unfinished(self, limit: int | None) -> int:
        """Count the items, among the first `limit`, that are cancelled or without outcome."""
        return self._sink.unfinished(limit)

    def drop_sink(self) -> None:
        """Drop the sink and its values: the run is over."""
        del self._sink

    # ── outcomes of earlier runs ──────────────────────────────────────────────────────────────

    @property
    def has_journal(self) -> bool:
        """Whether items have to be looked up in a journal."""
        return self._journal is not None

    async def select_new(self, rows: list[tuple[int, T]], new: deque[tuple[int, T]]) -> None:
        """
        Look up items in the journal, record the outcomes that it has, and add the others to `new`.

        If the worker is cancelled meanwhile, this is done all the same.
        """

        def sort(found: Lookup) -> None:
            for outcome, stack in found.recorded:
                self._sink.record(outcome, stack)
            self._totals.journaled += len(found.recorded)
            for index, item, error in found.refused:
                self.record_refused(index, item, error)
            new.extend(found.new)

        assert self._journal is not None
        await self._journal.look_up(rows, sort)

    # ── successes ─────────────────────────────────────────────────────────────────────────────

    def fast_recorder(self, worker: int) -> RecordSuccess[R]:
        """
        Make the recorder of one worker for the fast path, which runs only without a journal.

        With max_error_rate, it counts successes as well.
        """
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
        call: PendingCall[T],
        values: Sequence[R],
        worker: int,
        seconds: Sequence[float] | None = None,
    ) -> None:
        """
        Record a value for each item of a call.

        Args:
            call: the call.
            values: a value per item.
            worker: the worker that made it.
            seconds: the time of each item, if they ran one after another.
        """
        success = CallSuccess(
            call.indices,
            call.items,
            values,
            call.attempts,
            max(0.0, call.started - self.started_at),
            call.seconds if seconds is None else seconds,
            call.waited,
            call.backed_off,
            call.batch if call.batch >= 0 else None,
            worker,
            call.history,
        )
        self._sink.record_call(success)
        if self._journal is not None:
            for outcome in success.outcomes():
                self._journal.record(outcome, None)
        if self._errors.counts_successes:
            self._errors.note_successes(len(call))

    # ── failures ──────────────────────────────────────────────────────────────────────────────

    def record_failure(self, call: PendingCall[T], error: BaseException, worker: int) -> None:
        """Record the error as the outcome of every item of a call."""
        stage = None
        if is_a(error, StageFailure):
            stage, error = error.stage, error.error
        stack = self._archive.keep(error)
        for position in range(len(call)):
            self._record(call, position, "failed", worker, error=error, stack=stack, stage=stage)
            if because := self._errors.note_failure():
                self._stop(because)

    def record_refused(self, index: int, item: T, error: BaseException) -> None:
        """Record the failure of an item that no call can take."""
        self.record_failure(PendingCall((index,), (item,)), error, worker=0)

    def record_cancelled(self, call: PendingCall[T], worker: int) -> None:
        """Record every item of a call as cancelled."""
        for position in range(len(call)):
            self._record(call, position, "cancelled", worker)

    @property
    def _has_success(self) -> bool:
        """Whether any item is done, in this run or in an earlier one."""
        return self._sink.has_success or (self._journal is not None and self._journal.has_success)

    @property
    def defers_parts(self) -> bool:
        """Whether the parts of a failed batch have to wait for another batch."""
        return self._initial.defers_parts

    def note_failed_call(self, call: PendingCall[T], error: BaseException) -> bool:
        """
        Count a call that will not be retried as it was, and stop if the first calls all failed.

        Returns:
            Whether all calls so far failed in the same way, so that splitting this one is no use.
        """
        if because := self._initial.note(error, call.is_part, self._has_success):
            self._stop(because)
        return self._initial.have_stopped

    def _record(
        self,
        call: PendingCall[T],
        position: int,
        status: Status,
        worker: int,
        *,
        error: BaseException | None = None,
        stack: str | None = None,
        stage: str | None = None,
    ) -> None:
        """Record the outcome of one item of a call that did not succeed."""
        outcome: Outcome[T, R] = Outcome(
            index=call.indices[position],
            item=call.items[position],
            status=status,
            error=error,
            attempts=call.attempts,
            started=max(0.0, call.started - self.started_at),
            seconds=call.seconds,
            waited=call.waited,
            backed_off=call.backed_off,
            batch=call.batch if call.batch >= 0 else None,
            stage=stage,
            worker=worker,
            history=call.history,
        )
        self._sink.record(outcome, stack)
        if self._journal is not None:
            self._journal.record(outcome, stack)
