"""Batched functions: how batches form, how a poisoned one is split, and what they may weigh."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pandas as pd
import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    ItemTooLargeError,
    RateLimiter,
    ResultCountError,
)
from tests.support.services import BatchService, Service, StatusError, about


def patient(retries: int = 3, delay: float = 1.0) -> AsyncRetry:
    """A policy with exact back-off times."""
    return AsyncRetry(retries, delay, jitter=None)


# ---- batches form


async def test_a_batched_function_takes_lists_of_at_most_batch_size():
    """And its values come back item by item, in order."""
    service = BatchService()
    result = await AsyncBatchProcessor(service, 4, 1, batched=True).process(range(10))
    assert service.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert result.results == [10 * item for item in range(10)]
    assert [outcome.batch for outcome in result] == [0] * 4 + [1] * 4 + [2] * 2


async def test_the_items_of_a_batch_share_its_times():
    """Each took as long as the call."""
    result = await AsyncBatchProcessor(BatchService(), 2, 1, batched=True).process(range(4))
    assert [outcome.started for outcome in result] == about([0, 0, 1, 1])
    assert [outcome.seconds for outcome in result] == about([1, 1, 1, 1])
    assert [outcome.attempts for outcome in result] == [1, 1, 1, 1]


async def test_max_concurrency_counts_batches():
    """Two concurrent calls of three items."""
    service = BatchService()
    result = await AsyncBatchProcessor(service, 3, 2, batched=True).process(range(12))
    assert service.starts == about([0, 0, 1, 1])
    assert result.seconds == about(2)


async def test_batches_of_one_are_lists_too():
    """A batch size of 1 changes nothing in the form."""
    service = BatchService()
    await AsyncBatchProcessor(service, 1, batched=True).process(range(2))
    assert service.batches == [[0], [1]]


async def test_a_batched_call_takes_one_place_at_a_limiter_that_counts_calls():
    """However many items it has."""
    service = BatchService(seconds=0)
    processor = AsyncBatchProcessor(
        service, 5, 4, batched=True, rate_limiter=RateLimiter(1, burst_size=1)
    )
    await processor.process(range(15))
    assert service.starts == about([0, 1, 2])


async def test_a_batched_call_takes_the_sum_of_its_items_from_a_limiter_with_cost():
    """The limiter counts tokens: ten a second, a burst of ten."""
    service = BatchService(seconds=0)
    limiter = RateLimiter(10, burst_size=10, weight=lambda item: item)
    await AsyncBatchProcessor(service, 2, 4, batched=True, rate_limiter=limiter).process(
        [4, 6, 3, 4, 1, 2]
    )
    assert service.starts == about([0, 0.7, 1])


async def test_a_batch_over_a_limiters_burst_is_split_until_it_fits():
    """The limiter can never grant 8 in one step, but it can grant the halves."""
    service = BatchService(seconds=0)
    limiter = RateLimiter(10, burst_size=5, weight=lambda item: 1)
    result = await AsyncBatchProcessor(service, 8, 1, batched=True, rate_limiter=limiter).process(
        range(8)
    )
    assert result.all_succeeded
    assert service.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


# ---- when a batch leaves


async def test_an_unfilled_batch_leaves_after_20_ms_without_a_new_item():
    """While there is a free slot."""

    async def source() -> AsyncIterator[int]:
        for item in range(3):
            yield item
        await asyncio.sleep(10)
        yield 3

    service = BatchService()
    await AsyncBatchProcessor(service, 8, 2, batched=True).process(source())
    assert service.batches == [[0, 1, 2], [3]]
    assert service.starts == about([0.02, 10])


async def test_each_new_item_gives_a_batch_20_ms_more():
    """A source that is faster than that fills it."""

    async def source() -> AsyncIterator[int]:
        for item in range(8):
            await asyncio.sleep(0.015)
            yield item

    service = BatchService()
    await AsyncBatchProcessor(service, 4, 2, batched=True).process(source())
    assert service.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert service.starts == about([0.06, 0.12])


async def test_a_source_slower_than_20_ms_gets_batches_of_one():
    """Nobody waits for it."""

    async def source() -> AsyncIterator[int]:
        for item in range(3):
            await asyncio.sleep(0.05)
            yield item

    service = BatchService(seconds=0)
    await AsyncBatchProcessor(service, 4, 2, batched=True).process(source())
    assert service.starts == about([0.07, 0.12, 0.15])


async def test_a_full_batch_leaves_at_once():
    """Without lingering."""

    async def source() -> AsyncIterator[int]:
        for item in range(4):
            yield item
        await asyncio.sleep(1)

    service = BatchService(seconds=0.1)
    await AsyncBatchProcessor(service, 4, 2, batched=True).process(source())
    assert service.starts == [0]


async def test_the_end_of_the_source_sends_an_unfilled_batch():
    """Sync and async sources alike, without a wait."""

    async def source() -> AsyncIterator[int]:
        for item in range(3):
            yield item

    for items in (range(3), source()):
        service = BatchService(seconds=0)
        result = await AsyncBatchProcessor(service, 8, 2, batched=True).process(items)
        assert (service.sizes, result.seconds) == ([3], 0)


async def test_without_a_free_slot_items_gather_to_full_batches():
    """A source of an item each 0.1 s, and one slot that is busy for a second at a time."""

    async def source() -> AsyncIterator[int]:
        for item in range(20):
            yield item
            await asyncio.sleep(0.1)

    service = BatchService()
    await AsyncBatchProcessor(service, 8, 1, batched=True).process(source())
    assert service.sizes[:3] == [1, 8, 8]


async def test_an_async_source_is_pulled_at_most_a_window_of_batches_ahead():
    """max_concurrency x batch_size items wait at most."""
    service = BatchService()
    waiting = []

    async def source() -> AsyncIterator[int]:
        for item in range(60):
            waiting.append(item + 1 - sum(service.sizes))
            yield item

    await AsyncBatchProcessor(service, 5, 2, batched=True).process(source())
    assert max(waiting) == 10


async def test_a_sync_source_is_pulled_batch_by_batch():
    """Only when a slot is free for them."""
    service = BatchService()
    read_at: list[int] = []

    def source():
        for item in range(20):
            read_at.append(len(service.batches))
            yield item

    await AsyncBatchProcessor(service, 5, 2, batched=True).process(source())
    assert read_at == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5


async def test_a_due_retry_does_not_wait_for_a_batch_that_fills_slowly():
    """One slot waits for further items; the retry takes the other."""

    async def source() -> AsyncIterator[int]:
        for item in range(100):
            yield item
            await asyncio.sleep(0 if item == 0 else 0.015)

    service = BatchService(outage=[OSError("away")], seconds=0)
    processor = AsyncBatchProcessor(service, 2, 4, batched=True, retry=patient(1, 0.1))
    await processor.process(source())
    first, again = (
        at for at, batch in zip(service.starts, service.batches, strict=True) if 0 in batch
    )
    assert again == about(first + 0.1)


# ---- splitting


async def test_a_poison_item_is_found_and_the_others_succeed():
    """Halves, until it stands alone; its error is on it and on nobody else."""
    poison = StatusError(400)
    service = BatchService({5: poison})
    result = await AsyncBatchProcessor(service, 8, 1, 0, batched=True).process(range(8))
    assert result.errors == [None] * 5 + [poison] + [None] * 2
    assert result.success_count == 7
    assert sorted(service.batches) == sorted(
        [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]
    )


async def test_several_poison_items_are_found():
    """Each with its own error."""
    poison: dict[int, Exception] = {1: StatusError(413), 6: ValueError("bad value")}
    result = await AsyncBatchProcessor(BatchService(poison), 8, 2, 0, batched=True).process(
        range(8)
    )
    assert {outcome.index: outcome.error for outcome in result.get_failed()} == poison


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 16])
async def test_without_retries_a_batch_costs_at_most_2n_minus_1_calls(count: int):
    """So it is when all are poison."""
    service = BatchService(dict.fromkeys(range(count), StatusError(422)))
    result = await AsyncBatchProcessor(service, 32, 1, 0, batched=True).process(range(count))
    assert result.error_count == count
    assert len(service.batches) == 2 * count - 1


@pytest.mark.parametrize(
    "error",
    [
        StatusError(400),
        StatusError(413),
        StatusError(422),
        ValueError("bad value"),
        UnicodeError("bad text"),
    ],
    ids=repr,
)
async def test_refused_content_splits_at_once(error: Exception):
    """No retry of the whole batch and no back-off: the halves go immediately."""
    service = BatchService({0: error})
    processor = AsyncBatchProcessor(service, 2, 2, batched=True, retry=patient(0))
    await processor.process(range(2))
    assert service.batches == [[0, 1], [0], [1]]
    assert service.starts == about([0, 1, 1])


@pytest.mark.parametrize(
    "error",
    [
        StatusError(500),
        StatusError(503),
        TimeoutError("its own"),
        ConnectionError("reset"),
        OSError("x"),
    ],
    ids=repr,
)
async def test_an_outage_splits_only_after_the_retries(error: Exception):
    """The whole batch is tried again first; then each half once, for the retries are spent."""
    service = BatchService({0: error})
    processor = AsyncBatchProcessor(service, 2, 2, batched=True, retry=patient(2))
    result = await processor.process(range(2))
    assert service.batches == [[0, 1], [0, 1], [0, 1], [0], [1]]
    assert service.starts == about([0, 2, 5, 6, 6])
    assert result.errors == [error, None]


async def test_a_batch_that_times_out_splits_only_after_its_retries():
    """As for any other outage."""
    calls: list[int] = []

    async def slow_in_pairs(items: list[int]) -> list[int]:
        calls.append(len(items))
        await asyncio.sleep(2 if len(items) > 1 else 0.5)
        return items

    processor = AsyncBatchProcessor(slow_in_pairs, 2, 2, batched=True, retry=patient(1), timeout=1)
    result = await processor.process(range(2))
    assert calls == [2, 2, 1, 1]
    assert result.all_succeeded


@pytest.mark.parametrize(
    "error",
    [
        TypeError("bug"),
        AttributeError("bug"),
        NameError("bug"),
        AssertionError("bug"),
        NotImplementedError("bug"),
        ImportError("bug"),
        StatusError(403),
    ],
    ids=repr,
)
async def test_what_no_smaller_batch_can_mend_is_never_split(error: Exception):
    """Programmer errors and forbidden calls: one call, and every item has the error."""
    service = BatchService(outage=[error])
    result = await AsyncBatchProcessor(service, 4, 1, batched=True).process(range(4))
    assert len(service.batches) == 1
    assert list(result.errors) == [error] * 4


async def test_a_bad_key_is_never_split():
    """401 stops the job immediately."""
    service = BatchService(outage=[StatusError(401)])
    result = await AsyncBatchProcessor(service, 4, 1, batched=True).process(range(8))
    assert len(service.batches) == 1
    assert (result.error_count, result.pending_count) == (4, 4)


async def test_a_rate_limit_is_retried_and_never_split():
    """After its retries every item has the 429."""
    service = BatchService(outage=[StatusError(429)] * 3)
    processor = AsyncBatchProcessor(service, 4, 1, batched=True, retry=patient(2))
    result = await processor.process(range(4))
    assert service.sizes == [4, 4, 4]
    assert result.error_count == 4


async def test_the_parts_share_what_is_left_of_the_retries():
    """Two retries for the batch and all its parts together, not two for each part."""
    service = BatchService(
        {0: StatusError(500), 1: StatusError(500), 2: StatusError(500), 3: StatusError(400)}
    )
    processor = AsyncBatchProcessor(service, 4, 1, batched=True, retry=patient(2, 0.5))
    result = await processor.process(range(4))
    whole_and_parts = 2 * 4 - 1
    assert len(service.batches) == whole_and_parts + 2
    assert result.error_count == 4


async def test_an_item_counts_the_attempts_of_the_batches_that_it_was_in():
    """The whole, the half, itself."""
    result = await AsyncBatchProcessor(
        BatchService({0: StatusError(400)}), 4, 1, 0, batched=True
    ).process(range(4))
    assert [outcome.attempts for outcome in result] == [3, 3, 2, 2]
    assert [outcome.batch for outcome in result] == [0] * 4


async def test_an_error_that_is_returned_for_a_whole_batch_is_told():
    """It is not a list of values, but it says what went wrong."""
    refused = ValueError("the table is closed")

    async def call(_: list[int]) -> Any:
        return refused

    error = (await AsyncBatchProcessor(call, batched=True, retry_count=0).process([1, 2])).errors[0]
    assert isinstance(error, TypeError)
    assert "got ValueError: the table is closed" in str(error)
    assert error.__cause__ is refused


@pytest.mark.parametrize("returned", [[], [1, 2, 3], [1, 2, 3, 4, 5]])
async def test_a_wrong_number_of_values_names_both_numbers(returned: list[int]):
    """It is split like refused content, and never guessed which values belong to whom."""

    async def some(items: list[int]) -> list[int]:
        return returned if len(items) == 4 else items

    result = await AsyncBatchProcessor(some, 4, 1, 0, batched=True).process(range(4))
    assert result.results == [0, 1, 2, 3]
    assert [outcome.attempts for outcome in result] == [2, 2, 2, 2]

    async def never(items: list[int]) -> list[int]:
        return [*items, 0]

    result = await AsyncBatchProcessor(never, 3, 1, 0, batched=True).process([1])
    assert isinstance(result.errors[0], ResultCountError)
    assert "got 2 values for 1 items" in str(result.errors[0])


@pytest.mark.parametrize(
    "returned",
    [None, "ab", {1: 2, 3: 4}, {5, 6}, frozenset({5, 6}), iter([1, 2]), 7],
    ids=lambda returned: type(returned).__name__,
)
async def test_what_is_no_list_of_values_is_a_bug_and_not_split(returned: Any):
    """The error says what came."""

    async def wrong(items: list[int]) -> Any:
        return returned

    result = await AsyncBatchProcessor(wrong, 2, 1, batched=True).process(range(2))
    assert result.error_count == 2
    assert result[0].attempts == 1
    assert f"got {type(returned).__name__}" in str(result.errors[0])


async def test_a_table_is_no_list_of_values():
    """It counts rows and gives columns: some items would be left without an end."""

    async def table(items: list[int]) -> Any:
        return pd.DataFrame({"left": items, "right": items})

    result = await AsyncBatchProcessor(table, 3, 1, 0, batched=True).process(range(3))
    assert result.error_count == 3
    assert "got DataFrame" in str(result.errors[0])


async def test_a_batch_that_was_split_is_in_the_log_of_attempts():
    """Each of its items keeps what the whole and the half failed of."""
    service = BatchService({0: StatusError(400)})
    result = await AsyncBatchProcessor(service, 4, 1, 0, batched=True).process(range(4))
    assert [len(outcome.history) for outcome in result] == [2, 2, 1, 1]
    whole, half = result[1].history
    assert (whole.error, whole.started, half.started) == ("StatusError: status 400", 0, about(1))
    assert (whole.backed_off, half.backed_off) == (0, 0)


async def test_tuples_and_arrays_of_values_will_do():
    """Whatever has a length."""
    import numpy as np

    async def embed(items: list[int]) -> Any:
        return np.ones((len(items), 3)) if items[0] else tuple(items)

    result = await AsyncBatchProcessor(embed, 2, 1, batched=True).process([0, 1, 2, 3])
    assert result.results[:2] == [0, 1]
    assert result[3].value.shape == (3,)


async def test_none_among_the_values_is_a_success():
    """An item whose value is None is done."""

    async def nothing(items: list[int]) -> list[None]:
        return [None] * len(items)

    result = await AsyncBatchProcessor(nothing, 2, batched=True).process(range(4))
    assert result.all_succeeded


# ---- bounds by weight


async def test_max_batch_weight_bounds_a_batch():
    """As well as by count."""
    service = BatchService()
    processor = AsyncBatchProcessor(
        service, 3, 1, batched=True, weight=lambda item: item, max_batch_weight=10
    )
    result = await processor.process([4, 6, 1, 9, 1, 1, 1, 1, 5, 5, 10])
    assert service.batches == [[4, 6], [1, 9], [1, 1, 1], [1, 5], [5], [10]]
    assert result.all_succeeded


async def test_an_item_over_the_bound_fails_alone_before_any_call():
    """The error says both weights; its neighbours go."""
    service = BatchService(seconds=0)
    processor = AsyncBatchProcessor(
        service, 8, 1, batched=True, weight=lambda item: item, max_batch_weight=5
    )
    result = await processor.process([2, 6, 3])
    assert service.batches == [[2, 3]]
    assert isinstance(result.errors[1], ItemTooLargeError)
    assert "weighs 6, more than max_batch_weight=5" in str(result.errors[1])
    assert (result[1].attempts, result[1].seconds) == (0, 0)


async def test_items_over_the_bound_count_as_errors():
    """They can stop the job like others."""
    processor = AsyncBatchProcessor(
        BatchService(),
        8,
        1,
        batched=True,
        weight=lambda item: item,
        max_batch_weight=5,
        max_errors=1,
    )
    result = await processor.process([9, 9, 1, 1])
    assert (result.error_count, result.success_count) == (2, 0)
    assert result.stopped_because == "2 items failed, more than max_errors=1"


async def test_a_source_of_nothing_but_items_over_the_bound_can_be_stopped():
    """It is not read to its end in one go."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for item in range(10_000):
            read.append(item)
            yield 9

    processor = AsyncBatchProcessor(
        BatchService(),
        8,
        1,
        batched=True,
        weight=lambda item: item,
        max_batch_weight=5,
        max_errors=1,
    )
    await processor.process(source())
    assert len(read) == 8


