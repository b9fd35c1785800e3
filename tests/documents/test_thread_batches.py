"""Sync calls on threads, of the quick ones several in one hop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ragasync.documents.stages.thread_batches import (
    HOP,
    MOST_ITEMS,
    BatchCall,
    HopOutcome,
    ThreadBatcher,
)
from tests.support.services import other_tasks

Call = Callable[[Sequence[int]], HopOutcome[int]]


class Threads:
    """
    Makes hops on the loop itself: each takes a second, and says that its items took `seconds`.

    Args:
        seconds: what an item takes by the thread's clock.
        at_most: how many items of a hop there is time for.
    """

    def __init__(self, seconds: float = 0.0001, at_most: int = 1000) -> None:
        self.seconds = seconds
        self.at_most = at_most
        self.hops: list[list[int]] = []
        self.errors: dict[int, BaseException] = {}
        self.busy = 0
        self.most_busy = 0

    async def __call__(self, items: Sequence[int]) -> HopOutcome[int]:
        """Return ten times each item, or its error."""
        self.hops.append(list(items))
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(1)
        finally:
            self.busy -= 1
        done = items[: self.at_most]
        errors = {
            place: self.errors[item] for place, item in enumerate(done) if item in self.errors
        }
        return HopOutcome([10 * item for item in done], errors, self.seconds * len(done))


@asynccontextmanager
async def open_hops(call: Any, at_once: int = 1) -> AsyncIterator[ThreadBatcher[int, int]]:
    """Open hops, and close them."""
    hops: ThreadBatcher[int, int] = ThreadBatcher(call, at_once)
    try:
        yield hops
    finally:
        await hops.close()


async def test_each_caller_gets_what_became_of_its_item():
    """A value, or the error that the call raised."""
    threads = Threads()
    threads.errors = {3: ValueError("three")}
    async with open_hops(threads) as hops:
        outcomes = await asyncio.gather(*map(hops, range(6)), return_exceptions=True)
    assert outcomes == [0, 10, 20, threads.errors[3], 40, 50]


async def test_quick_items_that_have_gathered_go_in_one_hop():
    """The first goes alone, because nothing is known of it yet."""
    threads = Threads()
    async with open_hops(threads) as hops:
        await asyncio.gather(*map(hops, range(100)))
    sizes = [len(hop) for hop in threads.hops]
    assert sizes[0] == 1
    assert max(sizes) == MOST_ITEMS
    assert sum(sizes) == 100
    assert hops.ahead == MOST_ITEMS


async def test_items_that_take_their_time_go_one_by_one_to_all_threads():
    """So that they run side by side."""
    threads = Threads(seconds=2 * HOP)
    async with open_hops(threads, at_once=4) as hops:
        await asyncio.gather(*map(hops, range(20)))
    assert {len(hop) for hop in threads.hops} == {1}
    assert threads.most_busy == 4
    assert hops.ahead == 4


async def test_a_further_thread_is_busied_only_for_enough_work():
    """A handful of short documents waits for the hop that is under way."""
    threads = Threads(seconds=0.00001)
    async with open_hops(threads, at_once=4) as hops:
        await asyncio.gather(*map(hops, range(60)))  # by now they are known to be quick
        threads.hops.clear()
        threads.most_busy = 0
        await asyncio.gather(*map(hops, range(9)))
    assert threads.hops == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert threads.most_busy == 1


async def test_what_there_was_no_time_for_goes_first_in_the_next_hop():
    """None is lost, and none is called twice."""
    threads = Threads()
    async with open_hops(threads) as hops:
        await asyncio.gather(*map(hops, range(50)))
        threads.hops.clear()
        threads.at_most = 4
        assert await asyncio.gather(*map(hops, range(20))) == [10 * item for item in range(20)]
    assert [hop[0] for hop in threads.hops] == [0, 1, 5, 9, 13, 17]


async def test_one_that_nobody_waits_for_any_more_is_not_called():
    """A document whose run was cancelled is not cut."""
    threads = Threads()
    async with open_hops(threads) as hops:
        first, second = (asyncio.ensure_future(hops(item)) for item in range(2))
        await asyncio.sleep(0.5)
        second.cancel()
        assert await first == 0
        assert await hops(2) == 20
    assert threads.hops == [[0], [2]]


async def test_where_no_thread_can_be_had_every_item_of_the_hop_hears_why():
    """It is no item's own error."""

    async def broken(items: Sequence[int]) -> HopOutcome[int]:
        raise RuntimeError("can't start new thread")

    async with open_hops(broken) as hops:
        outcomes = await asyncio.gather(*map(hops, range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["can't start new thread"] * 3


async def test_closing_leaves_no_task():
    """Also in the middle of a hop."""
    async with open_hops(Threads(), at_once=2) as hops:
        waiting = [asyncio.ensure_future(hops(item)) for item in range(3)]
        await asyncio.sleep(0.5)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert other_tasks() == set()


@pytest.mark.real_time
def test_on_the_thread_one_item_too_slow_ends_the_hop():
    """What comes after it goes to another."""
    slow = threading.Event()

    def call(item: int) -> int:
        if item == 1:
            slow.wait(3 * HOP)
        return item

    outcome = BatchCall(call)([0, 1, 2])
    assert outcome.values == [0, 1]
    assert outcome.seconds >= 3 * HOP


def test_on_the_thread_an_items_error_is_its_own():
    """Whatever it is: the thread goes on with the next."""

    def call(item: int) -> int:
        if item == 1:
            raise SystemExit(2)
        return item

    outcome = BatchCall(call)([0, 1, 2])
    assert outcome.values == [0, None, 2]
    assert [repr(error) for error in outcome.errors.values()] == ["SystemExit(2)"]
