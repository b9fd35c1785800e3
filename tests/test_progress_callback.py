"""progress_callback: when it is called, with what, and what its own errors do."""

import asyncio
import warnings
from collections.abc import AsyncIterator

import pytest
from services import BatchService, Refused, Service, about, now

from ragasync import AsyncBatchProcessor


async def test_it_is_called_ten_times_a_second_and_at_the_end():
    """With the number that ended and the total."""
    calls: list[tuple[float, int, int | None]] = []
    processor = AsyncBatchProcessor(Service(0.25), max_concurrency=1)
    await processor.process(range(4), lambda done, total: calls.append((now(), done, total)))
    at, done, totals = zip(*calls, strict=True)
    assert at[:-1] == about([0.1 * beat for beat in range(1, len(at))])
    assert len(at) in (10, 11)  # the tenth beat and the end are at the same moment
    assert at[-1] == about(1)
    assert list(done)[:9] == [0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert done[-1] == 4
    assert set(totals) == {4}


async def test_a_short_job_is_reported_once():
    """At its end."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.01)).process(range(3), lambda *call: calls.append(call))
    assert calls == [(3, 3)]


@pytest.mark.parametrize("limit", [None, 50])
async def test_an_empty_job_is_reported_too(limit: int | None):
    """0 of 0, with a limit too."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service()).process([], lambda *call: calls.append(call), limit=limit)
    assert calls == [(0, 0)]


async def test_failures_count_as_ended():
    """Done is what needs no further work, well or not."""
    calls: list[tuple[int, int | None]] = []
    service = Service(0.0, {0: ValueError("bad")})
    await AsyncBatchProcessor(service, retry_count=0).process(
        range(3), lambda *call: calls.append(call)
    )
    assert calls == [(3, 3)]


async def test_items_in_back_off_have_not_ended():
    """They count when their last attempt did."""
    calls: list[tuple[int, int | None]] = []
    service = Service(0.05, {0: [OSError("away")] * 3})
    await AsyncBatchProcessor(service).process(range(2), lambda *call: calls.append(call))
    assert calls[0] == (1, 2)
    assert calls[-1] == (2, 2)


async def test_the_total_is_none_while_it_is_unknown():
    """Of an iterator; at the end it is known."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.15)).process(
        iter(range(3)), lambda *call: calls.append(call)
    )
    assert calls == [(0, None), (3, 3)]


async def test_the_total_can_be_told():
    """For sources that do not know it."""

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
    """Or the number of items, where they are fewer."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.0)).process(
        range(5), lambda *call: calls.append(call), limit=limit
    )
    assert calls == [(total, total)]


async def test_batches_report_items():
    """Not calls."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(BatchService(seconds=0.13), 4, 1, batched=True).process(
        range(8), lambda *call: calls.append(call)
    )
    assert calls == [(0, 8), (4, 8), (8, 8)]


async def test_a_job_that_is_cancelled_reports_its_end():
    """With what was done."""
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
    """Whatever stopped it."""
    calls: list[tuple[int, int | None]] = []
    await AsyncBatchProcessor(Service(0.01, {0: Refused(401)}), max_concurrency=1).process(
        range(9), lambda *call: calls.append(call)
    )
    assert calls == [(1, 9)]


async def test_a_callback_that_raises_warns_once_and_is_dropped():
    """The job goes on without it."""
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
    assert "raised RuntimeError: no display: the job goes on without it" in str(caught[0].message)


async def test_a_callback_that_raises_at_the_very_end_costs_no_result():
    """It is a warning there too."""

    def broken(done: int, total: int | None) -> None:
        raise RuntimeError("no display")

    with pytest.warns(RuntimeWarning, match="no display"):
        result = await AsyncBatchProcessor(Service(0.0)).process(range(3), broken)
    assert result.all_succeeded


@pytest.mark.parametrize("wrong", [3, "print"])
async def test_what_cannot_be_called_is_refused(wrong):
    """Before anything is called."""
    service = Service()
    with pytest.raises(TypeError, match=f"progress_callback must be .* got {wrong!r}"):
        await AsyncBatchProcessor(service).process([1], wrong)
    assert service.calls == []


async def test_an_async_callback_is_refused():
    """Nobody would await it."""

    async def report(done: int, total: int | None) -> None: ...

    with pytest.raises(TypeError, match="must be a plain function"):
        await AsyncBatchProcessor(Service()).process([1], report)


async def test_a_callback_that_can_be_closed_is_closed_at_the_end_of_a_stopped_job():
    """A bar that stops short of its total is told that no more will come."""

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
