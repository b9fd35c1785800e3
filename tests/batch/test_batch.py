"""AsyncBatchProcessor: what it calls, in what window, in what order, and with what."""

import asyncio
import functools
import heapq
import random
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
from tqdm import tqdm

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    BatchResult,
    RateLimiter,
    RunAsyncError,
    process_with_workers,
)
from ragasync.testing import run_on_virtual_clock
from tests.support.manual_clock import ManualClockLoop, on_manual_clock
from tests.support.services import Service, about, now, other_tasks, turns


async def double(item: int) -> int:
    """Return twice the item after a second."""
    await asyncio.sleep(1)
    return 2 * item


class Doubler:
    """Doubles in every way in which an object can be called."""

    async def __call__(self, item: int) -> int:
        """Double, as an object."""
        return await double(item)

    async def method(self, item: int) -> int:
        """Double, as a method."""
        return await double(item)

    @staticmethod
    async def times(factor: int, item: int) -> int:
        """Multiply."""
        await asyncio.sleep(1)
        return factor * item


# ---- what process_fn may be


@pytest.mark.parametrize(
    "function",
    [
        double,
        Doubler(),
        Doubler().method,
        functools.partial(Doubler.times, 2),
        functools.partial(functools.partial(Doubler.times), 2),
    ],
    ids=["function", "object", "method", "partial", "partial of partial"],
)
async def test_anything_that_makes_a_coroutine_of_an_item_is_awaited(
    function: Callable[[int], Any],
):
    """Functions, objects, methods and partials."""
    result = await AsyncBatchProcessor(function, max_concurrency=3).process([1, 2, 3])
    assert result.results == [2, 4, 6]
    assert result.seconds == about(1)


