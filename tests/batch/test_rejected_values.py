"""Values that a processor's `retry_on_result` rejects: of single, batched and grouped calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter, ResultRejected


class Polls:
    """Answers "queued" to an item as often as its number says, then "done"."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        self.batches: list[list[int]] = []

    def one(self, item: int) -> str:
        """Answer one item."""
        self.calls[item] += 1
        return "queued" if self.calls[item] <= item else "done"

    async def call(self, item: int) -> str:
        """Answer one item after a moment."""
        await asyncio.sleep(0.01)
        return self.one(item)

    async def batch(self, items: list[int]) -> list[str]:
        """Answer a list of items."""
        self.batches.append(items)
        return [self.one(item) for item in items]


def policy(retries: int = 3, **settings: Any) -> AsyncRetry:
    """Return a policy that retries what is queued."""
    return AsyncRetry(retries, retry_on_result=lambda value: value == "queued", **settings)


async def test_a_rejected_value_is_retried_and_its_back_off_is_recorded() -> None:
    """As after an error; the value that counts is the accepted one."""
    polls = Polls()
    processor = AsyncBatchProcessor(polls.call, retry=policy(jitter=None))
    result = await processor.process([0, 1, 2])
    assert result.results == ["done"] * 3
    assert [outcome.attempts for outcome in result] == [1, 2, 3]
    assert [outcome.backed_off for outcome in result] == pytest.approx([0.0, 1.0, 3.0])
    (attempt,) = result[1].history
    assert attempt.error == "ResultRejected: retry_on_result rejected the value 'queued'"


async def test_an_item_whose_values_are_all_rejected_fails_with_the_last_one() -> None:
    """The others succeed."""
    result = await AsyncBatchProcessor(Polls().call, retry=policy(1)).process([0, 5])
    assert result.results == ["done", None]
    error = result.errors[1]
    assert isinstance(error, ResultRejected)
    assert error.value == "queued"


async def test_rejected_items_of_a_batch_are_retried_alone() -> None:
    """Those that were accepted are not called again."""
    polls = Polls()
    processor = AsyncBatchProcessor(polls.batch, batched=True, retry=policy(2))
    result = await processor.process([0, 1, 5, 0])
    assert result.results == ["done", "done", None, "done"]
    assert polls.batches[0] == [0, 1, 5, 0]
    assert sorted(polls.batches[1:]) == [[1], [5], [5]]
    assert isinstance(result.errors[2], ResultRejected)


@pytest.mark.real_time
async def test_values_of_an_executor_are_judged_here() -> None:
    """The predicate need not travel to a worker."""
    with ThreadPoolExecutor(2) as pool:
        processor = AsyncBatchProcessor(Polls().one, executor=pool, retry=policy(2, base_delay=0))
        result = await processor.process([0, 1, 2, 5])
    assert result.results == ["done", "done", "done", None]


async def test_a_broken_predicate_fails_its_item_without_a_retry() -> None:
    """The call has succeeded, so a second one would be wasted."""
    polls = Polls()

    def predicate(value: str) -> bool:
        raise ValueError("no such state")

    processor = AsyncBatchProcessor(polls.call, retry=AsyncRetry(retry_on_result=predicate))
    result = await processor.process([0])
    assert repr(result.errors[0]) == "ValueError('no such state')"
    assert polls.calls[0] == 1


async def test_every_attempt_takes_a_place_at_the_limiter() -> None:
    """Also one that follows a rejected value."""
    limiter = RateLimiter.at_most(1, 10.0)
    processor = AsyncBatchProcessor(
        Polls().call, rate_limiter=limiter, retry=policy(2, base_delay=0)
    )
    result = await processor.process([2])
    assert result.results == ["done"]
    assert asyncio.get_running_loop().time() == pytest.approx(20.0, abs=0.1)


async def test_a_listener_hears_of_rejected_values_with_the_back_off_so_far() -> None:
    """Each event has the call's own statistics."""
    events: list[Any] = []
    retry = policy(jitter=None, on_retry=events.append)
    await AsyncBatchProcessor(Polls().call, retry=retry).process([2])
    assert [(event.attempt, event.delay) for event in events] == [(1, 1.0), (2, 2.0)]
    assert [event.backed_off for event in events] == pytest.approx([0.0, 1.0])
    assert all(event.error.value == "queued" for event in events)


async def test_rejected_values_count_for_max_errors() -> None:
    """They are failures once the retries are used up."""
    processor = AsyncBatchProcessor(Polls().call, max_concurrency=1, retry=policy(0), max_errors=1)
    result = await processor.process([9] * 5)
    assert result.error_count == 2
    assert result.stopped_because == "2 items failed, more than max_errors=1"
