"""What ends a job early: too many errors, a fatal one, a source that raises; and what is kept."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from ragasync import FATAL, AsyncBatchProcessor, AsyncRetry, Outcome, RateLimiter
from tests.support.services import (
    BatchService,
    Service,
    StatusError,
    about,
    now,
    other_tasks,
    read_into,
)

# ---- max_errors, a count


@pytest.mark.parametrize("allowed", [0, 1, 5])
async def test_the_job_stops_at_one_error_more_than_max_errors(allowed: int):
    """What was done is kept, the rest is pending, and the result says why."""
    service = Service(errors={item: ValueError("bad") for item in range(10, 100)})
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry_count=0, max_errors=allowed)
    result = await processor.process(range(100))
    assert (result.success_count, result.error_count) == (10, allowed + 1)
    assert result.pending_count == 100 - 10 - allowed - 1
    items = "1 item" if allowed == 0 else f"{allowed + 1} items"
    assert result.stopped_because == f"{items} failed, more than max_errors={allowed}"
    assert len(service.calls) == 10 + allowed + 1


async def test_as_many_errors_as_allowed_do_not_stop_it():
    """Only one more does."""
    service = Service(errors={item: ValueError("bad") for item in range(5)})
    result = await AsyncBatchProcessor(service, retry_count=0, max_errors=5).process(range(20))
    assert (result.error_count, result.success_count, result.stopped_because) == (5, 15, None)


async def test_by_default_no_number_of_errors_stops_it():
    """Every item gets its call."""
    service = Service(errors={item: ValueError("bad") for item in range(500)})
    result = await AsyncBatchProcessor(service, retry_count=0).process(range(500))
    assert result.error_count == 500


async def test_what_is_in_flight_finishes():
    """Nothing new begins after the error at 1 s; the others end at 5 s and are kept."""
    service = Service([5.0, 1.0, 5.0, 1.0, 1.0], {1: ValueError("bad")})
    processor = AsyncBatchProcessor(service, max_concurrency=3, retry_count=0, max_errors=0)
    result = await processor.process(range(5))
    assert result.results == [0, None, 20, None, None]
    assert [outcome.status for outcome in result] == ["done", "failed", "done", *["pending"] * 2]
    assert result.seconds == about(5)


async def test_retries_that_wait_are_not_waited_for():
    """An item in back-off is pending when the job stops."""
    service = Service([1.0, 2.0], {0: OSError("away"), 1: ValueError("bad")})
    policy = AsyncRetry(1, retry_on=lambda error: 1000.0 if isinstance(error, OSError) else False)
    result = await AsyncBatchProcessor(service, retry=policy, max_errors=0).process(range(2))
    assert [outcome.status for outcome in result] == ["pending", "failed"]
    assert result.seconds == about(2)


async def test_errors_that_a_retry_mends_do_not_count():
    """Only items that failed for good do."""
    service = Service(errors={item: [OSError("away")] for item in range(20)})
    result = await AsyncBatchProcessor(service, max_errors=0).process(range(20))
    assert result.all_succeeded


async def test_nobody_waits_for_the_rate_limit_of_a_job_that_stopped():
    """Its grants are returned, and the result comes immediately."""
    service = Service(0.0, {0: ValueError("bad")})
    limiter = RateLimiter(rate=1, per=60, burst_size=1)
    processor = AsyncBatchProcessor(service, rate_limiter=limiter, retry_count=0, max_errors=0)
    result = await processor.process(range(10))
    assert result.seconds == 0
    assert (result.error_count, result.pending_count) == (1, 9)
    await asyncio.sleep(60)
    assert limiter.try_acquire()


async def test_a_source_that_keeps_the_job_waiting_does_not_once_it_stopped():
    """The next item would come in an hour."""

    async def source() -> AsyncIterator[int]:
        yield 0
        await asyncio.sleep(3600)
        yield 1

    service = Service(errors={0: ValueError("bad")})
    result = await AsyncBatchProcessor(service, retry_count=0, max_errors=0).process(source())
    assert result.seconds == about(1)
    assert other_tasks() == set()


async def test_a_batch_that_is_still_filling_is_not_called_after_the_stop():
    """Its items are pending."""

    async def source() -> AsyncIterator[int]:
        yield 0
        await asyncio.sleep(0.025)
        yield 1
        await asyncio.sleep(0.015)
        yield 2
        await asyncio.sleep(10)

    service = BatchService({0: ValueError("bad")}, seconds=0.01)
    processor = AsyncBatchProcessor(service, 4, 2, 0, batched=True, max_errors=0)
    result = await processor.process(source())
    assert service.batches == [[0]]
    assert result.seconds < 1


async def test_the_items_of_a_failed_batch_count_each():
    """A batch of four failing items is four errors."""
    service = BatchService(outage=[TypeError("bug")] * 10)
    processor = AsyncBatchProcessor(service, 4, 1, batched=True, max_errors=3)
    result = await processor.process(range(40))
    assert (result.error_count, len(service.batches)) == (4, 1)


# ---- max_error_rate


async def test_an_error_rate_says_nothing_before_20_items_ended():
    """Nineteen errors in a row prove little; the twentieth stops it."""
    service = Service(errors={item: ValueError("bad") for item in range(100)})
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry_count=0, max_error_rate=0.1)
    result = await processor.process(range(100))
    assert result.error_count == 20
    assert result.stopped_because == "20 of the last 20 items failed, more than max_error_rate=0.1"


async def test_an_error_rate_looks_at_the_last_100_items():
    """After 1,000 good ones it takes 11 bad ones to be above a tenth of the last hundred."""
    service = Service(0.0, errors={item: ValueError("bad") for item in range(1000, 2000)})
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry_count=0, max_error_rate=0.1)
    result = await processor.process(range(2000))
    assert (result.success_count, result.error_count) == (1000, 11)
    assert result.stopped_because == "11 of the last 100 items failed, more than max_error_rate=0.1"


async def test_an_error_rate_is_not_exceeded_by_being_met():
    """Every fourth item bad, and a quarter allowed."""
    service = Service(0.0, errors={item: ValueError("bad") for item in range(3, 1000, 4)})
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry_count=0, max_error_rate=0.25)
    result = await processor.process(range(1000))
    assert (result.error_count, result.stopped_because) == (250, None)


async def test_early_errors_do_not_stop_a_job_that_mends_itself():
    """The first ten fail, then all is well."""
    service = Service(0.0, errors={item: ValueError("bad") for item in range(10)})
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry_count=0, max_error_rate=0.6)
    assert (await processor.process(range(1000))).success_count == 990


async def test_an_error_rate_counts_every_kind_of_success():
    """Those of batches and those after retries."""
    poison = {item: ValueError("bad") for item in range(0, 400, 8)}
    processor = AsyncBatchProcessor(
        BatchService(poison, outage=[OSError("away")]),
        8,
        1,
        1,
        0.0,
        batched=True,
        max_error_rate=0.5,
    )
    result = await processor.process(range(400))
    assert (result.error_count, result.stopped_because) == (50, None)


# ---- fatal errors


async def test_a_fatal_error_stops_the_job_at_once_and_cancels_what_is_in_flight():
    """A bad key: the others would only be refused too."""
    bad_key = StatusError(401, message="bad key")
    service = Service([1.0, 3.0, 60.0, 60.0], {1: bad_key})
    result = await AsyncBatchProcessor(service, max_concurrency=3).process(range(100))
    assert [outcome.status for outcome in result][:4] == [
        "done",
        "failed",
        "cancelled",
        "cancelled",
    ]
    assert result.errors[1] is bad_key
    assert result[1].attempts == 1
    assert sorted(service.cancelled) == [2, 3]
    assert (result.pending_count, result.cancelled_count, result.seconds) == (96, 2, about(3))
    assert result.stopped_because == "a fatal error: StatusError: bad key"


def used_up() -> Exception:
    """Return what a client makes of a used-up quota."""
    error = StatusError(429)
    error.__dict__["code"] = "insufficient_quota"
    return error


@pytest.mark.parametrize("error", [StatusError(401), StatusError(402), used_up()], ids=repr)
async def test_a_refused_account_is_fatal(error: Exception):
    """One call, and no retry."""
    service = Service(errors={0: error})
    result = await AsyncBatchProcessor(service, max_concurrency=1).process(range(100))
    assert (len(service.calls), result.pending_count) == (1, 99)


async def test_a_fatal_batch_has_its_error_on_each_of_its_items():
    """And is neither split nor tried again."""
    service = BatchService(outage=[StatusError(401)])
    result = await AsyncBatchProcessor(service, 4, 1, batched=True).process(range(8))
    assert [outcome.status for outcome in result] == ["failed"] * 4 + ["pending"] * 4


async def test_a_fatal_error_waits_for_the_clean_up_of_those_in_flight():
    """They are cancelled and awaited."""
    cleaned: list[float] = []

    async def tidy(item: int) -> None:
        if item == 0:
            await asyncio.sleep(1)
            raise StatusError(401)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            cleaned.append(now())

    result = await AsyncBatchProcessor(tidy, max_concurrency=3).process(range(3))
    assert cleaned == about([3, 3])
    assert result.seconds == about(3)


async def test_a_second_fatal_error_leaves_the_clean_up_after_the_first_alone():
    """Nor does a cancellation of the job from outside cut it short."""
    cleaned: list[float] = []

    async def tidy(item: int) -> None:
        if item == 0:
            await asyncio.sleep(1)
            raise StatusError(401)
        try:
            await asyncio.sleep(60)
        finally:
            if item == 1:
                await asyncio.sleep(1)
                raise StatusError(403)
            await asyncio.sleep(3)
            cleaned.append(now())

    processor = AsyncBatchProcessor(tidy, max_concurrency=3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(processor.process(range(3)), 3)
    assert cleaned == about([4])
    assert now() == about(4)


async def test_a_fatal_error_wakes_those_who_wait_for_the_rate_limit():
    """They are pending, not cancelled: they were not in flight."""
    service = Service(1.0, {0: StatusError(401)})
    limiter = RateLimiter(rate=1, per=60, burst_size=1)
    result = await AsyncBatchProcessor(service, rate_limiter=limiter).process(range(10))
    assert (result.pending_count, result.cancelled_count, result.seconds) == (9, 0, about(1))


async def test_a_stop_is_not_a_raise():
    """`process` returns; the result says why; last_result is the same."""
    processor = AsyncBatchProcessor(
        Service(errors={0: OSError("x")}), retry=AsyncRetry(retry_on=lambda error: FATAL)
    )
    result = await processor.process([0])
    assert processor.last_result is result
    assert result.stopped_because == "a fatal error: OSError: x"


# ---- the source raises


def failing(count: int) -> Iterator[int]:
    """Yield some items and then raise."""
    yield from range(count)
    raise OSError("disk gone")


async def async_failing(count: int) -> AsyncIterator[int]:
    """Yield some items and then raise."""
    for item in range(count):
        yield item
    raise OSError("disk gone")


@pytest.mark.parametrize("source", [failing, async_failing])
async def test_a_source_that_raises_ends_the_job_with_everything_done_kept(source):
    """The error itself, with a note; what was begun has its outcome."""
    service = Service(errors={3: ValueError("bad")})
    processor = AsyncBatchProcessor(service, max_concurrency=4, retry_count=0)
    with pytest.raises(OSError, match="disk gone") as caught:
        await processor.process(source(10))
    assert any("9 of 10 items were done and 1 had failed" in n for n in caught.value.__notes__)
    result = processor.last_result
    assert result is not None
    assert (result.success_count, result.error_count, result.total) == (9, 1, 10)
    assert result.stopped_because == "the source raised OSError: disk gone"
    assert other_tasks() == set()


@pytest.mark.parametrize("source", [failing, async_failing])
async def test_a_source_that_raises_lets_what_is_in_flight_finish(source):
    """Nothing is cancelled."""
    service = Service(5.0)
    processor = AsyncBatchProcessor(service, max_concurrency=4)
    with pytest.raises(OSError, match="disk gone"):
        await processor.process(source(2))
    assert service.cancelled == []
    assert processor.last_result is not None
    assert processor.last_result.results == [0, 10]
    assert now() == about(5)


@pytest.mark.parametrize("source", [failing, async_failing])
async def test_items_drawn_for_a_batch_before_the_source_raised_are_in_the_result(source):
    """None is lost from view: those not called are pending."""
    service = BatchService()
    processor = AsyncBatchProcessor(service, 4, 1, batched=True)
    with pytest.raises(OSError, match="disk gone"):
        await processor.process(source(6))
    result = processor.last_result
    assert result is not None
    assert result.total == 6
    assert result.success_count + result.pending_count == 6
    assert result.success_count >= 4


def cancelled_source(count: int) -> Iterator[int]:
    """Yield some items and then raise a CancelledError of its own."""
    yield from range(count)
    raise asyncio.CancelledError("somebody else's")


async def async_cancelled_source(count: int) -> AsyncIterator[int]:
    """Yield some items and then raise a CancelledError of its own."""
    for item in range(count):
        yield item
    raise asyncio.CancelledError("somebody else's")


@pytest.mark.parametrize("source", [cancelled_source, async_cancelled_source])
async def test_a_source_cancelled_by_somebody_else_does_not_pass_for_its_end(source):
    """The rest of it would be missing without a word."""
    processor = AsyncBatchProcessor(Service())
    with pytest.raises(asyncio.CancelledError, match="somebody else's"):
        await processor.process(source(10))
    assert processor.last_result is not None
    assert processor.last_result.success_count == 10


async def test_a_source_that_raises_at_once_gives_an_empty_result():
    """Nothing was read from the source."""
    processor = AsyncBatchProcessor(Service())
    with pytest.raises(OSError, match="disk gone"):
        await processor.process(failing(0))
    assert processor.last_result is not None
    assert processor.last_result.total == 0


@pytest.mark.parametrize("source", [failing, async_failing])
async def test_a_stream_gives_what_was_begun_before_it_raises_the_sources_error(source):
    """In order, too."""
    for ordered in (False, True):
        processor = AsyncBatchProcessor(Service(), max_concurrency=4)
        seen: list[Outcome] = []
        with pytest.raises(OSError, match="disk gone"):
            await read_into(seen, processor.stream(source(10), ordered=ordered))
        assert sorted(outcome.index for outcome in seen) == list(range(10))


@pytest.mark.parametrize(("count", "noted"), [(1, "1 outcome"), (2, "2 outcomes")])
async def test_the_error_of_a_streams_source_has_a_note_of_what_was_given(count: int, noted: str):
    """So one knows what there is to keep."""
    with pytest.raises(OSError, match="disk gone") as raised:
        await read_into([], AsyncBatchProcessor(Service()).stream(failing(count)))
    assert raised.value.__notes__ == [
        f"ragasync: the stream yielded {noted} before this was raised"
    ]


async def test_an_iterable_that_cannot_be_opened_raises_its_error():
    """__iter__ itself raising."""

    class Broken:
        def __iter__(self):
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        await AsyncBatchProcessor(Service()).process(Broken())
