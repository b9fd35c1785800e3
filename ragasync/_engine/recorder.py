"""The recorder: writes the outcomes of calls to a sink, and stops a run with too many errors."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from ragasync._engine.controls import RunTotals
from ragasync._engine.retry_queue import PendingCall
from ragasync._engine.run_journal import RunJournal
from ragasync._outcomes.outcome import CallSuccess, Outcome, RecordSuccess, Status
from ragasync._reports.summary import counted
from ragasync._retries.http import http_status
from ragasync._retries.retry_after import retry_after_of
from ragasync.error_text import TracebackArchive, describe
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a, text_of
from ragasync.settings import BatchSettings
from ragasync.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from ragasync.journal.session import Lookup

T = TypeVar("T")
R = TypeVar("R")

WINDOW = 100
"""The number of latest finished items that max_error_rate is computed from."""
MIN_FINISHED = 20
"""Finished items before max_error_rate applies: a few early failures prove little."""

MOST_HELD = 1_000
"""The most failures that a journal gets only when it is known whether all calls fail alike."""

REQUEST_ERRORS = frozenset({400, 401, 403, 404, 405})
"""Statuses that say that the request is wrong, so that sending it again is no use."""

_VARIABLE = re.compile(
    r"https?://[^\s'\"<>]{1,500}"
    r"|\b(?:req|request|trace|chatcmpl|msg)[-_][A-Za-z0-9_-]{4,80}"
    r"|\brequest[ _-]?id['\"]?\s{0,3}[:=]?\s{0,3}['\"]?[A-Za-z0-9_-]{4,80}"
    r"|\b(?=[0-9a-fA-F-]{0,40}\d)[0-9a-fA-F]{8,64}(?:-[0-9a-fA-F]{4,12}){0,4}\b",
    re.IGNORECASE,
)
"""The parts in which two messages about the same mistake differ: URLs and request ids."""

_Failure: TypeAlias = tuple[int, str]
"""The HTTP status of a failed call, and its error message without URLs and ids."""


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

    def add_usage(self, index: int, usage: Usage) -> None:
        """Take the usage of an item whose success a fast recorder takes next."""


class Recorder(Generic[T, R]):
    """
    Turns pending calls that have ended into outcomes.

    Args:
        journal: takes them too, if there is one, and knows those of earlier runs.
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
        self._held: list[tuple[Outcome[T, R], str | None]] | None = None if journal is None else []
        self._used: dict[int, Usage] = {}  # in earlier runs of the journal, by new items

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
            self._used |= found.used
            new.extend(found.new)

        assert self._journal is not None
        await self._journal.look_up(rows, sort)

    def take_earlier_usage(self, indices: Sequence[int]) -> Sequence[Usage] | None:
        """Take what items of a new call have used in earlier runs of the journal, if anything."""
        if not self._used or self._used.keys().isdisjoint(indices):
            return None
        return [self._used.pop(index, NO_USAGE) for index in indices]

    def add_usage(self, index: int, usage: Usage | None) -> None:
        """Record what a call on the fast path has reported, before its value."""
        if usage is not None:
            self._sink.add_usage(index, usage)

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
        """Record a value for each item of a call."""
        success = CallSuccess(
            call.indices,
            call.items,
            values,
            call.attempts,
            max(0.0, call.started - self.started_at),
            call.seconds if seconds is None else seconds,
            call.waited,
            call.backed_off,
            call.batch,
            worker,
            call.history,
            call.usage,
        )
        self._sink.record_call(success)
        if self._journal is not None:
            if self._held is not None:
                self.write_held()
            for outcome in success.outcomes():
                self._journal.record(outcome, None)
        if self._errors.counts_successes:
            self._errors.note_successes(len(call))

    # ── failures ──────────────────────────────────────────────────────────────────────────────

    def record_failure(
        self, call: PendingCall[T], error: BaseException, worker: int, *, stops_run: bool = False
    ) -> None:
        """
        Record the error as the outcome of every item of a call.

        An error that stops the run (an invalid key, a full disk) is not the item's own, so the next
        run with the journal makes the call again. Nor are errors that all calls share: so before
        the first success the journal does not get them.
        """
        stage = None
        if is_a(error, StageFailure):
            stage, error = error.stage, error.error
        stack = self._archive.keep(error)
        for position in range(len(call)):
            outcome = self._record(
                *(call, position, "failed", worker), error=error, stack=stack, stage=stage
            )
            if stops_run:
                self._write_pending(outcome)
            elif self._held is not None and len(self._held) < MOST_HELD:
                self._held.append((outcome, stack))
            else:
                self.write_held()
                self._write(outcome, stack)
            if because := self._errors.note_failure():
                self._stop(because)

    def write_held(self) -> None:
        """Write the failures that were held back, at the first success or at the end of the run."""
        held, self._held = self._held or (), None
        for outcome, stack in held:
            shared = self._totals.shared_failure
            if outcome.error is not None and shared and _failure_of(outcome.error) == shared:
                self._write_pending(outcome)
            else:
                self._write(outcome, stack)

    def record_refused(self, index: int, item: T, error: BaseException) -> None:
        """Record the failure of an item that no call can take."""
        self.record_failure(PendingCall((index,), (item,)), error, worker=0)

    def record_cancelled(self, call: PendingCall[T], worker: int) -> None:
        """Record every item of a call as cancelled."""
        for position in range(len(call)):
            self._write(self._record(call, position, "cancelled", worker))

    def record_pending(self, call: PendingCall[T]) -> None:
        """Record the attempts of a call that an early stop leaves without a final outcome."""
        if call.history:
            for position in range(len(call)):
                self._write(self._record(call, position, "pending", call.history[-1].worker))

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
        journal = self._journal
        has_success = self._sink.has_success or (journal is not None and journal.has_success)
        if because := self._initial.note(error, call.is_part, has_success):
            self._totals.shared_failure = _failure_of(error)
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
    ) -> Outcome[T, R]:
        """Record the outcome of one item of a call that did not succeed, and return it."""
        usage = NO_USAGE if call.usage is None else call.usage[position]
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
            batch=call.batch,
            stage=stage,
            worker=worker,
            tokens=usage.tokens,
            cost=usage.cost,
            history=call.history,
        )
        self._sink.record(outcome, stack)
        return outcome

    def _write_pending(self, outcome: Outcome[T, R]) -> None:
        """Write what an item has used, for the next run to make its call again."""
        self._write(replace(outcome, status="pending", error=None))

    def _write(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Write an outcome to the journal, if there is one."""
        if self._journal is not None:
            self._journal.record(outcome, stack)


class ErrorLimit:
    """
    The limits `max_errors` and `max_error_rate` on failed items.

    Args:
        max_errors: the number of failed items that is allowed; one more stops the job. None allows
            any number.
        max_error_rate: the share of failures, in (0, 1), that is allowed among the last WINDOW
            finished items, from MIN_FINISHED items on. None allows any share.
    """

    def __init__(self, max_errors: int | None, max_error_rate: float | None) -> None:
        self._max_errors, self._max_error_rate = max_errors, max_error_rate
        self.counts_successes = max_error_rate is not None
        self._failed = 0
        self._latest: deque[bool] = deque(maxlen=WINDOW)

    def note_successes(self, items: int = 1) -> None:
        """Count items that succeeded; only max_error_rate needs this."""
        self._latest.extend(repeat(False, items))

    def note_failure(self) -> str | None:
        """Count an item that failed for good; return why to stop, or None."""
        self._failed += 1
        if self._max_errors is not None and self._failed > self._max_errors:
            return (
                f"{counted(self._failed, 'item')} failed, more than max_errors={self._max_errors}"
            )
        if self._max_error_rate is None:
            return None
        self._latest.append(True)
        seen, failed = len(self._latest), sum(self._latest)
        if seen < MIN_FINISHED or failed / seen <= self._max_error_rate:
            return None
        rate = f"max_error_rate={self._max_error_rate:g}"
        return f"{failed} of the last {seen} items failed, more than {rate}"


class InitialFailures:
    """
    The limit `max_initial_failures`: all first calls of a run fail in the same way.

    That happens with a wrong model, path or key. One success, one other failure, or one response
    with a Retry-After switches the rule off. The parts of a batch that was split are about items
    that have failed already, so they count only once two whole batches have failed; until then
    they wait for the second one.

    Args:
        limit: the number of failed calls that stops the job; None switches the rule off.

    Attributes:
        defers_parts: whether the parts of a failed batch have to wait for another batch.
        have_stopped: whether all calls so far failed in the same way and reached the limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._failure: _Failure | None = None
        self._whole = self._parts = 0
        self.defers_parts = self.have_stopped = False

    def note(self, error: BaseException, is_part: bool, has_success: bool) -> str | None:
        """
        Count a call that failed and will not be retried as it was; return why to stop, or None.
        """
        if self._limit is None:
            return None
        failure = None if has_success else _failure_of(error)
        if failure is None or self._failure not in (None, failure):
            self._limit, self.defers_parts, self.have_stopped = None, False, False
            return None
        self._failure = failure
        if is_part:
            self._parts += 1
        else:
            self._whole += 1
        self.defers_parts = self._whole < 2
        failed = self._whole if self.defers_parts else self._whole + self._parts
        if failed < self._limit:
            return None
        self.have_stopped = True
        return (
            f"{'the first call' if failed == 1 else f'the first {failed} calls all'} failed with "
            f"status {failure[0]}, as every other would "
            f"(max_initial_failures={self._limit}): {describe(error)}"
        )


def _failure_of(error: BaseException) -> _Failure | None:
    """The failure that other calls may share, or None if it says nothing about other calls."""
    status = http_status(error)
    if status not in REQUEST_ERRORS or retry_after_of(error) is not None:
        return None
    return status, _VARIABLE.sub("", text_of(error))
