"""The stream of a run's outcomes: a bounded buffer between the run and its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Generic, TypeVar

from ragasync._engine.controls import InnerStages, RunControls
from ragasync._engine.item_sources import Items, check_items
from ragasync._engine.run import execute
from ragasync._outcomes.outcome import CallSuccess, Outcome, RecordSuccess
from ragasync._reports.summary import counted
from ragasync.cancellation import create_lazy_task
from ragasync.clock import Heartbeat
from ragasync.dataframe_items import Labels
from ragasync.error_text import add_note, closing_lines, show_in_one_line
from ragasync.errors import JobStopped
from ragasync.settings import BatchSettings
from ragasync.usage import NO_USAGE, Usage

T = TypeVar("T")
R = TypeVar("R")


async def stream_outcomes(
    settings: BatchSettings[T, R],
    items: Items[T],
    *,
    ordered: bool,
    total: int | None,
    inner: InnerStages | None = None,
) -> AsyncGenerator[Outcome[T, R], None]:
    """
    Run over items and yield their outcomes; see AsyncBatchProcessor.stream.

    `inner` are the stages inside the function of a pipeline's run; None for any other run.

    Raises:
        JobStopped: the run stopped before its end.
        Exception: what the source or the resources raised.
    """
    source, known, labels = check_items(items, total, None)
    window = settings.max_concurrency * settings.items_per_call
    # In order, everything that finishes during the longest call waits for it. With heavy-tailed
    # latencies, half of this bound made a run up to 1.6 times as long.
    bound = max(2048, 32 * window) if ordered else max(64, 2 * window)
    run = RunControls(settings, inner)
    buffer: OutcomeBuffer[T, R] = OutcomeBuffer(
        ordered=ordered, bound=bound, on_change=run.notify, labels=labels
    )
    executing = execute(run, source, buffer, total=known, on_item=buffer.on_item)
    running = create_lazy_task(executing, asyncio.get_running_loop(), name="ragasync stream")
    running.add_done_callback(lambda _: buffer.end())
    count = failed = 0
    try:
        with Heartbeat():
            while (outcome := await buffer.next()) is not None:
                count += 1
                failed += outcome.status == "failed"
                yield outcome
    except asyncio.CancelledError as cancelled:
        yielded = counted(count, "outcome")
        show_in_one_line(cancelled, f"ragasync: the stream was cancelled after {yielded}")
        raise
    finally:
        if not run.live.owner_is_cancelled:  # a second cancellation would interrupt its clean-up
            running.cancel()
        await asyncio.wait([running])
    try:
        running.result()
    except Exception as error:
        yielded = counted(count, "outcome")
        add_note(error, f"ragasync: the stream yielded {yielded} before this was raised")
        raise
    if run.stopped_because:
        _, tokens, cost = run.usage.usage
        raise JobStopped(
            run.stopped_because, done=count - failed, failed=failed, tokens=tokens, cost=cost
        )


class OutcomeBuffer(Generic[T, R]):
    """
    A bounded buffer of outcomes: an OutcomeSink for the run, and a queue for the reader.

    It is full when `bound` outcomes are unread, until half of them have been read, so that workers
    are not woken for every single outcome. In order, items without an outcome yet count as well,
    because all later outcomes wait for them.

    Args:
        ordered: whether outcomes come in the order of their items, or as they finish.
        on_change: called when the buffer has become full, or has room again.
        labels: the labels of the items, if they have any.

    Attributes:
        is_full: whether no new item should be started for now.
        has_success: whether any item is done.
    """

    def __init__(
        self,
        *,
        ordered: bool,
        bound: int,
        on_change: Callable[[], None],
        labels: Labels | None = None,
    ) -> None:
        self._ordered, self._bound, self._on_change = ordered, bound, on_change
        self._labels = labels
        self._items: dict[int, T] = {}
        self._usage: dict[int, Usage] = {}
        self._ready: deque[Outcome[T, R]] = deque()
        self._early: dict[int, Outcome[T, R]] = {}
        self._next = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self.is_full = False
        self.has_success = False

    # ── writing ───────────────────────────────────────────────────────────────────────────────

    def on_item(self, index: int, item: T) -> None:
        """Remember an item that was read from the source, for its outcome."""
        self._items[index] = item
        if self._ordered:
            self._check_bound()

    def unfinished(self, limit: int | None) -> int:  # noqa: ARG002
        """Count the items that were read and have no outcome."""
        return len(self._items)

    def fast_recorder(self, worker: int, started_at: float) -> RecordSuccess[R]:
        """Make the recorder of one worker, for the fast path."""
        labels = self._labels

        def record(index: int, value: R, began: float, ended: float) -> None:
            used = self._usage.pop(index, NO_USAGE)
            outcome: Outcome[T, R] = Outcome(
                index=index,
                item=self._items.get(index),
                status="done",
                value=value,
                attempts=1,
                started=began - started_at,
                seconds=ended - began,
                worker=worker,
                tokens=used.tokens,
                cost=used.cost,
                label=None if labels is None else labels.at(index),
            )
            self._add(outcome)

        return record

    def add_usage(self, index: int, usage: Usage) -> None:
        """Keep the usage of an item for its outcome."""
        self._usage[index] = usage

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Add the outcomes of a call's items."""
        for outcome in call.outcomes():
            self.record(outcome)

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Add an outcome, which becomes readable now or, in order, after those before it."""
        if outcome.status == "pending":
            return  # the run has been stopped: no reader waits for what it has not finished
        if stack is not None and outcome.error is not None:
            outcome = replace(outcome, traceback=stack + closing_lines(outcome.error))
        if self._labels is not None:
            outcome = replace(outcome, label=self._labels.at(outcome.index))
        self._add(outcome)

    def _add(self, outcome: Outcome[T, R]) -> None:
        """Add a complete outcome."""
        self.has_success = self.has_success or outcome.ok
        del self._items[outcome.index]
        if not self._ordered:
            self._ready.append(outcome)
        else:
            self._early[outcome.index] = outcome
            while self._next in self._early:
                self._ready.append(self._early.pop(self._next))
                self._next += 1
        self._check_bound()
        self._wake_reader()

    def end(self) -> None:
        """End the stream: outcomes that wait for missing ones before them become readable."""
        self._ended = True
        self._ready.extend(self._early.pop(index) for index in sorted(self._early))
        self._wake_reader()

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    async def next(self) -> Outcome[T, R] | None:
        """Wait for the next outcome; None at the end."""
        while not self._ready:
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        outcome = self._ready.popleft()
        if self.is_full and self._unread <= self._bound // 2:
            self.is_full = False
            self._on_change()
        return outcome

    @property
    def _unread(self) -> int:
        """The number of unread outcomes; in order, including the items without an outcome yet."""
        return len(self._ready) + (self._ordered and len(self._early) + len(self._items))

    def _check_bound(self) -> None:
        """Pause new items if there is no room."""
        if not self.is_full and self._unread >= self._bound:
            self.is_full = True
            self._on_change()

    def _wake_reader(self) -> None:
        """Wake the reader, if it waits and there is something to read."""
        if self._waiter is not None and not self._waiter.done() and (self._ready or self._ended):
            self._waiter.set_result(None)
