"""processor.stream: outcomes as they come or in order, in constant memory, and every way out."""

import asyncio
import gc
import itertools
import random
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, JobStopped, Outcome
from tests.support.services import (
    BatchService,
    Service,
    StatusError,
    about,
    now,
    other_tasks,
    read_into,
    turns,
)


async def at_once(item: int) -> int:
    """Return the item."""
    return item


async def test_outcomes_come_as_calls_finish():
    """The fastest first."""
    seen: list[tuple[int, float]] = []
    processor = AsyncBatchProcessor(Service([3.0, 1.0, 2.0]), max_concurrency=3)
    async for outcome in processor.stream(range(3)):
        assert isinstance(outcome, Outcome)
        seen.append((outcome.index, now()))
    assert seen == [(1, about(1)), (2, about(2)), (0, about(3))]


async def test_ordered_outcomes_come_in_the_order_of_their_items():
    """As soon as their predecessors have come."""
    processor = AsyncBatchProcessor(Service([3.0, 1.0, 2.0, 2.0]), max_concurrency=3)
    stream = processor.stream(range(4), ordered=True)
    seen = [(outcome.index, now()) async for outcome in stream]
    assert seen == [(0, about(3)), (1, about(3)), (2, about(3)), (3, about(3))]


async def test_a_streamed_outcome_has_all_fields():
    """Values, failures, attempts, times and tracebacks, as in a result."""
    service = Service(1.0, {1: ValueError("bad"), 2: [OSError("away")]})
    policy = AsyncRetry(1, jitter=None, retry_on=OSError)
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry=policy)
    outcomes = [outcome async for outcome in processor.stream([0, 1, 2], ordered=True)]
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert [outcome.value for outcome in outcomes] == [0, None, 20]
    assert [outcome.item for outcome in outcomes] == [0, 1, 2]
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 2]
    assert [outcome.started for outcome in outcomes] == about([0, 1, 2])
    assert "ValueError: bad" in str(outcomes[1].traceback)
    assert "testing.py" in str(outcomes[1].traceback)


async def test_a_failure_is_an_outcome_and_not_the_end():
    """The stream goes on."""
    service = Service(errors={item: ValueError("bad") for item in range(0, 20, 2)})
    processor = AsyncBatchProcessor(service, retry_count=0)
    outcomes = [outcome async for outcome in processor.stream(range(20))]
    assert sum(outcome.ok for outcome in outcomes) == 10


async def test_no_items_give_no_outcomes():
    """Also for an async source."""

    async def none() -> AsyncIterator[int]:
        return
        yield

    for items in ([], none()):
        assert [outcome async for outcome in AsyncBatchProcessor(at_once).stream(items)] == []


@pytest.mark.parametrize("ordered", [False, True])
async def test_batches_are_streamed_item_by_item(ordered: bool):
    """Bad items included."""
    service = BatchService({3: StatusError(400)})
    processor = AsyncBatchProcessor(service, 4, 2, 0, batched=True)
    outcomes = [outcome async for outcome in processor.stream(range(10), ordered=ordered)]
    assert sorted(outcome.index for outcome in outcomes if outcome.ok) == [0, 1, 2, *range(4, 10)]
    if ordered:
        assert [outcome.index for outcome in outcomes] == list(range(10))


# ---- endless input, constant memory


class Item:
    """An item that can be weakly referenced."""


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_endless_source_is_streamed_and_nothing_is_kept(ordered: bool):
    """Of 20,000 items no more than a few are alive at any time."""
    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    most = 0

    def endless() -> Iterator[Item]:
        while True:
            item = Item()
            alive.add(item)
            yield item

    async def same(item: Item) -> Item:
        await asyncio.sleep(0)
        return item

    count = 0
    async for _ in AsyncBatchProcessor(same).stream(endless(), ordered=ordered):
        count += 1
        most = max(most, len(alive))
        if count == 20_000:
            break
    assert most <= (2048 if ordered else 64) + 4 + 2


@pytest.mark.slow
async def test_a_long_stream_does_not_grow():
    """Memory after 11,000 outcomes is that after 1,000; pointers to them would be 80,000 bytes."""

    async def endless() -> AsyncIterator[int]:
        for item in itertools.count():
            yield item

    sizes: list[int] = []

    async def every_tenth_fails(item: int) -> int:
        if item % 10 == 0:
            raise ValueError("bad")
        return item

    processor = AsyncBatchProcessor(every_tenth_fails, retry_count=0)
    tracemalloc.start()
    try:
        async for outcome in processor.stream(endless()):
            if outcome.index in (1_000, 11_000):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
            if outcome.index > 11_000:
                break
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 50_000