@pytest.mark.real_time
async def test_a_plain_function_that_only_makes_a_coroutine_has_it_awaited():
    """On the run's own loop, whatever thread made it."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def where(item: int) -> int:
        loops.append(asyncio.get_running_loop())
        return item

    result = await AsyncBatchProcessor(lambda item: where(item), timeout=30).process([1, 2])
    assert result.results == [1, 2]
    assert set(loops) == {asyncio.get_running_loop()}


@pytest.mark.parametrize("function", [None, "double", 3])
def test_what_cannot_be_called_is_refused_immediately(function: Any):
    """The error shows what came."""
    with pytest.raises(TypeError, match=f"process_fn must be callable, got {function!r}"):
        AsyncBatchProcessor(function)


def test_an_object_that_has_every_attribute_is_no_partial():
    """A mock has a `func` of its `func` without end."""
    processor = AsyncBatchProcessor(Mock(return_value=3), max_concurrency=2)
    assert processor.process_sync([1, 2]).results == [3, 3]


def test_functions_that_yield_are_refused_immediately():
    """A generator would be taken for the value."""

    def numbers(item):
        yield item

    async def async_numbers(item):
        yield item

    for function in (numbers, async_numbers, functools.partial(numbers)):
        with pytest.raises(TypeError, match="return a list instead"):
            AsyncBatchProcessor(function)


async def test_a_result_is_a_batch_result_with_the_four_counts():
    """It knows the total and the makespan, and nothing stopped it."""
    result = await AsyncBatchProcessor(double).process(range(5))
    assert isinstance(result, BatchResult)
    assert (result.success_count, result.error_count) == (5, 0)
    assert (result.cancelled_count, result.pending_count, result.total) == (0, 0, 5)
    assert result.seconds == about(2)
    assert result.stopped_because is None


async def test_outcomes_come_in_input_order_whatever_ends_first():
    """The slowest first, the fastest last."""
    service = Service([5.0, 4.0, 3.0, 2.0, 1.0])
    result = await AsyncBatchProcessor(service, max_concurrency=5).process(range(5))
    assert result.results == [0, 10, 20, 30, 40]
    assert [outcome.item for outcome in result] == [0, 1, 2, 3, 4]
    assert [outcome.seconds for outcome in result] == about([5, 4, 3, 2, 1])


async def test_a_value_of_none_is_a_success():
    """None returned is done, not missing."""

    async def nothing(item):
        return None

    result = await AsyncBatchProcessor(nothing).process(["ab"] * 2)
    assert result.all_succeeded
    assert result.get_successful() == [None, None]


async def test_a_value_may_be_an_exception():
    """Returned, not raised."""
    error = ValueError("a value")

    async def give(item):
        return error

    result = await AsyncBatchProcessor(give).process([1])
    assert result.results == [error]
    assert result.all_succeeded


async def test_no_items_give_an_empty_result():
    """Of lists, iterators and async iterators."""

    async def none() -> AsyncIterator[int]:
        return
        yield

    for items in ([], iter([]), none()):
        result = await AsyncBatchProcessor(double).process(items)
        assert (result.total, result.all_succeeded, result.seconds) == (0, True, 0.0)


# ---- the window


async def test_the_window_slides_and_is_never_in_lock_step():
    """One slow item holds up nobody: in lock step it would take 15 s."""
    service = Service([10.0] + [1.0] * 10)
    result = await AsyncBatchProcessor(service, max_concurrency=2).process(range(11))
    assert result.seconds == about(10)
    assert [outcome.started for outcome in result] == about([0, 0, *range(1, 10)])


async def test_the_makespan_is_the_greedy_one():
    """Each item begins the moment that a slot is free, with heavy-tailed times too."""
    chance = random.Random(7)
    seconds = [chance.lognormvariate(0, 1.5) for _ in range(300)]
    free_at = [0.0] * 16
    for each in seconds:
        heapq.heappush(free_at, heapq.heappop(free_at) + each)
    service = Service(seconds)
    result = await AsyncBatchProcessor(service, max_concurrency=16).process(range(300))
    assert result.seconds == about(max(free_at))
    assert service.items == list(range(300))


@pytest.mark.parametrize("limit", [1, 3, 8])
async def test_never_more_calls_are_in_flight_than_allowed(limit: int):
    """And as many as allowed, with failures and retries among them."""
    chance = random.Random(limit)
    service = Service(
        [chance.random() for _ in range(100)],
        {item: [OSError("away")] * chance.randint(1, 5) for item in range(0, 100, 3)},
    )
    processor = AsyncBatchProcessor(service, max_concurrency=limit, retry_delay=0.3)
    await processor.process(range(100))
    assert service.most_in_flight == limit


async def test_batch_size_holds_nothing_back_for_a_function_of_one_item():
    """The items of any iterable are called one by one, up to max_concurrency concurrently."""
    service = Service()
    processor = AsyncBatchProcessor(service, batch_size=2, max_concurrency=10)
    assert (await processor.process(range(10))).seconds == about(1)


async def test_workers_number_the_slots_from_zero():
    """Each call says in which slot it was made."""
    result = await AsyncBatchProcessor(double, max_concurrency=3).process(range(9))
    assert {outcome.worker for outcome in result} == {0, 1, 2}


async def test_only_as_many_workers_are_opened_as_there_is_work_for():
    """A bound in the thousands costs nothing where the source has two items."""
    workers = 0

    async def look(item: int) -> None:
        nonlocal workers
        await asyncio.sleep(1)
        workers = max(workers, sum("worker" in task.get_name() for task in asyncio.all_tasks()))

    await AsyncBatchProcessor(look, max_concurrency=10_000).process(iter(range(2)))
    assert workers == 4  # two have seen that there is no more


async def test_a_slot_that_was_closed_gives_its_number_to_the_next():
    """However often a job is resized, workers are numbered below its largest size."""
    processor = AsyncBatchProcessor(double, max_concurrency=4)
    job = processor.start(range(40), on_current_loop=True)
    for size in (1, 3, 2, 4):
        await asyncio.sleep(2.5)
        job.max_concurrency = size
    assert {outcome.worker for outcome in await job} == {0, 1, 2, 3}


async def test_an_item_knows_its_attempts_and_times():
    """A plain success: one attempt, no waits, no batch, no stage."""
    result = await AsyncBatchProcessor(double, max_concurrency=1).process([7, 8])
    last = result[1]
    assert (last.index, last.item, last.status, last.value) == (1, 8, "done", 16)
    assert (last.attempts, last.error, last.batch, last.stage) == (1, None, None, None)
    assert (last.started, last.seconds, last.waited, last.backed_off) == about((1, 1, 0, 0))


# ---- the input


async def test_a_sync_source_is_pulled_only_when_a_slot_is_free():
    """Never more items drawn than in flight or done."""
    service = Service()
    ahead = []

    def source() -> Iterator[int]:
        for item in range(20):
            ahead.append(item + 1 - len(service.calls) + service.in_flight)
            yield item

    result = await AsyncBatchProcessor(service, max_concurrency=4).process(source())
    assert result.all_succeeded
    assert max(ahead) == 4


async def test_an_async_source_is_pulled_at_most_a_window_ahead():
    """At most max_concurrency items wait, in addition to those in flight."""
    service = Service()
    waiting = []

    async def source() -> AsyncIterator[int]:
        for item in range(50):
            waiting.append(item + 1 - len(service.calls))
            yield item

    result = await AsyncBatchProcessor(service, max_concurrency=4).process(source())
    assert result.seconds == about(13)
    assert max(waiting) == 4


async def test_an_async_source_is_drawn_while_calls_are_made():
    """A source of an item a second and calls of a second overlap."""

    async def source() -> AsyncIterator[int]:
        for item in range(5):
            await asyncio.sleep(1)
            yield item

    result = await AsyncBatchProcessor(double).process(source())
    assert result.results == [0, 2, 4, 6, 8]
    assert [outcome.started for outcome in result] == about([1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    "items",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        {1: "a", 2: "b", 3: "c"},
        iter([1, 2, 3]),
        (item for item in (1, 2, 3)),
    ],
    ids=["list", "tuple", "range", "dict", "iterator", "generator"],
)
async def test_any_iterable_will_do(items: Any):
    """Of known length or not."""
    assert (await AsyncBatchProcessor(double).process(items)).results == [2, 4, 6]


async def test_an_iterable_that_can_be_called_is_not_called():
    """The class of an Enum is both."""

    class Colour(Enum):
        RED = 1
        BLUE = 2

    async def name(colour: Colour) -> str:
        return colour.name

    assert (await AsyncBatchProcessor(name).process(Colour)).results == ["RED", "BLUE"]


async def test_a_progress_bar_around_a_generator_will_do():
    """It has a length and cannot tell it."""
    bar = tqdm((item for item in range(3)), disable=True)
    assert (await AsyncBatchProcessor(double).process(bar)).results == [0, 2, 4]


async def test_old_style_sequences_will_do():
    """What has only __getitem__ is iterable too."""

    class Old:
        def __getitem__(self, index):
            return [1, 2, 3][index]

    assert (await AsyncBatchProcessor(double).process(Old())).results == [2, 4, 6]


async def test_a_list_changed_while_it_is_processed_changes_nothing():
    """What was passed is what is done."""
    items = [1, 2, 3]
    running = asyncio.create_task(AsyncBatchProcessor(double, max_concurrency=1).process(items))
    await turns()
    items.clear()
    assert (await running).results == [2, 4, 6]


@pytest.mark.parametrize("text", ["abc", b"abc", bytearray(b"abc")])
async def test_one_text_is_no_list_of_items(text: Any):
    """It would be taken letter by letter."""
    processor = AsyncBatchProcessor(double)
    with pytest.raises(TypeError, match="letter by letter"):
        await processor.process(text)
    with pytest.raises(TypeError, match="letter by letter"):
        await anext(processor.stream(text))


async def test_what_cannot_be_iterated_is_refused():
    """The error shows what came."""
    with pytest.raises(TypeError, match="iterable or async iterable, got 5"):
        await AsyncBatchProcessor(double).process(5)


@pytest.mark.parametrize(
    "wrong", [{"total": -1}, {"total": 1.5}, {"max_items": -1}, {"max_items": True}]
)
async def test_a_total_or_limit_that_is_no_count_is_refused(wrong: dict[str, Any]):
    """The error names it."""
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))} must be"):
        await AsyncBatchProcessor(double).process([1], **wrong)


@pytest.mark.parametrize("total", [0, 1, 1000])
async def test_a_wrong_total_changes_only_the_progress(total: int):
    """It is for progress only: every item is called, up to max_concurrency concurrently."""
    result = await AsyncBatchProcessor(double, max_concurrency=5).process(
        iter(range(5)), total=total
    )
    assert result.results == [0, 2, 4, 6, 8]
    assert result.seconds == about(1)


# ---- a pilot


async def test_a_limit_runs_the_first_items_and_leaves_the_rest_pending():
    """The result has every item of a list."""
    result = await AsyncBatchProcessor(double, max_concurrency=10).process(range(100), max_items=3)
    assert result.results[:4] == [0, 2, 4, None]
    assert (result.success_count, result.pending_count, result.total) == (3, 97, 100)
    assert result.stopped_because is None


@pytest.mark.parametrize("items", [dict.fromkeys(range(5)), deque(range(5)), np.arange(5)])
async def test_what_a_limit_leaves_of_anything_with_a_length_is_pending(items: Any):
    """Also where the items themselves were not read."""
    processor = AsyncBatchProcessor(double)
    pilot = await processor.process(items, max_items=2)
    assert (pilot.success_count, pilot.pending_count) == (2, 3)
    assert pilot.unfinished == [2, 3, 4]
    assert pilot.results == [0, 2, None, None, None]
    assert pilot[4].item is None
    assert (await processor.process(items, max_items=9)).total == 5


async def test_what_a_stop_leaves_of_anything_with_a_length_is_pending():
    """The counts add up to all the items."""
    processor = AsyncBatchProcessor(Service(errors={0: OSError()}), 1, 1, 0, max_errors=0)
    result = await processor.process(deque(range(5)))
    assert (result.error_count, result.pending_count, result.total) == (1, 4, 5)


async def test_a_limit_draws_no_further_item_from_an_iterator():
    """The rest can still be had from it."""
    source = iter(range(10))
    result = await AsyncBatchProcessor(double).process(source, max_items=4)
    assert result.results == [0, 2, 4, 6]
    assert next(source) == 4


async def test_a_limit_draws_no_further_item_from_an_async_iterator():
    """Nor waits for one that will never come."""

    async def source() -> AsyncIterator[int]:
        for item in range(4):
            yield item
        await asyncio.Event().wait()

    result = await AsyncBatchProcessor(double).process(source(), max_items=4)
    assert result.results == [0, 2, 4, 6]


async def test_a_limit_of_none_at_all_calls_nothing():
    """Limit 0 is a pilot of nothing."""
    service = Service()
    result = await AsyncBatchProcessor(service).process([1, 2], max_items=0)
    assert (service.calls, result.pending_count) == ([], 2)


async def test_a_pilot_can_be_continued():
    """retry_failed with what is unfinished runs the rest and gives the whole."""
    processor = AsyncBatchProcessor(double)
    pilot = await processor.process([1, 2, 3, 4], max_items=2)
    whole = await pilot.retry_failed(processor, only=pilot.unfinished)
    assert whole.results == [2, 4, 6, 8]


# ---- arguments


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number, got 2.5"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be at least 1, got 0"),
        ({"max_concurrency": True}, TypeError, "max_concurrency must be a whole number"),
        ({"retry_count": -1}, ValueError, "retry_count must be at least 0, got -1"),
        ({"retry_count": "3"}, TypeError, "retry_count must be a whole number, got '3'"),
        ({"retry_delay": -0.5}, ValueError, "retry_delay must be .* got -0.5"),
        ({"retry_delay": float("nan")}, ValueError, "retry_delay must be .* got nan"),
        ({"rate_limiter": 10}, TypeError, r"got 10: .* pass RateLimiter\(10\)"),
        ({"rate_limiter": [RateLimiter(1), 5]}, TypeError, "got 5"),
        ({"rate_limiter": asyncio.Semaphore(3)}, TypeError, "got <asyncio.locks.Semaphore"),
        ({"retry": 3}, TypeError, "retry must be an AsyncRetry, got 3"),
        ({"timeout": 0}, ValueError, "timeout must be positive and finite, got 0"),
        (
            {"timeout": "5"},
            TypeError,
            "timeout must be a number of seconds or .*, got '5'",
        ),
        ({"max_errors": -1}, ValueError, "max_errors must be .* got -1"),
        ({"max_errors": 1.0}, TypeError, "max_errors must be .* got 1.0"),
        ({"max_errors": 0.05}, ValueError, r"got 0.05: .* use max_error_rate=0.05"),
        ({"max_errors": True}, TypeError, "max_errors must be .* got True"),
        ({"max_error_rate": 1.0}, ValueError, "max_error_rate must be .* got 1.0"),
        ({"max_error_rate": 0}, ValueError, "max_error_rate must be .* got 0"),
        ({"max_error_rate": 5}, ValueError, "max_error_rate must be .* got 5: .* use max_errors="),
        ({"max_error_rate": "5%"}, TypeError, "max_error_rate must be a number, got '5%'"),
        ({"executor": 4}, TypeError, "executor must be a concurrent.futures.Executor, got 4"),
        ({"max_batch_weight": 10, "batched": True}, ValueError, "max_batch_weight needs weight="),
        ({"weight": len}, ValueError, "needs batched=True"),
        (
            {"weight": len, "batched": True, "max_batch_weight": -1},
            ValueError,
            "max_batch_weight must",
        ),
        ({"weight": len, "batched": True}, ValueError, r"needs max_batch_weight=.* RateLimiter\("),
        ({"weight": 3, "batched": True}, TypeError, "weight must be a function of one item, got 3"),
        ({"resources": 3}, TypeError, "pass the function, not what it returns"),
    ],
)
def test_a_wrong_argument_is_refused_by_the_constructor(
    wrong: dict[str, Any], error: type[Exception], message: str
):
    """By its name, with what came."""
    with pytest.raises(error, match=message):
        AsyncBatchProcessor(double, **wrong)


def test_the_arguments_stand_in_the_order_of_the_contract():
    """Five by position, the rest by keyword only."""
    processor = AsyncBatchProcessor(double, 16, 2, 1, 0.5)
    assert repr(processor) == "<AsyncBatchProcessor double, max_concurrency=2>"
    with pytest.raises(TypeError, match="positional"):
        AsyncBatchProcessor(double, 16, 2, 1, 0.5, True)  # type: ignore[misc]


def test_the_repr_shows_the_batch_size_where_it_matters():
    """For batched functions."""
    processor = AsyncBatchProcessor(double, 16, batched=True)
    assert repr(processor) == "<AsyncBatchProcessor double, batch_size=16, max_concurrency=4>"


# ---- used again, also concurrently


async def test_a_processor_can_be_used_twice_at_the_same_time():
    """Each run has its own window and its own result."""
    processor = AsyncBatchProcessor(double, max_concurrency=2)
    first, second = await asyncio.gather(processor.process([1, 2]), processor.process([3, 4]))
    assert (first.results, second.results) == ([2, 4], [6, 8])
    assert now() == about(1)


def test_a_processor_can_be_used_from_one_loop_after_the_other():
    """With its limiter; nothing in it belongs to a loop."""
    processor = AsyncBatchProcessor(double, rate_limiter=RateLimiter(1000), timeout=5)
    for _ in range(2):
        assert run_on_virtual_clock(processor.process([1, 2, 3])).results == [2, 4, 6]


@pytest.mark.real_time
def test_a_processor_can_be_used_from_several_threads_concurrently():
    """Four loops in four threads, all in flight at the same moment."""
    meeting = threading.Barrier(4)

    async def meet(item: int) -> int:
        if item == 0:
            await asyncio.to_thread(meeting.wait, 30)
        await asyncio.sleep(0)
        if item % 2:
            raise OSError("away")
        return item

    processor = AsyncBatchProcessor(meet, rate_limiter=RateLimiter(1e6), retry_delay=0.0)
    results: list[BatchResult[int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(asyncio.run(processor.process(range(20)))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.get_successful() for result in results] == [list(range(0, 20, 2))] * 4
    assert [result.error_count for result in results] == [10] * 4


@pytest.mark.real_time
def test_process_sync_works_without_a_loop():
    """From a script, in one line."""

    async def soon(item: int) -> int:
        await asyncio.sleep(0)
        return item + 1

    processor = AsyncBatchProcessor(soon)
    reports: list[tuple[int, int | None]] = []
    result = processor.process_sync([1, 2, 3], lambda *report: reports.append(report), max_items=2)
    assert result.results == [2, 3, None]
    assert processor.last_result is result
    assert reports == [(2, 2)]


@pytest.mark.real_time
async def test_process_sync_works_inside_a_running_loop():
    """Called by sync code that async code called."""

    async def soon(item: int) -> int:
        await asyncio.sleep(0)
        return item + 1

    assert AsyncBatchProcessor(soon).process_sync([1, 2, 3]).results == [2, 3, 4]


async def test_the_last_result_is_kept():
    """None before the first run."""
    processor = AsyncBatchProcessor(double)
    assert processor.last_result is None
    result = await processor.process([1])
    assert processor.last_result is result


# ---- objects of another loop


class Client:
    """A client that belongs to the loop that it was made on, as real ones do."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.close()
        self.calls = 0

    async def call(self, item: int) -> None:
        """Fail like asyncio does."""
        self.calls += 1
        future = self.loop.create_future()
        await future

    async def call_wrapped(self, item: int) -> None:
        """Fail like clients that have errors of their own for everything."""
        try:
            await self.call(item)
        except RuntimeError as error:
            raise ConnectionError("request failed") from error

    async def call_closed(self, item: int) -> None:
        """Fail like a transport whose loop is gone."""
        self.calls += 1
        self.loop.call_soon(print)


