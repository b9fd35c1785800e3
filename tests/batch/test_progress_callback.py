"""progress_callback: when it is called, its arguments, and what happens if it raises."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from ragasync import AsyncBatchProcessor, run_async
from tests.support.scripts import printed_by
from tests.support.services import BatchService, Service, StatusError, about, now


async def test_it_is_called_ten_times_a_second_and_at_the_end():
    """With the number of items that have ended and the total."""
    calls: list[tuple[float, int, int | None]] = []
    processor = AsyncBatchProcessor(Service(0.25), max_concurrency=1)
    await processor.process(range(4), lambda done, total: calls.append((now(), done, total)))
    at, done, totals = zip(*calls, strict=True)
    assert at[:-1] == about([0.1 * beat for beat in range(1, len(at))])
    assert len(at) in (10, 11)  # the tenth report and the end coincide
    assert at[-1] == about(1)
    assert list(done)[:9] == [0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert done[-1] == 4
    assert set(totals) == {4}


async def test_a_short_job_is_reported_once():
    """At its end only."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.01)).process(range(3), lambda *call: calls.append(call))
    assert calls == [(3, 3)]


@pytest.mark.parametrize("limit", [None, 50])
async def test_an_empty_job_is_reported_too(limit: int | None):
    """0 of 0, also with max_items."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service()).process(
        [], lambda *call: calls.append(call), max_items=limit
    )
    assert calls == [(0, 0)]


async def test_failures_count_as_ended():
    """An item that failed for good needs no further work."""
    calls: list[tuple[int, int | None]] = []
    service = Service(0.0, {0: ValueError("bad")})
    await AsyncBatchProcessor(service, retry_count=0).process(
        range(3), lambda *call: calls.append(call)
    )
    assert calls == [(3, 3)]


async def test_items_in_back_off_have_not_ended():
    """They count once their last attempt has ended."""
    calls: list[tuple[int, int | None]] = []
    service = Service(0.05, {0: [OSError("away")] * 3})
    await AsyncBatchProcessor(service).process(range(2), lambda *call: calls.append(call))
    assert calls[0] == (1, 2)
    assert calls[-1] == (2, 2)


async def test_the_total_is_none_while_it_is_unknown():
    """An iterator has no length; at the end the total is known."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.15)).process(
        iter(range(3)), lambda *call: calls.append(call)
    )
    assert calls == [(0, None), (3, 3)]


async def test_the_total_can_be_given():
    """For sources without a length."""

    async def source() -> AsyncIterator[int]:
        for item in range(3):
            yield item

    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.15)).process(
        source(), lambda *call: calls.append(call), total=3
    )
    assert calls == [(0, 3), (3, 3)]


@pytest.mark.parametrize(("limit", "total"), [(2, 2), (50, 5)])
async def test_the_total_of_a_pilot_is_its_limit(limit: int, total: int):
    """Or the number of items, if there are fewer."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.0)).process(
        range(5), lambda *call: calls.append(call), max_items=limit
    )
    assert calls == [(total, total)]


async def test_batches_report_items():
    """The counts are of items, not of calls."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(BatchService(seconds=0.13), 4, 1, batched=True).process(
        range(8), lambda *call: calls.append(call)
    )
    assert calls == [(0, 8), (4, 8), (8, 8)]


async def test_a_job_that_is_cancelled_reports_its_end():
    """With the number of items done so far."""
    calls: list[tuple[int, int | None]] = []
    running = asyncio.create_task(
        AsyncBatchProcessor(Service(1.0), max_concurrency=1).process(
            range(9), lambda *call: calls.append(call)
        )
    )
    await asyncio.sleep(2.55)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert calls[-1] == (2, 9)
    assert len(calls) == 26


