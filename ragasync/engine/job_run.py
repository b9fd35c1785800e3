"""One run over a finite input, whose outcomes are kept: what `process` awaits and a Job steers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sized
from typing import Any, Generic, TypeAlias, TypeVar

from ragasync.arguments import check_count
from ragasync.clock import Clock, Heartbeat, loop_clock
from ragasync.engine.controls import RunControls
from ragasync.engine.run import execute
from ragasync.engine.telling import kind_of, run_stats
from ragasync.error_text import add_note, show_in_one_line
from ragasync.errors import IncompleteRun
from ragasync.foreign_errors import is_a
from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import DONE, FAILED
from ragasync.progress import LimitedBy, Progress, ProgressCallback, RateMeter, SafeCallback
from ragasync.reports.summary import counted
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")

Items: TypeAlias = Iterable[T] | AsyncIterable[T]

LOOKS = 9
"""How many of the latest beats say what limits a run: one alone may be a moment's chance."""


class JobRun(Generic[T, R]):
    """
    A run, its outcomes in columns, and what can be said of it at any time.

    Args:
        plan: what to call and how.
        items: any iterable or async iterable.
        progress_callback: hears ten times a second how far it is, and at the end.
        total: the number of items, for progress, where `items` does not tell.
        max_items: how many items to draw at most; the rest stays pending.
        on_result: called with the result, however the run ended.

    Raises:
        TypeError: `items` cannot be iterated, or is one text.
        ValueError: `total` or `max_items` is negative.
    """

    def __init__(
        self,
        plan: BatchSettings[T, R],
        items: Items[T],
        progress_callback: ProgressCallback | None,
        *,
        total: int | None,
        max_items: int | None,
        on_result: Callable[[BatchResult[R]], None],
    ) -> None:
        source, known = checked_items(items, total, max_items)
        self._report = SafeCallback(progress_callback)
        self._on_result = on_result
        self._source = kind_of(source)
        known_items = isinstance(source, list | range)
        self._length = length_of(source)
        self.columns: Columns[T, R] = Columns(
            source if known_items else [], open_ended=not known_items
        )
        self.total = known if known is None or max_items is None else min(max_items, known)
        self._limit = max_items
        self._items = [source]
        self.run = RunControls(plan)
        self._clock: Clock = time.monotonic
        self._began: float | None = None
        self._computed_before: float | None = None
        self._computed_in_all: float | None = None
        self._seconds: float | None = None
        self._speed: RateMeter | None = None
        self._limits: tuple[LimitedBy, ...] = ()

    async def complete(self) -> BatchResult[R]:
        """
        Run to the end and return the result.

        Raises:
            Exception: what the source or the resources raised, or a RunAsyncError.
            CancelledError: it was cancelled; like every error from here it has a note of what
                was done, and the result went to `on_result` before.
        """
        self._clock = loop_clock(asyncio.get_running_loop())
        self._began = self._clock()
        self._speed = RateMeter(self._clock)
        if self._clock is time.monotonic:  # no processor time compares with virtual seconds
            self._computed_before = time.process_time()
        try:
            with Heartbeat(self._beat):
                await execute(
                    self.run,
                    self._items.pop(),  # whose items this object must not keep alive
                    self.columns,
                    total=self.total,
                    max_items=self._limit,
                    on_item=self.columns.append if self.columns.open_ended else None,
                )
        except BaseException as error:
            result = self._end(whole=False)
            if is_a(error, IncompleteRun):
                error.result = result
            add_note(error, self.what_was_done())
            if is_a(error, asyncio.CancelledError):
                show_in_one_line(error, self.what_was_done())
            del self, result  # or the frames of an error that is kept would keep them alive
            raise
        return self._end()

    def result(self) -> BatchResult[R]:
        """Return the outcomes so far, as a result that no longer changes."""
        return self._result_of(self.columns.snapshot())

    def progress(self) -> Progress:
        """Return how far it is."""
        done, failed = self._counts()
        total = self._total_now()
        left = None if total is None else total - done - failed
        ran = done + failed - self.run.totals.journaled
        stages = self.run.stages()
        paused_for, pause = (0.0, "") if self._seconds is not None else self.run.pause_in_force
        if self._seconds is not None:
            left, rate = 0, ran / self._seconds if self._seconds > 0 else 0.0
        else:
            rate = self._speed.at(ran) if self._speed else 0.0
        return Progress(
            done=done,
            failed=failed,
            total=total,
            retried=self.run.totals.retried,
            in_flight=self.run.in_flight,
            rate=rate,
            eta=left / rate if left is not None and rate > 0 else None,
            limited_by=self._limited_by(),
            max_concurrency=self.run.max_concurrency,
            seconds=self._elapsed(),
            recalled=self.run.totals.journaled,
            tokens=sum(stage.tokens for stage in stages),
            cost=sum(stage.cost for stage in stages),
            paused_for=paused_for,
            pause=pause if paused_for else "",
            halt=self.run.halt.why if self._seconds is None and self.run.halt.ongoing else "",
        )

    def _counts(self) -> tuple[int, int]:
        """Return how many items are done and failed."""
        return self.columns.status.count(DONE), self.columns.status.count(FAILED)

    def _total_now(self) -> int | None:
        """Return how many items are to be drawn, as far as that is known by now."""
        if self._seconds is None:
            return self.total
        came = len(self.columns)
        return came if self._limit is None else min(self._limit, came)

    def _limited_by(self) -> LimitedBy:
        """Name what has held the run back most of the time of late."""
        seen = self._limits or (self.run.limited_by,)
        return max(seen, key=seen.count)

    def _beat(self) -> None:
        """Report progress."""
        finished = sum(self._counts())
        if self._speed is not None:
            self._speed.mark(finished - self.run.totals.journaled)
        self._limits = (*self._limits[1 - LOOKS :], self.run.limited_by)
        try:
            self._report(finished, self.total)
        except (KeyboardInterrupt, SystemExit) as error:  # from here it would end the loop
            self.run.abort(error)

    def _end(self, *, whole: bool = True) -> BatchResult[R]:
        """Close the columns, keep the result, and report for the last time."""
        self._seconds, self._computed_in_all = self._elapsed(), self._computed()
        if len(self.columns) == self._limit or self.run.stopped_because is not None:
            whole = False
        self.columns.close(None if whole else self._length)
        result = self._result_of(self.columns)
        self._on_result(result)
        self._report(sum(self._counts()), self._total_now())
        self._report.close()
        return result

    def _elapsed(self) -> float:
        """Return the seconds since the start, until the end."""
        if self._seconds is not None:
            return self._seconds
        return 0.0 if self._began is None else self._clock() - self._began

    def _computed(self) -> float | None:
        """Return the processor seconds that this process has used since the start, if known."""
        if self._computed_in_all is not None or self._computed_before is None:
            return self._computed_in_all
        return time.process_time() - self._computed_before

    def _result_of(self, columns: Columns[T, R]) -> BatchResult[R]:
        """Return the result that these columns are."""
        stats = run_stats(self.run, self._source, self._computed())
        return BatchResult.of(
            columns,
            seconds=self._elapsed(),
            stopped_because=self.run.stopped_because,
            stats=stats,
        )

    def what_was_done(self) -> str:
        """Say how far it came, what is kept, and what could not be stopped."""
        done, failed = self._counts()
        note = (
            f"ragasync: {done:,} of {len(self.columns):,} items were done and {failed:,} had "
            f"failed; `last_result` of the processor keeps them"
        )
        if threads := self.run.running_threads:
            still = f"{counted(threads, 'thread')} {'is' if threads == 1 else 'are'} still"
            note += f"; {still} in a call and cannot be interrupted"
        return note


