"""Sync functions on threads: the loop keeps running; hanging calls hold their slots."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Iterator

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, AttemptTimeout, RateLimiter
from tests.support.manual_clock import advance, on_manual_clock
from tests.support.services import about, now, other_tasks

pytestmark = pytest.mark.real_time

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


class Gated:
    """A sync function whose calls wait until it is opened; it counts the calls inside."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.lock = threading.Lock()
        self.entered = threading.Semaphore(0)
        self.inside = 0
        self.most_inside = 0
        self.calls: list[int] = []

    def __call__(self, item: int) -> int:
        """Wait until it is opened, and return ten times the item."""
        with self.lock:
            self.calls.append(item)
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        self.entered.release()
        self.opened.wait(30)
        with self.lock:
            self.inside -= 1
        return 10 * item


@pytest.fixture
def gated() -> Iterator[Gated]:
    """A gated function that is opened at the end, so that no thread outlives its test."""
    function = Gated()
    yield function
    function.opened.set()


async def entered(function: Gated, count: int) -> None:
    """Wait until this many calls are inside."""
    for _ in range(count):
        await asyncio.to_thread(function.entered.acquire, timeout=30)


async def test_sync_functions_run_on_threads_and_the_loop_keeps_running(gated: Gated):
    """The calls wait for an event that the loop sets."""
    running = asyncio.create_task(AsyncBatchProcessor(gated, max_concurrency=3).process(range(7)))
    await entered(gated, 3)
    gated.opened.set()
    result = await running
    assert result.results == [10 * item for item in range(7)]
    assert threading.main_thread().name not in {each.name for each in threading.enumerate()[1:]}


async def test_never_more_calls_are_inside_than_allowed(gated: Gated):
    """And as many as allowed."""
    running = asyncio.create_task(AsyncBatchProcessor(gated, max_concurrency=5).process(range(50)))
    await entered(gated, 5)
    gated.opened.set()
    await running
    assert gated.most_inside == 5


async def test_a_call_on_a_thread_has_one_item_whatever_the_batch_size(gated: Gated):
    """batch_size is for batched functions and executors."""
    running = asyncio.create_task(
        AsyncBatchProcessor(gated, batch_size=32, max_concurrency=4).process(range(4))
    )
    await entered(gated, 4)
    assert sorted(gated.calls) == [0, 1, 2, 3]
    gated.opened.set()
    await running


async def test_calls_see_the_callers_context_variables():
    """The variables of the code that awaits the job."""
    request_id.set("r-17")
    result = await AsyncBatchProcessor(lambda item: request_id.get()).process([1, 2, 3])
    assert result.results == ["r-17"] * 3


async def test_context_variables_set_in_a_call_stay_there():
    """They reach neither the next item nor the caller."""

    def setting(item: int) -> str:
        before = request_id.get()
        request_id.set(f"item {item}")
        return before

    result = await AsyncBatchProcessor(setting, max_concurrency=1).process(range(3))
    assert result.results == ["none"] * 3
    assert request_id.get() == "none"


async def test_an_error_on_a_thread_is_the_error_of_its_item():
    """With a traceback that leads into the function."""

    def fail(item: int) -> None:
        raise ValueError(f"bad {item}")

    result = await AsyncBatchProcessor(fail, retry_count=0).process([5])
    assert str(result.errors[0]) == "bad 5"
    assert "in fail" in str(result[0].traceback)


async def test_a_stop_iteration_is_an_error_like_any_other():
    """It would silently end a coroutine."""

    def stop(item: int) -> None:
        next(iter([]))

    result = await AsyncBatchProcessor(stop, retry_count=0).process([1])
    assert isinstance(result.errors[0], RuntimeError)
    assert isinstance(result.errors[0].__cause__, StopIteration)


