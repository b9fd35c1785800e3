"""Sync functions on an executor: groups of items, their limits, and workers that crash."""

import asyncio
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    AttemptTimeout,
    RateLimiter,
    WorkerDied,
)
from tests.support.requirements import needs
from tests.support.services import about, now


def double(item: int) -> int:
    """Return twice the item."""
    return 2 * item


def odd_only(item: int) -> int:
    """Refuse even numbers."""
    if item % 2 == 0:
        raise ValueError(f"{item} is even")
    return item


def die_at_13(item: int) -> int:
    """End the worker process at 13, every time."""
    if item == 13:
        os._exit(1)
    return item


def die_once(paths: tuple[str, int]) -> int:
    """End the worker process at 5, the first time."""
    folder, item = paths
    if item == 5:
        mark = Path(folder) / "died"
        if not mark.exists():
            mark.touch()
            os._exit(1)
    return item


def process_of(item: int) -> int:
    """Return the process that this runs in."""
    return os.getpid()


def local_at_3(item: Any) -> Any:
    """Return something that cannot be pickled at 3."""
    return (each for each in ()) if item == 3 else item


def doubles(items: list[int]) -> list[int]:
    """Return twice each item; 3 is a bad item."""
    if 3 in items:
        raise ValueError("not 3")
    return [2 * item for item in items]


