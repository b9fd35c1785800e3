"""The handle on a running batch: watch it, steer it, stop it, and fetch what it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ragasync.arguments import check_number, check_positive
from ragasync.bridge.blocking_calls import BlockingCall, blocked_loops
from ragasync.clock import Heartbeat
from ragasync.ending import JobFuture
from ragasync.engine.job_run import JobRun
from ragasync.error_text import describe, show_in_one_line
from ragasync.errors import RunAsyncError
from ragasync.lazy_task import create_lazy_task
from ragasync.progress import Progress
from ragasync.result import BatchResult
from ragasync.settings import parse_concurrency
from ragasync.unfinished_jobs import UnfinishedJob

if TYPE_CHECKING:
    from ragasync.notebook.panel import Panel
    from ragasync.notebook.panel_view import JobView

T = TypeVar("T")
R = TypeVar("R")

CANCELLED = "it was cancelled"


class Job(Generic[T, R]):
    """
    A batch that runs while you do something else.

    `AsyncBatchProcessor.start` makes it. It runs on the background loop of `run_async`, so that a
    cell that computes does not stall it; with `on_current_loop=True` on the
    loop of the thread that started it. Everything on it may be used from any thread.

    `await job` gives the result; cancelling that await cancels the job. `job.cancel()` does not
    raise: awaiting the job then gives what was done. As the last line of a cell it shows a live
    panel, with buttons for all that.

    A job that still runs when the interpreter exits is cancelled; its calls have two seconds for
    their clean-up, its journal is closed, and a line on stderr says how much was done.

    Example:
        >>> import time
        >>> from ragasync import AsyncBatchProcessor
        >>> def slow(item):
        ...     time.sleep(0.001)
        ...     return item * item
        >>> job = AsyncBatchProcessor(slow).start(range(100))  # returns at once
        >>> job.max_concurrency = 16  # while it runs
        >>> job.wait().results[:4]  # in a cell: await job
        [0, 1, 4, 9]
        >>> job.progress.finished
        100
    """

    def __init__(self, batch: JobRun[T, R], loop: asyncio.AbstractEventLoop) -> None:
        self._batch = batch
        self._loop = loop
        self._max_concurrency = batch.run.max_concurrency
        self._adaptive = batch.run.adaptive
        self._rate: float | None = None
        self._paused = self._cancelled = False
        self._panel: Panel | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: JobFuture[R] = JobFuture()
        # Told to stop at once, because what its calls on threads raise then is no failure.
        self._place = BlockingCall(self._stop)
        self._place.at_once = True
        self._unfinished = UnfinishedJob(batch, loop, self._ending, self._place)
        self._tell(self._begin)

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
            TypeError: `timeout` is no number.
            ValueError: `timeout` is negative or not finite.
            RunAsyncError: this thread's loop is the one that the job runs on, so that neither
                would ever go on.
            KeyboardInterrupt: the wait was interrupted; the job was cancelled, a note says how
                much was done, and `result` has it.
            Exception: what the source or the resources raised.
        """
        from ragasync.bridge.interrupts import Interrupted, InterruptibleWait

        if timeout is not None:
            check_number("timeout", timeout)
        if not self.done and (self._runs_on_this_thread() or self._loop in blocked_loops()):
            raise _never_ending("job.wait() would block")
        try:
            with (
                InterruptibleWait(self.cancel) as waiting,
                self._ending.telling(waiting.done),
            ):
                in_time = waiting.wait(timeout)
                if waiting.call.cancel_requested:
                    raise Interrupted("job.wait() was cancelled with the call around it")
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            interrupt.add_note(self._batch.what_was_done())
            raise
        finally:
            self._flush_panel()
        if not in_time:
            raise TimeoutError(f"the job has not ended within {timeout:g} s; it goes on: {self!r}")
        try:
            return self._ending.fetch()
        finally:
            del self, waiting  # or the traceback of what the job raised would keep it alive

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
        return self._ending.reached

    @property
    def paused(self) -> bool:
        """Whether it begins no further call until `resume`."""
        return self._paused

    # ── steer ───────────────────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Begin no further call; those in flight go on to their end."""
        self._paused = True
        self._tell(self._batch.run.pause)

    def resume(self) -> None:
        """Go on after `pause`, and do not wait any longer as a service asked by Retry-After."""
        self._paused = False
        self._tell(self._batch.run.resume)

    def cancel(self) -> None:
        """
        Cancel what is in flight, once, and end the job; its result has what was done.

        Calls may clean up, and are waited for; one that swallows its cancellation until it returns.
        """
        self._cancelled = True
        self._place.cancel()

    @property
    def max_concurrency(self) -> int:
        """
        The most calls in flight at once; may be set while it runs, also to "auto".

        With "auto" it reads the bound that is in force now. A number ends that.
        """
        return self._batch.run.max_concurrency if self._adaptive else self._max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int | Literal["auto"]) -> None:
        at_once, adaptive = parse_concurrency(value)
        run = self._batch.run
        if adaptive:
            run.plan.check_adaptable()
            self._adaptive = True
            self._tell(run.adapt)
        else:
            self._max_concurrency, self._adaptive = at_once, False
            self._tell(lambda: run.resize(at_once))

    @property
    def rate(self) -> float | None:
        """Calls a second that the job allows itself, beside its limiters; None for no bound."""
        return self._rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        if value is not None:
            check_positive("rate", value)
        self._rate = value
        self._tell(lambda: self._batch.run.set_rate(value))

    # ── show ────────────────────────────────────────────────────────────────────────────────

    def __repr__(self) -> str:
        from ragasync.notebook.panel_view import repr_line

        return repr_line(self._showing())

    def _ipython_display_(self) -> None:
        """Show a live panel in a notebook, the same facts as text elsewhere."""
        if self._panel is None:
            from ragasync.notebook.panel import Panel

            self._panel = Panel(self, self._batch.columns)
        self._panel.show()

    def _flush_panel(self) -> None:
        """Have the panel show the end, from the thread that waited for it."""
        if self._panel is not None:
            self._panel.flush()

    def _showing(self) -> JobView:
        """Return what there is to show."""
        from ragasync.notebook.panel_view import JobView

        run, ended, progress = self._batch.run, self.done, self.progress
        because = run.stopped_because
        if ended and because is None and (error := self._ending.error) is not None:
            because = describe(error)
        return JobView(
            ended=ended,
            because=because,
            cancelled=because == CANCELLED or (self._cancelled and not ended),
            paused=self._paused,
            progress=progress,
            max_concurrency=self.max_concurrency,
            adaptive=self._adaptive and not run.stages(),
            rate=self._rate,
            speed=progress.rate / (run.plan.batch_size if run.plan.batched else 1),
            left=self._batch.columns.status if ended else b"",
            stages=run.stages(),
        )

    # ── behind the handle ───────────────────────────────────────────────────────────────────

    def _tell(self, order: Callable[[], object]) -> None:
        """Have something done on the job's loop, after everything that was asked before."""
        if self.done:
            return
        if self._runs_on_this_thread():
            order()
        else:
            self._loop.call_soon_threadsafe(order)

    def _stop(self) -> None:
        """Cancel what is in flight and begin nothing more."""
        run, place = self._batch.run, self._place

        def stop() -> None:
            place.stopping = True
            run.stop(CANCELLED, cancel=True)

        self._tell(stop)

    def _runs_on_this_thread(self) -> bool:
        """Whether this thread is running the job's loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _begin(self) -> None:
        """Make the job's task, on its loop, in the context of whoever started it."""
        context = copy_context()
        context.run(self._place.make_current)  # no part of the call that started it
        running = self._unfinished.follow(self._batch.complete())
        self._task = create_lazy_task(running, self._loop, name="ragasync job", context=context)

    async def _wait_here(self) -> BatchResult[R]:
        """Wait on this loop; a cancellation cancels the job and waits for its clean-up."""
        if not self.done and self._loop in blocked_loops():
            raise _never_ending("run_async blocks")
        with Heartbeat():
            try:
                await self._ending.wait()
            except asyncio.CancelledError:
                self.cancel()
                try:
                    await self._ending.wait()
                    raise  # the first cancellation, or from the line above a second one
                except asyncio.CancelledError as cancelled:
                    cancelled.add_note(self._batch.what_was_done())
                    show_in_one_line(cancelled, self._batch.what_was_done())
                    raise
            finally:
                self._flush_panel()
        try:
            return self._ending.fetch()
        finally:
            del self  # or the traceback of what the job raised would keep it alive


def _never_ending(blocked: str) -> RunAsyncError:
    """Return the error of a wait that would keep the job itself from going on."""
    return RunAsyncError(
        f"{blocked} the loop that the job runs on, so that neither would ever go on: "
        f"`await job` instead, or start it without on_current_loop=True"
    )
