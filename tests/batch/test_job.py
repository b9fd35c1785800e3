"""Job: a running batch, awaited, watched, controlled and stopped."""

import asyncio
import contextvars
import dataclasses
import gc
import logging
import selectors
import threading

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    Job,
    RateLimiter,
    RunAsyncError,
    run_async,
)
from tests.support.scripts import printed_by
from tests.support.services import StatusError


class Service:
    """A slow service: answers after some seconds, and counts the calls."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.begun: list[float] = []
        self.in_flight = 0
        self.cleaned_up = 0

    async def __call__(self, item: int) -> int:
        self.begun.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
            self.cleaned_up += 1
        return item


class Held:
    """
    A service on another thread's loop whose calls wait until the test lets them go.

    Attributes:
        has_begun: set when `calls` calls have begun.
    """

    def __init__(self, calls: int = 1) -> None:
        self.has_begun = threading.Event()
        self._awaited = calls
        self.loop: asyncio.AbstractEventLoop | None = None
        self._release: asyncio.Event | None = None

    async def __call__(self, item: int) -> int:
        if self._release is None:
            self.loop, self._release = asyncio.get_running_loop(), asyncio.Event()
        self._awaited -= 1
        if self._awaited <= 0:
            self.has_begun.set()
        await self._release.wait()
        return item

    def release(self) -> None:
        """Let every call answer; safe from any thread."""
        assert self.has_begun.wait(20)
        assert self.loop is not None
        assert self._release is not None
        self.loop.call_soon_threadsafe(self._release.set)


async def at(seconds: float) -> None:
    """Wait until this time on the virtual clock."""
    await asyncio.sleep(seconds - asyncio.get_running_loop().time())


def counts(result):
    """The four counts of a result: done, failed, cancelled, pending."""
    return (
        result.success_count,
        result.error_count,
        result.cancelled_count,
        result.pending_count,
    )


# ── start ───────────────────────────────────────────────────────────────────────────────────────


def test_start_returns_while_the_job_runs():
    """The handle is there although no item has been answered."""
    held = Held()
    job = AsyncBatchProcessor(held).start([1, 2])
    assert isinstance(job, Job)
    assert not job.done
    held.release()
    assert job.wait().results == [1, 2]


def test_a_job_runs_on_the_background_loop_of_run_async():
    """A client made by run_async belongs to the loop that jobs run on."""

    async def loop_here(_=None):
        return asyncio.get_running_loop()

    job = AsyncBatchProcessor(loop_here).start([1])
    assert job.wait().results == [run_async(loop_here())]


@pytest.mark.real_time
async def test_a_cell_that_computes_does_not_stall_the_job():
    """The job ends although the loop of this thread stands still."""
    last_was_called = threading.Event()

    async def call(item):
        await asyncio.sleep(0)
        if item == 9:
            last_was_called.set()

    job = AsyncBatchProcessor(call, max_concurrency=1).start(range(10))
    assert last_was_called.wait(20)
    assert (await job).all_succeeded


async def test_it_runs_on_request_on_the_loop_of_this_thread():
    """Objects that belong to this loop can be used."""

    async def loop_here(_):
        return asyncio.get_running_loop()

    result = await AsyncBatchProcessor(loop_here).start([1], on_current_loop=True)
    assert result.results == [asyncio.get_running_loop()]


def test_on_current_loop_without_a_loop_is_refused():
    """The error says what to leave out."""
    with pytest.raises(RuntimeError, match="leave it out"):
        AsyncBatchProcessor(Service()).start([1], on_current_loop=True)


async def test_start_takes_a_limit_and_a_total():
    """A pilot leaves the rest pending; a total stands in where the items do not tell."""
    processor = AsyncBatchProcessor(Service())
    pilot = processor.start(range(10), max_items=3, on_current_loop=True)
    assert pilot.progress.total == 3
    assert counts(await pilot) == (3, 0, 0, 7)
    assert pilot.progress.total == 3
    untold = processor.start(iter(range(10)), total=10, on_current_loop=True)
    assert untold.progress.total == 10
    assert (await untold).total == 10


async def test_wrong_items_are_refused_by_start_itself():
    """No job is begun for what cannot be iterated."""
    with pytest.raises(TypeError, match="items must be an iterable"):
        AsyncBatchProcessor(Service()).start(5, on_current_loop=True)


def test_the_function_sees_the_context_variables_of_the_caller():
    """As they were when the job was started, async functions and threads alike."""
    user = contextvars.ContextVar("user", default="nobody")

    async def on_loop(_):
        return user.get()

    def on_thread(_):
        return user.get()

    token = user.set("ada")
    jobs = [AsyncBatchProcessor(function).start([1]) for function in (on_loop, on_thread)]
    user.reset(token)
    assert [job.wait().results for job in jobs] == [["ada"], ["ada"]]


def test_two_jobs_of_one_processor_run_concurrently():
    """Each goes on only when the other has begun."""
    both = threading.Barrier(2, timeout=20)
    processor = AsyncBatchProcessor(lambda item: both.wait() and item)
    jobs = [processor.start([0]), processor.start([0])]
    assert all(job.wait().all_succeeded for job in jobs)


def test_a_plain_script_starts_and_waits_and_ends_without_a_sound():
    """No loop is needed, and a job that has ended has nothing to say at exit."""
    assert printed_by(
        """
        import asyncio
        from ragasync import AsyncBatchProcessor

        async def double(item):
            await asyncio.sleep(0)
            return 2 * item

        print(AsyncBatchProcessor(double).start([1, 2, 3]).wait().results)
        """
    ) == ["[2, 4, 6]"]


def test_a_job_is_started_and_awaited_inside_the_background_loop():
    """A function that itself runs there may start a job of its own."""

    async def outer(_):
        inner = AsyncBatchProcessor(Service(0)).start([1, 2])
        return (await inner).results

    assert AsyncBatchProcessor(outer).start([0]).wait().results == [[1, 2]]


def test_run_async_takes_a_job():
    """A job can be awaited wherever something can."""
    assert run_async(AsyncBatchProcessor(Service(0)).start([1, 2])).results == [1, 2]


# ── result ──────────────────────────────────────────────────────────────────────────────────────


async def test_awaiting_gives_the_result_every_time():
    """The result stays; the processor remembers it too."""
    processor = AsyncBatchProcessor(Service(), max_concurrency=2)
    job = processor.start(range(4), on_current_loop=True)
    first = await job
    assert first.results == [0, 1, 2, 3]
    assert first.seconds == 2.0
    assert await job is first
    assert processor.last_result is first
    assert job.done


async def test_cancelling_the_await_cancels_the_job_and_waits_for_its_children():
    """The calls in flight have cleaned up when the await ends."""
    cleaned_up_at = []

    async def call(item):
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            cleaned_up_at.append(asyncio.get_running_loop().time())
            raise

    processor = AsyncBatchProcessor(call, max_concurrency=2)
    job = processor.start(range(6), on_current_loop=True)

    async def wait():
        await job

    waiting = asyncio.create_task(wait())
    await at(1.25)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await waiting
    assert cleaned_up_at == [1.75, 1.75]
    assert job.done
    assert counts(job.result) == (2, 0, 2, 2)
    assert counts(processor.last_result) == (2, 0, 2, 2)
    assert any("2 of 6" in note for note in cancelled.value.__notes__)


async def test_a_time_limit_around_the_await_cancels_the_job():
    """wait_for is a cancelled await like any other."""
    job = AsyncBatchProcessor(Service(), max_concurrency=1).start(range(9), on_current_loop=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(job, 2.5)
    assert counts(job.result) == (2, 0, 1, 6)


@pytest.mark.real_time
async def test_cancelling_the_await_reaches_a_job_in_the_background():
    """Across threads as well, and the await ends only when the job has."""
    held = Held(calls=2)
    job = AsyncBatchProcessor(held, max_concurrency=2).start(range(6))

    async def wait():
        await job

    waiting = asyncio.create_task(wait())
    await asyncio.to_thread(held.has_begun.wait, 20)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert job.done
    assert counts(job.result) == (0, 0, 2, 4)


def test_the_loop_that_awaits_wakes_ten_times_a_second():
    """It never sleeps for more than 0.1 s, or a stop button would not be seen."""

    class Recorder(selectors.DefaultSelector):
        def select(self, timeout=None):
            asked.append(timeout)
            return super().select(timeout)

    asked = []
    held = Held()

    async def main():
        job = AsyncBatchProcessor(held).start([1])
        asyncio.get_running_loop().call_later(0.25, held.release)
        asked.clear()
        await job
        return list(asked)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Recorder())) as runner:
        sleeps = runner.run(main())
    assert len(sleeps) >= 3
    assert all(timeout is not None and timeout <= 0.1 for timeout in sleeps)


def test_a_wait_that_times_out_leaves_the_job_running():
    """It says how far the job is, and the next wait gets the result."""
    held = Held()
    job = AsyncBatchProcessor(held).start([1, 2])
    with pytest.raises(TimeoutError, match=r"within 0.01 s; it goes on: <Job running"):
        job.wait(0.01)
    held.release()
    assert counts(job.wait(20)) == (2, 0, 0, 0)


@pytest.mark.parametrize(
    ("timeout", "error", "message"),
    [
        ("3", TypeError, "timeout must be a number of seconds or a timedelta, got '3'"),
        (-1, ValueError, "timeout must be finite and at least 0, got -1"),
    ],
)
def test_a_wrong_time_to_wait_is_refused(timeout, error, message):
    """With its value; the job goes on."""
    job = AsyncBatchProcessor(Service(0)).start([1])
    with pytest.raises(error, match=message):
        job.wait(timeout)
    assert job.wait(20).all_succeeded


async def test_wait_on_the_jobs_own_loop_raises_immediately():
    """It would block what it waits for; when the job has ended, there is nothing to block."""
    job = AsyncBatchProcessor(Service()).start([1], on_current_loop=True)
    with pytest.raises(RuntimeError, match="await job"):
        job.wait()
    result = await job
    assert job.wait() is result


def test_wait_inside_the_background_loop_raises_immediately():
    """The loop is blocked as well when its own coroutine waits."""

    async def start_and_wait():
        job = AsyncBatchProcessor(Service(0)).start([1])
        try:
            job.wait()
        finally:
            await job

    with pytest.raises(RuntimeError, match="await job"):
        run_async(start_and_wait())


def objects_alive() -> int:
    """The number of objects of ragasync and asyncio that anything refers to."""
    gc.collect()
    # Looked up in the class's own dict: other tests' objects may raise an error for any attribute.
    modules = (vars(type(each)).get("__module__", "") for each in gc.get_objects())
    return sum(str(module).partition(".")[0] in {"ragasync", "asyncio"} for module in modules)


@pytest.mark.real_time
def test_a_wait_leaves_nothing_behind():
    """A wait that timed out is forgotten: a job may be polled for days."""
    begun, free = threading.Event(), threading.Event()

    def call(item: int) -> int:
        begun.set()
        free.wait(20)
        return item

    job = AsyncBatchProcessor(call).start([1])
    assert begun.wait(20)  # the run's own objects exist now
    before = objects_alive()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            job.wait(timeout=0.001)
    assert objects_alive() <= before
    free.set()
    assert job.wait(timeout=20).results == [1]


async def test_a_second_cancellation_ends_the_wait_for_the_clean_up():
    """The first cancels the job and waits; who will not wait is let go."""

    async def slow_to_end(item: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(100)

    job = AsyncBatchProcessor(slow_to_end).start([1], on_current_loop=True)
    waiting = asyncio.ensure_future(job)
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.sleep(1)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting
    assert asyncio.get_running_loop().time() == pytest.approx(2)
    (note,) = caught.value.__notes__
    assert note.startswith("ragasync: 0 of 1 items were done and 0 had failed")
    await job
    assert asyncio.get_running_loop().time() == pytest.approx(101)


@pytest.mark.real_time
@pytest.mark.parametrize("nested", [False, True])
def test_cancelling_an_await_on_another_loop_cancels_the_job(nested):
    """From a thread with a loop of its own, and in a loop that is nested in that."""
    lines = printed_by(
        f"""
        import asyncio, threading
        from ragasync import AsyncBatchProcessor, run_async

        begun = threading.Event()

        async def call(item):
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                print("cleaned up", flush=True)

        async def wait():
            try:
                await asyncio.wait_for(job, 0.1)
            except TimeoutError:
                print("timed out", job.done, job.result.stopped_because)

        async def main():
            run_async(wait(), nested={nested})

        job = AsyncBatchProcessor(call).start([1])
        begun.wait(20)
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        thread.join(20)
        """
    )
    assert lines == ["cleaned up", "timed out True it was cancelled"]


async def test_the_result_so_far_is_a_snapshot():
    """It counts every item, and does not change when the job goes on."""
    job = AsyncBatchProcessor(Service(), max_concurrency=2).start(range(6), on_current_loop=True)
    await at(1.5)
    so_far = job.result
    assert counts(so_far) == (2, 0, 0, 4)
    assert so_far.seconds == 1.5
    await job
    assert counts(so_far) == (2, 0, 0, 4)
    assert so_far.results == [0, 1, None, None, None, None]
    assert counts(job.result) == (6, 0, 0, 0)


async def test_the_result_so_far_of_a_lazy_input_has_what_was_drawn():
    """Items that were not drawn yet are not counted."""
    job = AsyncBatchProcessor(Service(), max_concurrency=2).start(
        iter(range(6)), on_current_loop=True
    )
    await at(1.5)
    assert counts(job.result) == (2, 0, 0, 2)
    await job


def test_the_result_before_the_first_call_is_all_pending():
    """A new job has a result."""
    held = Held()
    job = AsyncBatchProcessor(held).start([1, 2])
    assert counts(job.result) == (0, 0, 0, 2)
    held.release()
    job.wait()


def broken_source():
    """Two items, and then an error of the source itself."""
    yield from (1, 2)
    raise OSError("the disk is gone")


async def test_what_the_source_raises_is_raised_by_the_await():
    """With a note of what was done; the result keeps it."""
    job = AsyncBatchProcessor(Service(), max_concurrency=1).start(
        broken_source(), on_current_loop=True
    )
    with pytest.raises(OSError, match="the disk is gone") as raised:
        await job
    assert any("2 of 2 items were done" in note for note in raised.value.__notes__)
    assert counts(job.result) == (2, 0, 0, 0)


def test_what_the_source_raises_is_raised_by_every_wait():
    """The error stays with the job."""
    job = AsyncBatchProcessor(Service(0)).start(broken_source())
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            job.wait()


def ended(job):
    """Wait until a job has ended, without fetching what it ended with."""
    while not job.done:
        run_async(asyncio.sleep(0.001))


def test_an_exception_that_nobody_fetched_is_logged_once(caplog):
    """When the last handle on the job goes."""
    job = AsyncBatchProcessor(Service(0)).start(broken_source())
    ended(job)
    assert not caplog.records
    del job
    gc.collect()
    assert [record.exc_info[0] for record in caplog.records] == [OSError]
    assert caplog.records[0].levelno == logging.ERROR


def test_an_exception_that_was_fetched_is_not_logged(caplog):
    """The caller that retrieved it handles it."""
    job = AsyncBatchProcessor(Service(0)).start(broken_source())
    with pytest.raises(OSError, match="the disk is gone"):
        job.wait()
    del job
    gc.collect()
    assert not caplog.records


async def test_an_exception_that_was_awaited_is_not_logged(caplog):
    """The same for the await."""
    job = AsyncBatchProcessor(Service()).start(broken_source(), on_current_loop=True)
    with pytest.raises(OSError, match="the disk is gone"):
        await job
    del job
    gc.collect()
    assert not caplog.records


async def test_the_exception_of_a_job_that_was_dropped_is_logged_once(caplog):
    """A job whose handle went before its end is heard of all the same."""
    AsyncBatchProcessor(Service()).start(broken_source(), on_current_loop=True)
    gc.collect()
    await at(2)
    gc.collect()
    assert [record.exc_info[0] for record in caplog.records] == [OSError]


async def test_a_job_that_was_dropped_runs_to_its_end(caplog):
    """Nobody needs to hold the handle, and a result that nobody fetched is no news."""
    service = Service()
    processor = AsyncBatchProcessor(service, max_concurrency=1)
    processor.start(range(3), on_current_loop=True)
    gc.collect()
    await at(4)
    assert counts(processor.last_result) == (3, 0, 0, 0)
    assert not caplog.records


# ── stop ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancelled_job_gives_what_was_done():
    """Calls in flight are cancelled, the rest is pending, and the await does not raise."""
    service = Service()
    job = AsyncBatchProcessor(service, max_concurrency=2).start(range(10), on_current_loop=True)
    await at(2.5)
    job.cancel()
    result = await job
    assert counts(result) == (4, 0, 2, 4)
    assert result.seconds == 2.5
    assert "cancelled" in result.stopped_because
    assert service.in_flight == 0
    assert service.cleaned_up == 6
    assert job.progress.eta == 0.0


async def test_a_job_cancelled_before_its_first_call_leaves_all_pending():
    """Nothing is called."""
    service = Service()
    job = AsyncBatchProcessor(service).start(range(3), on_current_loop=True)
    job.cancel()
    assert counts(await job) == (0, 0, 0, 3)
    assert not service.begun


class SlowToLeave:
    """A call that needs 2 s to clean up when it is cancelled."""

    def __init__(self) -> None:
        self.cleaned_up_at: list[float] = []

    async def __call__(self, item: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(2)
            self.cleaned_up_at.append(asyncio.get_running_loop().time())


async def test_a_second_cancel_leaves_the_clean_up_of_the_first_alone():
    """The click of somebody in a hurry does not cut short what closes files and connections."""
    service = SlowToLeave()
    job = AsyncBatchProcessor(service, max_concurrency=2).start(range(6), on_current_loop=True)
    for seconds in (1, 1, 2, 2.5):
        await at(seconds)
        job.cancel()
    result = await job
    assert service.cleaned_up_at == [3, 3]
    assert counts(result) == (0, 0, 2, 4)
    assert (result.seconds, result.stopped_because) == (3, "it was cancelled")


async def test_a_cancelled_await_leaves_the_clean_up_of_a_cancel_before_it_alone():
    """It waits for it."""
    service = SlowToLeave()
    job = AsyncBatchProcessor(service, max_concurrency=2).start(range(6), on_current_loop=True)
    await at(1)
    job.cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(job, 1)
    assert service.cleaned_up_at == [3, 3]
    assert asyncio.get_running_loop().time() == 3


async def test_a_job_that_is_stopping_by_itself_can_be_cancelled():
    """Too many errors let what is in flight finish; who cancels does not wait for that."""

    async def call(item):
        await asyncio.sleep(3600 if item else 1)
        raise ValueError(item)

    processor = AsyncBatchProcessor(call, max_concurrency=2, retry_count=0, max_errors=0)
    job = processor.start(range(6), on_current_loop=True)
    await at(5)
    job.cancel()
    result = await job
    assert counts(result) == (0, 1, 1, 4)
    assert result.seconds == pytest.approx(5)
    assert result.stopped_because == "1 item failed, more than max_errors=0"


async def test_a_paused_job_can_be_cancelled():
    """What waits for `resume` ends too."""
    job = AsyncBatchProcessor(Service(), max_concurrency=2).start(range(6), on_current_loop=True)
    job.pause()
    await at(1)
    job.cancel()
    assert counts(await job) == (0, 0, 0, 6)


async def test_a_job_cancelled_at_its_limiter_leaves_those_who_wait_pending():
    """They had not begun, and give their places back."""
    limiter = RateLimiter(0.1, burst_size=1)
    processor = AsyncBatchProcessor(Service(), rate_limiter=limiter)
    job = processor.start(range(6), on_current_loop=True)
    await at(1.5)
    job.cancel()
    assert counts(await job) == (1, 0, 0, 5)
    await at(10)
    assert limiter.try_acquire()


async def test_a_second_cancel_leaves_the_clean_up_at_a_limiter_elsewhere_alone():
    """It gives a connection back, say."""
    cleaned_up_at = []

    class FarLimiter:
        weight, max_weight = None, 1.0

        async def acquire(self, weight=1.0):
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(2)
                cleaned_up_at.append(asyncio.get_running_loop().time())

        def pause(self, seconds):
            raise AssertionError("nobody asked for it")

    processor = AsyncBatchProcessor(Service(), max_concurrency=1, rate_limiter=FarLimiter())
    job = processor.start(range(3), on_current_loop=True)
    for seconds in (1, 2):
        await at(seconds)
        job.cancel()
    assert counts(await job) == (0, 0, 0, 3)
    assert cleaned_up_at == [3]


async def test_cancelling_a_job_that_has_ended_changes_nothing():
    """It did end by itself."""
    job = AsyncBatchProcessor(Service()).start(range(3), on_current_loop=True)
    result = await job
    job.cancel()
    assert await job is result
    assert result.stopped_because is None
    assert repr(job).startswith("<Job ended")


def test_a_job_of_threads_is_cancelled_immediately():
    """A thread cannot be interrupted, but nobody waits for it."""
    begun, release = threading.Event(), threading.Event()

    def call(item):
        begun.set()
        release.wait(20)

    job = AsyncBatchProcessor(call, max_concurrency=1).start(range(3))
    assert begun.wait(20)
    job.cancel()
    assert counts(job.wait(10)) == (0, 0, 1, 2)
    assert not release.is_set()
    release.set()


async def test_a_job_cancelled_while_its_resources_open_ends_immediately():
    """A client that never connects does not keep it."""
    released = []

    class Client:
        async def __aenter__(self):
            try:
                await asyncio.sleep(3600)
            finally:
                released.append(asyncio.get_running_loop().time())

        async def __aexit__(self, *_):
            raise AssertionError("was never open")

    async def call(item, client):
        raise AssertionError("has no client")

    job = AsyncBatchProcessor(call, resources=Client).start(range(3), on_current_loop=True)
    await at(5)
    job.cancel()
    assert counts(await job) == (0, 0, 0, 3)
    assert released == pytest.approx([5])


@pytest.mark.real_time
@pytest.mark.parametrize("on_current_loop", [True, False])
async def test_a_job_cancelled_before_its_resources_open_does_not_open_them(on_current_loop):
    """It would wait for what nobody needs."""

    class Client:
        async def __aenter__(self):
            await asyncio.sleep(3600)

        async def __aexit__(self, *_):
            raise AssertionError("was never open")

    async def call(item, client):
        raise AssertionError("has no client")

    job = AsyncBatchProcessor(call, resources=Client).start(
        range(3), on_current_loop=on_current_loop
    )
    job.cancel()
    assert counts(await asyncio.wait_for(job, 20)) == (0, 0, 0, 3)


# ── control ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_paused_job_begins_nothing_until_it_is_resumed():
    """The call in flight goes on to its end."""
    service = Service()
    job = AsyncBatchProcessor(service, max_concurrency=1).start(range(4), on_current_loop=True)
    await at(0.5)
    job.pause()
    await at(9)
    assert service.begun == [0.0]
    assert counts(job.result) == (1, 0, 0, 3)
    job.resume()
    assert (await job).all_succeeded
    assert service.begun == pytest.approx([0, 9, 10, 11])


async def test_a_pause_holds_for_fast_calls_immediately():
    """Not only at the next yield to the loop."""
    service = Service(0.001)
    job = AsyncBatchProcessor(service, max_concurrency=2).start(range(100), on_current_loop=True)
    await at(0.0055)
    job.pause()
    begun = len(service.begun)
    await at(1)
    assert 0 < len(service.begun) == begun < 100
    job.resume()
    await job


async def test_a_job_paused_before_its_first_call_begins_nothing():
    """Pause counts from the moment it is asked for."""
    service = Service()
    job = AsyncBatchProcessor(service).start(range(2), on_current_loop=True)
    job.pause()
    await at(3)
    assert service.begun == []
    job.resume()
    await job
    assert service.begun == [3.0, 3.0]


async def test_a_paused_job_lets_nobody_through_its_limiter():
    """Calls that wait for the rate begin nothing either."""
    service = Service()
    processor = AsyncBatchProcessor(
        service, max_concurrency=3, rate_limiter=RateLimiter(1, burst_size=1)
    )
    job = processor.start(range(5), on_current_loop=True)
    await at(0.5)
    job.pause()
    await at(9.5)
    assert service.begun == [0.0]
    job.resume()
    assert (await job).all_succeeded
    assert min(service.begun[1:]) == pytest.approx(9.5)


async def test_a_paused_job_tries_nothing_again():
    """A retry that comes due waits for the end of the pause."""
    begun = []

    async def call(item):
        begun.append(asyncio.get_running_loop().time())
        if len(begun) == 1:
            raise ConnectionError("once")

    processor = AsyncBatchProcessor(call, retry=AsyncRetry(1, 0.5, jitter=None))
    job = processor.start([1], on_current_loop=True)
    await at(0.1)
    job.pause()
    await at(5)
    assert begun == [0.0]
    job.resume()
    assert (await job).all_succeeded
    assert begun == pytest.approx([0, 5])


async def test_a_paused_job_holds_a_batch_that_is_filling():
    """A batch that waits for further items does not leave during a pause."""
    begun = []

    async def call(items):
        begun.append(asyncio.get_running_loop().time())
        return items

    async def slow_source():
        yield 1
        await asyncio.sleep(1)

    processor = AsyncBatchProcessor(call, batched=True, batch_size=2)
    job = processor.start(slow_source(), on_current_loop=True)
    await at(0.01)
    job.pause()
    await at(9)
    assert begun == []
    job.resume()
    assert (await job).results == [1]
    assert begun == pytest.approx([9])


async def test_more_calls_run_when_max_concurrency_is_raised():
    """The new slots are filled immediately, not when a call ends."""
    service = Service(10)
    job = AsyncBatchProcessor(service, max_concurrency=2).start(range(12), on_current_loop=True)
    await at(5)
    job.max_concurrency = 6
    assert job.max_concurrency == 6
    await asyncio.sleep(0.01)
    assert service.in_flight == 6
    assert job.progress.max_concurrency == 6
    assert (await job).all_succeeded


async def test_no_call_begins_above_a_max_concurrency_that_was_lowered():
    """Calls in flight finish; the next begins when fewer than the new bound are left."""
    in_flight_at_begin = []
    in_flight = 0

    async def call(seconds):
        nonlocal in_flight
        in_flight += 1
        in_flight_at_begin.append(in_flight)
        await asyncio.sleep(seconds)
        in_flight -= 1

    processor = AsyncBatchProcessor(call, max_concurrency=4)
    job = processor.start([1, 1, 9, 9, 1, 1, 1, 1], on_current_loop=True)
    await at(0.5)
    job.max_concurrency = 2
    result = await job
    assert in_flight_at_begin[:4] == [1, 2, 3, 4]
    assert max(in_flight_at_begin[4:]) == 2
    assert result[4].started == pytest.approx(9)
    assert result.seconds == pytest.approx(11)


async def test_a_lowered_max_concurrency_holds_for_fast_calls_immediately():
    """Not only at the next yield to the loop."""
    service = Service(0.001)
    job = AsyncBatchProcessor(service, max_concurrency=8).start(range(500), on_current_loop=True)
    await at(0.0055)
    job.max_concurrency = 3
    await at(0.0075)
    assert service.in_flight == 3
    await job


async def test_max_concurrency_lowered_and_raised_again_is_met_exactly():
    """However often it is changed, as many calls run as are allowed."""
    service = Service(1)
    job = AsyncBatchProcessor(service, max_concurrency=4).start(range(100), on_current_loop=True)
    seen = []
    for step, bound in enumerate((1, 5, 2, 8, 3, 3, 6)):
        job.max_concurrency = bound
        await at(2.3 * step + 2.25)  # calls of earlier steps are over; none begins at this instant
        seen.append(service.in_flight)
        await at(2.3 * (step + 1))
    assert seen == [1, 5, 2, 8, 3, 3, 6]
    assert (await job).all_succeeded


async def test_max_concurrency_set_before_the_first_call_holds_from_the_start():
    """It is obeyed as soon as it is set."""
    service = Service()
    job = AsyncBatchProcessor(service, max_concurrency=4).start(range(4), on_current_loop=True)
    job.max_concurrency = 1
    await at(0.5)
    assert service.in_flight == 1
    await job
    assert service.begun == pytest.approx([0, 1, 2, 3])


async def test_max_concurrency_lowered_holds_a_batch_that_is_filling():
    """A batch that waits for further items takes no slot that is gone."""
    in_flight = most = 0

    async def call(items):
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(1)
        in_flight -= 1
        return items

    async def source():
        yield 1
        yield 2
        yield 3
        await asyncio.sleep(9)

    processor = AsyncBatchProcessor(call, batched=True, batch_size=2, max_concurrency=2)
    job = processor.start(source(), on_current_loop=True)
    await at(0.01)
    assert in_flight == 1
    job.max_concurrency = 1
    assert (await job).results == [1, 2, 3]
    assert most == 1


@pytest.mark.parametrize("value", [0, -1, 2.5, "4", None, True])
async def test_a_wrong_max_concurrency_is_refused(value):
    """In the thread that sets it, and the old one stays."""
    job = AsyncBatchProcessor(Service(), max_concurrency=3).start([1], on_current_loop=True)
    with pytest.raises((TypeError, ValueError), match=r"max_concurrency must be .*, got"):
        job.max_concurrency = value
    assert job.max_concurrency == 3
    await job


async def test_a_rate_can_be_set_changed_and_removed_while_the_job_runs():
    """The calls begin at the new pace immediately."""
    service = Service(0.001)
    job = AsyncBatchProcessor(service, max_concurrency=1).start(
        range(100_000), on_current_loop=True
    )
    assert job.rate is None
    paces = []
    for rate in (10, 100, None):
        job.rate = rate
        assert job.rate == rate
        await asyncio.sleep(1)
        before = len(service.begun)
        await asyncio.sleep(10)
        paces.append((len(service.begun) - before) / 10)
    job.cancel()
    await job
    assert paces[:2] == pytest.approx([10, 100], rel=0.02)
    assert paces[2] > 900


async def test_a_rate_of_the_job_applies_in_addition_to_its_limiters():
    """The slower of the two is what counts."""
    service = Service(0.001)
    processor = AsyncBatchProcessor(service, rate_limiter=RateLimiter(20, burst_size=1))
    job = processor.start(range(100_000), on_current_loop=True)
    paces = []
    for rate in (5, 100, None):
        job.rate = rate
        await asyncio.sleep(1)
        before = len(service.begun)
        await asyncio.sleep(10)
        paces.append((len(service.begun) - before) / 10)
    job.cancel()
    await job
    assert paces == pytest.approx([5, 20, 20], rel=0.05)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "10", True])
async def test_a_wrong_rate_is_refused(value):
    """In the thread that sets it, and the old one stays."""
    job = AsyncBatchProcessor(Service()).start([1], on_current_loop=True)
    with pytest.raises((TypeError, ValueError), match=r"rate must be .*, got"):
        job.rate = value
    assert job.rate is None
    await job


def test_a_job_is_controlled_and_watched_from_many_threads():
    """Every item is done once, and every snapshot adds up."""
    wrong: list[object] = []
    called: list[int] = []

    async def call(item):
        called.append(item)
        await asyncio.sleep(0)
        return item

    def source():
        yield from range(5_000)

    job = AsyncBatchProcessor(call, max_concurrency=3).start(source())

    def meddle(seed):
        try:
            for turn in range(25):
                job.max_concurrency = 1 + (seed + turn) % 7
                job.rate = None if turn % 2 else 1e6
                job.pause()
                snapshot, progress = job.result, job.progress
                if sum(counts(snapshot)) != snapshot.total:
                    wrong.append(snapshot)
                if any(each.value != each.index for each in snapshot if each.status == "done"):
                    wrong.append(snapshot)
                if progress.done > 5_000 or progress.in_flight < 0 or not repr(job):
                    wrong.append(progress)
                job.resume()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=meddle, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    result = job.wait(50)
    assert wrong == []
    assert result.results == list(range(5_000))
    assert sorted(called) == list(range(5_000))


# ── watch ───────────────────────────────────────────────────────────────────────────────────────


async def test_progress_shows_the_state_of_the_job():
    """Counts, the calls in flight, the speed and what is left at that speed."""

    async def call(item):
        await asyncio.sleep(1)
        if item == 1:
            raise ValueError("a bad item")

    processor = AsyncBatchProcessor(call, max_concurrency=2, retry_count=0)
    job = processor.start(range(10), on_current_loop=True)
    await at(2.5)
    progress = job.progress
    assert (progress.done, progress.failed, progress.total) == (3, 1, 10)
    assert (progress.finished, progress.in_flight, progress.retried) == (4, 2, 0)
    assert progress.rate == pytest.approx(4 / 2.5)
    assert progress.eta == pytest.approx(6 / (4 / 2.5))
    assert progress.seconds == 2.5
    await job


async def test_progress_is_frozen():
    """A snapshot cannot be set, and does not change when the job goes on."""
    job = AsyncBatchProcessor(Service(), max_concurrency=1).start(range(3), on_current_loop=True)
    await at(1.5)
    progress = job.progress
    with pytest.raises(dataclasses.FrozenInstanceError):
        progress.done = 3
    await job
    assert progress.done == 1
    assert job.progress.done == 3


async def test_progress_before_the_first_call_is_zero():
    """There is no speed yet, and nobody can tell when it will end."""
    job = AsyncBatchProcessor(Service()).start(range(3), on_current_loop=True)
    progress = job.progress
    assert (progress.done, progress.in_flight, progress.rate, progress.seconds) == (0, 0, 0.0, 0.0)
    assert progress.eta is None
    await job


async def test_progress_of_an_input_of_unknown_length_has_no_total():
    """Until it has ended."""
    job = AsyncBatchProcessor(Service(), max_concurrency=1).start(
        iter(range(3)), on_current_loop=True
    )
    await at(1.5)
    assert (job.progress.total, job.progress.eta) == (None, None)
    await job
    assert job.progress.total == 3


async def test_progress_after_the_end_stays_as_it_is():
    """The speed is that of the whole job, and nothing is left."""
    job = AsyncBatchProcessor(Service(), max_concurrency=1).start(range(4), on_current_loop=True)
    await job
    progress = job.progress
    assert (progress.rate, progress.eta, progress.in_flight) == (1.0, 0.0, 0)
    await at(100)
    assert job.progress == progress


async def test_the_speed_is_that_of_the_last_seconds():
    """An hour of waiting long ago does not slow the forecast."""

    async def call(item):
        await asyncio.sleep(3600 if item == 0 else 0.5)

    job = AsyncBatchProcessor(call, max_concurrency=1).start(range(100), on_current_loop=True)
    await at(3610.25)
    assert job.progress.rate == pytest.approx(2, rel=0.1)
    await job


async def test_items_that_are_tried_again_count_as_retried():
    """As soon as the first attempt has failed, each once."""

    async def call(item):
        if item < 3:
            raise ConnectionError("away")

    retry = AsyncRetry(2, 10, jitter=None)
    processor = AsyncBatchProcessor(call, max_concurrency=1, retry=retry)
    job = processor.start(range(5), on_current_loop=True)
    await at(0.001)
    assert (job.progress.retried, job.progress.done, job.progress.failed) == (3, 2, 0)
    await job
    assert (job.progress.retried, job.progress.done, job.progress.failed) == (3, 2, 3)


async def test_a_job_is_limited_by_its_rate():
    """Somebody always waits for the limiter, however many calls are in flight."""
    processor = AsyncBatchProcessor(
        Service(2), max_concurrency=32, rate_limiter=RateLimiter(10, burst_size=1)
    )
    job = processor.start(range(1000), on_current_loop=True)
    await at(20.05)  # between two grants
    assert job.progress.in_flight == 20
    assert job.progress.limited_by == "rate"
    job.cancel()
    await job


async def test_a_job_is_limited_by_its_own_rate():
    """The rate that was set on the job counts like a limiter."""
    job = AsyncBatchProcessor(Service(0.1)).start(range(1000), on_current_loop=True)
    job.rate = 1
    await at(20)
    assert job.progress.limited_by == "rate"
    job.cancel()
    await job


async def test_a_job_is_limited_by_its_concurrency():
    """Every slot is taken, and the limiter would let more through."""
    processor = AsyncBatchProcessor(
        Service(1), max_concurrency=4, rate_limiter=RateLimiter(100, burst_size=1)
    )
    job = processor.start(range(1000), on_current_loop=True)
    await at(20)
    assert job.progress.limited_by == "concurrency"
    job.cancel()
    await job


async def test_what_limited_a_job_before_its_settings_changed_is_forgotten():
    """The latest setting decides, however short ago it was made."""
    job = AsyncBatchProcessor(Service(0.1)).start(range(1000), on_current_loop=True)
    job.rate = 1
    await at(20)
    assert job.progress.limited_by == "rate"
    job.rate = None
    await at(20.25)
    assert job.progress.limited_by == "concurrency"
    job.cancel()
    await job


async def test_a_job_is_limited_by_its_retries():
    """The retry queue is full, so no new item may begin."""

    async def call(item):
        raise ConnectionError("away")

    retry = AsyncRetry(3, 3600, max_delay=3600, jitter=None)
    processor = AsyncBatchProcessor(call, max_concurrency=4, retry=retry)
    job = processor.start(range(1000), on_current_loop=True)
    await at(1)
    assert job.progress.limited_by == "retries"
    job.cancel()
    await job


async def test_a_job_is_limited_by_its_input():
    """There is a free slot, and no item to call for."""

    async def slow_source():
        while True:
            await asyncio.sleep(1)
            yield 1

    processor = AsyncBatchProcessor(Service(2.5), max_concurrency=4)
    job = processor.start(slow_source(), on_current_loop=True)
    await at(20)
    assert job.progress.limited_by == "input"
    job.cancel()
    await job


async def test_a_slow_last_call_is_not_blamed_on_the_input():
    """Nothing is left to start; with a free slot or without one."""
    job = AsyncBatchProcessor(Service(60), max_concurrency=4).start(range(6), on_current_loop=True)
    await at(70)
    assert (job.progress.in_flight, job.progress.limited_by) == (2, "last calls")
    assert "limited by last calls" in repr(job)
    await job


async def test_nothing_limits_a_job_before_its_first_call():
    """At the first look of a panel, no call is in flight yet."""
    job = AsyncBatchProcessor(Service()).start(range(100), on_current_loop=True)
    assert "0 in flight" in repr(job)
    assert "limited by" not in repr(job)
    await at(0.5)
    assert "4 in flight" in repr(job)
    assert "limited by concurrency" in repr(job)
    job.cancel()
    await job


async def test_a_retry_after_limits_a_job_without_a_limiter():
    """Nothing is sent until it is over; that is a pause, not a rate."""

    async def call(item):
        await asyncio.sleep(1)
        if item == 0 and asyncio.get_running_loop().time() < 5:
            raise StatusError(429, 30)

    processor = AsyncBatchProcessor(call, max_concurrency=1)
    job = processor.start(range(100), on_current_loop=True)
    await at(20)
    assert job.progress.limited_by == "paused"
    await at(40)
    assert job.progress.limited_by == "concurrency"
    job.cancel()
    await job


async def test_the_repr_states_what_is_going_on():
    """One line: what it does, how far it is, and what holds it back."""
    job = AsyncBatchProcessor(Service(), max_concurrency=2).start(range(1000), on_current_loop=True)
    await at(2.5)
    assert repr(job) == (
        "<Job running: 4 of 1,000, 4 done, 0 failed, 0 retried, 2 in flight, 1.6 items/s, "
        "0:02 so far, 10:22 left, limited by concurrency, at most 2 concurrent calls, "
        "job.rate not set>"
    )
    job.pause()
    assert repr(job).startswith("<Job paused: 4 of 1,000")
    job.cancel()
    await job
    assert repr(job).startswith("<Job cancelled: 4 of 1,000")


async def test_the_repr_of_an_input_of_unknown_length_says_so():
    """A question mark stands for the total."""
    job = AsyncBatchProcessor(Service()).start(iter([1]), on_current_loop=True)
    assert repr(job).startswith("<Job running: 0 of ?, ")
    await job
    assert repr(job).startswith("<Job ended: 1 of 1, ")


async def test_run_async_of_a_job_on_the_loop_that_it_blocks_is_refused():
    """Neither would ever finish, so it is an error immediately, and the job runs on."""
    job = AsyncBatchProcessor(_double).start([1, 2], on_current_loop=True)
    with pytest.raises(RunAsyncError, match="await job"):
        run_async(job)
    assert (await job).all_succeeded


async def _double(item: int) -> int:
    return 2 * item
