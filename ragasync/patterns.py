"""Two common patterns on the engine: gather with a concurrency limit, and a queue with workers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, cast, overload

from ragasync._engine.item_sources import Items
from ragasync._engine.job_run import JobRun
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, explains_arguments
from ragasync.batch import AsyncBatchProcessor
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings

T = TypeVar("T")
R = TypeVar("R")

AwaitableOrFunction: TypeAlias = Awaitable[R] | Callable[[], Awaitable[R]]


@overload
async def gather_with_concurrency(
    coros: Iterable[AwaitableOrFunction[R]] | AsyncIterable[AwaitableOrFunction[R]],
    max_concurrency: int = 10,
    *,
    return_exceptions: Literal[False] = False,
) -> list[R]: ...
@overload
async def gather_with_concurrency(
    coros: Iterable[AwaitableOrFunction[R]] | AsyncIterable[AwaitableOrFunction[R]],
    max_concurrency: int = 10,
    *,
    return_exceptions: bool,
) -> list[R | BaseException]: ...
@explains_arguments
async def gather_with_concurrency(
    coros: Iterable[AwaitableOrFunction[R]] | AsyncIterable[AwaitableOrFunction[R]],
    max_concurrency: int = 10,
    *,
    return_exceptions: bool = False,
) -> list[Any]:
    """
    Await many coroutines, at most `max_concurrency` concurrently, and return an ordered list.

    On the first error the others are cancelled and awaited, and coroutines that were not started
    are closed: no task is left running, and Python warns of none that was never awaited.

    Example:
        >>> import asyncio
        >>> from ragasync import gather_with_concurrency, run_async
        >>> async def fetch(url):
        ...     await asyncio.sleep(0.01)
        ...     return f"page {url}"
        >>> run_async(gather_with_concurrency((fetch(url) for url in "abc"), 2))
        ['page a', 'page b', 'page c']

    Args:
        coros: any iterable or async iterable of awaitables, or of async functions without
            arguments. It is read as slots become free, so a generator creates its coroutines late.
        max_concurrency: the maximum number of awaitables in progress.
        return_exceptions: return errors in their places instead of raising the first.

    Raises:
        Exception: the first error, as it was raised, unless `return_exceptions`; this includes a
            CancelledError raised by one of the awaitables.
        TypeError: something in `coros` is neither an awaitable nor such a function.
    """
    items: Sequence[Any] = coros if isinstance(coros, Sequence) else ()
    try:
        settings: BatchSettings[Any, R] = BatchSettings(
            _await,
            is_async=True,
            max_concurrency=max_concurrency,
            retry=AsyncRetry(0, retry_on=_never_retry),
            fail_fast=not return_exceptions,
            reads_on_loop=True,
        )
        job_run: JobRun[Any, R] = JobRun(
            settings, coros, None, total=None, max_items=None, on_result=lambda _: None
        )
        items = job_run.columns.items
        result = await job_run.complete()
    finally:
        await _close_unfinished(items)
    if return_exceptions:
        return [outcome.value if outcome.ok else outcome.error for outcome in result]
    errors = list(result.columns.errors.values())
    if not errors:
        return list(result.results)
    try:
        raise errors[0]
    finally:
        # The traceback of the error refers to this frame, which must not keep the run alive.
        del errors, result, job_run, items


@overload
async def process_with_workers(
    items: Items[T], process_item: Callable[[T], Awaitable[R]], num_workers: int = 5
) -> BatchResult[R]: ...
@overload
async def process_with_workers(
    items: Items[T], process_item: Callable[[T], R], num_workers: int = 5
) -> BatchResult[R]: ...
@explains_arguments
async def process_with_workers(
    items: Items[T], process_item: Callable[[T], Awaitable[R] | R], num_workers: int = 5
) -> BatchResult[R]:
    """
    Process items with a fixed number of workers: the queue-and-workers pattern, made safe.

    A failed item becomes an outcome; it does not silently end its worker. Nothing is retried.

    Example:
        >>> from ragasync import process_with_workers, run_async
        >>> result = run_async(process_with_workers(["1", "two", "3"], int, num_workers=2))
        >>> result.results
        [1, None, 3]
        >>> result.errors[1]
        ValueError("invalid literal for int() with base 10: 'two'")

    Args:
        items: any iterable or async iterable.
        process_item: a sync or async function of one item.
        num_workers: the number of workers, and so of items processed concurrently.

    Raises:
        ValueError: `num_workers` is less than 1.
    """
    check_count("num_workers", num_workers, at_least=1)
    processor: AsyncBatchProcessor[T, R] = AsyncBatchProcessor(
        cast("Callable[[T], R]", process_item),
        max_concurrency=num_workers,
        retry_count=0,
        max_initial_failures=None,
    )
    return await processor.process(items)


async def _await(awaitable: Any) -> Any:
    """Await an item of a gather, which may also be a function that makes the awaitable."""
    if not inspect.isawaitable(awaitable):
        if not callable(awaitable):
            raise TypeError(
                f"expected a coroutine, another awaitable, or an async function without "
                f"arguments, got {awaitable!r}"
            )
        awaitable = awaitable()
    return await awaitable


def _never_retry(_: Exception) -> bool:
    """Retry no error, and treat none as fatal: the policy of a gather."""
    return False


async def _close_unfinished(items: Iterable[Any]) -> None:
    """Close coroutines that were not started, and cancel and await tasks that still run."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Future[Any]]()
    for item in items:
        if asyncio.iscoroutine(item):
            item.close()  # no effect on one that has finished
        elif asyncio.isfuture(item) and not item.done() and item.get_loop() is loop:
            item.cancel()
            tasks.add(item)
    if tasks:
        await asyncio.wait(tasks)
