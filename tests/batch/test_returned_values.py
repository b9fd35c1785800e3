"""What a function returns instead of raising: exceptions and coroutines, in batches and alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, gather_with_concurrency


class StatusError(Exception):
    """A reply that refuses."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status_code = status


async def answer() -> str:
    """Be forgotten by somebody who should have awaited it."""
    return "an answer"


async def test_an_exception_in_an_items_place_is_that_items_failure():
    """The others of its batch are done, and nothing is split."""
    sizes: list[int] = []

    async def call(items: list[int]) -> list[Any]:
        sizes.append(len(items))
        return [ValueError(item) if item % 4 == 0 else item for item in items]

    result = await AsyncBatchProcessor(call, 8, batched=True, retry_count=0).process(range(16))
    assert [outcome.index for outcome in result.get_failed()] == [0, 4, 8, 12]
    assert result.get_successful() == [item for item in range(16) if item % 4]
    assert sizes == [8, 8]


async def test_it_is_judged_as_if_the_item_had_raised_it_alone():
    """What may pass is tried again alone, what cannot is not."""
    calls: list[list[int]] = []

    async def call(items: list[int]) -> list[Any]:
        calls.append(items)
        first = len(calls) == 1
        errors = {1: StatusError(503), 2: StatusError(404), 3: asyncio.CancelledError()}
        return [errors.get(item, item) if first or item == 2 else item for item in items]

    processor = AsyncBatchProcessor(call, 4, batched=True, retry_delay=0.0)
    result = await processor.process(range(4))
    assert [outcome.status for outcome in result] == ["done", "done", "failed", "done"]
    assert [outcome.attempts for outcome in result] == [1, 2, 1, 2]
    assert sorted(calls[1:]) == [[1], [3]]


async def test_a_function_of_one_item_may_return_exceptions():
    """They are values, as they are for gather."""
    error = ValueError("a value")

    async def call(item: int) -> Any:
        return error

    result = await AsyncBatchProcessor(call).process([1])
    assert result.results == [error]
    assert result.all_succeeded
    assert await gather_with_concurrency([call(1)]) == [error]


async def _async_function(item: Any) -> Any:
    return answer()


async def _async_batch(items: list[Any]) -> Any:
    return [answer() for _ in items]


async def _whole_batch(items: list[Any]) -> Any:
    return answer()


@pytest.mark.parametrize(
    ("function", "batched"),
    [(_async_function, False), (_async_batch, True), (_whole_batch, True)],
    ids=["alone", "in each place", "instead of a list"],
)
@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_a_coroutine_that_is_returned_is_an_error_that_says_what_to_pass(
    function: Callable[..., Any], batched: bool, timeout: float | None
):
    """It is closed, so that nothing warns, and never tried again."""
    processor = AsyncBatchProcessor(function, batched=batched, timeout=timeout)
    result = await processor.process(range(3))
    assert result.error_count == 3
    for outcome in result:
        assert isinstance(outcome.error, TypeError)
        assert "coroutine" in str(outcome.error)
        assert "pass an async function" in str(outcome.error)
        assert outcome.attempts == 1


async def test_a_sync_function_may_return_an_awaitable():
    """A lambda around an async function is as good as that."""
    result = await AsyncBatchProcessor(lambda item: answer()).process([1])
    assert result.results == ["an answer"]
