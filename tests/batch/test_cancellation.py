"""Cancelled and interrupted jobs: nothing runs on, everything done is kept, the note says so."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter
from ragasync.testing import VirtualClockLoop, run_on_virtual_clock
from tests.support.services import Service, about, now, other_tasks, turns


async def cancelled_after(seconds: float, running: "asyncio.Task[object]") -> BaseException:
    """Cancel a task after a while, await it, and return what it raised."""
    await asyncio.sleep(seconds)
    running.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await running
    return caught.value


async def test_children_are_cancelled_and_awaited():
    """With their clean-up, before the CancelledError goes on up."""
    cleaned: list[tuple[int, float]] = []

    async def tidy(item: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            cleaned.append((item, now()))

    processor = AsyncBatchProcessor(tidy, max_concurrency=2)
    await cancelled_after(1, asyncio.create_task(processor.process(range(9))))
    assert sorted(cleaned) == [(0, about(3)), (1, about(3))]
    assert other_tasks() == set()


async def test_everything_done_is_kept():
    """Done, failed, in-flight and unreached items each have their own status."""
    service = Service([1.0, 1.0, 9.0, 9.0, 1.0], {1: ValueError("bad")})
    processor = AsyncBatchProcessor(service, max_concurrency=2, retry_count=0)
    error = await cancelled_after(5, asyncio.create_task(processor.process(range(5))))
    result = processor.last_result
    assert result is not None
    assert [outcome.status for outcome in result] == [
        "done",
        "failed",
        "cancelled",
        "cancelled",
        "pending",
    ]
    assert (result.results[0], result.seconds) == (0, about(5))
    assert result[2].seconds == about(4)
    note = "1 of 5 items were done and 1 had failed; `last_result` of the processor keeps them"
    assert error.__notes__ == [f"ragasync: {note}"]


async def test_a_cancelled_job_can_be_finished():
    """retry_failed with what is unfinished gives the whole."""
    service = Service()
    processor = AsyncBatchProcessor(service, max_concurrency=2)
    await cancelled_after(2.5, asyncio.create_task(processor.process(range(10))))
    assert processor.last_result is not None
    unfinished = processor.last_result.unfinished
    assert unfinished == [4, 5, 6, 7, 8, 9]
    whole = await processor.last_result.retry_failed(processor, only=unfinished)
    assert whole.results == [10 * item for item in range(10)]


async def test_items_in_back_off_are_pending():
    """They are not waited for."""
    service = Service(1.0, {0: OSError("away")})
    processor = AsyncBatchProcessor(service, retry=AsyncRetry(retry_on=lambda error: 3600.0))
    await cancelled_after(5, asyncio.create_task(processor.process([0])))
    assert processor.last_result is not None
    assert processor.last_result[0].status == "pending"
    assert now() == about(5)


async def test_places_at_the_limiter_are_given_back():
    """Those who stood in line leave no trace."""
    limiter = RateLimiter(rate=1, per=10, burst_size=1)
    processor = AsyncBatchProcessor(Service(0.0), rate_limiter=limiter)
    await cancelled_after(1, asyncio.create_task(processor.process(range(9))))
    await asyncio.sleep(9)
    assert limiter.try_acquire()
    assert processor.last_result is not None
    assert processor.last_result.pending_count == 8


async def test_a_call_that_will_not_be_cancelled_is_waited_for_and_followed_by_none():
    """It answers its cancellation with a value, which counts; nothing new is begun."""
    calls: list[int] = []

    async def stubborn(item: int) -> str:
        calls.append(item)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "saved"
        return "done"

    processor = AsyncBatchProcessor(stubborn, max_concurrency=2)
    await cancelled_after(0.01, asyncio.create_task(processor.process(range(9))))
    assert calls == [0, 1]
    assert processor.last_result is not None
    assert processor.last_result.results[:3] == ["saved", "saved", None]


async def test_a_call_that_answers_its_cancellation_with_an_error_is_not_tried_again():
    """The job is over for it too."""
    calls: list[int] = []

    async def converting(item: int) -> None:
        calls.append(item)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise OSError("interrupted") from None

    processor = AsyncBatchProcessor(converting, max_concurrency=2, retry_delay=0.0)
    await cancelled_after(0.01, asyncio.create_task(processor.process(range(9))))
    assert calls == [0, 1]
    assert now() == about(0.01)


async def test_an_async_source_is_closed():
    """Its clean-up runs, and nothing reads from it any more."""
    closed: list[float] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.sleep(3600)
        finally:
            closed.append(now())

    processor = AsyncBatchProcessor(Service())
    await cancelled_after(2, asyncio.create_task(processor.process(source())))
    assert closed == about([2])
    assert other_tasks() == set()


async def test_a_job_cancelled_before_its_first_step_has_called_nothing():
    """Cancelled in the same turn that made it."""
    service = Service()
    # Not create_task: a loop that makes eager tasks would take the first step in it.
    running = asyncio.Task(AsyncBatchProcessor(service).process(range(9)))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert service.calls == []


async def test_a_time_limit_around_the_job_works_as_usual():
    """asyncio.timeout turns the cancellation into its TimeoutError."""
    processor = AsyncBatchProcessor(Service(10.0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await processor.process(range(9))
    assert processor.last_result is not None
    assert processor.last_result.cancelled_count == 4
    assert now() == about(3)


async def test_a_second_cancellation_ends_the_wait_for_clean_up():
    """Somebody who asks twice is in a hurry."""

    async def slow_to_leave(item: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(100)

    processor = AsyncBatchProcessor(slow_to_leave, max_concurrency=1)
    running = asyncio.create_task(processor.process([0]))
    await asyncio.sleep(1)
    running.cancel()
    await cancelled_after(1, running)
    assert now() == about(2)
    for task in other_tasks():
        task.cancel()
    await turns()


@pytest.mark.parametrize("way", ["process", "start", "stream"])
def test_a_loop_that_is_shut_down_cuts_no_clean_up_short(way: str):
    """
    Whoever cancels all tasks has cancelled the workers too, which need no second cancellation.

    In an order that nobody knows: so there are many of them.
    """
    begun: list[int] = []
    cleaned: list[int] = []
    source_closed: list[bool] = []

    async def clean_up() -> None:
        for _ in range(9):
            await asyncio.sleep(0)

    async def tidy(item: int) -> None:
        begun.append(item)
        try:
            await asyncio.sleep(60)
        finally:
            await clean_up()
            cleaned.append(item)

    async def source() -> AsyncIterator[int]:
        try:
            for item in range(20):
                yield item
            await asyncio.sleep(60)
        finally:
            await clean_up()
            source_closed.append(True)

    processor = AsyncBatchProcessor(tidy, max_concurrency=20)
    left_running: list[object] = []

    async def read() -> None:
        async for _ in processor.stream(source()):
            pass

    async def main() -> None:
        if way == "process":
            left_running.append(asyncio.create_task(processor.process(source())))
        elif way == "start":
            left_running.append(processor.start(source(), on_current_loop=True))
        else:
            left_running.append(asyncio.create_task(read()))
        await asyncio.sleep(1)

    run_on_virtual_clock(main())
    assert sorted(cleaned) == sorted(begun) == list(range(20))
    assert source_closed == [True]


async def test_a_cancelled_error_that_nobody_asked_for_is_a_failure_and_is_retried():
    """A future that somebody else cancelled, say: it is like a lost connection."""
    error = asyncio.CancelledError("somebody else's")

    async def awaiting_others(item: int) -> int:
        await asyncio.sleep(1)
        if item == 1:
            raise error
        return item

    for timeout in (None, 5):
        processor = AsyncBatchProcessor(awaiting_others, max_concurrency=1, timeout=timeout)
        result = await processor.process(range(4))
        assert [outcome.status for outcome in result] == ["done", "failed", "done", "done"]
        assert result.errors[1] is error
        assert result[1].attempts == 4


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_raised_by_the_function_goes_on_up(kind: type[BaseException]):
    """It is no item's failure: the siblings are cancelled and what was done is kept."""
    cleaned: list[int] = []

    async def interrupting(item: int) -> int:
        if item == 3:
            await asyncio.sleep(1)
            raise kind
        try:
            await asyncio.sleep(0.5 if item == 0 else 60)
        except asyncio.CancelledError:
            cleaned.append(item)
            raise
        return item

    processor = AsyncBatchProcessor(interrupting, max_concurrency=4)
    with pytest.raises(kind):
        run_on_virtual_clock(processor.process(range(9)))
    assert sorted(cleaned) == [1, 2, 4]
    assert processor.last_result is not None
    assert processor.last_result[0].status == "done"
    assert processor.last_result.pending_count == 4