async def test_a_job_that_stops_reports_its_end():
    """For example an invalid key."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.01, {0: StatusError(401)}), max_concurrency=1).process(
        range(9), lambda *call: calls.append(call)
    )
    assert calls == [(1, 9)]


async def test_a_callback_that_raises_warns_once_and_is_dropped():
    """The job runs without it."""
    calls = 0

    def broken(done: int, total: int | None) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("no display")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = await AsyncBatchProcessor(Service(1.0)).process(range(8), broken)
    assert result.all_succeeded
    assert calls == 1
    assert [warning.category for warning in caught] == [RuntimeWarning]
    assert "raised RuntimeError: no display: the job runs without it" in str(caught[0].message)


async def test_a_callback_that_raises_at_the_very_end_costs_no_result():
    """It is a warning then too."""

    def broken(done: int, total: int | None) -> None:
        raise RuntimeError("no display")

    with pytest.warns(RuntimeWarning, match="no display"):
        result = await AsyncBatchProcessor(Service(0.0)).process(range(3), broken)
    assert result.all_succeeded


@pytest.mark.parametrize("wrong", [3, "print"])
async def test_an_argument_that_is_not_callable_is_rejected(wrong):
    """Before the first call."""
    service = Service()
    with pytest.raises(TypeError, match=f"progress_callback must be .* got {wrong!r}"):
        await AsyncBatchProcessor(service).process([1], wrong)
    assert service.calls == []


class AsyncReport:
    """Callables whose result would have to be awaited or iterated."""

    async def __call__(self, done: int, total: int | None) -> None: ...

    async def method(self, done: int, total: int | None) -> None: ...

    async def stream(self, done: int, total: int | None) -> AsyncIterator[int]:
        yield done

    def rows(self, done: int, total: int | None) -> Iterator[int]:
        yield done


@pytest.mark.parametrize(
    "callback",
    [
        AsyncReport(),
        AsyncReport().method,
        AsyncReport().stream,
        AsyncReport().rows,
        partial(AsyncReport.method, None),
        partial(partial(AsyncReport())),
    ],
)
async def test_an_async_callback_is_rejected(callback):
    """Nothing would await it; a generator would do nothing either."""
    with pytest.raises(TypeError, match="must be a plain function"):
        await AsyncBatchProcessor(Service()).process([1], callback)
    with pytest.raises(TypeError, match="must be a plain function"):
        AsyncBatchProcessor(Service()).start([1], callback)


async def test_a_callback_with_a_broken_getattr_is_called():
    """Even if reading any attribute raises an error."""
    calls: list[int] = []

    class Bar:
        def __getattr__(self, name: str) -> object:
            raise ZeroDivisionError(name)

        def __call__(self, done: int, total: int | None) -> None:
            calls.append(done)

    result = await AsyncBatchProcessor(Service()).process(range(4), Bar())
    assert result.all_succeeded
    assert calls[-1] == 4


async def test_a_callback_that_returns_a_coroutine_warns_once():
    """It looks like a plain function until it is called."""
    with pytest.warns(RuntimeWarning, match="returned a coroutine, which nothing awaits") as caught:
        result = await AsyncBatchProcessor(Service()).process(
            range(8), lambda done, total: asyncio.sleep(0)
        )
    assert len(caught) == 1
    assert result.all_succeeded


class Panic(BaseException):
    """An error of a library in another language."""


@pytest.mark.parametrize("error", [Panic, GeneratorExit, asyncio.CancelledError, StopIteration])
async def test_any_error_of_a_callback_warns_once(error):
    """Also a BaseException; the job runs without the callback."""

    def broken(done: int, total: int | None) -> None:
        raise error("no display")

    with pytest.warns(RuntimeWarning, match="no display: the job runs without it") as caught:
        result = await AsyncBatchProcessor(Service()).process(range(8), broken)
    assert len(caught) == 1
    assert result.all_succeeded


@pytest.mark.real_time
@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit])
def test_a_callback_can_leave_the_program(leave):
    """sys.exit() in a callback ends the job and is raised where the job is awaited."""
    cancelled = []

    async def call(item: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(item)

    def leaves(done: int, total: int | None) -> None:
        raise leave

    processor = AsyncBatchProcessor(call, max_concurrency=2)
    with pytest.raises(leave):
        processor.process_sync(range(4), leaves)
    with pytest.raises(leave):
        processor.start(range(4), leaves).wait(timeout=20)
    assert sorted(cancelled) == [0, 0, 1, 1]


async def test_a_broken_repr_of_a_callback_does_no_harm():
    """The warning names its class."""

    class Nameless:
        def __repr__(self) -> str:
            raise ValueError("nothing to show")

        def __call__(self, done: int, total: int | None) -> None:
            raise RuntimeError("no display")

    with pytest.warns(RuntimeWarning, match="progress_callback=Nameless raised RuntimeError"):
        await AsyncBatchProcessor(Service()).process([1], Nameless())


@pytest.mark.parametrize("error", [RuntimeError, Panic])
async def test_an_error_while_a_callback_is_closed_is_a_warning(error):
    """The result is returned anyway; an attribute that is not a function is ignored."""

    class Bar:
        def __call__(self, done: int, total: int | None) -> None: ...

        def close(self) -> None:
            raise error("no display")

    with pytest.warns(RuntimeWarning, match="no display"):
        result = await AsyncBatchProcessor(Service()).process([1], Bar())
    assert result.all_succeeded

    class Door:
        close = True

        def __call__(self, done: int, total: int | None) -> None: ...

    assert (await AsyncBatchProcessor(Service()).process([1], Door())).all_succeeded


@pytest.mark.real_time
def test_a_callback_may_block_and_control_its_job():
    """It may call run_async, be slow, and cancel its own job, from the thread of the job."""
    seen = []

    def report(done: int, total: int | None) -> None:
        seen.append(run_async(asyncio.sleep(0.15, done)))
        if done >= 2:
            job.cancel()

    async def call(item: int) -> int:
        await asyncio.sleep(0.05)
        return item

    processor = AsyncBatchProcessor(call, max_concurrency=1)
    job = processor.start(range(1000), report)
    result = job.wait(timeout=30)
    assert 2 <= result.success_count < 1000
    assert result.stopped_because == "it was cancelled"
    assert seen[-1] == result.success_count


def test_a_callback_that_runs_the_loop_gets_the_latest_report_afterwards():
    """Its calls are never nested, and the last report is never lost."""
    assert printed_by(
        """
        import asyncio
        from ragasync import AsyncBatchProcessor, run_async

        depth = deepest = 0
        seen = []

        class Report:
            def __call__(self, done, total):
                global depth, deepest
                depth += 1
                deepest = max(deepest, depth)
                run_async(asyncio.sleep(0.25), nested=True)
                seen.append((done, total))
                depth -= 1

            def close(self):
                seen.append("closed")

        async def main():
            async def call(item):
                await asyncio.sleep(0.12)

            result = await AsyncBatchProcessor(call, max_concurrency=1).process(range(4), Report())
            while seen[-1:] != ["closed"]:  # a nested loop ends with the one around it
                await asyncio.sleep(0.01)
            return result

        result = asyncio.run(main())
        print(deepest, seen[-2:], seen.count("closed"), result.success_count)
        """
    ) == ["1 [(4, 4), 'closed'] 1 4"]


async def test_a_callback_that_can_be_closed_is_closed_at_the_end_of_a_stopped_job():
    """A bar that has not reached its total must end too."""

    class Bar:
        closed = 0

        def __call__(self, done: int, total: int | None) -> None:
            """Take the report."""

        def close(self) -> None:
            """Note the end."""
            self.closed += 1

    bar = Bar()
    task = asyncio.create_task(AsyncBatchProcessor(Service()).process(range(10), bar))
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bar.closed == 1