def checked_items(
    items: object, total: int | None, max_items: int | None
) -> tuple[Any, int | None]:
    """Return the source (a list or tuple copied, so that it cannot change) and its length."""
    if isinstance(items, str | bytes | bytearray):
        raise TypeError(
            f"items must be an iterable of items, got one {type(items).__name__}, which would be "
            f"taken letter by letter: pass [text] for a single item"
        )
    if type(items).__name__ == "DataFrame":
        raise TypeError(
            "items must be an iterable of items, got a DataFrame, which would be taken column name "
            "by column name: pass frame['column'] or frame.to_dict('records')"
        )
    if not isinstance(items, Iterable | AsyncIterable) and not hasattr(items, "__getitem__"):
        raise TypeError(f"items must be an iterable or async iterable, got {items!r}")
    for name, value in (("total", total), ("max_items", max_items)):
        if value is not None:
            check_count(name, value, at_least=0)
    if isinstance(items, list | tuple):
        return list(items), len(items)
    length = length_of(items)
    if length is None and isinstance(items, Sized):
        return _without_length(items), total
    return items, total if length is None else length


def length_of(items: object) -> int | None:
    """Return how many items there are, or None; a progress bar around a generator cannot tell."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except TypeError:
        return None


def _without_length(items: Any) -> Iterator[Any]:
    """Yield the items of what has a length and cannot tell it."""
    yield from items