async def test_calls_on_threads_are_retried_and_limited():
    """Like those of async functions."""
    calls: list[int] = []

    def flaky(item: int) -> int:
        calls.append(item)
        if len(calls) < 3:
            raise OSError("away")
        return item

    processor = AsyncBatchProcessor(
        flaky, retry_delay=0.0, rate_limiter=RateLimiter(1000), timeout=30
    )
    result = await processor.process([7])
    assert (result.results, result[0].attempts) == ([7], 3)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_raised_on_a_thread_propagates(kind: type[BaseException]):
    """It is not kept as an item's error."""

    def interrupting(item: int) -> None:
        raise kind

    processor = AsyncBatchProcessor(interrupting, max_concurrency=1)
    with pytest.raises(kind):
        asyncio.run(processor.process(range(3)))
    assert processor.last_result is not None
    assert processor.last_result.error_count == 0


async def test_functions_that_return_immediately_let_the_loop_turn():
    """Other tasks keep running while results arrive faster than they are delivered."""
    turns = 0

    async def ticking() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(ticking())
    await AsyncBatchProcessor(lambda item: item, max_concurrency=32).process(range(3200))
    ticker.cancel()
    assert turns >= 100  # at least one for each 32 results, the most that may wait together


async def test_a_cancellation_reaches_a_call_with_its_message(gated: Gated):
    """Like that of an ordinary future."""
    running = asyncio.create_task(AsyncBatchProcessor(gated, max_concurrency=1).process([1]))
    await entered(gated, 1)
    running.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await running


def test_results_come_in_also_while_a_loop_is_nested():
    """Of two calls that end together, the one that failed has its callback wait for the other."""
    from tests.support.scripts import printed_by

    assert printed_by(
        """
        import asyncio, threading
        import nest_asyncio2
        from ragasync import AsyncBatchProcessor, AsyncRetry, run_async

        nest_asyncio2.apply()  # as an earlier cell has done
        together = threading.Barrier(2)
        calls = []

        def meet(item):
            calls.append(item)
            if len(calls) < 3:
                together.wait(30)
            if calls.count(0) == 1 and item == 0:
                raise OSError("away")
            return item

        async def until_one_is_done():
            while job.progress.done < 1:
                await asyncio.sleep(0.001)

        def on_retry(*_):
            run_async(until_one_is_done(), nested=True)

        async def main():
            global job
            retry = AsyncRetry(1, 0.0, on_retry=on_retry)
            job = AsyncBatchProcessor(meet, retry=retry, max_concurrency=2).start(
                range(2), on_current_loop=True
            )
            return (await job).results

        print(asyncio.run(main()))
        """
    ) == ["[0, 1]"]


# ---- threads that outlive their timeout


async def test_a_thread_past_its_timeout_holds_its_slot(gated: Gated):
    """Its item is not retried, and no other item starts in its place, until it has returned."""
    inside: list[int] = []
    most_inside, tried_by_then = 0, []

    def hang_at_zero(item: int) -> int:
        nonlocal most_inside
        inside.append(item)
        most_inside = max(most_inside, len(inside))
        try:
            if item == 0:
                return gated(item)
            time.sleep(
                0.1
            )  # the other slot is busy for three timeouts, with calls that are in time
            if item == 12:
                tried_by_then.extend(gated.calls)
                gated.opened.set()
            return 10 * item
        finally:
            inside.remove(item)

    processor = AsyncBatchProcessor(
        hang_at_zero, max_concurrency=2, timeout=0.4, retry=AsyncRetry(1, 0.0)
    )
    result = await processor.process(range(13))
    assert tried_by_then == [0]
    assert gated.calls == [0, 0]
    assert most_inside == 2
    assert result.results == [10 * item for item in range(13)]


async def test_a_late_result_is_dropped(gated: Gated):
    """The attempt has failed, whatever the thread returns; the other worker continues."""

    def slow_first(item: int) -> int:
        return gated(item) if item == 0 else item

    processor = AsyncBatchProcessor(slow_first, max_concurrency=2, retry_count=0, timeout=0.5)
    running = asyncio.create_task(processor.process(range(50)))
    await entered(gated, 1)
    await asyncio.sleep(0.75)  # between the timeout and the end of waiting for the thread
    gated.opened.set()
    result = await running
    assert isinstance(result.errors[0], AttemptTimeout)
    assert result.results == [None, *range(1, 50)]
    assert result.error_count == 1


