"""ThreadBatcher: sync calls of many tasks on threads, several quick ones in one hand-over."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from ragasync._outcomes.activity import ActivityMonitor
from ragasync.cancellation import create_lazy_task
from ragasync.clock import loop_clock
from ragasync.usage import CallUsage, Usage, UsageTotals, current_call

T = TypeVar("T")
V = TypeVar("V")
Item = TypeVar("Item")
Value = TypeVar("Value")

BATCH_SECONDS = 0.005
"""Seconds that the calls of one batch should take together."""

MAX_SECONDS = 0.02
"""Seconds after which a batch ends in any case, so that other threads can take the rest."""

MAX_ITEMS = 128
"""The most items in one batch."""

MAX_CPU_THREADS = 2
"""Threads for calls that compute: under one interpreter lock more of them only wait for it."""

CPU_BOUND = 0.5
"""The share of processor time from which the calls of a batch count as computing."""

RECENT = 16
"""The number of latest batches from which that is judged."""

TRIAL_SECONDS = 0.05
"""Seconds after which the first calls are taken for ones that wait, if none has ended yet."""

MIN_WORK = 0.001
"""Seconds of work that are worth another thread."""


@dataclass(frozen=True, slots=True)
class BatchOutcome(Generic[V]):
    """
    The values and errors of the first items of a batch, and what they took on their thread.

    Args:
        values: the value of each item; None for one that failed.
        errors: the errors by position.
        seconds: the time that they took.
        cpu_seconds: the processor time that they took.
        usage: what their calls reported, by position.
        shared_seconds: the part of `seconds` that would hardly be less for a single item, as that
            of a query for all of them.
    """

    values: list[V | None]
    errors: dict[int, BaseException]
    seconds: float
    cpu_seconds: float = 0.0
    usage: dict[int, Usage] = field(default_factory=dict)
    shared_seconds: float = 0.0


class BlockUsage:
    """The usage that the functions called in a batch report, by the position of their item."""

    def __init__(self) -> None:
        self._batch = current_call.get()
        self._parts: dict[int, CallUsage] = {}

    def begin(self, place: int) -> None:
        """Count reports for the item at this position from now on."""
        if self._batch is not None:
            current_call.set(self._parts.setdefault(place, self._batch.part()))

    def end(self) -> dict[int, Usage]:
        """Count later reports for the run only; return what was reported so far."""
        current_call.set(self._batch)
        for part in self._parts.values():
            part.end()
        parts = self._parts.items()
        return {place: part.reported for place, part in parts if part.reported is not None}


class ThreadBatch(NamedTuple, Generic[T]):
    """
    The items of one call on a thread.

    Args:
        items: the items.
        computes: whether recent calls computed rather than waited for a disk or a network.
    """

    items: Sequence[T]
    computes: bool


def has_time(started: float, cpu_started: float) -> bool:
    """
    Whether a batch on a thread has time for another item.

    A thread that waits for the interpreter lock gets less done, but more threads would not help.

    Args:
        started: the start of the batch by `time.perf_counter`.
        cpu_started: its start by `time.thread_time`.
    """
    seconds = time.perf_counter() - started
    if seconds < BATCH_SECONDS:
        return True  # without a system call for the other clock, which cannot be ahead
    return seconds < MAX_SECONDS and time.thread_time() - cpu_started < BATCH_SECONDS


_Entry: TypeAlias = tuple[T, "asyncio.Future[V]", CallUsage | None]
"""An item that waits for a thread, its caller's future, and the call that the caller is in."""