@pytest.mark.parametrize("way", ["call", "call_closed", "call_wrapped"])
async def test_a_client_of_another_loop_gives_one_error_that_says_what_to_do(way: str):
    """And not four retries an item, of a thousand items."""
    client = Client()
    processor = AsyncBatchProcessor(getattr(client, way), max_concurrency=4)
    with pytest.raises(RunAsyncError, match="Three ways out") as caught:
        await processor.process(range(1000))
    assert client.calls <= 4
    assert any("`last_result`" in note for note in caught.value.__notes__)
    assert processor.last_result is not None
    assert processor.last_result.pending_count >= 996
    assert now() == 0


async def test_a_client_of_another_loop_ends_a_stream_too():
    """With the same error."""
    processor = AsyncBatchProcessor(Client().call)
    with pytest.raises(RunAsyncError, match="Three ways out"):
        async for _ in processor.stream(range(1000)):
            pass


# ---- resources


class Pool:
    """A resource that notes its life."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.loops: list[asyncio.AbstractEventLoop] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Open, and close after a second."""
        self.loops.append(asyncio.get_running_loop())
        self.events.append("open")
        try:
            yield "client"
        finally:
            await asyncio.sleep(1)
            self.events.append("closed")


async def test_resources_are_opened_once_and_passed_as_second_argument():
    """On the run's own loop; closed after the last call, before the result."""
    pool = Pool()

    async def use(item: int, client: str) -> str:
        await asyncio.sleep(1)
        pool.events.append(f"{client} {item}")
        return f"{client} {item}"

    result = await AsyncBatchProcessor(use, resources=pool.open).process([1, 2])
    assert result.results == ["client 1", "client 2"]
    assert pool.events[0] == "open"
    assert sorted(pool.events[1:3]) == ["client 1", "client 2"]
    assert pool.events[3:] == ["closed"]
    assert pool.loops == [asyncio.get_running_loop()]


