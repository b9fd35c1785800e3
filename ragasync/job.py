"""The handle on a running batch: watch it, steer it, stop it, and fetch what it has."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from ragasync.arguments import check_count
from ragasync.engine.batch_run import BatchRun
from ragasync.engine.heartbeat import Heartbeat
from ragasync.outcomes.result import BatchResult
from ragasync.progress import Progress

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("ragasync")


class Job(Generic[T, R]):
    """
    A batch that runs while you do something else.

    `AsyncBatchProcessor.start` makes it. It runs on the background loop of `run_async`, so that a
    cell that computes does not stall it; with `here=True` on the loop of the thread that started
    it. Everything on it may be used from any thread.

        job = processor.start(items)
        job.progress                # in the next cell
        job.max_concurrency = 16
        result = await job          # or job.wait() in sync code

    `await job` gives the result; cancelling that await cancels the job. `job.cancel()` does not
    raise: awaiting the job then gives what was done.
    """

    def __init__(self, batch: BatchRun[T, R], loop: asyncio.AbstractEventLoop) -> None:
        self._batch = batch
        self._loop = loop
        self._max_concurrency = batch.run.max_concurrency
        self._rate: float | None = None
        self._paused = False
        self._task: asyncio.Task[BatchResult[R]] | None = None
        self._cancelled = False
        self._fetched = False
        self._ended: concurrent.futures.Future[BatchResult[R]] = concurrent.futures.Future()
        context = copy_context()
        self._tell(lambda: context.run(self._begin))

    # ── fetch ───────────────────────────────────────────────────────────────────────────────

    def __await__(self) -> Generator[Any, None, BatchResult[R]]:
        """Wait for the end; the loop that waits wakes ten times a second."""
        return self._wait_here().__await__()

    def wait(self, timeout: float | None = None) -> BatchResult[R]:
        """
        Block until the job has ended and return its result.

        Args:
            timeout: seconds to wait at most; the job goes on after that. None waits for good.

        Raises:
            TimeoutError: it has not ended within `timeout`.
            RuntimeError: this thread's loop is the one that the job runs on, so that neither
                would ever go on.
            KeyboardInterrupt: the wait was interrupted; the job was cancelled, and `result` has
                what was done.
        """
        from ragasync.bridge.interrupts import InterruptibleWait

        if not self._ended.done() and self._runs_on_this_thread():
            raise RuntimeError(
                "job.wait() would block the loop that the job runs on: `await job` instead, or "
                "start it without here=True"
            )
        with InterruptibleWait(self.cancel) as waiting:
            self._ended.add_done_callback(lambda _: waiting.done())
            if not waiting.wait(timeout):
                raise TimeoutError(
                    f"the job has not ended within {timeout:g} s; it goes on: {self!r}"
                )
        return self._fetch()

    @property
    def result(self) -> BatchResult[R]:
        """What has come of the items so far; a copy that no longer changes."""
        return self._batch.result()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._batch.progress()

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._ended.done()

    # ── steer ───────────────────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Begin no further call; those in flight go on to their end."""
        self._paused = True
        self._tell(self._batch.run.pause)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._tell(self._batch.run.resume)

    def cancel(self) -> None:
        """Cancel what is in flight and end the job; its result has what was done."""
        self._cancelled = True
        self._tell(lambda: self._batch.run.stop("it was cancelled", cancel=True))

    @property
    def max_concurrency(self) -> int:
        """The most calls in flight at once; may be set while it runs."""
        return self._max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int) -> None:
        check_count("max_concurrency", value, at_least=1)
        self._max_concurrency = value
        self._tell(lambda: self._batch.run.resize(value))

    @property
    def rate(self) -> float | None:
        """Calls a second that the job allows itself, beside its limiters; None for no bound."""
        return self._rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        if value is not None:
            from ragasync.limits.limiter import check_positive

            check_positive("rate", value)
        self._rate = value
        self._tell(lambda: self._batch.run.set_rate(value))

    def __repr__(self) -> str:
        now = self.progress
        total = "?" if now.total is None else f"{now.total:,}"
        return (
            f"<Job {self._state()}: {now.finished:,} of {total}, {now.failed:,} failed, "
            f"{now.in_flight:,} in flight, {now.rate:,.1f} items/s, limited by {now.limited_by}>"
        )

    def __del__(self) -> None:
        """Log, once, an exception that nobody fetched."""
        ended = getattr(self, "_ended", None)
        if ended is None or self._fetched or not ended.done() or ended.cancelled():
            return
        if (error := ended.exception()) is not None:
            log.error("a job's exception was never fetched", exc_info=error)

    # ── behind the handle ───────────────────────────────────────────────────────────────────

    def _state(self) -> str:
        """Return one word for what it does."""
        if self._ended.done():
            return "cancelled" if self._cancelled else "ended"
        return "paused" if self._paused else "running"

    def _tell(self, order: Callable[[], object]) -> None:
        """Have something done on the job's loop, after everything that was asked before."""
        if self._ended.done():
            return
        if self._runs_on_this_thread():
            order()
        else:
            self._loop.call_soon_threadsafe(order)

    def _runs_on_this_thread(self) -> bool:
        """Whether this thread is running the job's loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _begin(self) -> None:
        """Make the job's task, on its loop."""
        self._task = self._loop.create_task(self._batch.complete(), name="ragasync job")
        self._task.add_done_callback(_Ending(self._ended))

    async def _wait_here(self) -> BatchResult[R]:
        """Wait on this loop; a cancellation cancels the job and waits for its clean-up."""
        with Heartbeat():
            ended = asyncio.wrap_future(self._ended)
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError:
                self.cancel()
                await asyncio.wait([ended])
                raise
            except Exception:  # fetched below, where it is marked so
                pass
        return self._fetch()

    def _fetch(self) -> BatchResult[R]:
        """Return or raise what the job ended with."""
        self._fetched = True
        return self._ended.result()


class _Ending:
    """Hands the end of the job's task to those who wait in other threads and loops."""

    def __init__(self, ended: concurrent.futures.Future[Any]) -> None:
        self._ended = ended

    def __call__(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._ended.set_exception(
                asyncio.CancelledError("the loop that the job ran on cancelled it")
            )
        elif (error := task.exception()) is not None:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(task.result())
