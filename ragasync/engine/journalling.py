"""The journal's place in a run: it answers for items that are done, and hears of all others."""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from ragasync.engine.controls import RunControls, RunTotals
from ragasync.engine.recorder import OutcomeSink
from ragasync.error_text import add_note, describe
from ragasync.journal.journal import JournalBinding
from ragasync.outcomes.outcome import CallSuccess, Outcome, RecordSuccess

if TYPE_CHECKING:
    from queue import SimpleQueue

    from ragasync.journal.session import JournalSession, Lookup

T = TypeVar("T")
R = TypeVar("R")


Refuse: TypeAlias = Callable[[int, T, BaseException], None]
"""Records the failure of an item that no call can take: index, item and error."""

NewOf: TypeAlias = Callable[[list[tuple[int, T]], deque[tuple[int, T]], Refuse[T]], Awaitable[None]]
"""Adds those of some items, with their indices, that have to be called; also when cancelled."""


class JournalSink(Generic[T, R]):
    """
    A sink that hands outcomes on, and has them written too.

    Args:
        sink: where outcomes go.
        journal: what writes them.
        thread: looks up what has to read files.
        totals: counts the outcomes that came from the journal.
    """

    def __init__(
        self,
        sink: OutcomeSink[T, R],
        journal: JournalSession,
        thread: JournalThread,
        totals: RunTotals,
    ) -> None:
        self._sink, self._journal, self._thread = sink, journal, thread
        self._totals = totals

    @property
    def holds_success(self) -> bool:
        """Whether the journal had a success before this run."""
        return self._journal.holds_success

    @property
    def is_full(self) -> bool:
        """Whether no new item should be begun: the reader, or the disk, has to catch up."""
        return self._sink.is_full or self._journal.is_full

    @property
    def has_success(self) -> bool:
        """Whether any item is done, now or in an earlier run."""
        return self._sink.has_success or self._journal.holds_success

    def unfinished(self, limit: int | None) -> int:
        """Return how many of the items that were to run have no outcome, or a cancelled one."""
        return self._sink.unfinished(limit)

    def fast_recorder(self, worker: int, started_at: float) -> RecordSuccess[R]:
        """Return what records a plain success; with a journal every call is a ticket instead."""
        return self._sink.fast_recorder(worker, started_at)

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Record that all items of a call succeeded."""
        self._sink.record_call(call)
        for outcome in call.outcomes():
            self._journal.record(outcome, None)

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Record any other outcome."""
        self._sink.record(outcome, stack)
        self._journal.record(outcome, stack)

    async def new_of(
        self,
        rows: list[tuple[int, T]],
        new: deque[tuple[int, T]],
        refuse: Refuse[T],
    ) -> None:
        """
        Add the items that have to run to `new`; the others get the outcome that they have.

        What was looked up is looked up once, since the journal counts equal items: a worker that is
        cancelled meanwhile stays until that is done.
        """
        journal = self._journal
        if not journal.lookup_needs_thread(rows):
            self._sort_out(journal.look_up(rows), new, refuse)
            return
        looking_up = self._thread.do(lambda: journal.look_up(rows))
        try:
            await asyncio.shield(looking_up)
        finally:
            if not looking_up.done():
                await asyncio.wait([looking_up])
            self._sort_out(looking_up.result(), new, refuse)

    def _sort_out(
        self,
        found: Lookup,
        new: deque[tuple[int, T]],
        refuse: Refuse[T],
    ) -> None:
        """Settle the items that the journal knows, and refuse those without a key."""
        for outcome, stack in found.recorded:
            self._sink.record(outcome, stack)
        self._totals.journaled += len(found.recorded)
        for index, item, error in found.refused:
            refuse(index, item, error)
        new.extend(found.new)


@asynccontextmanager
async def journalled(
    journal: JournalBinding,
    sink: OutcomeSink[T, R],
    run: RunControls,
) -> AsyncIterator[JournalSink[T, R]]:
    """
    Open a journal for a run, on a thread; write what is left at the run's end, however it ends.

    Args:
        journal: the settings, and what the processor brings.
        sink: where outcomes go beside.
        run: stopped when nothing more can be written, because what is done from then on would be
            lost with this process.
    """
    loop = asyncio.get_running_loop()

    def tell(order: Callable[..., None], *args: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(order, *args)

    thread = JournalThread(loop)
    try:
        opened = await _opened(journal, thread)
        try:
            if opened.warning is not None:
                # Where the processor was made, because a job runs on a loop of its own.
                warnings.warn_explicit(opened.warning, UserWarning, *journal.made_at)
            opened.start_writing(
                lambda error: tell(run.fail, error, describe(error)), lambda: tell(run.notify)
            )
            yield JournalSink(sink, opened, thread, run.totals)
        except BaseException as error:
            await thread.to_its_end(opened.close)
            if opened.error is not None:
                add_note(error, f"ragasync: {describe(opened.error)}")
            raise
        await thread.to_its_end(opened.close)
        if opened.error is not None:
            raise opened.error
    finally:
        thread.close()


class JournalThread:
    """
    A thread that blocks on a journal instead of the loop: one call after the other.

    The threads of the loop's own pool may be busy for as long as the user's functions please. This
    one is a daemon: a process that ends without closing its journal must not hang.

    Args:
        loop: the loop that asks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from queue import SimpleQueue  # where there are no threads, nobody comes here
        from threading import Thread

        self._loop = loop
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._stops_the_clock = hasattr(loop, "threads_at_work")
        Thread(target=self._live, name="ragasync journal calls", daemon=True).start()

    def do(self, work: Callable[[], R]) -> asyncio.Future[R]:
        """Have something done after all that came before, whoever still waits for it."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._count(+1)

        def call() -> None:
            try:
                settle, result = future.set_result, work()
            except BaseException as error:
                settle, result = future.set_exception, error  # type: ignore[assignment]
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver, future, settle, result)

        self._work.put(call)
        return future

    async def to_its_end(self, work: Callable[[], R]) -> R:
        """Do something, and wait for it also when cancelled: it has to reach the file."""
        working = self.do(work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            if not working.cancelled():
                working.exception()  # the cancellation goes first
            raise

    def close(self) -> None:
        """Let the thread end after what it has been given."""
        self._work.put(None)

    def _live(self) -> None:
        """Do one thing after the other; this is the thread's life."""
        while (call := self._work.get()) is not None:
            call()
            del call  # an idle thread keeps nothing alive

    def _deliver(
        self, future: asyncio.Future[Any], settle: Callable[[Any], None], result: object
    ) -> None:
        """Hand over what came of a call; runs on the loop."""
        self._count(-1)
        if not future.done():
            settle(result)

    def _count(self, more: int) -> None:
        """Count the calls under way, for a loop whose clock stands still meanwhile."""
        if self._stops_the_clock:
            self._loop.threads_at_work += more  # type: ignore[attr-defined]  # a virtual loop


async def _opened(journal: JournalBinding, thread: JournalThread) -> JournalSession:
    """Open a journal; one whose run is cancelled meanwhile is closed again."""
    from ragasync.journal.session import JournalSession  # loads SQLite

    opened: list[JournalSession] = []
    try:
        await asyncio.shield(thread.do(lambda: opened.append(JournalSession(journal))))
    except asyncio.CancelledError:
        # After the opening, in the order of the thread's work, however often this is cancelled.
        await thread.to_its_end(lambda: opened[0].close() if opened else None)
        raise
    return opened[0]