def test_resources_are_opened_for_each_run():
    """So that each loop has its own client."""
    pool = Pool()

    async def use(item: int, client: str) -> str:
        return client

    processor = AsyncBatchProcessor(use, resources=pool.open)
    for _ in range(2):
        run_on_virtual_clock(processor.process([1, 2]))
    assert pool.events == ["open", "closed"] * 2
    assert pool.loops[0] is not pool.loops[1]


async def test_what_resources_take_to_open_is_part_of_the_run():
    """So that a timeline begins where the run did, and ends where it did."""

    @asynccontextmanager
    async def slow() -> AsyncIterator[str]:
        await asyncio.sleep(2)
        yield "a client"

    async def call(item: int, client: str) -> int:
        await asyncio.sleep(1)
        return item

    result = await AsyncBatchProcessor(call, max_concurrency=1, resources=slow).process([7, 8])
    assert [outcome.started for outcome in result] == about([2, 3])
    assert result.seconds == about(4)


async def test_resources_are_closed_after_the_last_call_was_cancelled():
    """A call may need them for its clean-up."""
    pool = Pool()

    async def use(item: int, client: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            pool.events.append("cleaned up")

    running = asyncio.create_task(AsyncBatchProcessor(use, resources=pool.open).process([1, 2]))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pool.events == ["open", "cleaned up", "cleaned up", "closed"]


async def test_resources_are_closed_when_the_source_raises():
    """As on every other way out."""
    pool = Pool()

    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk gone")

    async def use(item: int, client: str) -> None:
        pool.events.append("used")

    with pytest.raises(OSError, match="disk gone"):
        await AsyncBatchProcessor(use, resources=pool.open).process(source())
    assert pool.events == ["open", "used", "closed"]


async def test_resources_that_cannot_be_opened_end_the_run():
    """With their own error, and every item pending."""

    @asynccontextmanager
    async def refused() -> AsyncIterator[None]:
        raise ConnectionError("no route")
        yield

    processor = AsyncBatchProcessor(double, resources=refused)
    with pytest.raises(ConnectionError, match="no route"):
        await processor.process([1, 2, 3])
    assert processor.last_result is not None
    assert processor.last_result.pending_count == 3


async def test_batched_functions_get_resources_too():
    """As the second argument, after the list."""
    pool = Pool()

    async def use(items: list[int], client: str) -> list[str]:
        return [client] * len(items)

    processor = AsyncBatchProcessor(use, batched=True, resources=pool.open)
    assert (await processor.process([1, 2])).results == ["client", "client"]


# ---- the loop breathes


@pytest.mark.parametrize("timeout", [None, 5.0])
@on_manual_clock
async def test_a_function_that_never_suspends_yields_to_the_loop(timeout: float | None):
    """Others have their turn at least ten times a second, whatever each call computes."""

    async def compute(item: int) -> int:
        loop.now += 0.001
        return item

    loop = cast("ManualClockLoop", asyncio.get_running_loop())
    gaps: list[float] = []

    async def look() -> None:
        last = now()
        while True:
            await asyncio.sleep(0)
            gaps.append(now() - last)
            last = now()

    looking = asyncio.create_task(look())
    processor = AsyncBatchProcessor(compute, timeout=timeout)
    result = await processor.process(range(5_000))
    looking.cancel()
    assert result.all_succeeded
    assert now() == about(5.0)
    assert max(gaps) < 0.1


# ---- process_with_workers


async def test_workers_process_items_side_by_side():
    """Five by default, in order in the result."""
    service = Service()
    result = await process_with_workers(range(10), service)
    assert result.results == [10 * item for item in range(10)]
    assert (service.most_in_flight, result.seconds) == (5, about(2))


async def test_a_failing_item_ends_no_worker_and_is_not_retried():
    """The hand-made pattern waits for ever here."""
    service = Service(errors={item: OSError("away") for item in range(0, 10, 2)})
    result = await process_with_workers(range(10), service, num_workers=2)
    assert (result.success_count, result.error_count) == (5, 5)
    assert len(service.calls) == 10


async def test_a_wrong_number_of_workers_is_refused_by_its_name():
    """Not by that of the argument it becomes."""
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        await process_with_workers([1], double, 0)


async def test_workers_take_async_sources():
    """As the processor does."""

    async def source() -> AsyncIterator[int]:
        for item in (1, 2):
            yield item

    assert (await process_with_workers(source(), double, 1)).results == [2, 4]


# ---- nothing is left behind


if sys.version_info >= (3, 12):  # asyncio has eager tasks from there on

    async def test_a_loop_that_starts_tasks_eagerly_will_do():
        """A worker that ran before it was known would never be seen to end."""
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        processor = AsyncBatchProcessor(double, max_concurrency=2, timeout=3)
        async with asyncio.timeout(60):
            assert (await processor.process(range(4))).results == [0, 2, 4, 6]
            assert len([outcome async for outcome in processor.stream(iter(range(4)))]) == 4
            assert (await processor.start(range(4), on_current_loop=True)).all_succeeded


async def test_a_run_leaves_no_task_behind():
    """Neither workers nor source."""

    async def source() -> AsyncIterator[int]:
        for item in range(10):
            yield item

    processor = AsyncBatchProcessor(double, timeout=10, retry=AsyncRetry(1))
    await processor.process(source())
    assert other_tasks() == set()


async def test_resources_that_are_no_async_context_manager_are_refused():
    """With what to do instead."""
    processor = AsyncBatchProcessor(double, resources=object)
    with pytest.raises(TypeError, match="asynccontextmanager"):
        await processor.process([1])


async def test_a_source_that_says_it_is_empty_and_is_not_is_processed():
    """A length is a promise that some break; workers are opened all the same."""

    class Lazy:
        def __len__(self) -> int:
            return 0

        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    assert (await AsyncBatchProcessor(double).process(Lazy())).results == [2, 4]