class ThreadBatcher(Generic[T, V]):
    """
    Sends items to threads, several in a batch if their calls are quick.

    Switching threads costs more than chunking a short document. So a batch takes as many items as
    need BATCH_SECONDS at the pace of recent calls: dozens of short documents, or a single long one.
    When an item takes longer than expected, the rest of its batch comes back and goes first in the
    next one. Long queries of a store, which all items of a batch share, do not make it smaller.

    Only MAX_CPU_THREADS threads start at first, until it is known whether the calls compute. A
    computing call takes its turn with all others, so that among many it would look like one that
    waits.

    Every batch sees the context of the first caller, not that of the task that happens to send it
    and may have set a variable since.

    Args:
        call: calls the function for the first items of a batch on a thread.
        max_concurrency: how many threads may be busy.
        usage: counts what calls report; the items of callers in calls of a run get their part.

    Attributes:
        activity: when threads were busy.
        ended: how many items have been called.
        slots: how many threads are of use now.
    """

    def __init__(
        self,
        call: Callable[[ThreadBatch[T]], Awaitable[BatchOutcome[V]]],
        max_concurrency: int,
        usage: UsageTotals | None = None,
    ) -> None:
        self._call, self._usage = call, usage
        self._max_concurrency = max_concurrency
        self._loop = asyncio.get_running_loop()
        self._context: Context | None = None
        self._waiting: deque[_Entry[T, V]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._typical_seconds: float | None = None
        self._size = 1
        self._paused = self._will_send = False
        self._inline_seconds = 0.0
        self._cpu_shares: deque[float] = deque(maxlen=RECENT)
        self._is_cpu_bound = self._is_judged = False
        self._trial: asyncio.TimerHandle | None = None
        self._unjudged = self._unjudged_cpu = 0.0
        self.activity = ActivityMonitor(loop_clock(self._loop))
        self.ended = 0
        self.slots = min(max_concurrency, MAX_CPU_THREADS)

    @property
    def in_flight(self) -> int:
        """How many threads are busy."""
        return len(self._running)

    @property
    def ahead(self) -> int:
        """How many items should wait here: as many as fill a batch for each thread."""
        return self.slots * self._size

    @property
    def paused(self) -> bool:
        """Whether no batch is sent for now, because nobody has room for its results."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self._send()

    async def __call__(self, item: T) -> V:
        """Call the function for an item, in a batch on a thread."""
        future: asyncio.Future[V] = self._loop.create_future()
        self._waiting.append((item, future, current_call.get()))
        if self._context is None:
            self._context = copy_context()
            batch = None if self._usage is None else CallUsage(self._usage)
            self._context.run(current_call.set, batch)
            self._trial = self._loop.call_later(TRIAL_SECONDS, self._end_trial)
        if not self._will_send:  # all items that arrive in this turn of the loop
            self._will_send = True
            self._loop.call_soon(self._send, context=self._context)
        return await future

    def resize(self, max_concurrency: int) -> None:
        """Allow more or fewer busy threads; surplus batches are left to finish."""
        self._max_concurrency = max_concurrency
        self._note_slots()
        self._send()

    def call_inline(self, function: Callable[[Item], Value], item: Item) -> Value:
        """Call a function for an item in this thread, because a hand-over would cost more."""
        started = time.perf_counter()
        try:
            return function(item)
        finally:
            self.ended += 1
            self._inline_seconds += time.perf_counter() - started
            if self._inline_seconds > MIN_WORK:  # not each: some calls take less than recording it
                self.activity.add_ended_now(self._inline_seconds)
                self._inline_seconds = 0.0

    async def close(self) -> None:
        """Cancel the batches in flight."""
        if self._trial is not None:
            self._trial.cancel()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _send(self) -> None:
        """Start batches while threads are free and there is enough work for them."""
        self._will_send = False
        while self._waiting and not self._paused and len(self._running) < self.slots:
            work = len(self._waiting) * (self._typical_seconds or BATCH_SECONDS)
            # Two that compute take turns, so the second one may as well fill its batch.
            if self._running and work < (BATCH_SECONDS if self._is_cpu_bound else MIN_WORK):
                return
            batch = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
            if batch := [entry for entry in batch if not entry[1].done()]:
                assert self._context is not None  # of the first caller; there is one by now
                task = create_lazy_task(
                    self._run(batch),
                    self._loop,
                    name="ragasync thread batch",
                    context=self._context.copy(),
                )
                self._running.add(task)

    def _note_cpu_share(self, outcome: BatchOutcome[V]) -> None:
        """
        Judge from the share of processor time in batches whether the calls compute.

        A thread that waits for the interpreter lock shows less processor time than it needs, so the
        highest recent share counts: calls that wait for a disk or a network never reach it. Short
        batches, of which the clocks say little, are judged together.
        """
        self._unjudged += outcome.seconds
        self._unjudged_cpu += outcome.cpu_seconds
        if self._unjudged <= MIN_WORK:
            return
        self._cpu_shares.append(self._unjudged_cpu / self._unjudged)
        self._unjudged = self._unjudged_cpu = 0.0
        self._is_cpu_bound = max(self._cpu_shares) >= CPU_BOUND
        self._is_judged = True
        self._note_slots()

    def _end_trial(self) -> None:
        """Start all threads, unless it is known by now that the calls compute."""
        self._is_judged = True
        self._note_slots()
        self._send()

    def _note_slots(self) -> None:
        """Note if another number of threads is of use now."""
        threads = self._max_concurrency
        if self._is_cpu_bound or not self._is_judged:
            threads = min(threads, MAX_CPU_THREADS)
        if threads != self.slots:
            self.activity.limit_changed(self.slots, threads)
            self.slots = threads

    def _own_seconds(self, outcome: BatchOutcome[V]) -> float:
        """The time that the items of a batch took, without a long one that they shared."""
        if outcome.shared_seconds > BATCH_SECONDS:
            return outcome.seconds - outcome.shared_seconds
        return outcome.cpu_seconds if self._is_cpu_bound else outcome.seconds

    def _update_size(self, seconds: float) -> None:
        """Adapt the size of batches to the time that an item of the last one took."""
        typical = seconds if self._typical_seconds is None else self._typical_seconds
        self._typical_seconds = typical + (seconds - typical) / 4
        self._size = max(1, min(MAX_ITEMS, int(BATCH_SECONDS / max(self._typical_seconds, 1e-9))))

    async def _run(self, batch: list[_Entry[T, V]]) -> None:
        """Run a batch, and give each caller the value or the error of its item."""
        try:
            items = [item for item, *_ in batch]
            outcome = await self._call(ThreadBatch(items, self._is_cpu_bound))
        except Exception as error:  # not of an item: no thread could be started
            for _, future, _ in batch:
                _resolve(future, None, error)
        else:
            done = len(outcome.values)
            self.activity.add_ended_now(outcome.seconds)
            self.ended += done
            self._note_cpu_share(outcome)
            self._update_size(self._own_seconds(outcome) / done)
            for place, usage in outcome.usage.items():
                if (caller := batch[place][2]) is not None:
                    caller.attribute(usage)
            for place, value in enumerate(outcome.values):
                _resolve(batch[place][1], value, outcome.errors.get(place))
            self._waiting.extendleft(reversed(batch[done:]))
        finally:
            task = asyncio.current_task()
            assert task is not None  # a coroutine runs in a task
            self._running.discard(task)
        self._send()


def _resolve(future: asyncio.Future[V], value: V | None, error: BaseException | None) -> None:
    """Set the result or the error of a caller's future, unless it was cancelled."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)  # type: ignore[arg-type]  # without an error there is a value