async def test_a_cost_that_cannot_be_told_fails_its_item_alone():
    """weight= raising, or giving what is no weight."""

    def weigh(item: int) -> float:
        if item == 1:
            raise KeyError("no tokenizer")
        return float("nan") if item == 2 else 1.0

    processor = AsyncBatchProcessor(
        BatchService(), 8, 1, batched=True, weight=weigh, max_batch_weight=5
    )
    result = await processor.process(range(4))
    assert [outcome.status for outcome in result] == ["done", "failed", "failed", "done"]
    assert isinstance(result.errors[1], KeyError)
    assert "weight= must give a number of 0 or more" in str(result.errors[2])


async def test_an_item_that_did_not_fit_begins_the_next_batch():
    """Also when it is the last of all, and for async sources."""

    async def source() -> AsyncIterator[int]:
        for item in (3, 3, 3):
            yield item

    service = BatchService()
    processor = AsyncBatchProcessor(
        service, 8, 2, batched=True, weight=lambda item: item, max_batch_weight=7
    )
    result = await processor.process(source())
    assert service.batches == [[3, 3], [3]]
    assert result.all_succeeded


async def test_cost_is_asked_once_an_item():
    """It may be dear: a tokenizer."""
    asked: list[int] = []

    def weigh(item: int) -> float:
        asked.append(item)
        return 3

    service = BatchService({0: StatusError(400)}, seconds=0)
    processor = AsyncBatchProcessor(service, 8, 1, batched=True, weight=weigh, max_batch_weight=7)
    await processor.process(range(5))
    assert asked == [0, 1, 2, 3, 4]


# ---- sync functions


@pytest.mark.real_time
def test_a_batched_sync_function_runs_on_threads():
    """With the same splitting."""

    def tens(items: list[int]) -> list[int]:
        if 2 in items:
            raise ValueError("not 2")
        return [10 * item for item in items]

    result = AsyncBatchProcessor(tens, 4, 2, 0, batched=True).process_sync(range(5))
    assert result.results == [0, 10, None, 30, 40]
    assert str(result.errors[2]) == "not 2"


async def test_a_service_of_single_items_is_no_batched_function():
    """Without batched=True the items come one by one."""
    service = Service()
    await AsyncBatchProcessor(service, 4).process([1, 2])
    assert service.items == [1, 2]