class Awkward(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


def awkward(item: int) -> int:
    """Raise an error that cannot be unpickled."""
    if item == 2:
        raise Awkward(item, item)
    return item


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two worker processes."""
    with ProcessPoolExecutor(2) as executor:
        yield executor


class AtOnce(Executor):
    """An executor that runs each group immediately, and notes its number of items."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.groups: list[int] = []
        self.starts: list[float] = []
        self.seconds = seconds

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the group now, and answer after a virtual time per item."""
        future: Future[Any] = Future()
        self.groups.append(len(args[0].arguments))
        self.starts.append(now())
        answer = function(*args, **kwargs)

        def deliver() -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(answer)

        asyncio.get_running_loop().call_later(self.seconds * len(args[0].arguments), deliver)
        return future


# ---- groups, on an executor that runs them immediately


async def test_a_group_has_a_share_of_the_remaining_items():
    """min(batch_size, ceil(remaining / (4 x max_concurrency))) items."""
    expected, remaining = [], 100
    while remaining:
        expected.append(min(8, math.ceil(remaining / (4 * 2))))
        remaining -= expected[-1]
    executor = AtOnce()
    processor = AsyncBatchProcessor(double, batch_size=8, max_concurrency=2, executor=executor)
    result = await processor.process(range(100))
    assert executor.groups == expected
    assert result.results == [2 * item for item in range(100)]


async def test_a_group_is_full_if_the_number_of_items_is_unknown():
    """An iterator gives batch_size items to each group."""
    executor = AtOnce()
    await AsyncBatchProcessor(double, 8, 2, executor=executor).process(iter(range(20)))
    assert executor.groups == [8, 8, 4]


async def test_a_group_takes_a_place_at_the_limiter_for_each_item():
    """Four items need four places, although they are sent together."""
    executor = AtOnce()
    limiter = RateLimiter(1, burst_size=4)
    processor = AsyncBatchProcessor(double, 4, 1, executor=executor, rate_limiter=limiter)
    await processor.process(iter(range(12)))
    assert executor.starts == about([0, 4, 8])


async def test_the_time_limit_of_a_group_is_that_of_all_its_items():
    """Timeout x items: four items of 0.9 s are fast enough, four of 1.1 s are not."""
    for seconds, in_time in ((0.9, True), (1.1, False)):
        processor = AsyncBatchProcessor(double, 4, 1, 0, executor=AtOnce(seconds), timeout=1)
        result = await processor.process(iter(range(4)))
        assert result.all_succeeded is in_time


async def test_each_item_of_a_group_has_its_own_outcome():
    """Failed items are retried alone; the others are not retried."""
    executor = AtOnce()
    processor = AsyncBatchProcessor(
        odd_only, 4, 1, executor=executor, retry=AsyncRetry(2, 0.5, retry_on=ValueError)
    )
    result = await processor.process(iter(range(4)))
    assert [outcome.status for outcome in result] == ["failed", "done", "failed", "done"]
    assert [outcome.attempts for outcome in result] == [3, 1, 3, 1]
    assert executor.groups == [4, 1, 1, 1, 1]
    assert str(result.errors[2]) == "2 is even"


async def test_an_item_that_a_later_group_saves_keeps_the_time_of_its_earlier_attempts():
    """The time in the call is that of all attempts."""
    tried: list[int] = []

    def second_time(item: int) -> int:
        tried.append(item)
        if len(tried) == 1:
            raise ValueError("not yet")
        return item

    processor = AsyncBatchProcessor(
        second_time, 4, 1, executor=AtOnce(), retry=AsyncRetry(2, 0.5, retry_on=ValueError)
    )
    (outcome,) = await processor.process(iter([7]))
    assert (outcome.status, outcome.attempts) == ("done", 2)
    assert outcome.seconds > outcome.history[0].seconds > 0


async def test_the_log_says_when_an_item_of_a_group_had_its_turn():
    """After the items before it, not when the group was sent."""
    tried: list[int] = []

    def fails_once(item: int) -> int:
        tried.append(item)
        if item == 1 and tried.count(1) == 1:
            raise ValueError("not yet")
        return item

    processor = AsyncBatchProcessor(
        fails_once, 4, 1, executor=AtOnce(), retry=AsyncRetry(1, 0.5, retry_on=ValueError)
    )
    first, second, _ = await processor.process(iter(range(3)))
    (attempt,) = second.history
    assert attempt.started == second.started + first.seconds
    assert first.seconds > 0


async def test_the_error_rate_counts_the_successes_of_groups():
    """Every second item fails, which is less than 0.6."""
    processor = AsyncBatchProcessor(odd_only, 10, 1, 0, executor=AtOnce(), max_error_rate=0.6)
    result = await processor.process(range(200))
    assert (result.error_count, result.stopped_because) == (100, None)


def test_resources_cannot_be_sent_to_an_executor():
    """They belong to this loop."""
    with pytest.raises(ValueError, match="cannot be sent to an executor"):
        AsyncBatchProcessor(double, executor=AtOnce(), resources=lambda: None)  # type: ignore[arg-type,return-value]


# ---- threads of the user's own


@pytest.mark.real_time
async def test_a_thread_pool_is_an_executor_too():
    """Any concurrent.futures.Executor will do."""
    with ThreadPoolExecutor(3) as executor:
        result = await AsyncBatchProcessor(double, 4, executor=executor).process(range(40))
    assert result.results == [2 * item for item in range(40)]


@pytest.mark.real_time
@pytest.mark.parametrize("slots", [2, 4], ids=["as many slots as workers", "more slots"])
async def test_a_job_stops_when_all_workers_of_a_pool_are_held(slots: int):
    """No group can be interrupted, and further ones would only time out in the pool's queue."""
    import threading

    release = threading.Event()
    with ThreadPoolExecutor(2) as executor:
        processor = AsyncBatchProcessor(
            lambda item: release.wait(30), 1, slots, 0, executor=executor, timeout=0.25
        )
        result = await processor.process(range(100))
        release.set()
    assert "all 2 slots in use are held" in str(result.stopped_because)
    assert [type(error) for error in result.errors[:2]] == [AttemptTimeout] * 2
    assert result.pending_count > 50


# ---- processes


@pytest.mark.real_time
async def test_items_are_processed_in_other_processes(pool: ProcessPoolExecutor):
    """And not in this one; the loop goes on meanwhile."""
    result = await AsyncBatchProcessor(process_of, executor=pool).process(range(50))
    assert result.all_succeeded
    assert os.getpid() not in result.results


@pytest.mark.real_time
async def test_a_batched_function_on_processes_is_split_like_any_other(pool: ProcessPoolExecutor):
    """The bad item is found there too."""
    processor = AsyncBatchProcessor(doubles, 8, 2, 0, batched=True, executor=pool)
    result = await processor.process(range(20))
    assert [outcome.index for outcome in result.get_failed()] == [3]
    assert str(result.errors[3]) == "not 3"


@pytest.mark.real_time
async def test_an_error_comes_back_with_the_workers_traceback(pool: ProcessPoolExecutor):
    """As a note."""
    result = await AsyncBatchProcessor(odd_only, retry_count=0, executor=pool).process([2])
    assert type(result.errors[0]) is ValueError
    assert "in odd_only" in "".join(result.errors[0].__notes__)


@pytest.mark.real_time
async def test_an_error_that_cannot_be_unpickled_harms_nobody_else(pool: ProcessPoolExecutor):
    """As pickle does it, that is: it would break the pool."""
    processor = AsyncBatchProcessor(awkward, retry_count=0, executor=pool)
    result = await processor.process(range(20))
    assert [outcome.index for outcome in result.get_failed()] == [2]
    assert isinstance(result.errors[2], Awkward)
    assert str(result.errors[2]) == "2 and 2"


@pytest.mark.real_time
async def test_an_item_that_cannot_be_pickled_fails():
    """The pool lives, and later runs use it."""
    with ProcessPoolExecutor(1) as executor:
        processor: Any = AsyncBatchProcessor(process_of, 1, 2, 0, executor=executor)
        result = await processor.process([1, (each for each in ()), 3])
        assert [outcome.status for outcome in result] == ["done", "failed", "done"]


@pytest.mark.real_time
async def test_an_item_or_value_that_cannot_be_pickled_fails_alone(pool: ProcessPoolExecutor):
    """Its neighbours in the group are done, also without any retry."""
    processor: Any = AsyncBatchProcessor(local_at_3, 8, 1, 0, executor=pool)
    result = await processor.process(iter([0, 1, (each for each in ()), 3, 4]))
    assert [outcome.status for outcome in result] == ["done", "done", "failed", "failed", "done"]
    assert [outcome.attempts for outcome in result] == [1] * 5
    assert [str(error).partition(":")[0] for error in result.errors[2:4]] == [
        "item 2 cannot be pickled",
        "the value of item 3 cannot be pickled",
    ]


@pytest.mark.real_time
async def test_a_pool_that_was_broken_before_costs_nothing():
    """No attempt was made on it, so no retry is spent."""
    with ProcessPoolExecutor(1) as executor:
        with pytest.raises(BrokenProcessPool):
            executor.submit(die_at_13, 13).result()
        result = await AsyncBatchProcessor(double, 2, 2, 0, executor=executor).process(range(8))
    assert result.results == [2 * item for item in range(8)]


async def test_a_broken_executor_that_cannot_be_replaced_is_left_to_its_owner():
    """A run shuts down only the executors that it has made."""

    class Broken(Executor):
        was_shut_down = False

        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            raise BrokenExecutor("for good")

        def shutdown(self, *_: Any, **__: Any) -> None:
            self.was_shut_down = True

    executor = Broken()
    result = await AsyncBatchProcessor(double, 2, 1, 0, executor=executor).process(range(4))
    assert [type(error) for error in result.errors] == [WorkerDied] * 4
    assert not executor.was_shut_down


@pytest.mark.real_time
async def test_a_worker_that_dies_costs_a_retry_and_not_an_item(tmp_path: Path):
    """Only unfinished items are retried, in a new pool."""
    with ProcessPoolExecutor(2) as executor:
        processor = AsyncBatchProcessor(
            die_once, batch_size=2, max_concurrency=2, executor=executor, retry=AsyncRetry(2, 0.0)
        )
        result = await processor.process([(str(tmp_path), item) for item in range(40)])
    assert result.results == list(range(40))
    assert result[5].attempts >= 2
    assert sum(outcome.attempts for outcome in result) <= 40 + 4


@pytest.mark.real_time
async def test_a_worker_of_loky_that_dies_costs_a_retry_too(tmp_path: Path):
    """Its pool is replaced like Python's own."""
    needs("loky")
    import loky

    executor = loky.ProcessPoolExecutor(2)
    processor = AsyncBatchProcessor(die_once, 2, 2, executor=executor, retry=AsyncRetry(2, 0.0))
    result = await processor.process([(str(tmp_path), item) for item in range(20)])
    assert result.results == list(range(20))
    executor.shutdown()


@pytest.mark.real_time
async def test_an_item_that_always_kills_its_worker_fails_alone():
    """Its neighbours, in its group and in others, are done."""
    with ProcessPoolExecutor(2) as executor:
        processor = AsyncBatchProcessor(
            die_at_13, batch_size=4, max_concurrency=2, executor=executor, retry=AsyncRetry(2, 0.05)
        )
        result = await processor.process(range(40))
    assert [outcome.index for outcome in result.get_failed()] == [13]
    assert isinstance(result.errors[13], WorkerDied)


async def test_each_item_of_a_group_whose_worker_crashed_is_retried_alone():
    """Any of them may have crashed it, and the culprit must take no other item with it."""

    class Dying(AtOnce):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if 2 not in args[0].arguments:
                return super().submit(function, *args, **kwargs)
            self.groups.append(len(args[0].arguments))
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("a process ended"))
            return future

    executor = Dying()
    processor = AsyncBatchProcessor(double, 4, 1, executor=executor, retry=AsyncRetry(1, 0.5))
    result = await processor.process(iter(range(8)))
    assert [outcome.index for outcome in result.get_failed()] == [2]
    assert isinstance(result.errors[2], WorkerDied)
    assert sorted(executor.groups) == [1, 1, 1, 1, 1, 4, 4]
    assert [outcome.attempts for outcome in result] == [2, 2, 3, 2, 1, 1, 1, 1]


@pytest.mark.real_time
async def test_after_a_crash_the_users_executor_is_left_to_its_owner(tmp_path: Path):
    """The pool that replaced it ends with the run."""
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(1)
    processor = AsyncBatchProcessor(
        die_once, batch_size=1, max_concurrency=1, executor=executor, retry=AsyncRetry(2, 0.0)
    )
    result = await processor.process([(str(tmp_path), item) for item in range(10)])
    assert result.all_succeeded
    with pytest.raises(RuntimeError):
        executor.submit(double, 1)
    executor.shutdown()
    for child in set(multiprocessing.active_children()) - before:
        await asyncio.to_thread(child.join, 20)
    assert set(multiprocessing.active_children()) <= before


async def test_the_result_of_a_group_has_a_value_or_an_error_for_each_item():
    """And the time that each call took."""
    processor = AsyncBatchProcessor(odd_only, 3, 1, 0, executor=AtOnce())
    result = await processor.process(iter([1, 2, 3]))
    assert [(outcome.value, str(outcome.error)) for outcome in result] == [
        (1, "None"),
        (None, "2 is even"),
        (3, "None"),
    ]
    assert all(outcome.seconds >= 0 for outcome in result)