@on_manual_clock
async def test_a_timed_out_thread_counts_only_its_time(gated: Gated):
    """Times and the log show when it was abandoned, not when it returned."""
    processor = AsyncBatchProcessor(gated, max_concurrency=2, timeout=0.6, retry=AsyncRetry(1, 0.0))
    running = asyncio.create_task(processor.process([0]))
    await entered(gated, 1)
    await advance(0.6)
    await advance(0.3)
    gated.opened.set()
    result = await running
    assert result[0].attempts == 2
    assert result[0].history[0].seconds == about(0.6)
    assert result[0].backed_off == about(0.3)  # between attempts: the wait for the thread too


@pytest.mark.parametrize(
    ("slots", "held"),
    [(1, "the one slot in use is held by a call"), (2, "all 2 slots in use are held by calls")],
)
@on_manual_clock
async def test_when_all_slots_are_held_for_a_further_timeout_the_job_stops(
    gated: Gated, slots: int, held: str
):
    """It gives the reason, and ends although the threads do not."""
    processor = AsyncBatchProcessor(gated, max_concurrency=slots, retry_count=0, timeout=0.25)
    running = asyncio.create_task(processor.process(range(9)))
    await entered(gated, slots)
    await advance(0.25)
    await advance(0.249)
    assert not running.done()
    await advance(0.001)
    result = await running
    assert now() == about(0.5)
    assert result.stopped_because == (
        f"{held} that outlived timeout=0.25 s and cannot be interrupted"
    )
    assert (result.error_count, result.pending_count) == (slots, 9 - slots)
    assert all(isinstance(error, AttemptTimeout) for error in result.errors[:slots])
    assert sorted(gated.calls) == list(range(slots))
    assert other_tasks() == set()


async def test_one_free_slot_is_enough_to_go_on(gated: Gated):
    """One thread hangs until everything else is done."""

    def hang_at_zero(item: int) -> int:
        if item == 0:
            return gated(item)
        if item == 29:
            gated.opened.set()
        time.sleep(0.03)  # all together longer than two timeouts, each of them far shorter than one
        return item

    processor = AsyncBatchProcessor(hang_at_zero, max_concurrency=2, retry_count=0, timeout=0.3)
    result = await processor.process(range(30))
    assert (result.success_count, result.error_count, result.stopped_because) == (29, 1, None)


async def test_threads_that_hang_at_the_end_do_not_hold_the_job_for_ever(gated: Gated):
    """Everything else is done and nothing can continue: the reason says so."""

    def hang_at_zero(item: int) -> int:
        return gated(item) if item == 0 else item

    processor = AsyncBatchProcessor(hang_at_zero, max_concurrency=2, retry_count=0, timeout=0.4)
    async with asyncio.timeout(20):
        result = await processor.process(range(20))
    assert (result.success_count, result.error_count) == (19, 1)


async def test_a_cancelled_job_does_not_wait_for_its_threads(gated: Gated):
    """They cannot be interrupted; their results are dropped."""
    processor = AsyncBatchProcessor(gated, max_concurrency=2)
    running = asyncio.create_task(processor.process(range(9)))
    await entered(gated, 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processor.last_result is not None
    assert processor.last_result.cancelled_count == 2
    assert other_tasks() == set()


async def test_the_threads_of_a_run_end_with_it():
    """None is left when the job is over."""
    before = threading.active_count()
    await AsyncBatchProcessor(lambda item: item, max_concurrency=8).process(range(100))
    for _ in range(1000):
        if threading.active_count() <= before:
            break
        await asyncio.sleep(0.001)
    assert threading.active_count() <= before


def test_a_thread_that_never_returns_does_not_keep_the_interpreter():
    """It is a daemon, abandoned with its job."""
    from tests.support.scripts import printed_by

    assert printed_by(
        """
        import threading
        from ragasync import AsyncBatchProcessor

        def hang(item):
            threading.Event().wait()

        processor = AsyncBatchProcessor(hang, max_concurrency=1, retry_count=0, timeout=0.05)
        print(processor.process_sync(range(3)).stopped_because is not None)
        """
    ) == ["True"]
