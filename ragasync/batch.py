"""AsyncBatchProcessor: many calls of one function, bounded, limited, retried and accounted for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final, Generic, Literal, TypeVar

from ragasync.arguments import check_count, check_number, check_process_fn
from ragasync.bridge.run_async import run_async
from ragasync.engine.job_run import Items, JobRun
from ragasync.engine.stream import streamed
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.journal.use import bind_journal
from ragasync.limits.limiter import Limiter
from ragasync.outcomes.outcome import Outcome
from ragasync.progress import ProgressCallback
from ragasync.result import BatchResult
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import BatchSettings, as_limiters, parse_concurrency

T = TypeVar("T")
R = TypeVar("R")


class _DefaultCount(int):
    """A default that can be told from the same number given by hand: 3 is always one object."""


DEFAULT_RETRY_COUNT: Final[int] = _DefaultCount(3)
DEFAULT_RETRY_DELAY: Final = float("1.0")


class AsyncBatchProcessor(Generic[T, R]):
    """
    Call a function for every item, so many calls at once, and account for each.

    A sliding window: whenever a call ends, the next begins; nobody waits for the slowest of a
    group. A failure is an outcome, not the end: it is retried with exponential back-off, and then
    kept beside the item. The processor holds the settings only, so that it can be used again, at
    the same time, from other loops and threads.

    Example:
        >>> import asyncio
        >>> from ragasync import AsyncBatchProcessor, RateLimiter
        >>> async def embed(text):
        ...     await asyncio.sleep(0.01)  # stands for a call
        ...     return [text.index("a"), len(text)]
        >>> processor = AsyncBatchProcessor(embed, max_concurrency=8, rate_limiter=RateLimiter(100))
        >>> result = processor.process_sync(["a text", "another", 7])  # or await processor.process
        >>> result.results
        [[0, 6], [0, 7], None]
        >>> result.errors[2]
        AttributeError("'int' object has no attribute 'index'")

    Args:
        process_fn: a sync or async function, method, partial or callable object of one item, or,
            with `batched`, of a list of at most `batch_size` items for which it returns as many
            values in the same order. Sync functions run on threads; all run on `executor`, if any.
        batch_size: the most items in one call of a batched function, and in one hop to an
            executor.
        max_concurrency: the most calls in flight at once; "auto" finds what the service bears and
            follows it: up while latency holds, down by a quarter at a 429, a 503, a timeout or a
            latency that rises, between 1 and 1,024. Not with an executor.
        retry_count: retries after the first attempt.
        retry_delay: the base of the exponential back-off, in seconds.
        batched: whether `process_fn` takes lists. A batch that fails is halved until the items at
            fault stand alone.
        rate_limiter: one limiter or several; every attempt takes its own place at each.
        retry: an AsyncRetry, instead of `retry_count` and `retry_delay`.
        timeout: seconds for one attempt; one that takes longer fails with AttemptTimeout.
        executor: a concurrent.futures.Executor to call on: a process pool, loky, a Dask cluster's
            `client.get_executor()`. What a cell defines travels (extra `processes`); limits,
            retries, journal and progress stay here. The items of a hop go one after the other,
            async ones too, on one loop a worker; the timeout counts for each item, and a hop that
            has begun is not interrupted. What was in flight when a worker died is tried again,
            each item apart, so that one which kills its worker fails alone.
        max_errors: failed items that are allowed; one more stops the job. What is done is kept,
            the rest stays pending.
        max_error_rate: the share of failures, in (0, 1), that is allowed among the last 100
            finished items, judged from 20 on; above it the job stops likewise.
        max_initial_failures: stop when the first so many calls, on different items, all failed with
            the same status (400, 401, 403, 404 or 405) and the same message: a wrong model or path
            fails every item. None goes through all of them.
        weight: what an item weighs (its tokens, say), for `max_batch_weight`.
        max_batch_weight: the most that the items of one batch may weigh together.
        key: makes of an item the text (or other plain data) that the journal knows it by; without
            it the journal knows items by their content.
        journal: a Journal, or the path of one: outcomes are written to it, and what it has is not
            done again.
        resources: a function that makes an async context manager, opened once a run on the run's
            own loop and passed to `process_fn` as its second argument: the place for clients.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, or both `retry` and one that it replaces.

    Attributes:
        last_result: the result of the latest run that ended, whole or not; None before.
    """

    def __init__(
        self,
        process_fn: Callable[..., Any],
        batch_size: int = 32,
        max_concurrency: int | Literal["auto"] = 4,
        retry_count: int = DEFAULT_RETRY_COUNT,
        retry_delay: float = DEFAULT_RETRY_DELAY,
        *,
        batched: bool = False,
        rate_limiter: Limiter | Sequence[Limiter] | None = None,
        retry: AsyncRetry | None = None,
        timeout: float | None = None,
        executor: Executor | None = None,
        max_errors: int | None = None,
        max_error_rate: float | None = None,
        max_initial_failures: int | None = 20,
        weight: Callable[[T], float] | None = None,
        max_batch_weight: float | None = None,
        key: Callable[[T], object] | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
        resources: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        given = retry_given(retry_count, retry_delay)
        if retry is not None and given:
            raise ValueError(f"pass {given} or retry={retry!r}, not both")
        at_once, adaptive = parse_concurrency(max_concurrency)
        self._settings: BatchSettings[T, R] = BatchSettings(
            process_fn,
            check_process_fn(process_fn),
            batch_size=batch_size,
            max_concurrency=at_once,
            adaptive=adaptive,
            batched=batched,
            limiters=as_limiters(rate_limiter),
            retry=AsyncRetry(int(retry_count), retry_delay) if retry is None else retry,
            timeout=timeout,
            executor=executor,
            max_errors=max_errors,
            max_error_rate=max_error_rate,
            max_initial_failures=max_initial_failures,
            weight=weight,
            max_batch_weight=max_batch_weight,
            resources=resources,
            journal=bind_journal(process_fn, journal, key),
        )
        self.last_result: BatchResult[R] | None = None

    async def process(
        self,
        items: Items[T],
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
    ) -> BatchResult[R]:
        """
        Call the function for every item and return all outcomes, in input order.

        Args:
            items: any iterable or async iterable; drawn from as slots become free.
            progress_callback: called with (done, total) at most ten times a second, and at the
                end. One that raises is dropped with a warning.
            total: the number of items, for progress, where `items` does not tell.
            max_items: process only the first `max_items`, as a pilot; the rest of a sequence stays
                pending.

        Raises:
            RunAsyncError: the function uses an object of another event loop.
            Exception: what `items` itself raised; a note says how many were done, and
                `last_result` keeps them.
            CancelledError: it was cancelled or interrupted; likewise.
        """
        return await self._new_run(items, progress_callback, total, max_items).complete()

    def process_sync(
        self,
        items: Items[T],
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
    ) -> BatchResult[R]:
        """Do as `process` does, from sync code; see `run_async`."""
        return run_async(self.process(items, progress_callback, total=total, max_items=max_items))

    def start(
        self,
        items: Items[T],
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
        on_current_loop: bool = False,
    ) -> Job[T, R]:
        """
        Begin to process in the background and return the Job at once.

        Args:
            items: as for `process`.
            progress_callback: as for `process`; called in the thread that the job runs in.
            total: as for `process`.
            max_items: as for `process`.
            on_current_loop: run on the loop of the current thread, for objects that belong to it.

        Raises:
            RuntimeError: `on_current_loop` is set and no loop runs in this thread.
        """
        return self._start_run(
            self._new_run(items, progress_callback, total, max_items), on_current_loop
        )

    def stream(
        self, items: Items[T], *, ordered: bool = False, total: int | None = None
    ) -> AsyncGenerator[Outcome[T, R], None]:
        """
        Yield each outcome as it comes, in constant memory, also for endless input.

        Args:
            items: as for `process`.
            ordered: yield in the order of the items instead. Outcomes that came early wait in a
                buffer of max(2048, 32 windows) items; when it is full, nothing new is begun.
            total: the number of items, where `items` does not tell.

        Raises:
            JobStopped: `max_errors` or a fatal error ended it early; what was done came before.
            Exception: what `items` itself raised, after the outcomes of those begun.
        """
        return streamed(self._settings, items, ordered=ordered, total=total)

    def __repr__(self) -> str:
        plan = self._settings
        name = getattr(plan.process_fn, "__qualname__", repr(plan.process_fn))
        size = f", batch_size={plan.batch_size}" if plan.items_per_call > 1 else ""
        at_once = '"auto"' if plan.adaptive else plan.max_concurrency
        return f"<AsyncBatchProcessor {name}{size}, max_concurrency={at_once}>"

    async def _process_again(
        self, items: Items[T], _kept: object = (), plan: BatchSettings[T, R] | None = None
    ) -> BatchResult[R]:
        """Process items whatever a journal has of them: they are wanted anew."""
        # All of them failed before.
        plan = replace(plan or self._settings, max_initial_failures=None)
        if plan.journal is not None:
            plan = replace(plan, journal=replace(plan.journal, again=True))
        return await self._new_run(items, None, None, None, plan).complete()

    def _new_run(
        self,
        items: Items[T],
        progress_callback: ProgressCallback | None,
        total: int | None,
        max_items: int | None,
        plan: BatchSettings[T, R] | None = None,
    ) -> JobRun[T, R]:
        """Make a run of this processor's plan, or of a variant of it."""
        return JobRun(
            plan or self._settings,
            items,
            progress_callback,
            total=total,
            max_items=max_items,
            on_result=self._keep,
        )

    def _start_run(self, batch: JobRun[T, R], on_current_loop: bool) -> Job[T, R]:
        """Begin a run in the background, or on the loop of this thread."""
        return Job(batch, _loop_here() if on_current_loop else _loop_in_background())

    def _keep(self, result: BatchResult[R]) -> None:
        """Remember the latest result."""
        self.last_result = result


def _loop_here() -> asyncio.AbstractEventLoop:
    """Return the loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "on_current_loop=True runs the job on the loop of this thread, but none is running: "
            "leave it out, and the job runs in the background"
        ) from None


def _loop_in_background() -> asyncio.AbstractEventLoop:
    """Return the loop that background jobs share."""
    from ragasync.bridge.loops import background_loop

    return background_loop()


def retry_given(retry_count: int, retry_delay: float) -> str:
    """
    Check the two arguments, and return those that were given by hand, as they are written.

    Raises:
        TypeError: one is no number.
        ValueError: one is negative.
    """
    check_count("retry_count", retry_count, at_least=0)
    check_number("retry_delay", retry_delay)
    count, delay = f"retry_count={retry_count!r}", f"retry_delay={retry_delay!r}"
    given = [count] * (retry_count is not DEFAULT_RETRY_COUNT)
    given += [delay] * (retry_delay is not DEFAULT_RETRY_DELAY)
    return " and ".join(given)
