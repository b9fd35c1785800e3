"""gather_with_concurrency: asyncio.gather with a bound, and with nothing left running."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

from ragasync.engine.job_run import JobRun
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import BatchSettings

R = TypeVar("R")

Given: TypeAlias = Awaitable[R] | Callable[[], Awaitable[R]]


@overload
async def gather_with_concurrency(
    coros: Iterable[Given[R]] | AsyncIterable[Given[R]],
    max_concurrency: int = 10,
    *,
    return_exceptions: Literal[False] = False,
) -> list[R]: ...
@overload
async def gather_with_concurrency(
    coros: Iterable[Given[R]] | AsyncIterable[Given[R]],
    max_concurrency: int = 10,
    *,
    return_exceptions: bool,
) -> list[R | BaseException]: ...
async def gather_with_concurrency(
    coros: Iterable[Given[R]] | AsyncIterable[Given[R]],
    max_concurrency: int = 10,
    *,
    return_exceptions: bool = False,
) -> list[Any]:
    """
    Await many things, so many at once, and return their results in order.

    On the first error the others are cancelled and awaited, and coroutines that were not started
    are closed: nothing runs on, and nothing warns that it was never awaited.

    Example:
        >>> import asyncio
        >>> from ragasync import gather_with_concurrency, run_async
        >>> async def fetch(url):
        ...     await asyncio.sleep(0.01)
        ...     return f"page {url}"
        >>> run_async(gather_with_concurrency((fetch(url) for url in "abc"), 2))
        ['page a', 'page b', 'page c']

    Args:
        coros: any iterable of awaitables, or of async functions without arguments; drawn from as
            slots become free, so that a generator makes its coroutines only then.
        max_concurrency: how many are awaited at once.
        return_exceptions: return errors in their places instead of raising the first.

    Raises:
        Exception: the first error, as it was raised, unless `return_exceptions`; a CancelledError
            that one of them raised is such an error.
        TypeError: something in `coros` is neither an awaitable nor such a function.
    """
    drawn: Sequence[Any] = coros if isinstance(coros, Sequence) else ()
    try:
        plan: BatchSettings[Any, R] = BatchSettings(
            _settle,
            is_async=True,
            max_concurrency=max_concurrency,
            retry=AsyncRetry(0, retry_on=_never),
            fail_fast=not return_exceptions,
            reads_on_loop=True,
        )
        batch: JobRun[Any, R] = JobRun(
            plan, coros, None, total=None, max_items=None, on_result=lambda _: None
        )
        drawn = batch.columns.items
        result = await batch.complete()
    finally:
        await _discard(drawn)
    if return_exceptions:
        return [outcome.value if outcome.ok else outcome.error for outcome in result]
    errors = list(result.columns.errors.values())
    if not errors:
        return list(result.results)
    try:
        raise errors[0]
    finally:
        del errors, result, batch, drawn  # or the error's traceback would keep all of it alive


async def _settle(awaitable: Any) -> Any:
    """Await one thing, made now if it is a function."""
    if not inspect.isawaitable(awaitable):
        if not callable(awaitable):
            raise TypeError(
                f"expected a coroutine, another awaitable, or an async function without "
                f"arguments, got {awaitable!r}"
            )
        awaitable = awaitable()
    return await awaitable


def _never(_: Exception) -> bool:
    """Try nothing again, and take nothing for fatal."""
    return False


async def _discard(items: Iterable[Any]) -> None:
    """Close coroutines and cancel tasks that are left over; those that ended do not mind."""
    here, running = asyncio.get_running_loop(), set[asyncio.Future[Any]]()
    for item in items:
        if asyncio.iscoroutine(item):
            item.close()
        elif asyncio.isfuture(item) and not item.done() and item.get_loop() is here:
            item.cancel()
            running.add(item)
    if running:
        await asyncio.wait(running)