# ---- a reader that is slow, and a head that is late


async def test_a_slow_reader_holds_up_the_source():
    """The number of items in calls and unread outcomes is bounded."""
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    stream = AsyncBatchProcessor(at_once).stream(endless())
    for read in range(1, 200):
        await anext(stream)
        await asyncio.sleep(1)
        assert pulled - read <= 64 + 4
    await stream.aclose()


@pytest.mark.parametrize(("calls_at_once", "bound"), [(4, 2048), (100, 3200)])
async def test_ordered_the_buffer_is_bounded(calls_at_once: int, bound: int):
    """The first item takes an hour: max(2048, 32 windows) items are read, and no more."""
    pulled: list[int] = []

    def endless() -> Iterator[int]:
        for item in itertools.count():
            pulled.append(item)
            yield item

    async def late_head(item: int) -> int:
        await asyncio.sleep(3600 if item == 0 else 0.01)
        return item

    processor = AsyncBatchProcessor(late_head, max_concurrency=calls_at_once)
    stream = processor.stream(endless(), ordered=True)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(3000)
    assert len(pulled) == bound
    assert (await reading).index == 0
    assert [(await anext(stream)).index for _ in range(5000)] == list(range(1, 5001))
    await stream.aclose()


@pytest.mark.parametrize("seed", range(6))
async def test_order_hardly_costs_time_where_latencies_have_a_heavy_tail(seed: int):
    """Early outcomes wait in the buffer, while the window slides on."""
    chance = random.Random(seed)
    latencies = [chance.lognormvariate(0, 1) for _ in range(5000)]

    async def took(*, ordered: bool) -> float:
        processor = AsyncBatchProcessor(asyncio.sleep, max_concurrency=64)
        began = now()
        async for _ in processor.stream(latencies, ordered=ordered):
            pass
        return now() - began

    assert await took(ordered=True) <= 1.03 * await took(ordered=False)


async def test_ordered_the_window_slides_past_a_late_head():
    """Order costs no time: the makespan is that of the late head."""
    seconds = [50.0, *[1.0] * 150]
    processor = AsyncBatchProcessor(Service(seconds), max_concurrency=4)
    outcomes = [outcome async for outcome in processor.stream(range(151), ordered=True)]
    assert [outcome.index for outcome in outcomes] == list(range(151))
    assert now() == about(50)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_head_in_back_off_does_not_deadlock_a_full_buffer(is_async: bool):
    """Its retry runs although no new item starts."""

    async def source() -> AsyncIterator[int]:
        for item in range(5000):
            yield item

    service = Service(0.01, {0: [OSError("away")]})
    policy = AsyncRetry(1, retry_on=lambda error: 1000.0)
    processor = AsyncBatchProcessor(service, retry=policy)
    items = source() if is_async else range(5000)
    outcomes = [outcome async for outcome in processor.stream(items, ordered=True)]
    assert [outcome.index for outcome in outcomes] == list(range(5000))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_slow_reader_of_batches_bound_by_weight_gets_everything(
    ordered: bool, is_async: bool
):
    """With items waiting in the source's buffer and one that did not fit into its batch."""

    async def source() -> AsyncIterator[int]:
        for item in range(3000):
            yield item

    processor = AsyncBatchProcessor(
        BatchService(seconds=0.01),
        32,
        2,
        batched=True,
        weight=lambda item: 1,
        max_batch_weight=31,
    )
    items = source() if is_async else range(3000)
    seen: set[int] = set()
    async with asyncio.timeout(10_000):
        async for outcome in processor.stream(items, ordered=ordered):
            seen.add(outcome.index)
            await asyncio.sleep(1)
    assert len(seen) == 3000


async def test_items_in_back_off_do_not_stop_a_stream_from_reading():
    """Forty wait for an hour; the other thousand go on meanwhile."""
    service = Service(0.01, {item: [OSError("away")] for item in range(40)})
    policy = AsyncRetry(1, retry_on=lambda error: 3600.0)
    processor = AsyncBatchProcessor(service, retry=policy)
    ended: list[float] = []
    async for _ in processor.stream(range(1040)):
        ended.append(now())
        if len(ended) % 100 == 0:
            await asyncio.sleep(1)  # so that the buffer is full now and then
    assert ended[999] < 60


# ---- ways out


async def source_with_an_end(events: list[str]) -> AsyncIterator[int]:
    """Yield without end, and record the closing."""
    try:
        for item in itertools.count():
            yield item
            await asyncio.sleep(0.5)
    finally:
        events.append("closed")


