"""The journal of a run: read on a thread to skip items that are done, written as others finish."""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from ragasync._engine.controls import RunControls
from ragasync._engine.item_sources import ItemSource
from ragasync._outcomes.outcome import Outcome
from ragasync.clock import Clock
from ragasync.error_text import add_note, describe
from ragasync.errors import SourceFailed
from ragasync.journal.journal import JournalBinding

if TYPE_CHECKING:
    from queue import SimpleQueue

    from ragasync.journal.session import JournalSession, Lookup

T = TypeVar("T")
R = TypeVar("R")

SelectNew: TypeAlias = Callable[[list[tuple[int, T]], deque[tuple[int, T]]], Awaitable[None]]
"""Looks up items in the journal, and adds those that it does not have to the second argument."""

FILL_TIMEOUT = 0.02
"""Seconds that a partial batch waits for another item while there is a free worker."""

LOOK_AHEAD = 32
"""How many items of a list are looked up together in a journal that is read on a thread."""

MAX_SKIPPED = 1024
"""How many items may be skipped before the loop gets a turn."""


class RunJournal:
    """A journal that is open for a run."""

    def __init__(self, session: JournalSession, thread: JournalThread) -> None:
        self._session, self._thread = session, thread

    @property
    def is_full(self) -> bool:
        """Whether no new item should be started until the disk has caught up."""
        return self._session.is_full

    @property
    def has_success(self) -> bool:
        """Whether any item was done in an earlier run."""
        return self._session.holds_success

    def record(self, outcome: Outcome[Any, Any], stack: str | None) -> None:
        """Write an outcome soon, with the traceback of its error as text."""
        self._session.record(outcome, stack)

    async def look_up(
        self, rows: list[tuple[int, Any]], on_found: Callable[[Lookup], None]
    ) -> None:
        """
        Look up items, by index and item, and call `on_found` with what the journal has of them.

        The journal counts equal items, so each is looked up once: a worker that is cancelled
        meanwhile waits for the end of the look-up, and `on_found` is called in any case.
        """
        session = self._session
        if not session.lookup_needs_thread(rows):
            on_found(session.look_up(rows))
            return
        looking_up = self._thread.submit(lambda: session.look_up(rows))
        try:
            await asyncio.shield(looking_up)
        finally:
            if not looking_up.done():
                await asyncio.wait([looking_up])
            on_found(looking_up.result())


