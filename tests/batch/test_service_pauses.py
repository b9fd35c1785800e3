"""A service that says that it is closed is left alone, by everybody, and not for days."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    AsyncRetry,
    JobStopped,
    Journal,
    RateLimiter,
)


class StatusError(Exception):
    """A reply that refuses, in the shape of most clients."""

    def __init__(self, status: int, retry_after: str | None = None, words: str = "no") -> None:
        super().__init__(words)
        self.status_code = status
        self.headers = {} if retry_after is None else {"Retry-After": retry_after}


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


class Service:
    """Refuses its first call, and notes when the others come."""

    def __init__(self, *refusals: StatusError) -> None:
        self._refusals = list(refusals)
        self.times: list[float] = []

    async def __call__(self, item: int) -> int:
        self.times.append(now())
        if self._refusals:
            raise self._refusals.pop(0)
        return item

    async def in_batches(self, items: list[int]) -> list[int]:
        """Answer a batch of items."""
        await self(0)
        return items


@pytest.mark.parametrize("status", [403, 408, 425, 429, 500, 503, 529])
async def test_a_reply_with_retry_after_holds_the_job_whatever_its_status(status: int):
    """A 403 with it is tried again, too."""
    service = Service(StatusError(status, "30"))
    result = await AsyncBatchProcessor(service, max_concurrency=1).process(range(5))
    assert result.all_succeeded
    assert service.times[0] == 0
    assert min(service.times[1:]) == pytest.approx(30)


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_nothing_is_sent_meanwhile_though_the_call_itself_has_failed_for_good(status: int):
    """The service is closed for the others as well."""
    service = Service(StatusError(status, "30"))
    result = await AsyncBatchProcessor(service, max_concurrency=1).process(range(5))
    assert (result.success_count, result.error_count) == (4, 1)
    assert min(service.times[1:]) == pytest.approx(30)


async def test_another_job_with_the_same_limiter_is_held_too():
    """It is the limiter's service that is closed."""
    limiter = RateLimiter(1000)
    refusing, other = Service(StatusError(503, "30")), Service()
    first = AsyncBatchProcessor(refusing, rate_limiter=limiter).start([1], on_current_loop=True)
    await asyncio.sleep(1)
    await AsyncBatchProcessor(other, rate_limiter=limiter).process([2])
    assert other.times == [pytest.approx(30)]
    assert (await first).all_succeeded


async def test_a_413_is_split_after_the_pause():
    """The halves wait for it."""
    service = Service(StatusError(413, "20"))
    processor = AsyncBatchProcessor(service.in_batches, 4, batched=True, max_concurrency=1)
    result = await processor.process(range(4))
    assert result.all_succeeded
    assert service.times == [0, pytest.approx(20), pytest.approx(20)]


async def test_resume_ends_the_pause():
    """Whoever knows better may say so; the call that was refused does not wait on either."""
    limiter = RateLimiter(1000)
    service = Service(StatusError(429, "100"))
    job = AsyncBatchProcessor(service, rate_limiter=limiter, retry_delay=0.0).start(
        [1], on_current_loop=True
    )
    await asyncio.sleep(3)
    assert limiter.paused_for == pytest.approx(97)
    limiter.resume()
    assert limiter.paused_for == 0
    second = await AsyncBatchProcessor(Service(), rate_limiter=limiter).process([2])
    assert second.all_succeeded
    assert now() < 4
    assert (await job).all_succeeded
    assert now() < 4


async def test_a_retry_keeps_to_its_own_back_off_when_the_pause_ends_early():
    """Which it would have waited without a Retry-After."""
    limiter = RateLimiter(1000)
    service = Service(StatusError(429, "100"))
    retry = AsyncRetry(1, 10.0, jitter=None)
    job = AsyncBatchProcessor(service, rate_limiter=limiter, retry=retry).start(
        [1], on_current_loop=True
    )
    await asyncio.sleep(3)
    limiter.resume()
    assert (await job).all_succeeded
    assert service.times == [0, pytest.approx(10)]


@pytest.mark.parametrize("rate", [None, 1000.0])
async def test_resuming_a_job_ends_the_pause(rate: float | None):
    """Also where no limiter of the user's has one."""
    service = Service(StatusError(429, "100"))
    job = AsyncBatchProcessor(service, max_concurrency=2, retry_delay=0.0).start(
        range(5), on_current_loop=True
    )
    job.rate = rate
    await asyncio.sleep(3)
    assert job.progress.paused_for == pytest.approx(97)
    job.resume()
    assert (await job).all_succeeded
    assert now() < 4


async def test_on_retry_hears_how_long_the_service_asks_to_wait():
    """Whoever holds the call."""
    heard: list[float] = []
    retry = AsyncRetry(1, 0.0, on_retry=lambda info: heard.append(info.delay))
    result = await AsyncBatchProcessor(Service(StatusError(429, "30")), retry=retry).process([1])
    assert result.all_succeeded
    assert heard == [30]


