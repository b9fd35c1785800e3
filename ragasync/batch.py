"""AsyncBatchProcessor: calls one function for many items, with limits, retries and outcomes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Sequence,
)
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar, Unpack, overload

from ragasync._bridge.run_async import background_loop, run_async
from ragasync._engine.controls import InnerStages
from ragasync._engine.item_sources import Items, check_items
from ragasync._engine.job_run import JobRun
from ragasync._engine.stream import stream_outcomes
from ragasync._limits.limiter import Limiter
from ragasync._outcomes.outcome import Outcome
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, check_process_fn, check_seconds, explains_arguments
from ragasync.estimate import BatchCounter, Estimate, TokenCounter
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.journal.journal import bind_journal
from ragasync.progress_callbacks import ProgressCallback
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings, as_limiters, as_timeout, parse_concurrency

T = TypeVar("T")
R = TypeVar("R")
C = TypeVar("C")


class _DefaultCount(int):
    """An int with an identity of its own: in CPython, all plain 3s are one object."""


# Compared by identity: `retry=` together with an explicit `retry_count=3` is an error.
DEFAULT_RETRY_COUNT: Final[int] = _DefaultCount(3)
DEFAULT_RETRY_DELAY: Final = float("1.0")


class _Options(TypedDict, Generic[T], total=False):
    """The keyword arguments of AsyncBatchProcessor that all of its overloads share."""

    rate_limiter: Limiter | Sequence[Limiter] | None
    retry: AsyncRetry | None
    timeout: float | timedelta | None
    executor: Executor | None
    max_errors: int | None
    max_error_rate: float | None
    max_initial_failures: int | None
    max_seconds: float | timedelta | None
    max_tokens: int | None
    max_cost: float | None
    weight: Callable[[T], float] | None
    max_batch_weight: float | None
    key: Callable[[T], object] | None
    journal: Journal | str | os.PathLike[str] | None


@explains_arguments
class AsyncBatchProcessor(Generic[T, R]):
    """
    Call a function for every item, a limited number concurrently, and record each outcome.

    The calls form a sliding window: when one ends, the next begins, so none waits for the slowest
    of a group. A failed call is retried with exponential back-off; if it keeps failing, the error
    becomes the outcome of its item, and the other items go on. The processor holds settings only:
    it can be used again, also concurrently, from other loops and threads.

    Go on with `process` (await it), `process_sync`, `start` (a `Job` with a live panel) or
    `stream`; the result's `errors_dataframe()` shows what failed, and `retry_failed` runs only
    that. `estimate` counts what a run would take, without a call.

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
        process_fn: a sync or async function, method, partial or callable object. It takes one item
            or, with `batched`, a list of at most `batch_size` items, and then returns as many
            values in the same order. Sync functions run on threads, or on `executor`.
        batch_size: the maximum number of items in one call of a batched function, and in one group
            sent to an executor.
        max_concurrency: the maximum number of calls in flight. "auto" adapts it to the service,
            between 1 and 1,024: it rises while latency holds, and falls by a quarter after a 429, a
            503, a timeout or a rise in latency. "auto" cannot be combined with an executor.
        retry_count: the number of retries after the first attempt.
        retry_delay: the base of the exponential back-off, in seconds.
        batched: whether `process_fn` takes lists. A batch that fails is split in halves until each
            bad item fails alone.
        rate_limiter: one limiter or several; every attempt acquires each of them.
        retry: an AsyncRetry, instead of `retry_count` and `retry_delay`.
        timeout: seconds allowed for one attempt; a longer one fails with AttemptTimeout.
        executor: a concurrent.futures.Executor for the calls: a process pool, loky, a Dask
            cluster's `client.get_executor()`. Functions defined in a cell are shipped to the
            workers (extra `processes`); limits, retries, journal and progress stay here. The items
            of a group run one after the other, async ones too, on one loop per worker; the timeout
            counts for each item, and a group that has begun is not interrupted. If a worker dies,
            the items of its group are retried alone, so that only the one at fault fails.
        max_errors: the number of failed items allowed; one more stops the job. Finished items are
            kept, the others stay pending.
        max_error_rate: the share of failures, in (0, 1), allowed among the last 100 finished items,
            judged from 20 on; a higher share stops the job in the same way.
        max_initial_failures: stop the job when this many first calls, for different items, have all
            failed with the same status (400, 401, 403, 404 or 405) and the same message: a wrong
            model name or path fails every item. None turns this off.
        max_seconds: the duration at which the run stops: nothing new starts, calls in flight
            finish, and the rest stays pending.
        max_tokens: the number of tokens, as reported by `note_usage`, at which the run stops in the
            same way. What is in flight may exceed it: on an executor, max_concurrency groups of up
            to `batch_size` items each, so a smaller `batch_size` stops it sooner. A job that a call
            runs counts too, but stops only at bounds of its own. With a journal, its earlier runs
            count too, and another run with a larger bound goes on.
        max_cost: the cost at which the run stops in the same way, in the unit in which it is
            reported.
        weight: a function that returns the weight of an item, such as its tokens. It bounds only
            the size of batches, by `max_batch_weight`; the rate is limited by weight with
            `RateLimiter(..., weight=)`.
        max_batch_weight: the maximum total weight of the items of one batch.
        key: a function that returns the text, or other plain data, by which the journal knows an
            item; without it the journal goes by the item's content.
        journal: a Journal, or the path of one: outcomes are written to it, and items that it
            already has are not processed again.
        resources: a function that returns an async context manager, such as a client. It is opened
            once per run, on the run's own loop, and passed to `process_fn` as second argument.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range, or both `retry` and an argument that it replaces.

    Attributes:
        last_result: the result of the latest run that ended, also a partial one; None before. A
            stream keeps no outcomes, and has none: if it stops, its JobStopped has the counts.
    """

    @overload
    def __init__(
        self,
        process_fn: Callable[[T], Awaitable[R]],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[False] = ...,
        resources: None = ...,
        **options: Unpack[_Options[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        process_fn: Callable[[T], R],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[False] = ...,
        resources: None = ...,
        **options: Unpack[_Options[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        process_fn: Callable[[list[T]], Awaitable[Collection[R | Exception]]],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[True],
        resources: None = ...,
        **options: Unpack[_Options[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        process_fn: Callable[[list[T]], Collection[R | Exception]],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[True],
        resources: None = ...,
        **options: Unpack[_Options[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        process_fn: Callable[[T, C], Awaitable[R]],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[False] = ...,
        resources: Callable[[], AbstractAsyncContextManager[C]],
        **options: Unpack[_Options[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        process_fn: Callable[[T, C], R],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[False] = ...,
        resources: Callable[[], AbstractAsyncContextManager[C]],
        **options: Unpack[_Options[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        process_fn: Callable[[list[T], C], Awaitable[Collection[R | Exception]]],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[True],
        resources: Callable[[], AbstractAsyncContextManager[C]],
        **options: Unpack[_Options[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        process_fn: Callable[[list[T], C], Collection[R | Exception]],
        batch_size: int = ...,
        max_concurrency: int | Literal["auto"] = ...,
        retry_count: int = ...,
        retry_delay: float | timedelta = ...,
        *,
        batched: Literal[True],
        resources: Callable[[], AbstractAsyncContextManager[C]],
        **options: Unpack[_Options[T]],
    ) -> None: ...
    def __init__(
        self,
        process_fn: Callable[..., Any],
        batch_size: int = 32,
        max_concurrency: int | Literal["auto"] = 4,
        retry_count: int = DEFAULT_RETRY_COUNT,
        retry_delay: float | timedelta = DEFAULT_RETRY_DELAY,
        *,
        batched: bool = False,
        rate_limiter: Limiter | Sequence[Limiter] | None = None,
        retry: AsyncRetry | None = None,
        timeout: float | timedelta | None = None,
        executor: Executor | None = None,
        max_errors: int | None = None,
        max_error_rate: float | None = None,
        max_initial_failures: int | None = 20,
        max_seconds: float | timedelta | None = None,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        weight: Callable[[T], float] | None = None,
        max_batch_weight: float | None = None,
        key: Callable[[T], object] | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
        resources: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        given = retry_given(retry_count, retry_delay)
        if retry is not None and given:
            raise ValueError(f"pass {given} or retry={retry!r}, not both")
        limit, adaptive = parse_concurrency(max_concurrency)
        self._settings: BatchSettings[T, R] = BatchSettings(
            process_fn,
            check_process_fn(process_fn),
            batch_size=batch_size,
            max_concurrency=limit,
            adaptive=adaptive,
            batched=batched,
            limiters=as_limiters(rate_limiter),
            retry=AsyncRetry(int(retry_count), retry_delay) if retry is None else retry,
            timeout=as_timeout(timeout),
            executor=executor,
            max_errors=max_errors,
            max_error_rate=max_error_rate,
            max_initial_failures=max_initial_failures,
            max_seconds=as_timeout(max_seconds, "max_seconds"),
            max_tokens=max_tokens,
            max_cost=max_cost,
            weight=weight,
            max_batch_weight=max_batch_weight,
            resources=resources,
            journal=bind_journal(process_fn, journal, key),
        )
        self.last_result: BatchResult[R] | None = None

    @explains_arguments
    def estimate(
        self,
        items: Items[T],
        *,
        price_per_million: float | None = None,
        count_tokens: Callable[[T], int] | None = None,
        max_items: int | None = None,
    ) -> Estimate:
        """
        Count the calls of a run, its input tokens and their cost, without a call.

        Items that a journal has already are counted too, although a run would not call for them.

        Args:
            items: as for `process`, but not async. An iterator is read to its end: pass a list.
            price_per_million: the price of a million tokens.
            count_tokens: counts the tokens of an item, as your model does; by default they are
                estimated, for texts only, and tend to be too many. A missing value (None or NaN)
                has none.
            max_items: the number of items of a pilot.

        Example:
            >>> from ragasync import AsyncBatchProcessor
            >>> processor = AsyncBatchProcessor(len)
            >>> processor.estimate(["one text", "another"], count_tokens=lambda text: 2)
            Estimate(items=2, requests=2, tokens=4)

        Raises:
            TypeError: `items` cannot be iterated or are async, an argument has the wrong type, or
                there is a price, and an item that is no text, without `count_tokens`.
            ValueError: an argument is out of range.
        """
        counter = TokenCounter(count_tokens, price_per_million)
        source, *_ = check_items(items, None, max_items)
        if not isinstance(source, Iterable):
            raise TypeError(
                f"estimate counts items that are at hand, got {items!r:.200}: pass a list of them"
            )

        settings = self._settings
        size = settings.batch_size if settings.batched else 1
        batches = BatchCounter(size, settings.weight, settings.max_batch_weight)
        for item in islice(source, max_items):
            if batches.add(item):
                counter.add(item)
        return Estimate(
            batches.items, batches.calls, counter.tokens, counter.cost, failed=batches.failed
        )

    @explains_arguments
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
            items: any iterable or async iterable; read lazily, as slots become free. A Series (of
                pandas or polars) gives its values, a DataFrame gives each row as a dict of plain
                Python values. A missing value is None, but NaN in a column of floats. The result
                keeps the index of a pandas object: see `BatchResult.to_series` and `attach`.
            progress_callback: called with (done, total) at most ten times a second, and at the
                end. A callback that raises is dropped with a warning.
            total: the number of items, for progress, if `items` has no length.
            max_items: process only the first `max_items`, as a pilot; the rest of a sequence stays
                pending.

        Raises:
            RunAsyncError: the function uses an object of another event loop.
            Exception: the error that `items` itself raised; a note says how many items were done,
                and `last_result` keeps them.
            CancelledError: the run was cancelled or interrupted; `last_result` keeps what was done.
        """
        return await self._new_run(items, progress_callback, total, max_items).complete()

    @explains_arguments
    def process_sync(
        self,
        items: Items[T],
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
    ) -> BatchResult[R]:
        """Run `process` from sync code; see `run_async`."""
        return run_async(self.process(items, progress_callback, total=total, max_items=max_items))

    @explains_arguments
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
        Start a Job in the background and return it immediately.

        Args:
            items: as for `process`.
            progress_callback: as for `process`; called in the thread of the job.
            total: as for `process`.
            max_items: as for `process`.
            on_current_loop: run on the loop of this thread, for objects that belong to it.

        Raises:
            RuntimeError: `on_current_loop` is set, and no loop is running in this thread.
        """
        job_run = self._new_run(items, progress_callback, total, max_items)
        return Job(job_run, loop_for_job(on_current_loop))

    @explains_arguments
    def stream(
        self, items: Items[T], *, ordered: bool = False, total: int | None = None
    ) -> AsyncGenerator[Outcome[T, R], None]:
        """
        Yield each outcome when its item has ended, in constant memory, also for infinite input.

        Args:
            items: as for `process`.
            ordered: yield in the order of the items instead. Outcomes of later items wait in a
                buffer of max(2048, 32 windows) items; while it is full, no new call starts.
            total: the number of items, if `items` has no length.

        Raises:
            JobStopped: `max_errors` or a fatal error ended the run early, after all outcomes.
            Exception: the error that `items` itself raised, after the outcomes of all calls.
        """
        return stream_outcomes(self._settings, items, ordered=ordered, total=total)

    def __repr__(self) -> str:
        settings = self._settings
        name = getattr(settings.process_fn, "__qualname__", repr(settings.process_fn))
        size = f", batch_size={settings.batch_size}" if settings.items_per_call > 1 else ""
        limit = '"auto"' if settings.adaptive else settings.max_concurrency
        return f"<AsyncBatchProcessor {name}{size}, max_concurrency={limit}>"

    async def _rerun(
        self,
        items: Items[T],
        _kept: object = (),
        settings: BatchSettings[T, R] | None = None,
        inner: InnerStages | None = None,
    ) -> BatchResult[R]:
        """Process items of an earlier result again, also those that a journal has."""
        # All of them failed before, so the same error for the first ones says nothing.
        settings = replace(settings or self._settings, max_initial_failures=None)
        if settings.journal is not None:
            settings = replace(settings, journal=replace(settings.journal, rerun_failed=True))
        return await self._new_run(items, None, None, None, settings, inner).complete()

    def _new_run(
        self,
        items: Items[T],
        progress_callback: ProgressCallback | None,
        total: int | None,
        max_items: int | None,
        settings: BatchSettings[T, R] | None = None,
        inner: InnerStages | None = None,
    ) -> JobRun[T, R]:
        """Create a run with this processor's settings, or with a variant of them."""
        return JobRun(
            settings or self._settings,
            items,
            progress_callback,
            total=total,
            max_items=max_items,
            on_result=self._keep_result,
            inner=inner,
        )

    def _keep_result(self, result: BatchResult[R]) -> None:
        """Keep the result of the latest run."""
        self.last_result = result


def loop_for_job(on_current_loop: bool) -> asyncio.AbstractEventLoop:
    """
    The loop that a job runs on: the background loop, or the one that is running in this thread.

    Raises:
        RuntimeError: `on_current_loop` is set, and no loop is running in this thread.
    """
    if not on_current_loop:
        return background_loop()
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "on_current_loop=True runs the job on the loop of this thread, but none is running: "
            "leave it out, and the job runs in the background"
        ) from None


def retry_given(retry_count: int, retry_delay: float | timedelta) -> str:
    """
    Check both retry arguments and quote those that differ from the defaults, as written in code.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is negative.
    """
    check_count("retry_count", retry_count, at_least=0)
    check_seconds("retry_delay", retry_delay)
    count, delay = f"retry_count={retry_count!r}", f"retry_delay={retry_delay!r}"
    given = [count] * (retry_count is not DEFAULT_RETRY_COUNT)
    given += [delay] * (retry_delay is not DEFAULT_RETRY_DELAY)
    return " and ".join(given)