async def test_breaking_out_leaves_no_task():
    """Calls in flight are cancelled and awaited; the source is no longer read."""
    service, events = Service(), list[str]()
    processor = AsyncBatchProcessor(service)
    async for _ in processor.stream(source_with_an_end(events)):
        break
    await turns(20)
    assert other_tasks() == set()
    assert service.cancelled
    assert events == ["closed"]
    assert now() == about(1)


async def test_closing_a_stream_waits_for_the_clean_up():
    """It returns when no call runs any more."""
    cleaned: list[int] = []

    async def tidy(item: int) -> int:
        try:
            await asyncio.sleep(1 if item == 0 else 60)
        finally:
            await asyncio.sleep(2)
            cleaned.append(item)
        return item

    stream = AsyncBatchProcessor(tidy, max_concurrency=2).stream(itertools.count())
    assert (await anext(stream)).index == 0
    await stream.aclose()
    assert len(cleaned) == 3
    assert other_tasks() == set()


async def test_an_error_in_the_body_of_the_loop_leaves_no_task():
    """As breaking out does."""
    processor = AsyncBatchProcessor(Service())

    async def read() -> None:
        async for _ in processor.stream(itertools.count()):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await read()
    await turns(20)
    assert other_tasks() == set()


async def test_cancelling_the_reader_cancels_the_stream():
    """Its calls are cancelled and awaited."""
    service = Service(60.0)

    async def read() -> None:
        async for _ in AsyncBatchProcessor(service).stream(itertools.count()):
            pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert sorted(service.cancelled) == [0, 1, 2, 3]
    assert other_tasks() == set()


async def test_a_stream_that_is_never_read_calls_nothing():
    """It begins with the first `anext`."""
    service = Service()
    stream = AsyncBatchProcessor(service).stream(range(3))
    await turns()
    assert service.calls == []
    await stream.aclose()


@pytest.mark.parametrize("ordered", [False, True])
async def test_too_many_errors_end_a_stream_with_an_error(ordered: bool):
    """After the outcomes of the finished items."""
    service = Service(errors={item: ValueError("bad") for item in range(5, 100)})
    processor = AsyncBatchProcessor(service, max_concurrency=1, retry_count=0, max_errors=2)
    seen: list[Outcome] = []
    with pytest.raises(JobStopped, match="3 items failed, more than max_errors=2"):
        await read_into(seen, processor.stream(range(100), ordered=ordered))
    assert [outcome.index for outcome in seen] == list(range(8))


async def test_a_fatal_error_ends_a_stream_with_an_error():
    """Its own outcome comes first, and those of the calls that it cancelled."""
    service = Service([1.0, 9.0, 9.0, 9.0, 9.0], {0: StatusError(401)})
    outcomes: list[Outcome] = []
    with pytest.raises(JobStopped, match="a fatal error: StatusError: status 401"):
        await read_into(outcomes, AsyncBatchProcessor(service).stream(range(5)))
    seen = [(outcome.index, outcome.status) for outcome in outcomes]
    assert seen[0] == (0, "failed")
    assert sorted(seen[1:]) == [(1, "cancelled"), (2, "cancelled"), (3, "cancelled")]
    assert now() == about(1)


async def test_an_ordered_stream_that_ends_early_yields_the_outcomes_it_held_back():
    """Outcomes after a missing one are not lost."""
    service = Service([9.0, 1.0, 2.0, 3.0, *[9.0] * 5], {3: StatusError(401)})
    outcomes: list[Outcome] = []
    with pytest.raises(JobStopped):
        await read_into(outcomes, AsyncBatchProcessor(service).stream(range(9), ordered=True))
    seen = [(outcome.index, outcome.status) for outcome in outcomes]
    assert seen[:4] == [(0, "cancelled"), (1, "done"), (2, "done"), (3, "failed")]
    assert seen[4:] == [(4, "cancelled"), (5, "cancelled")]


async def test_two_streams_of_one_processor_are_independent():
    """Each has its own window and its own outcomes."""
    processor = AsyncBatchProcessor(Service())
    first, second = processor.stream(range(8)), processor.stream(range(100, 108))
    indices = [(await anext(first)).value + (await anext(second)).value for _ in range(8)]  # type: ignore[operator]
    assert sum(indices) == 10 * (sum(range(8)) + sum(range(100, 108)))
    await first.aclose()
    await second.aclose()


async def test_a_wrong_total_changes_nothing_in_a_stream():
    """It is for progress only."""
    processor = AsyncBatchProcessor(Service())
    assert len([each async for each in processor.stream(iter(range(9)), total=0)]) == 9
