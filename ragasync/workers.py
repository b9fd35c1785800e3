"""process_with_workers: the queue-and-workers pattern, on the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

from ragasync.arguments import check_count
from ragasync.batch import AsyncBatchProcessor
from ragasync.engine.job_run import Items
from ragasync.result import BatchResult

T = TypeVar("T")
R = TypeVar("R")


@overload
async def process_with_workers(
    items: Items[T], process_item: Callable[[T], Awaitable[R]], num_workers: int = 5
) -> BatchResult[R]: ...
@overload
async def process_with_workers(
    items: Items[T], process_item: Callable[[T], R], num_workers: int = 5
) -> BatchResult[R]: ...
async def process_with_workers(
    items: Items[T], process_item: Callable[[T], Awaitable[R] | R], num_workers: int = 5
) -> BatchResult[R]:
    """
    Process items by a fixed number of workers: the queue-and-workers pattern, made safe.

    A failing item is an outcome instead of the silent end of its worker; nothing is retried.

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
        num_workers: how many items are worked on at once.
    """
    check_count("num_workers", num_workers, at_least=1)
    processor: AsyncBatchProcessor[T, R] = AsyncBatchProcessor(
        process_item, max_concurrency=num_workers, retry_count=0, max_initial_failures=None
    )
    return await processor.process(items)
