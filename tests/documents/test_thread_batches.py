"""ThreadBatcher: sync calls on threads, several quick ones in one hand-over."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ragasync.documents import AsyncDocumentProcessor

# Internals: parts of an embedder that no run starts or stops on demand.
from ragasync.documents.embedders import computing_turn
from ragasync.documents.thread_batches import (
    BATCH_SECONDS,
    MAX_CPU_THREADS,
    MAX_ITEMS,
    MIN_WORK,
    TRIAL_SECONDS,
    BatchOutcome,
    ThreadBatch,
    ThreadBatcher,
)
from tests.support.services import about, other_tasks


class Threads:
    """
    Runs batches on the loop itself: each takes a second, and reports `seconds` for each item.

    Args:
        seconds: the time of an item, by the thread's clock.
        at_most: how many items of a batch there is time for.
        cpu_share: the share of processor time in it.
        shared: the time of a query for all items of a batch.
    """

    def __init__(
        self,
        seconds: float = 0.0001,
        at_most: int = 1000,
        cpu_share: float = 0.0,
        shared: float = 0.0,
    ) -> None:
        self.seconds, self.cpu_share = seconds, cpu_share
        self.at_most, self.shared = at_most, shared
        self.batches: list[list[int]] = []
        self.errors: dict[int, BaseException] = {}
        self.busy = 0
        self.most_busy = 0

    async def __call__(self, batch: ThreadBatch[int]) -> BatchOutcome[int]:
        """Return ten times each item, or its error."""
        items = batch.items
        self.batches.append(list(items))
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
        seconds = self.seconds * len(done) + self.shared
        return BatchOutcome(
            [10 * item for item in done],
            errors,
            seconds,
            self.cpu_share * seconds,
            shared_seconds=self.shared,
        )


async def call_later(batcher: ThreadBatcher[int, int], items: Iterable[int]) -> None:
    """Call for items a turn of the loop later, when a batch of others has been sent."""
    await asyncio.sleep(0)
    await asyncio.gather(*map(batcher, items))


@asynccontextmanager
async def open_batcher(
    call: Any, max_concurrency: int = 1
) -> AsyncIterator[ThreadBatcher[int, int]]:
    """Open a batcher, and close it."""
    batcher: ThreadBatcher[int, int] = ThreadBatcher(call, max_concurrency)
    try:
        yield batcher
    finally:
        await batcher.close()


async def test_each_caller_gets_the_outcome_of_its_item():
    """A value, or the error that the call raised."""
    threads = Threads()
    threads.errors = {3: ValueError("three")}
    async with open_batcher(threads) as batcher:
        outcomes = await asyncio.gather(*map(batcher, range(6)), return_exceptions=True)
    assert outcomes == [0, 10, 20, threads.errors[3], 40, 50]


async def test_waiting_quick_items_go_in_one_batch():
    """The first goes alone, because nothing is known about it yet."""
    threads = Threads(seconds=0.00001)
    async with open_batcher(threads) as batcher:
        await asyncio.gather(*map(batcher, range(300)))
    sizes = [len(batch) for batch in threads.batches]
    assert sizes[0] == 1
    assert max(sizes) == MAX_ITEMS
    assert sum(sizes) == 300
    assert batcher.ahead == MAX_ITEMS


@pytest.mark.parametrize("cpu_share", [0.0, 1.0], ids=["waits", "computes"])
async def test_a_long_query_for_all_items_of_a_batch_does_not_make_it_smaller(cpu_share: float):
    """It takes as long for one of them."""
    threads = Threads(seconds=0.00001, cpu_share=cpu_share, shared=20 * BATCH_SECONDS)
    async with open_batcher(threads) as batcher:
        await asyncio.gather(*map(batcher, range(300)))
    assert [len(batch) for batch in threads.batches] == [1, MAX_ITEMS, MAX_ITEMS, 43]


async def test_slow_items_go_one_by_one_to_all_threads():
    """So that they run concurrently."""
    threads = Threads(seconds=2 * BATCH_SECONDS)
    async with open_batcher(threads, max_concurrency=4) as batcher:
        await asyncio.gather(*map(batcher, range(20)))
    assert {len(batch) for batch in threads.batches} == {1}
    assert threads.most_busy == 4
    assert batcher.ahead == 4


@pytest.mark.parametrize(
    ("cpu_share", "threads_used"), [(0.1, 8), (1.0, MAX_CPU_THREADS)], ids=["waits", "computes"]
)
async def test_calls_that_compute_share_two_threads(cpu_share, threads_used):
    """More threads than cores would only wait for the interpreter lock."""
    threads = Threads(seconds=2 * BATCH_SECONDS, cpu_share=cpu_share)
    async with open_batcher(threads, max_concurrency=8) as batcher:
        await asyncio.gather(*map(batcher, range(8)))
        threads.most_busy = 0
        await asyncio.gather(*map(batcher, range(80)))
    assert threads.most_busy == threads_used


async def test_short_calls_that_compute_are_judged_together():
    """Each takes a fifth of what the clocks can tell, and six of them are enough."""
    async with open_batcher(Threads(seconds=MIN_WORK / 5, cpu_share=1.0), 8) as batcher:
        for item in range(5):
            await batcher(item)
            assert batcher.slots == 8
        await batcher(5)
        assert batcher.slots == MAX_CPU_THREADS


async def test_few_threads_start_until_it_is_known_whether_calls_compute():
    """Among many that compute, each would look like one that waits; so it stays at a few then."""
    threads = Threads(seconds=2 * BATCH_SECONDS, cpu_share=0.1)
    async with open_batcher(threads, 8) as batcher:
        calls = [asyncio.ensure_future(batcher(item)) for item in range(8)]
        await asyncio.sleep(TRIAL_SECONDS / 2)
        assert threads.busy == MAX_CPU_THREADS
        await asyncio.sleep(TRIAL_SECONDS)
        assert threads.busy == 8
        await asyncio.gather(*calls)


async def test_a_second_thread_that_computes_gets_a_full_batch():
    """It has to wait for its turn anyway, and each batch has costs of its own."""
    threads = Threads(seconds=BATCH_SECONDS / 10, cpu_share=1.0)
    async with open_batcher(threads, 8) as batcher:
        for item in range(30):  # until the size of a batch is settled
            await batcher(item)
        await asyncio.gather(batcher(0), call_later(batcher, range(15)))
    assert [len(batch) for batch in threads.batches[30:]] == [1, 10, 5]


async def test_items_that_arrive_in_the_same_turn_of_the_loop_share_a_batch():
    """Also if no thread is busy, so that the first of them could be sent by itself."""
    threads = Threads(seconds=BATCH_SECONDS / 10)
    async with open_batcher(threads, 8) as batcher:
        for item in range(30):  # until the size of a batch is settled
            await batcher(item)
        await asyncio.gather(*map(batcher, range(10)))
    assert [len(batch) for batch in threads.batches[30:]] == [10]


async def test_more_and_fewer_threads_are_used_after_a_resize():
    """Batches in flight are left to finish, and the slots are counted from the change."""
    threads = Threads(seconds=2 * BATCH_SECONDS)
    async with open_batcher(threads) as batcher:
        calls = [asyncio.ensure_future(batcher(item)) for item in range(40)]
        await asyncio.sleep(2.5)
        assert threads.busy == 1
        batcher.resize(4)
        await asyncio.sleep(1)
        assert (threads.busy, batcher.ahead) == (4, 4)
        batcher.resize(2)
        await asyncio.sleep(1)
        assert threads.busy == 2
        assert batcher.activity.extra_slot_seconds == about(-3 * 2.5 + 2 * 3.5)
        assert await asyncio.gather(*calls) == [10 * item for item in range(40)]


async def test_another_thread_is_used_only_for_enough_work():
    """A handful of short documents waits for the batch in flight."""
    threads = Threads(seconds=0.00001)
    async with open_batcher(threads, max_concurrency=4) as batcher:
        await asyncio.gather(*map(batcher, range(60)))  # by now they are known to be quick
        threads.batches.clear()
        threads.most_busy = 0
        await asyncio.gather(batcher(0), call_later(batcher, range(1, 9)))
    assert threads.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert threads.most_busy == 1


async def test_the_rest_of_a_slow_batch_goes_first_in_the_next():
    """None is lost, and none is called twice."""
    threads = Threads()
    async with open_batcher(threads) as batcher:
        await asyncio.gather(*map(batcher, range(50)))
        threads.batches.clear()
        threads.at_most = 4
        assert await asyncio.gather(*map(batcher, range(20))) == [10 * item for item in range(20)]
    assert [batch[0] for batch in threads.batches] == [0, 4, 8, 12, 16]


async def test_an_item_whose_caller_was_cancelled_is_not_called():
    """A document whose run was cancelled is not chunked."""
    threads = Threads()
    async with open_batcher(threads) as batcher:
        first, second = (asyncio.ensure_future(batcher(item)) for item in range(2))
        await asyncio.sleep(0.5)
        second.cancel()
        assert await first == 0
        assert await batcher(2) == 20
    assert threads.batches == [[0], [2]]


async def test_if_no_thread_can_be_started_every_item_of_the_batch_gets_the_error():
    """It is not the error of one item."""

    async def broken(items: Sequence[int]) -> BatchOutcome[int]:
        raise RuntimeError("can't start new thread")

    async with open_batcher(broken) as batcher:
        outcomes = await asyncio.gather(*map(batcher, range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["can't start new thread"] * 3


async def test_closing_leaves_no_task():
    """Also in the middle of a batch."""
    async with open_batcher(Threads(), max_concurrency=2) as batcher:
        waiting = [asyncio.ensure_future(batcher(item)) for item in range(3)]
        await asyncio.sleep(0.5)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert other_tasks() == set()


@pytest.mark.real_time
def test_a_thread_that_computes_has_its_turn_alone():
    """Whatever it calls that gives up the interpreter lock."""
    inside, most_inside = [0], [0]

    def compute() -> None:
        with computing_turn():
            inside[0] += 1
            most_inside[0] = max(most_inside[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1

    threads = [threading.Thread(target=compute) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_inside[0] == 1


@pytest.mark.real_time
def test_a_turn_that_does_not_end_holds_nobody_up():
    """As when a function in its turn runs a job of its own and waits for it."""

    def compute() -> None:
        with computing_turn():
            done.append("the other thread")

    done: list[str] = []
    with computing_turn():
        other = threading.Thread(target=compute)
        other.start()
        other.join()
    assert done == ["the other thread"]


@pytest.mark.real_time
def test_a_splitter_that_runs_a_job_of_its_own_gets_its_result():
    """The inner job computes while the outer one has its turn."""

    def split(text: str) -> list[str]:
        inner = AsyncDocumentProcessor().process_sync([(f"{n}", text) for n in range(2)])
        return [text] * inner.success_count

    outer = AsyncDocumentProcessor(chunk=split)
    result = outer.process_sync([(f"{n}", f"text {n}. " * 400) for n in range(30)])
    assert {done.chunk_count for done in result.get_successful()} == {2}
    assert result.success_count == 30