@pytest.mark.real_time
@pytest.mark.parametrize(("threads", "noted"), [(1, "1 thread is"), (2, "2 threads are")])
async def test_the_note_tells_of_threads_that_still_run(threads: int, noted: str):
    """They cannot be interrupted."""
    release, inside = threading.Event(), threading.Semaphore(0)

    def hang(item: int) -> None:
        inside.release()
        release.wait(30)

    processor = AsyncBatchProcessor(hang, max_concurrency=threads)
    running = asyncio.create_task(processor.process(range(9)))
    for _ in range(threads):
        await asyncio.to_thread(inside.acquire)
    error = await cancelled_after(0, running)
    release.set()
    assert any(f"{noted} still in a call" in note for note in error.__notes__)
    assert processor.last_result is not None
    assert processor.last_result.cancelled_count == threads


class WakeLoop(VirtualClockLoop):
    """A virtual loop that notes when it wakes."""

    def __init__(self) -> None:
        super().__init__()
        self.wakes: list[float] = []

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self.wakes.append(self.time())


@pytest.mark.parametrize("streamed", [False, True])
def test_the_loop_wakes_ten_times_a_second_while_a_job_runs(streamed: bool):
    """A notebook's stop button is noticed only when the loop wakes."""

    async def run() -> None:
        processor = AsyncBatchProcessor(Service(100.0))
        if streamed:
            async for _ in processor.stream(range(2)):
                pass
        else:
            await processor.process(range(2))

    with asyncio.Runner(loop_factory=WakeLoop) as runner:
        runner.run(run())
        loop = runner.get_loop()
    assert isinstance(loop, WakeLoop)
    gaps = [after - before for before, after in zip(loop.wakes, loop.wakes[1:], strict=False)]
    assert max(gaps) < 0.1001
    assert loop.wakes[-1] == about(100)


async def test_a_cancelled_cell_shows_one_line_of_what_was_done():
    """IPython asks the error how to show itself; frames that nobody wrote say nothing."""
    task = asyncio.create_task(AsyncBatchProcessor(Service()).process(range(10)))
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    (line,) = cancelled.value._render_traceback_()
    assert line.startswith("CancelledError: ragasync: 4 of 10 items were done")
