"""Job: the handle of a batch that runs in the background, to watch, control and await it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import copy_context
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ragasync._bridge.blocking_calls import BlockingCall, blocked_loops
from ragasync._bridge.interrupts import Interrupted, InterruptibleWait
from ragasync._engine.job_run import JobRun
from ragasync.arguments import check_positive, check_seconds, explains_arguments
from ragasync.cancellation import create_lazy_task
from ragasync.clock import Heartbeat
from ragasync.error_text import describe, show_in_one_line
from ragasync.errors import RunAsyncError
from ragasync.job_future import JobFuture, UnfinishedJob
from ragasync.progress_callbacks import Progress
from ragasync.result import BatchResult
from ragasync.settings import parse_concurrency

if TYPE_CHECKING:
    from ragasync.notebook.panel import Panel
    from ragasync.notebook.panel_view import ConcurrencySetting, JobView

T = TypeVar("T")
R = TypeVar("R")

CANCELLED = "it was cancelled"


class Job(Generic[T, R]):
    """
    A batch that runs in the background while you do something else.

    `AsyncBatchProcessor.start` creates it. It runs on the background loop of `run_async`, so a
    cell that computes does not stall it, or, with `on_current_loop=True`, on the loop of the thread
    that started it. All of its methods and attributes are safe to use from any thread.

    `await job` returns the result; cancelling that await cancels the job. After `job.cancel()`,
    awaiting the job returns the partial result. A job on the last line of a cell shows a live panel
    with buttons and sliders for all of its controls.

    A job that is still running when the interpreter exits is cancelled: its calls get two seconds
    to clean up, its journal is closed, and a line on stderr says how much was done.

    Go on with `progress`, `pause()`, `resume()`, `cancel()`, `max_concurrency` and `rate`; `result`
    is the BatchResult so far, and `wait()` blocks for it in sync code.

    Example:
        >>> import time
        >>> from ragasync import AsyncBatchProcessor
        >>> def slow(item):
        ...     time.sleep(0.001)
        ...     return item * item
        >>> job = AsyncBatchProcessor(slow).start(range(100))  # returns immediately
        >>> job.max_concurrency = 16  # while it runs
        >>> job.wait().results[:4]  # in a cell: await job
        [0, 1, 4, 9]
        >>> job.progress.finished
        100
    """

    def __init__(self, job_run: JobRun[T, R], loop: asyncio.AbstractEventLoop) -> None:
        self._job_run = job_run
        self._loop = loop
        self._max_concurrency = job_run.run.max_concurrency
        self._adaptive = job_run.run.adaptive
        self._rate: float | None = None
        self._paused = self._cancelled = False
        self._panel: Panel | None = None
        self._task: asyncio.Task[None] | None = None
        self._future: JobFuture[R] = JobFuture()
        self._call = BlockingCall(self._stop)
        # The run must know that it is stopping before its calls on threads are cancelled, or it
        # would count their cancellations as failures.
        self._call.parent_first = True
        self._unfinished = UnfinishedJob(job_run, loop, self._future, self._call)
        self._on_loop(self._create_task)

    # ── result ───────────────────────────────────────────────────────────────────────────────────

    def __await__(self) -> Generator[Any, None, BatchResult[R]]:
        """Wait for the result; meanwhile this loop wakes ten times a second to see interrupts."""
        return self._wait_on_current_loop().__await__()

    @explains_arguments
    def wait(self, timeout: float | timedelta | None = None) -> BatchResult[R]:
        """
        Block this thread until the job has ended, and return its result.

        Args:
            timeout: the maximum number of seconds to wait; the job continues after a timeout.
                None waits without limit.

        Raises:
            TimeoutError: the job has not ended within `timeout`.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not finite.
            RunAsyncError: the job runs on this thread's loop, so this wait would never end.
            KeyboardInterrupt: the wait was interrupted; the job was cancelled, a note says how
                much was done, and `result` has it.
            Exception: the error that the source or the resources raised.
        """
        if timeout is not None:
            timeout = check_seconds("timeout", timeout)
        if not self.done and (self._runs_on_this_thread() or self._loop in blocked_loops()):
            raise _deadlock("job.wait() would block")
        try:
            with InterruptibleWait(self.cancel) as waiting:
                self._future.add_done_callback(waiting.done)
                try:
                    in_time = waiting.wait(timeout)
                finally:
                    self._future.remove_done_callback(waiting.done)
                if waiting.call.cancel_requested:
                    raise Interrupted("job.wait() was cancelled with the call around it")
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            interrupt.add_note(self._job_run.what_was_done())
            show_in_one_line(interrupt, self._job_run.what_was_done())
            raise
        finally:
            self._flush_panel()
        if not in_time:
            raise TimeoutError(f"the job has not ended within {timeout:g} s; it goes on: {self!r}")
        try:
            return self._future.result()
        finally:
            del self, waiting  # or the traceback of the job's error would keep it alive

    @property
    def result(self) -> BatchResult[R]:
        """The partial result so far, as a snapshot that no longer changes."""
        return self._job_run.result()

    @property
    def progress(self) -> Progress:
        """The progress of the job, as a frozen snapshot."""
        return self._job_run.progress()

    @property
    def done(self) -> bool:
        """Whether the job has ended: with a result, an error or a cancellation."""
        return self._future.done

    @property
    def paused(self) -> bool:
        """Whether the job is paused: it starts no call until `resume`."""
        return self._paused

    # ── control ──────────────────────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Start no further calls; calls in flight finish."""
        self._paused = True
        self._on_loop(self._job_run.run.pause)

    def resume(self) -> None:
        """Start calls again after `pause`, and end any pause that a Retry-After asked for."""
        self._paused = False
        self._on_loop(self._job_run.run.resume)

    def cancel(self) -> None:
        """
        Cancel the calls in flight and end the job; its result has what was done.

        Each call is cancelled once and awaited, so that it can clean up; one that swallows its
        cancellation is awaited until it returns. A generator of items that has blocked once is read
        on a thread; until then it is read on the job's loop, so that the job ends when its next
        item arrives. Pass an async generator if that can take long.
        """
        self._cancelled = True
        self._call.cancel()

    @property
    def max_concurrency(self) -> int:
        """
        The maximum number of calls in flight; can be set while the job runs, also to "auto".

        With "auto" this is the limit in force now; setting a number turns "auto" off.
        """
        return self._job_run.run.max_concurrency if self._adaptive else self._max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int | Literal["auto"]) -> None:
        limit, adaptive = parse_concurrency(value)
        run = self._job_run.run
        if adaptive:
            run.settings.check_adaptable()
            self._adaptive = True
            self._on_loop(run.adapt)
        else:
            self._max_concurrency, self._adaptive = limit, False
            self._on_loop(lambda: run.resize(limit))
        self._on_loop(self._job_run.forget_limits)

    @property
    def rate(self) -> float | None:
        """The job's own rate limit in calls per second, or None; its limiters apply as well."""
        return self._rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        if value is not None:
            check_positive("rate", value)
        self._rate = value
        self._on_loop(lambda: self._job_run.run.set_rate(value))
        self._on_loop(self._job_run.forget_limits)

    # ── display ──────────────────────────────────────────────────────────────────────────────────

    def __repr__(self) -> str:
        from ragasync.notebook.panel_view import repr_line

        return repr_line(self._view())

    def _ipython_display_(self) -> None:
        """Show a live panel in a notebook, or the same numbers as text elsewhere."""
        if self._panel is None:
            from ragasync.notebook.panel import Panel

            self._panel = Panel(self, self._job_run.columns)
        self._panel.show()

    def _flush_panel(self) -> None:
        """Draw the panel's last state from the thread that waited for the job."""
        if self._panel is not None:
            self._panel.flush()

    def _view(self) -> JobView:
        """The state of the job as its panel and its repr show it."""
        from ragasync.notebook.panel_view import JobView

        run, ended, progress = self._job_run.run, self.done, self.progress
        stages, stage_seconds = self._job_run.recent_stages()
        runs = (run,) if run.inner is None else (run, *run.inner.runs)
        because = run.stopped_because
        if ended and because is None and (error := self._future.error) is not None:
            because = describe(error)
        return JobView(
            ended=ended,
            because=because,
            cancelled=because == CANCELLED or (self._cancelled and not ended),
            paused=self._paused,
            progress=progress,
            concurrency=self._concurrency_settings(),
            rate=self.rate,
            speed=progress.rate / (run.settings.batch_size if run.settings.batched else 1),
            final_status=self._job_run.columns.status if ended else b"",
            stages=stages,
            stage_seconds=stage_seconds,
            has_limiter=any(each.settings.limiters for each in runs),
        )

    def _concurrency_settings(self) -> tuple[ConcurrencySetting, ...]:
        """The settings for the number of concurrent calls, as they are shown."""
        from ragasync.notebook.panel_view import ConcurrencySetting

        return (ConcurrencySetting(self.max_concurrency, self._adaptive),)

    # ── on the job's loop ────────────────────────────────────────────────────────────────────────

    def _on_loop(self, action: Callable[[], object]) -> None:
        """Run an action on the job's loop, in the order of the requests; none once it has ended."""
        if self.done:
            return
        if self._runs_on_this_thread():
            action()
        else:
            self._loop.call_soon_threadsafe(action)

    def _stop(self) -> None:
        """Cancel the calls in flight and start no others."""
        run, call = self._job_run.run, self._call

        def stop() -> None:
            call.cancel_delivered = True
            run.stop(CANCELLED, cancel=True)

        self._on_loop(stop)

    def _runs_on_this_thread(self) -> bool:
        """Whether the job's loop is running in this thread."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _create_task(self) -> None:
        """Create the job's task on its loop, with the context variables of its starter."""
        context = copy_context()
        context.run(self._call.make_current)  # its calls are not nested in the one that started it
        coro = self._unfinished.follow(self._job_run.complete())
        self._task = create_lazy_task(coro, self._loop, name="ragasync job", context=context)

    async def _wait_on_current_loop(self) -> BatchResult[R]:
        """Wait for the result; a cancellation cancels the job and waits until it has ended."""
        if not self.done and self._loop in blocked_loops():
            raise _deadlock("run_async blocks")
        with Heartbeat():
            try:
                await self._future.wait()
            except asyncio.CancelledError:
                self.cancel()
                try:
                    await self._future.wait()
                    raise  # this cancellation; a second one comes from the line above
                except asyncio.CancelledError as cancelled:
                    cancelled.add_note(self._job_run.what_was_done())
                    show_in_one_line(cancelled, self._job_run.what_was_done())
                    raise
            finally:
                self._flush_panel()
        try:
            return self._future.result()
        finally:
            del self  # or the traceback of the job's error would keep it alive


def _deadlock(blocked: str) -> RunAsyncError:
    """Create the error for a wait that blocks the loop of the job that it waits for."""
    return RunAsyncError(
        f"{blocked} the loop that the job runs on, so neither would ever finish: "
        f"`await job` instead, or start it without on_current_loop=True"
    )