@asynccontextmanager
async def open_run_journal(
    binding: JournalBinding, controls: RunControls
) -> AsyncIterator[RunJournal]:
    """
    Open a journal for a run, and write what is left when the run ends, however it ends.

    Raises:
        Exception: what opening or writing the journal raised.
    """
    loop = asyncio.get_running_loop()

    def call_on_loop(function: Callable[..., None], *args: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(function, *args)

    thread = JournalThread(loop)
    try:
        session = await _opened(binding, thread)
        try:
            if session.warning is not None:
                # At the line that made the processor: a job runs on a loop of its own.
                warnings.warn_explicit(session.warning, UserWarning, *binding.made_at)
            controls.usage.recall(session.id, session.usage)
            session.start_writing(
                lambda error: call_on_loop(controls.fail, error, describe(error)),
                lambda: call_on_loop(controls.notify),
                controls.usage,
            )
            controls.usage.on_report = partial(_record_usage, session, loop)
            yield RunJournal(session, thread)
        except BaseException as error:
            await thread.run_to_end(session.close)
            if session.error is not None:
                add_note(error, f"ragasync: {describe(session.error)}")
            raise
        await thread.run_to_end(session.close)
        if session.error is not None:
            raise session.error
    finally:
        controls.usage.on_report = None
        thread.close()


def _record_usage(session: JournalSession, loop: asyncio.AbstractEventLoop) -> None:
    """Have the usage written soon, on whatever thread it was reported."""
    if asyncio._get_running_loop() is loop:
        session.record_usage()
    elif not session.usage_is_queued:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(session.record_usage)


async def _opened(binding: JournalBinding, thread: JournalThread) -> JournalSession:
    """Open a journal on the thread; if the run is cancelled meanwhile, close it again."""
    from ragasync.journal.session import JournalSession  # loads SQLite

    opened: list[JournalSession] = []
    try:
        await asyncio.shield(thread.submit(lambda: opened.append(JournalSession(binding))))
    except asyncio.CancelledError:
        # The thread works in order, so this runs after the opening, even if cancelled again.
        await thread.run_to_end(lambda: opened[0].close() if opened else None)
        raise
    return opened[0]


class Reader(Generic[T]):
    """
    Takes the items from a source that have to be called.

    Args:
        select_new: passes on the items that are not in the journal; None without a journal.
        ahead: how many items may be taken to be looked up together.
    """

    def __init__(
        self, source: ItemSource[T], clock: Clock, select_new: SelectNew[T] | None, ahead: int
    ) -> None:
        self._source, self._clock = source, clock
        self._select_new, self._ahead = select_new, ahead
        self._ready: deque[tuple[int, T]] = deque()

    @property
    def left_over(self) -> bool:
        """Whether items that were taken from the source wait for a call."""
        return bool(self._ready)

    async def take(self, wanted: int) -> list[tuple[int, T]]:
        """
        Take up to `wanted` items, but none after one that the source was slow to give.

        Raises:
            SourceFailed: the source raised before the first of them.
        """
        ready = self._ready
        rows: list[tuple[int, T]] = []
        skipped, was_slow = 0, False
        try:
            while len(rows) < wanted and skipped < MAX_SKIPPED:
                if ready:
                    rows.append(ready.popleft())
                elif was_slow:
                    break
                elif self._select_new is None:
                    rows += self._source.take(wanted - len(rows), FILL_TIMEOUT, self._clock)
                    break
                else:
                    asked = max(wanted - len(rows), self._ahead)
                    taken = self._source.take(asked, FILL_TIMEOUT, self._clock)
                    await self._select_new(taken, ready)
                    skipped += len(taken) - len(ready)
                    was_slow = len(taken) < asked
        except asyncio.CancelledError:
            self.put_back(rows)
            raise
        except SourceFailed as failed:
            if not rows:
                raise
            self._source.raise_next(failed.error)
        return rows

    def put_back(self, rows: Sequence[tuple[int, T]]) -> None:
        """Return items whose call is not made; they are taken again before all others."""
        self._ready.extendleft(reversed(rows))

    def clear(self) -> None:
        """Drop the items that no call has: the run is over."""
        self._ready.clear()


class JournalThread:
    """
    A thread that blocks on the journal instead of the loop, one call after another.

    User functions may occupy all threads of the loop's default executor. This thread is a daemon,
    because a process that ends without closing its journal must not hang.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from queue import SimpleQueue  # Pyodide has no threads, and does not get here
        from threading import Thread

        self._loop = loop
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._stops_the_clock = hasattr(loop, "threads_at_work")
        Thread(target=self._work_off, name="ragasync journal calls", daemon=True).start()

    def submit(self, work: Callable[[], R]) -> asyncio.Future[R]:
        """Call `work` after all earlier calls, even if the returned future is cancelled."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._count(+1)

        def call() -> None:
            try:
                set_outcome, result = future.set_result, work()
            except BaseException as error:
                set_outcome, result = future.set_exception, error  # type: ignore[assignment]
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver, future, set_outcome, result)

        self._work.put(call)
        return future

    async def run_to_end(self, work: Callable[[], R]) -> R:
        """Call `work` and wait for its end, even if cancelled: it has to reach the file."""
        working = self.submit(work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            if not working.cancelled():
                working.exception()  # retrieved: the cancellation takes precedence
            raise

    def close(self) -> None:
        """Let the thread end after the calls submitted so far."""
        self._work.put(None)

    def _work_off(self) -> None:
        """Make one call after another, until `close`."""
        while (call := self._work.get()) is not None:
            call()
            del call  # an idle thread keeps nothing alive

    def _deliver(
        self, future: asyncio.Future[Any], set_outcome: Callable[[Any], None], result: object
    ) -> None:
        """Set the result of a call, on the loop."""
        self._count(-1)
        if not future.done():
            set_outcome(result)

    def _count(self, more: int) -> None:
        """Count the calls in progress: a virtual clock must not advance during a call."""
        if self._stops_the_clock:
            self._loop.threads_at_work += more  # type: ignore[attr-defined]  # a virtual loop
