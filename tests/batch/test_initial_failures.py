"""A job whose first calls all fail alike stops: a wrong model, path or key fails every item."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    AsyncRetry,
    JobStopped,
    Journal,
    gather_with_concurrency,
    process_with_workers,
)


class StatusError(Exception):
    """A reply that refuses."""

    def __init__(self, status: int, words: str = "no such model", **headers: str) -> None:
        super().__init__(words)
        self.status_code, self.headers = status, headers


class Service:
    """Refuses each call, or those that a function chooses, and counts them."""

    def __init__(self, refusal: Callable[[int], StatusError | None], seconds: float = 0.0) -> None:
        self._refusal, self._seconds = refusal, seconds
        self.calls = 0

    async def __call__(self, item: Any) -> Any:
        self.calls += 1
        number = self.calls
        if self._seconds:
            await asyncio.sleep(self._seconds)
        if (refused := self._refusal(number)) is not None:
            raise refused
        return item


def always(status: int) -> Callable[[int], StatusError]:
    """Refuse every call, each with an id of its own."""
    return lambda number: StatusError(status, f"no such model (request id: req_{number:06}ab)")


@pytest.mark.parametrize("status", [400, 403, 404, 405])
@pytest.mark.parametrize("at_once", [1, 4])
async def test_twenty_calls_that_fail_alike_stop_the_job(status: int, at_once: int):
    """The rest is pending, and the reason says what they said."""
    service = Service(always(status))
    result = await AsyncBatchProcessor(service, max_concurrency=at_once).process(range(500))
    assert service.calls == 20
    assert (result.error_count, result.pending_count) == (20, 480)
    assert f"status {status}" in str(result.stopped_because)
    assert "max_initial_failures=20" in str(result.stopped_because)
    assert "no such model" in str(result.stopped_because)


async def test_calls_in_flight_are_let_finish():
    """The job stops as for a budget."""
    service = Service(always(404), seconds=1.0)
    result = await AsyncBatchProcessor(service, max_concurrency=8).process(range(500))
    assert service.calls == 24
    assert (result.error_count, result.cancelled_count) == (24, 0)


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("seconds", [0.0, 0.1])
async def test_batches_are_not_split_to_the_end(at_once: int, seconds: float):
    """500 texts once took 998 requests."""
    service = Service(always(404), seconds)
    processor = AsyncBatchProcessor(service, batched=True, max_concurrency=at_once)
    result = await processor.process([f"text {number}" for number in range(500)])
    assert service.calls <= 20 + at_once
    assert result.error_count > 0
    assert result.error_count + result.pending_count == 500


async def test_one_batch_alone_is_split_to_the_end():
    """Its parts say nothing of others: the items at fault may all be in it."""
    service = Service(always(400))
    processor = AsyncBatchProcessor(service, batched=True, max_concurrency=1)
    result = await processor.process(range(16))
    assert (result.error_count, result.stopped_because) == (16, None)
    assert service.calls == 31
    assert asyncio.get_running_loop().time() == 0


async def test_a_bad_item_in_the_first_batch_stops_nothing():
    """The others succeed, however few they are."""

    async def call(items: list[int]) -> list[int]:
        if any(item < 24 for item in items):
            raise StatusError(400, "too long")
        return items

    processor = AsyncBatchProcessor(call, 32, batched=True, max_concurrency=1)
    result = await processor.process(range(200))
    assert (result.error_count, result.success_count) == (24, 176)
    assert result.stopped_because is None


@pytest.mark.parametrize(
    "refusal",
    [
        lambda number: None if number == 1 else StatusError(404),
        lambda number: None if number == 19 else StatusError(404),
        lambda number: StatusError(404, "other words" if number == 7 else "no such model"),
        lambda number: StatusError(400 if number == 12 else 404),
        lambda number: StatusError(422),
        lambda number: StatusError(413),
        lambda number: StatusError(404, f"item of {number} words is too long"),
    ],
    ids=[
        "a first success",
        "a late success",
        "other words",
        "another status",
        "422",
        "413",
        "item",
    ],
)
async def test_anything_else_among_the_first_lets_the_job_go_on(refusal: Any):
    """A success, another status, another message."""
    service = Service(refusal)
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry_count=0)
    result = await processor.process(range(60))
    assert result.stopped_because is None
    assert service.calls == 60


async def test_a_reply_that_asks_to_wait_is_no_such_failure():
    """The service is there, and closed."""
    service = Service(lambda number: StatusError(403, "busy", **{"Retry-After": "1"}))
    retry = AsyncRetry(0)
    result = await AsyncBatchProcessor(service, retry=retry).process(range(30))
    assert (result.error_count, result.stopped_because) == (30, None)


@pytest.mark.parametrize(
    "words",
    [
        "not found: https://api.test/v1/models/x?request={number}",
        "not found (request_id={number:012x})",
        "Error code: 404 - {{'request_id': '{number:08d}-1111-2222-3333-444455556666'}}",
        "not found, trace-{number:08}",
    ],
)
async def test_addresses_and_request_ids_make_no_difference(words: str):
    """They differ from call to call."""
    service = Service(lambda number: StatusError(404, words.format(number=number)))
    result = await AsyncBatchProcessor(service).process(range(100))
    assert service.calls == 20
    assert result.pending_count == 80


async def test_retries_of_one_item_count_once():
    """It is one item."""
    service = Service(always(404))
    retry = AsyncRetry(4, 0.0, retry_on=StatusError)
    result = await AsyncBatchProcessor(service, retry=retry, max_concurrency=1).process(range(100))
    assert result.error_count == 20
    assert service.calls == 100


@pytest.mark.parametrize("limit", [1, 5])
async def test_the_number_can_be_set(limit: int):
    """And the reason names it."""
    service = Service(always(404))
    processor = AsyncBatchProcessor(service, max_initial_failures=limit)
    result = await processor.process(range(50))
    assert service.calls == limit
    assert f"max_initial_failures={limit}" in str(result.stopped_because)


async def test_one_call_is_no_plural():
    """The reason says so."""
    result = await AsyncBatchProcessor(Service(always(404)), max_initial_failures=1).process([1])
    assert str(result.stopped_because).startswith("the first call failed with status 404")


async def test_a_store_function_that_fails_each_time_stops_the_run():
    """Its address is wrong, for every document."""
    calls: list[str] = []

    async def store(document: Any, *_: Any) -> None:
        calls.append(document.id)
        raise always(404)(len(calls))

    processor = AsyncDocumentProcessor(store=store, embed_concurrency=1, max_initial_failures=3)
    result = await processor.process([(f"id {number}", f"text {number}") for number in range(50)])
    assert len(calls) == 3
    assert result.pending_count >= 40
    assert "max_initial_failures=3" in str(result.stopped_because)


async def test_none_turns_it_off():
    """Every item is tried."""
    service = Service(always(404))
    result = await AsyncBatchProcessor(service, max_initial_failures=None).process(range(50))
    assert (service.calls, result.error_count) == (50, 50)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "20"])
def test_a_wrong_number_is_refused(wrong: Any):
    """Before anything runs."""
    with pytest.raises((TypeError, ValueError), match="max_initial_failures"):
        AsyncBatchProcessor(Service(always(404)), max_initial_failures=wrong)


async def test_a_stream_stops_too():
    """And says why."""
    seen: list[Any] = []

    async def read() -> None:
        async for outcome in AsyncBatchProcessor(Service(always(404))).stream(range(100)):
            seen.append(outcome)  # noqa: PERF401  # what came before the error counts

    with pytest.raises(JobStopped, match="max_initial_failures=20"):
        await read()
    assert len(seen) == 20


async def test_retry_failed_tries_all_of_them():
    """They are known to have failed."""
    service = Service(always(404))
    processor = AsyncBatchProcessor(service, max_initial_failures=None)
    result = await processor.process(range(50))
    again = await result.retry_failed(AsyncBatchProcessor(service))
    assert again.error_count == 50
    assert service.calls == 100


async def test_a_resumed_run_whose_journal_holds_a_success_goes_on(tmp_path):
    """The model is right: it has answered before."""
    service = Service(lambda number: None if number <= 3 else StatusError(404))
    processor = AsyncBatchProcessor(
        service, max_concurrency=1, journal=Journal(tmp_path / "run.sqlite", name="job")
    )
    assert (await processor.process(range(3))).all_succeeded
    result = await processor.process(range(3, 60))
    assert (result.error_count, result.stopped_because) == (57, None)


async def test_a_resumed_run_whose_journal_holds_failures_alone_stops_again(tmp_path):
    """Nothing speaks for the model."""
    service = Service(always(404))
    journal = Journal(tmp_path / "run.sqlite", name="job", retry_failed=True)
    processor = AsyncBatchProcessor(service, journal=journal)
    assert (await processor.process(range(100))).error_count == 20
    assert (await processor.process(range(100))).error_count == 20


async def test_gather_and_workers_go_through_everything():
    """They have no such rule."""
    service = Service(always(404))
    gathered = await gather_with_concurrency(map(service, range(40)), 4, return_exceptions=True)
    assert sum(isinstance(each, StatusError) for each in gathered) == 40
    assert (await process_with_workers(range(40), service)).error_count == 40


async def test_documents_stop_for_a_wrong_model_and_not_for_unreadable_files(tmp_path):
    """Embedding counts, loading and cutting never do."""
    service = Service(always(404))
    documents = [(f"id {number}", f"text {number}. " * 40) for number in range(300)]
    result = await AsyncDocumentProcessor(embed=service).process(documents)
    assert service.calls <= 20 + 4
    assert result.error_count > 0
    assert result.error_count + result.pending_count == 300
    assert "max_initial_failures=20" in str(result.stopped_because)

    async def load(source: str) -> str:
        raise StatusError(404, "no such page")

    result = await AsyncDocumentProcessor(load).process(map(str, range(60)))
    assert (result.error_count, result.stopped_because) == (60, None)
