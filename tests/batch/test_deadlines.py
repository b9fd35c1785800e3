"""DeadlineWatch: one timer over the deadlines of all attempts, and whom it may cancel."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest

from ragasync.calls.timeouts import DeadlineWatch
from ragasync.errors import AttemptTimeout


def watch(timeout: float, is_ending: Callable[[], bool] = lambda: False) -> DeadlineWatch:
    """A watch on the running loop, in a run that has cancelled the current task or not."""
    loop = asyncio.get_running_loop()
    return DeadlineWatch(loop, loop.time, timeout, is_ending)


def now() -> float:
    """The time on the virtual clock."""
    return asyncio.get_running_loop().time()


async def attempt(deadlines: DeadlineWatch, seconds: float, allowed: float = 2.0) -> float:
    """Make one attempt that takes so long; return when it ended."""
    nap: Callable[[float], Awaitable[None]] = asyncio.sleep
    await deadlines.with_timeout(nap, allowed)(seconds)
    return now()


async def test_an_attempt_is_cancelled_when_its_time_is_up():
    """To the moment, and the error says how long it had."""
    with pytest.raises(AttemptTimeout, match="longer than 2 s"):
        await attempt(watch(2), 9)
    assert now() == 2


async def test_an_attempt_may_be_allowed_more_than_the_timeout():
    """As a hop of several items is."""
    assert await attempt(watch(2), 5, allowed=6) == 5
    with pytest.raises(AttemptTimeout, match="longer than 6 s"):
        await attempt(watch(2), 9, allowed=6)
    assert now() == 11


async def test_nobody_is_cancelled_between_two_attempts():
    """A task that waits for its back-off has no deadline."""
    deadlines = watch(2)
    await attempt(deadlines, 1)
    await asyncio.sleep(10)
    assert await attempt(deadlines, 1) == 12


async def test_a_late_attempt_leaves_its_task_as_if_nothing_had_been():
    """It is not being cancelled any more, and the next attempt has its whole time."""
    deadlines = watch(2)
    with pytest.raises(AttemptTimeout):
        await attempt(deadlines, 9)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await attempt(deadlines, 1.5) == 3.5


async def test_a_cancellation_after_a_late_attempt_is_no_timeout():
    """What comes from outside passes, whatever was before."""
    deadlines = watch(2)

    async def two_attempts() -> None:
        with pytest.raises(AttemptTimeout):
            await attempt(deadlines, 9)
        await attempt(deadlines, 1.5)

    task = asyncio.create_task(two_attempts())
    await asyncio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("first", ["the watch", "the cancellation"])
async def test_a_cancellation_in_the_same_moment_still_passes(first: str):
    """Both have been asked for before the task can move: it is cancelled, not late."""
    ending: list[bool] = []
    deadlines = watch(2, lambda: bool(ending))
    task = asyncio.create_task(attempt(deadlines, 9))
    if first == "the watch":
        await asyncio.sleep(0)  # the attempt begins, and sets its timer before ours
    asyncio.get_running_loop().call_at(2.0, task.cancel)
    asyncio.get_running_loop().call_at(2.0, ending.append, True)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == 2


async def test_attempts_of_several_tasks_each_end_in_time():
    """The timer goes to the earliest, also where a later one set it."""
    deadlines = watch(2)

    async def begin_at(start: float) -> float:
        await asyncio.sleep(start)
        with pytest.raises(AttemptTimeout):
            await attempt(deadlines, 9)
        return now()

    assert await asyncio.gather(*map(begin_at, [1.5, 0.0, 0.75])) == [3.5, 2.0, 2.75]


async def test_a_short_attempt_beside_a_long_one_ends_in_time():
    """The watch never sleeps longer than its timeout, whatever the earliest deadline is."""
    deadlines = watch(2)
    long = asyncio.create_task(attempt(deadlines, 15, allowed=20))
    await asyncio.sleep(3)
    with pytest.raises(AttemptTimeout):
        await attempt(deadlines, 9)
    assert now() == 5
    assert await long == 15


async def test_a_late_attempt_has_all_the_time_for_its_clean_up():
    """It is cancelled once, however often the watch looks meanwhile."""
    deadlines = watch(2)
    cleaned_up: list[float] = []

    async def careful(_: object) -> None:
        try:
            await asyncio.sleep(9)
        finally:
            await asyncio.sleep(5)
            cleaned_up.append(now())

    other = asyncio.create_task(attempt(deadlines, 10, allowed=20))
    with pytest.raises(AttemptTimeout):
        await deadlines.with_timeout(careful, 2)(None)
    assert cleaned_up == [7]
    assert await other == 10


async def test_a_task_that_has_ended_is_let_go():
    """Nothing of it is kept for longer than until the next look."""
    deadlines = watch(2)
    task = asyncio.create_task(attempt(deadlines, 1))
    await task
    trace = weakref.ref(task)
    del task
    assert await attempt(deadlines, 5, allowed=6) == 6
    gc.collect()
    assert trace() is None


async def test_nothing_is_timed_while_nobody_makes_an_attempt():
    """The timer ends with the attempts, so that an idle job does not wake the loop."""
    deadlines = watch(2)
    await attempt(deadlines, 1)
    await asyncio.sleep(10)
    assert deadlines._timer is None
    with pytest.raises(AttemptTimeout):
        await attempt(deadlines, 9)
    assert now() == 13
