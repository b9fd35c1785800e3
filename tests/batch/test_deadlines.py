"""The time limit of attempts: one timer over all deadlines of a run, and what it may cancel."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, AttemptTimeout, Outcome
from tests.support.services import about, now


async def nap(seconds: float) -> float:
    """Sleep, and return when that ended."""
    await asyncio.sleep(seconds)
    return now()


async def arriving(items: Sequence[tuple[float, Any]]) -> AsyncIterator[Any]:
    """Yield each item at its time."""
    for at, item in items:
        await asyncio.sleep(at - now())
        yield item


def ended(outcome: Outcome[Any]) -> float:
    """When the last attempt of an item ended."""
    return outcome.started + outcome.seconds


def processor(concurrency: int = 1, **settings: Any) -> AsyncBatchProcessor[float, float]:
    """A processor of naps, with 2 seconds for each attempt and no retries."""
    retry = settings.pop("retry", AsyncRetry(0))
    return AsyncBatchProcessor(nap, 1, concurrency, timeout=2, retry=retry, **settings)


async def test_an_attempt_is_cancelled_when_its_time_is_up():
    """To the moment, and the error says how long it had."""
    (outcome,) = await processor().process([9])
    assert isinstance(outcome.error, AttemptTimeout)
    assert str(outcome.error) == "the attempt took longer than 2 s"
    assert now() == 2


async def test_no_task_is_cancelled_between_two_attempts():
    """An item that waits for its back-off has no deadline."""
    calls: list[float] = []

    async def second_time(item: int) -> float:
        calls.append(now())
        await asyncio.sleep(1)
        if len(calls) == 1:
            raise ConnectionError
        return now()

    retry = AsyncRetry(1, 10.0, jitter=None)
    result = await AsyncBatchProcessor(second_time, 1, 1, timeout=2, retry=retry).process([0])
    assert result.results == [about(12)]


async def test_a_late_attempt_leaves_its_task_as_it_was():
    """It is not being cancelled any more, and the next attempt has its whole time."""
    cancelling: list[int] = []

    async def work(seconds: float) -> float:
        task = asyncio.current_task()
        assert task is not None
        cancelling.append(task.cancelling())
        return await nap(seconds)

    result = await AsyncBatchProcessor(work, 1, 1, 0, timeout=2).process([9, 1.5])
    assert isinstance(result.errors[0], AttemptTimeout)
    assert result.results[1] == 3.5
    assert cancelling == [0, 0]


async def test_a_cancellation_after_a_late_attempt_is_no_timeout():
    """A cancellation from outside propagates, whatever happened before."""
    naps = processor()
    task = asyncio.create_task(naps.process([9, 1.5]))
    await asyncio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert naps.last_result is not None
    assert [outcome.status for outcome in naps.last_result] == ["failed", "cancelled"]


@pytest.mark.parametrize("first", ["the timer", "the cancellation"])
async def test_a_cancellation_at_the_same_moment_still_propagates(first: str):
    """Both are requested before the task can run: it is cancelled, not late."""
    naps, begun = processor(), asyncio.Event()

    async def items() -> AsyncIterator[float]:
        yield 9
        begun.set()
        await asyncio.sleep(1)

    task = asyncio.create_task(naps.process(items()))
    if first == "the timer":
        await begun.wait()
        await asyncio.sleep(0.5)  # the attempt has begun, and set its timer before ours
    asyncio.get_running_loop().call_at(2.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == 2
    assert naps.last_result is not None
    assert naps.last_result[0].status == "cancelled"


async def test_attempts_of_several_workers_each_end_in_time():
    """The timer is set for the earliest deadline, also if a later one has set it."""
    result = await processor(3).process(arriving([(0, 9), (0.75, 9), (1.5, 9)]))
    assert [type(error) for error in result.errors] == [AttemptTimeout] * 3
    assert [ended(outcome) for outcome in result] == about([2, 2.75, 3.5])


class SlowExecutor(Executor):
    """An executor whose items are the seconds that they take."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a group, and answer when the time of all its items has passed."""
        (group,) = args
        future: Future[Any] = Future()

        def answer() -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(function(group))

        asyncio.get_running_loop().call_later(sum(group.arguments), answer)
        return future


async def test_a_short_attempt_next_to_a_long_one_ends_in_time():
    """A group has 2 s for each of its items; the timer never sleeps longer than for one."""
    slow = AsyncBatchProcessor(abs, 10, 2, 0, timeout=2, executor=SlowExecutor())
    items = [*[(0.0, 1.5)] * 10, (3.0, 9.0)]
    result = await slow.process(arriving(items))
    assert [type(error) for error in result.errors] == [type(None)] * 10 + [AttemptTimeout]
    assert result[10].seconds == about(2)


async def test_a_late_attempt_has_all_the_time_for_its_clean_up():
    """It is cancelled once, although the timer fires again meanwhile."""
    cleaned_up: list[float] = []

    async def careful(seconds: float) -> float:
        try:
            return await nap(seconds)
        finally:
            if seconds == 9:
                await asyncio.sleep(5)
                cleaned_up.append(now())

    result = await AsyncBatchProcessor(careful, 1, 2, 0, timeout=2).process([9, *[1.9] * 5])
    assert isinstance(result.errors[0], AttemptTimeout)
    assert cleaned_up == [7]
    assert result.success_count == 5


async def test_a_task_that_has_ended_is_let_go():
    """Nothing of it is kept for longer than until the timer next fires."""
    traces: list[weakref.ref[Any]] = []

    async def work(item: int) -> bool:
        if item == 0:  # a task of which somebody keeps a trace makes no further call
            traces.append(weakref.ref(asyncio.current_task()))
        await asyncio.sleep(1.5)
        gc.collect()
        return traces[0]() is None

    result = await AsyncBatchProcessor(work, 1, 1, timeout=2).process(range(4))
    assert result.results[-1] is True


async def test_an_attempt_after_a_pause_ends_in_time():
    """The timer ends with the attempts, and the next attempt sets it again."""
    result = await processor().process(arriving([(0, 1), (11, 9)]))
    assert isinstance(result.errors[1], AttemptTimeout)
    assert ended(result[1]) == about(13)
