"""The request batcher: callers share one run, and each gets the values of its own items."""

import asyncio

import pytest

from ragasync import AsyncRetry

# Internals: it serves the stages of documents and has no public name.
from ragasync._engine.request_batcher import RequestBatcher, RequestFailed
from ragasync.arguments import check_process_fn
from ragasync.errors import JobStopped, RunAsyncError, StageFailure
from ragasync.settings import BatchSettings
from tests.support.services import BatchService, StatusError, about, now, other_tasks, turns
from tests.support.services import Service as Fake


def opened(function, **settings):
    """A request batcher for a function, not yet open."""
    return RequestBatcher(BatchSettings(function, check_process_fn(function), **settings))


async def test_each_caller_gets_the_values_of_its_own_items_in_order():
    """Two requests share one batch, and neither sees the other."""
    fake = BatchService()
    async with opened(fake, batched=True, batch_size=4) as service:
        first, second = await asyncio.gather(service([1, 2, 3]), service([4]))
    assert (first, second) == ([10, 20, 30], [40])
    assert fake.batches == [[1, 2, 3, 4]]
    assert fake.starts == [0.0]


async def test_an_unfilled_batch_leaves_after_twenty_milliseconds():
    """A single request waits 20 ms for others that could share its batch."""
    fake = BatchService()
    async with opened(fake, batched=True, batch_size=4) as service:
        await service([1])
    assert fake.starts == [about(0.02)]


async def test_an_empty_request_needs_no_call():
    """A document without chunks does not wait."""
    fake = BatchService()
    async with opened(fake, batched=True) as service:
        assert await service([]) == []
    assert fake.batches == []


async def test_only_the_request_with_the_bad_item_fails():
    """The error has the position of the item, and the rest of the batch succeeds."""
    fake = BatchService({3: ValueError("bad")})
    async with opened(fake, batched=True, batch_size=4) as service:
        first, second = await asyncio.gather(
            service([1, 2]), service([4, 3]), return_exceptions=True
        )
    assert first == [10, 20]
    assert isinstance(second, RequestFailed)
    assert (second.positions, str(second.error)) == ([1], "bad")


async def test_the_error_has_the_positions_of_all_items_that_share_it():
    """A batch that cannot be split fails for all of its items."""
    fake = BatchService({3: TypeError("a bug")})
    async with opened(fake, batched=True, batch_size=3) as service:
        with pytest.raises(RequestFailed) as caught:
            await service([1, 2, 3])
    assert caught.value.positions == [0, 1, 2]


async def test_the_other_items_of_a_failed_request_are_not_called():
    """A document that failed costs no further calls."""
    fake = Fake(errors={0: ValueError("bad")})
    async with opened(fake, max_concurrency=1) as service:
        with pytest.raises(RequestFailed):
            await service([0, 1, 2])
        assert await service([7]) == [70]
    assert fake.items == [0, 7]


async def test_the_other_items_of_a_cancelled_request_are_not_called():
    """A caller that was cancelled costs no further calls."""
    fake = Fake()
    async with opened(fake, max_concurrency=1) as service:
        caller = asyncio.ensure_future(service([1, 2, 3]))
        await turns()
        caller.cancel()
        assert await service([7]) == [70]
    assert fake.items == [1, 7]


async def test_retries_and_concurrency_are_those_of_the_settings():
    """A request batcher is a run like any other."""
    fake = Fake(errors={1: [StatusError(503)]})
    retry = AsyncRetry(1, 5.0, jitter=None)
    async with opened(fake, max_concurrency=2, retry=retry) as service:
        assert await service([1, 2, 3, 4]) == [10, 20, 30, 40]
    assert fake.most_in_flight == 2
    assert fake.starts_of(1) == [0.0, about(6.0)]


async def test_a_fatal_error_fails_every_open_and_later_request():
    """All callers get the reason."""
    fake = Fake(seconds=[1, 9], errors={0: StatusError(401, message="bad key")})
    async with opened(fake, max_concurrency=2) as service:
        first, second = await asyncio.gather(service([0]), service([1]), return_exceptions=True)
        assert str(first.error) == "bad key"
        assert isinstance(second, JobStopped)
        assert str(second) == "a fatal error: StatusError: bad key"
        assert service.has_stopped
        with pytest.raises(JobStopped, match="bad key"):
            await service([2])
    assert now() == about(1.0)
    assert fake.cancelled == [1]


async def test_an_object_of_another_loop_fails_all_requests_with_the_same_error():
    """Later callers get a RunAsyncError, not a JobStopped."""
    wrong = RuntimeError(
        "<asyncio.locks.Lock object at 0x7F [unlocked]> is bound to a different event loop"
    )
    async with opened(Fake(errors={0: wrong}), max_concurrency=1) as service:
        with pytest.raises(RequestFailed):
            await service([0])
        with pytest.raises(RunAsyncError, match="another event loop"):
            await service([1])


async def test_a_failed_request_has_the_stage_of_its_error():
    """A function of several stages names the one that failed."""

    async def fails(item: int) -> int:
        raise StageFailure("load", KeyError(item))

    async with opened(fails) as service:
        with pytest.raises(RequestFailed) as caught:
            await service([1])
    assert (caught.value.stage, type(caught.value.error)) == ("load", KeyError)


async def test_errors_keep_their_tracebacks():
    """The run that awaits the requests turns them into text; none is dropped before."""

    async def fails(item: int) -> int:
        raise KeyError(item)

    async with opened(fails) as service:
        requests = [service([item]) for item in range(30)]
        failures = await asyncio.gather(*requests, return_exceptions=True)
    assert all(failure.error.__traceback__ is not None for failure in failures)


async def test_closing_cancels_calls_in_flight_and_fails_open_requests():
    """No task is left, and no caller waits forever."""
    fake = Fake(seconds=100)
    async with opened(fake, max_concurrency=1) as service:
        waiting = asyncio.ensure_future(service([1, 2]))
        await turns()
    with pytest.raises(JobStopped, match="the request batcher is closed"):
        await waiting
    with pytest.raises(JobStopped, match="the request batcher is closed"):
        await service([3])
    assert fake.cancelled == [1]
    assert other_tasks() == set()


async def test_a_cancelled_opening_leaves_no_task():
    """The run has a task of its own, which must end with the opening."""
    service = opened(Fake())
    opening = asyncio.create_task(service.__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert other_tasks() == set()