@pytest.mark.parametrize("asked", ["121", "86400", "1795929333"])
async def test_a_longer_wait_than_allowed_stops_the_job_and_is_not_clamped(asked: str):
    """What is done is kept, the rest is pending, and the reason names the time."""
    limiter = RateLimiter(1000)
    service = Service()

    async def call(item: int) -> int:
        if item == 3:
            raise StatusError(429, asked)
        return await service(item)

    processor = AsyncBatchProcessor(call, max_concurrency=1, rate_limiter=limiter)
    result = await processor.process(range(10))
    assert (result.success_count, result.error_count, result.pending_count) == (3, 0, 7)
    assert "max_retry_after=120 s" in str(result.stopped_because)
    assert "until" in str(result.stopped_because)
    assert now() < 1
    assert limiter.paused_for == 0
    assert "max_retry_after" in result.explain()


async def test_calls_in_flight_finish_when_a_job_stops_for_a_long_wait():
    """It stops as for a budget."""

    async def call(item: int) -> int:
        await asyncio.sleep(1 + item)
        if item == 0:
            raise StatusError(503, "9999")
        return item

    result = await AsyncBatchProcessor(call, max_concurrency=3).process(range(10))
    assert (result.success_count, result.error_count, result.pending_count) == (2, 0, 8)
    assert result.cancelled_count == 0


@pytest.mark.parametrize("most", [5.0, 600.0, float("inf")])
async def test_the_policy_says_how_long_is_too_long(most: float):
    """From a second to for ever."""
    service = Service(StatusError(429, "300"))
    retry = AsyncRetry(2, 0.0, max_retry_after=most)
    result = await AsyncBatchProcessor(service, retry=retry).process([1])
    assert result.all_succeeded is (most > 300)


@pytest.mark.parametrize(
    "asked", ["0", "-5", "nan", "inf", "soon", "", "Wed, 21 Oct 2015 07:28:00 GMT"]
)
async def test_a_value_that_asks_for_nothing_holds_nobody(asked: str):
    """Past, negative, not finite, no number: it counts as nothing."""
    service = Service(StatusError(503, asked))
    result = await AsyncBatchProcessor(service, retry_delay=0.0).process(range(3))
    assert result.all_succeeded
    assert now() < 1


async def test_a_stream_that_stops_for_a_long_wait_says_so():
    """After the outcomes of what was done."""
    service = Service()

    async def call(item: int) -> int:
        if item == 2:
            raise StatusError(429, "5000")
        return await service(item)

    seen: list[Any] = []

    async def read() -> None:
        async for outcome in AsyncBatchProcessor(call, max_concurrency=1).stream(range(9)):
            seen.append(outcome.value)  # noqa: PERF401  # what came before the error counts

    with pytest.raises(JobStopped, match="max_retry_after"):
        await read()
    assert seen == [0, 1]


async def test_a_run_that_stopped_for_a_long_wait_goes_on_from_its_journal(tmp_path):
    """Only the rest is called."""
    called: list[int] = []
    closed = [True]

    async def call(item: int) -> int:
        called.append(item)
        if item == 2 and closed:
            raise StatusError(429, "5000")
        return item

    processor = AsyncBatchProcessor(
        call, max_concurrency=1, journal=Journal(tmp_path / "run.sqlite", name="job")
    )
    assert (await processor.process(range(4))).pending_count == 2
    closed.clear()
    assert (await processor.process(range(4))).all_succeeded
    assert called == [0, 1, 2, 2, 3]


async def test_documents_stop_for_a_long_wait_and_the_rest_is_pending():
    """The embedder's service is closed: no document has failed."""
    calls: list[int] = []

    async def embed(texts: list[str]) -> list[list[float]]:
        calls.append(len(texts))
        if len(calls) > 1:
            raise StatusError(429, "5000")
        return [[1.0, 0.0] for _ in texts]

    processor = AsyncDocumentProcessor(embed=embed, batch_size=2, embed_concurrency=1)
    result = await processor.process([(f"id {number}", f"text {number}") for number in range(10)])
    assert (result.success_count, result.error_count, result.pending_count) == (2, 0, 8)
    assert "max_retry_after" in str(result.stopped_because)


async def test_a_paused_job_says_until_when_and_why():
    """In its repr, its progress, and at the end in explain()."""
    service = Service(StatusError(503, "30", "closed for lunch"))
    job = AsyncBatchProcessor(service, max_concurrency=1).start(range(20), on_current_loop=True)
    await asyncio.sleep(10)
    progress = job.progress
    assert progress.limited_by == "paused"
    assert progress.paused_for == pytest.approx(20)
    assert "closed for lunch" in progress.pause
    assert "nothing is sent for another 20.0 s, until" in repr(job)
    assert "closed for lunch" in repr(job)
    result = await job
    assert job.progress.paused_for == 0
    explanation = " ".join(result.explain().split())
    assert "asked for a pause once (Retry-After), 30.0 s in all" in explanation


async def test_a_paused_pipeline_says_so_too():
    """The pause is of its embedding stage."""
    refusals = [StatusError(503, "30", "closed for lunch")]

    async def embed(texts: list[str]) -> list[list[float]]:
        if refusals:
            raise refusals.pop()
        return [[1.0, 0.0] for _ in texts]

    job = AsyncDocumentProcessor(embed=embed).start([("a", "text")], on_current_loop=True)
    await asyncio.sleep(10)
    assert job.progress.paused_for == pytest.approx(20)
    assert "closed for lunch" in repr(job)
    assert (await job).all_succeeded
