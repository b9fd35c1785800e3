"""Errors of the user's other functions (weight, key, callbacks) cost at most their item."""

import asyncio
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter

ODD = pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, ZeroDivisionError])


def raising(kind: type[BaseException], on: object = None) -> Any:
    """Return a function that raises this, always or when it gets one value."""

    def hook(value: object) -> float:
        if on is None or value == on:
            raise kind("oops")
        return 1.0

    return hook


class Flaky:
    """Refuses each item once."""

    def __init__(self) -> None:
        self._refused: set[int] = set()

    async def __call__(self, item: int) -> int:
        if item not in self._refused:
            self._refused.add(item)
            raise ConnectionError
        return item

    async def in_batches(self, items: list[int]) -> list[int]:
        """Return the items."""
        return items


@ODD
async def test_an_on_retry_that_raises_is_a_warning_and_the_retries_go_on(
    kind: type[BaseException],
):
    """No item is lost."""
    retry = AsyncRetry(1, 0.0, on_retry=raising(kind))
    with pytest.warns(RuntimeWarning, match="oops"):
        result = await AsyncBatchProcessor(Flaky(), retry=retry).process(range(10))
    assert result.all_succeeded


@ODD
async def test_a_retry_on_that_raises_fails_the_item(kind: type[BaseException]):
    """The others are judged by it, too."""
    retry = AsyncRetry(1, 0.0, retry_on=raising(kind))
    result = await AsyncBatchProcessor(Flaky(), retry=retry).process(range(3))
    assert result.error_count == 3
    assert "oops" in str(result.errors[0])


@ODD
async def test_a_cost_of_a_batch_that_raises_fails_the_item(kind: type[BaseException]):
    """The others are done."""
    processor = AsyncBatchProcessor(
        Flaky().in_batches, batched=True, weight=raising(kind, on=2), max_batch_weight=4
    )
    result = await processor.process(range(5))
    assert (result.success_count, result.error_count) == (4, 1)
    assert "oops" in str(result.errors[2])


@ODD
async def test_a_cost_at_a_limiter_that_raises_fails_the_item(kind: type[BaseException]):
    """The others are done."""
    limiter = RateLimiter(1000, weight=raising(kind, on=2))
    processor = AsyncBatchProcessor(Flaky().in_batches, 1, batched=True, rate_limiter=limiter)
    result = await processor.process(range(5))
    assert (result.success_count, result.error_count) == (4, 1)
    assert "oops" in str(result.errors[2])
