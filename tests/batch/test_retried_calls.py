"""Failed calls: when they are tried again, what they hold meanwhile, and what goes before what."""

import asyncio
import inspect
import itertools
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from ragasync import (
    FATAL,
    AsyncBatchProcessor,
    AsyncRetry,
    AttemptTimeout,
    RateLimiter,
)
from tests.support.services import Service, StatusError, about, now


def patient(retries: int = 3, delay: float = 1.0, **more) -> AsyncRetry:
    """A policy with exact back-off times."""
    return AsyncRetry(retries, delay, jitter=None, **more)


def in_a_day() -> AsyncRetry:
    """A policy whose retries come long after."""
    return AsyncRetry(1, retry_on=lambda error: 86_400.0)


# ---- how often, and when


async def test_retry_count_counts_the_retries_after_the_first_attempt():
    """Three by default: four calls."""
    error = OSError("away")
    service = Service(errors={0: error})
    result = await AsyncBatchProcessor(service).process([0])
    assert len(service.calls) == 4
    assert result[0].attempts == 4
    assert result.errors == [error]


async def test_retry_delay_is_the_base_of_the_exponential_back_off():
    """Full jitter: between nothing and retry_delay x 2^n."""
    waits: list[list[float]] = []
    for seed in range(50):
        random.seed(seed)
        service = Service(0.0, {0: OSError("away")})
        began = now()
        await AsyncBatchProcessor(service, retry_delay=0.5).process([0])
        starts = [began, *service.starts_of(0)[1:]]
        waits.append([b - a for a, b in itertools.pairwise(starts)])
    for bound, column in zip((0.5, 1.0, 2.0), zip(*waits, strict=True), strict=True):
        assert 0.75 * bound < max(column) <= bound
        assert min(column) < 0.25 * bound


async def test_a_policy_of_the_users_own_is_followed():
    """retry= instead of retry_count and retry_delay."""
    service = Service(1.0, {0: OSError("away")})
    processor = AsyncBatchProcessor(service, retry=patient(3))
    result = await processor.process([0])
    assert service.starts_of(0) == about([0, 2, 5, 10])
    assert result[0].backed_off == about(7)
    assert result[0].seconds == about(4)


@pytest.mark.parametrize(
    "both",
    [
        {"retry_count": 5},
        {"retry_count": 3},  # the default, given by hand
        {"retry_delay": 0.5},
        {"retry_delay": 2.0 / 2.0},
        {"retry_count": 0, "retry_delay": 2},
    ],
)
def test_retry_takes_the_place_of_retry_count_and_retry_delay(both):
    """One would be silently overridden by the other."""
    with pytest.raises(ValueError, match=rf"pass {next(iter(both))}=.* or retry=.*, not both"):
        AsyncBatchProcessor(Service(), retry=AsyncRetry(1), **both)


def test_the_defaults_of_the_retries_are_plain_to_see():
    """In the signature, as numbers."""
    parameters = inspect.signature(AsyncBatchProcessor).parameters
    assert str(parameters["retry_count"]) == "retry_count: 'int' = 3"
    assert str(parameters["retry_delay"]) == "retry_delay: 'float | timedelta' = 1.0"


async def test_an_item_that_recovers_is_done_and_keeps_a_log_of_its_attempts():
    """The failed ones: when, how long, what, and the back-off that followed."""
    service = Service(1.0, {0: [OSError("first"), ConnectionError("second")]})
    result = await AsyncBatchProcessor(service, retry=patient()).process([0])
    outcome = result[0]
    assert (outcome.status, outcome.value, outcome.attempts, outcome.error) == ("done", 0, 3, None)
    log = [(each.started, each.seconds, each.backed_off) for each in outcome.history]
    assert log == [about((0, 1, 1)), about((2, 1, 2))]
    assert [each.error for each in outcome.history] == [
        "OSError: first",
        "ConnectionError: second",
    ]


async def test_the_log_says_how_long_each_attempt_waited_for_the_limiter():
    """Grants come each second: the retry of 0.75 s waits until 1 s, that of 2 s does not."""
    service = Service(0.5, {0: [OSError("first"), OSError("second")]})
    limiter = RateLimiter(1, burst_size=1)
    result = await AsyncBatchProcessor(
        service, rate_limiter=limiter, retry=patient(delay=0.25)
    ).process([0])
    log = [(each.started, each.waited) for each in result[0].history]
    assert log == [about((0, 0)), about((1, 0.25))]
    assert service.starts_of(0) == about([0, 1, 2])
    assert (result[0].waited, result[0].backed_off) == about((0.25, 0.75))


async def test_the_log_says_on_which_worker_each_attempt_was_made():
    """The first worker has gone on to another item when the retries are due."""
    service = Service([1.0, 2.0, 9.0], {0: [OSError("first"), OSError("second")]})
    result = await AsyncBatchProcessor(service, max_concurrency=2, retry=patient()).process(
        range(3)
    )
    assert [each.worker for each in result[0].history] == [0, 1]
    assert result[0].worker == 1


async def test_the_parts_of_a_batch_log_waits_of_their_own():
    """What they waited together is not counted again when a half fails."""

    async def embed(batch: list[int]) -> list[int]:
        if 0 in batch:
            raise ValueError("0 is bad")
        return batch

    limiter = RateLimiter(1, burst_size=1)
    limiter.try_acquire()
    processor = AsyncBatchProcessor(embed, 4, 1, 0, batched=True, rate_limiter=limiter)
    result = await processor.process(range(4))
    assert [each.waited for each in result[0].history] == about([1, 1])
    assert [outcome.waited for outcome in result] == about([3, 3, 2, 2])


async def test_an_attempt_that_its_limiter_failed_began_when_that_was_known():
    """The wait lies before it, as before every other attempt."""

    class Away:
        weight, max_weight = None, 1.0
        asked = 0

        async def acquire(self, weight: float = 1.0) -> None:
            self.asked += 1
            await asyncio.sleep(1)
            if self.asked == 1:
                raise ConnectionError("away")

        def pause(self, seconds: float) -> None: ...

    processor = AsyncBatchProcessor(Service(1.0), rate_limiter=Away(), retry=patient())
    (outcome,) = await processor.process([0])
    (attempt,) = outcome.history
    assert (attempt.started, attempt.seconds, attempt.waited) == about((1, 0, 1))
    assert (outcome.started, outcome.seconds, outcome.waited) == about((1, 1, 2))


async def test_a_pause_before_the_first_attempt_is_no_back_off():
    """The item had passed the limiter, and was held back."""
    limiter = RateLimiter(1, burst_size=1)
    limiter.try_acquire()
    job = AsyncBatchProcessor(Service(1.0), rate_limiter=limiter).start([0], on_current_loop=True)
    await asyncio.sleep(0.5)
    job.pause()
    await asyncio.sleep(5)
    job.resume()
    (outcome,) = await job
    assert outcome.started > 5
    assert outcome.backed_off == 0


@pytest.mark.parametrize(
    "error", [TypeError("bug"), KeyError("x"), FileNotFoundError("x"), StatusError(404)], ids=repr
)
async def test_what_must_fail_again_is_not_tried_again(error: Exception):
    """One call."""
    service = Service(errors={0: error})
    result = await AsyncBatchProcessor(service).process([0])
    assert len(service.calls) == 1
    assert result.errors == [error]


async def test_a_predicate_that_raises_fails_the_item_with_its_error():
    """The job goes on, and the item's own error is not lost."""

    def broken(error: Exception) -> bool:
        raise RuntimeError("bug in the predicate")

    service = Service(errors={0: OSError("away")})
    result = await AsyncBatchProcessor(service, retry=AsyncRetry(retry_on=broken)).process([0, 1])
    assert [outcome.status for outcome in result] == ["failed", "done"]
    assert str(result.errors[0]) == "bug in the predicate"
    assert str(result.errors[0].__cause__) == "away"  # type: ignore[union-attr]


async def test_on_retry_hears_of_each_back_off():
    """With the attempt, the error and the delay."""
    heard: list[tuple[int, str, float]] = []
    policy = patient(
        2, on_retry=lambda retry: heard.append((retry.attempt, str(retry.error), retry.delay))
    )
    await AsyncBatchProcessor(Service(errors={0: OSError("away")}), retry=policy).process([0])
    assert heard == [(1, "away", 1.0), (2, "away", 2.0)]


async def test_no_retry_is_slept_for_past_the_deadline():
    """After 4 s of attempts and 3 s of back-off the next, 4 s later, would be past 10 s."""
    service = Service(1.0, {0: OSError("away")})
    result = await AsyncBatchProcessor(service, retry=patient(9, max_elapsed=8)).process([0])
    assert service.starts_of(0) == about([0, 2, 5])
    assert result.seconds == about(6)


async def test_no_attempt_is_started_past_the_deadline_when_slots_were_busy():
    """The retry is due after 2 s, but the only slot is free after 11 s."""
    error = OSError("away")
    service = Service([1.0, 10.0], {0: error})
    result = await AsyncBatchProcessor(
        service, max_concurrency=1, retry=patient(max_elapsed=5)
    ).process([0, 1])
    assert service.starts_of(0) == [0]
    assert result.errors == [error, None]


# ---- what is held meanwhile


async def test_an_item_in_back_off_holds_no_slot():
    """With one slot, the others go while it waits."""
    service = Service(1.0, {0: [OSError("away")]})
    result = await AsyncBatchProcessor(service, max_concurrency=1, retry=patient(1, 3)).process(
        range(4)
    )
    assert service.calls == [
        (item, about(at)) for item, at in [(0, 0), (1, 1), (2, 2), (3, 3), (0, 4)]
    ]
    assert result.seconds == about(5)


async def test_a_due_retry_goes_before_new_items():
    """As soon as a slot is free."""
    service = Service(1.0, {0: [OSError("away")]})
    await AsyncBatchProcessor(service, max_concurrency=1, retry=patient(1, 1.5)).process(range(5))
    assert service.items == [0, 1, 2, 0, 3, 4]


async def test_due_retries_go_in_the_order_of_their_due_times():
    """The earliest first."""
    policy = AsyncRetry(1, retry_on=lambda error: float(str(error)))
    service = Service(
        [1.0, 1.0, 1.0, 10.0],
        {0: [OSError("8")], 1: [OSError("5")], 2: [OSError("2")]},
    )
    await AsyncBatchProcessor(service, max_concurrency=1, retry=policy).process(range(4))
    assert service.items == [0, 1, 2, 3, 2, 1, 0]


async def test_a_retry_starts_when_it_is_due_if_a_slot_idles():
    """No slot has to end a call first."""
    service = Service(1.0, {0: [OSError("away")]})
    await AsyncBatchProcessor(service, retry=patient(1, 7.25)).process([0])
    assert service.starts_of(0) == about([0, 8.25])


@pytest.mark.parametrize(("calls_at_once", "bound"), [(4, 64), (8, 64), (10, 80)])
@pytest.mark.parametrize("from_async", [False, True])
async def test_in_an_outage_at_most_so_many_items_are_parked(
    calls_at_once: int, bound: int, from_async: bool
):
    """max(64, 8 x max_concurrency); then nothing new is begun until one comes back."""

    def source() -> Iterator[int]:
        yield from range(1000)

    async def async_source() -> AsyncIterator[int]:
        for item in range(1000):
            yield item

    service = Service(1.0, {item: OSError("away") for item in range(1000)})
    processor = AsyncBatchProcessor(service, max_concurrency=calls_at_once, retry=in_a_day())
    running = asyncio.create_task(processor.process(async_source() if from_async else source()))
    await asyncio.sleep(1000)
    assert len(service.calls) == bound
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_at_the_bound_of_parked_items_a_sync_source_is_not_pulled():
    """Not even once."""
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for item in range(1000):
            pulled.append(item)
            yield item

    service = Service(1.0, {item: OSError("away") for item in range(1000)})
    processor = AsyncBatchProcessor(service, retry=in_a_day())
    running = asyncio.create_task(processor.process(source()))
    await asyncio.sleep(1000)
    assert len(pulled) == 64
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_calls_in_flight_at_the_bound_of_parked_items_may_still_join_them():
    """They began before: with calls of unequal length at most max_concurrency - 1 more."""
    seconds = [1.0 + (item % 7) / 10 for item in range(1000)]
    service = Service(seconds, {item: OSError("away") for item in range(1000)})
    running = asyncio.create_task(
        AsyncBatchProcessor(service, max_concurrency=5, retry=in_a_day()).process(range(1000))
    )
    await asyncio.sleep(1000)
    assert 64 <= len(service.calls) <= 64 + 4
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_after_an_outage_everything_is_done():
    """Calls in back-off and calls that have not started."""
    over_at = 50.0

    async def recovering(item: int) -> int:
        await asyncio.sleep(0.1)
        if now() < over_at:
            raise ConnectionError("outage")
        return item

    processor = AsyncBatchProcessor(recovering, retry=patient(9, 1))
    result = await processor.process(range(500))
    assert result.results == list(range(500))


# ---- the rate limit


async def test_every_attempt_takes_its_own_place_at_the_limiter():
    """Two items and three retries: five grants, one per second."""
    service = Service(0.0, {0: [OSError("a"), OSError("b")], 1: [OSError("c")]})
    limiter = RateLimiter(1, burst_size=1)
    await AsyncBatchProcessor(service, rate_limiter=limiter, retry=patient(3, 0.001)).process(
        [0, 1]
    )
    assert service.starts == about([0, 1, 2, 3, 4])


async def test_the_wait_for_the_limiter_is_told_apart_from_the_call():
    """waited, not seconds; started is the start of the call."""
    service = Service(0.5)
    result = await AsyncBatchProcessor(
        service, rate_limiter=RateLimiter(1, burst_size=1), max_concurrency=3
    ).process(range(3))
    assert [outcome.waited for outcome in result] == about([0, 1, 2])
    assert [outcome.started for outcome in result] == about([0, 1, 2])
    assert [outcome.seconds for outcome in result] == about([0.5, 0.5, 0.5])


async def test_several_limiters_all_hold():
    """The slower of two decides."""
    service = Service(0.0)
    limiters = [RateLimiter(10, burst_size=1), RateLimiter(rate=60, per=60, burst_size=1)]
    await AsyncBatchProcessor(service, rate_limiter=limiters).process(range(4))
    assert service.starts == about([0, 1, 2, 3])


async def test_a_limiter_that_can_never_grant_an_item_fails_that_item_alone():
    """Its weight is over the burst; the others go."""
    service = Service(0.0)
    limiter = RateLimiter(10, burst_size=10, weight=lambda item: item)
    result = await AsyncBatchProcessor(service, rate_limiter=limiter).process([5, 11, 5])
    assert [outcome.status for outcome in result] == ["done", "failed", "done"]
    assert "can never be granted" in str(result.errors[1])


async def test_a_weight_that_cannot_be_told_is_not_blamed_on_the_source():
    """The limiter's weight= raises: the error says where it came from."""

    def weigh(item: int) -> float:
        raise KeyError("no tokenizer")

    processor = AsyncBatchProcessor(Service(), rate_limiter=RateLimiter(10, weight=weigh))
    result = await processor.process([1])
    assert isinstance(result.errors[0], KeyError)


async def test_429_with_retry_after_pauses_every_limiter_of_the_job():
    """Nobody calls before that, the one who was refused included; other users wait too."""
    limiters = [RateLimiter(100), RateLimiter(1000)]
    service = Service(1.0, {0: [StatusError(429, retry_after=20)]})
    processor = AsyncBatchProcessor(
        service, max_concurrency=2, rate_limiter=limiters, retry=patient(3, 0.1)
    )
    running = asyncio.create_task(processor.process(range(4)))
    await asyncio.sleep(2)
    assert [limiter.try_acquire() for limiter in limiters] == [False, False]
    await running
    assert service.starts == about([0, 0, 21, 21, 22])


async def test_429_with_retry_after_closes_the_gate_of_a_job_without_limiters():
    """What is in flight ends; nothing begins before the time is over."""
    service = Service([1.0, 2.0, 1.0, 1.0, 1.0], {0: [StatusError(429, retry_after=20)]})
    result = await AsyncBatchProcessor(service, max_concurrency=2, retry=patient(3, 0.1)).process(
        range(5)
    )
    assert service.calls[:2] == [(0, 0), (1, 0)]
    assert min(service.starts[2:]) == about(21)
    assert result.all_succeeded


async def test_retry_after_is_never_undercut_by_the_retry():
    """On 503 too; nothing else is sent meanwhile, for the service has said that it is closed."""
    service = Service(1.0, {0: [StatusError(503, retry_after=30)]})
    result = await AsyncBatchProcessor(service, max_concurrency=1, retry=patient(3, 0.1)).process(
        range(3)
    )
    assert service.starts_of(1) == about([31])  # was read when the pause came, and goes first
    assert service.starts_of(0) == about([0, 32])
    assert result.all_succeeded


async def test_429_without_retry_after_holds_nobody_else():
    """It is retried like any other error."""
    service = Service(1.0, {0: [StatusError(429)]})
    await AsyncBatchProcessor(service, max_concurrency=1, retry=patient(3, 5)).process(range(3))
    assert service.items == [0, 1, 2, 0]
    assert service.starts_of(1) == about([1])


# ---- time limits


async def test_an_attempt_that_takes_too_long_fails_with_attempt_timeout():
    """It is cancelled when its time is up, and says how long that was."""
    service = Service(10.0)
    result = await AsyncBatchProcessor(service, retry_count=0, timeout=2.5).process([0, 1])
    assert [type(error) for error in result.errors] == [AttemptTimeout, AttemptTimeout]
    assert str(result.errors[0]) == "the attempt took longer than 2.5 s"
    assert [outcome.seconds for outcome in result] == about([2.5, 2.5])
    assert service.cancelled == [0, 1]


async def test_each_attempt_has_the_whole_time():
    """The limit is for one attempt, wherever in the job it begins."""
    service = Service([3.0, 3.0, 9.0, 3.0], {})
    result = await AsyncBatchProcessor(
        service, max_concurrency=1, timeout=4, retry=patient(1, 1)
    ).process(range(4))
    assert [outcome.status for outcome in result] == ["done", "done", "failed", "done"]
    assert service.starts_of(2) == about([6, 13])
    assert result.seconds == about(17)


async def test_an_attempt_that_ends_within_its_time_is_left_alone():
    """Just below the limit, a hundred times in a row."""
    result = await AsyncBatchProcessor(Service(0.99), max_concurrency=3, timeout=1.0).process(
        range(100)
    )
    assert result.all_succeeded


async def test_deadlines_are_watched_to_the_moment():
    """Attempts that begin at different times each end after exactly their time."""
    service = Service([0.3, 0.5, 0.7, *[9.0] * 6])
    result = await AsyncBatchProcessor(
        service, max_concurrency=3, retry_count=0, timeout=1.0
    ).process(range(9))
    assert [outcome.seconds for outcome in result][3:] == about([1.0] * 6)
    assert result.seconds == about(2.7)


async def test_a_timed_out_attempt_is_an_error_like_any_other():
    """It is retried, and logged."""
    calls = 0

    async def slow_once(item: int) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(9 if calls == 1 else 1)
        return "done"

    result = await AsyncBatchProcessor(slow_once, timeout=2, retry=patient()).process([0])
    assert (result[0].value, result[0].attempts) == ("done", 2)
    assert result[0].history[0].error == "AttemptTimeout: the attempt took longer than 2 s"
    assert result.seconds == about(4)


async def test_a_timeout_error_of_the_functions_own_is_told_apart():
    """It is not an AttemptTimeout, also with a timeout set."""
    service = Service(errors={0: TimeoutError("its own")})
    result = await AsyncBatchProcessor(service, retry_count=0, timeout=5).process([0])
    assert type(result.errors[0]) is TimeoutError


async def test_a_timeout_of_the_functions_own_is_told_apart():
    """asyncio.timeout inside the call, shorter than the attempt's."""

    async def inner(item: int) -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(9)

    result = await AsyncBatchProcessor(inner, retry_count=0, timeout=5).process([0])
    assert type(result.errors[0]) is TimeoutError
    assert result.seconds == about(1)


async def test_an_outer_timeout_inside_the_function_longer_than_the_attempts_is_no_obstacle():
    """The attempt's own time is up first."""

    async def inner(item: int) -> None:
        async with asyncio.timeout(8):
            await asyncio.sleep(9)

    result = await AsyncBatchProcessor(inner, retry_count=0, timeout=5).process([0])
    assert type(result.errors[0]) is AttemptTimeout
    assert result.seconds == about(5)


async def test_a_call_that_answers_its_cancellation_with_a_value_has_answered():
    """A late value is better than none; and the next call has its whole time."""

    async def stubborn(item: int) -> str:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            return "late"
        return "in time"

    result = await AsyncBatchProcessor(stubborn, max_concurrency=1, timeout=2).process([0, 1])
    assert result.results == ["late", "late"]
    assert result.seconds == about(4)


@pytest.mark.parametrize("earlier", [-1e-7, 0.0, 1e-7])
async def test_a_cancellation_in_the_moment_of_a_timeout_still_passes(earlier: float):
    """Whichever of the two comes first: the job is cancelled, and nothing is tried again."""
    service = Service(10.0)
    processor = AsyncBatchProcessor(service, timeout=2, retry=patient(3, 0))
    running = asyncio.create_task(processor.process([0]))
    asyncio.get_running_loop().call_later(2 - earlier, running.cancel)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(service.calls) <= 2  # the second one in the moment between the two
    assert now() == about(2)


async def test_a_cancellation_during_the_clean_up_of_a_timeout_still_passes():
    """The function cleans up for a second when the job is cancelled."""

    async def tidy(item: int) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(1)

    running = asyncio.create_task(
        AsyncBatchProcessor(tidy, timeout=2, retry=patient(3, 0)).process([0])
    )
    await asyncio.sleep(2.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert now() == about(2.5)


async def test_a_fatal_verdict_of_a_predicate_is_obeyed():
    """The job stops; nothing is retried."""
    policy = AsyncRetry(retry_on=lambda error: FATAL)
    service = Service(errors={0: OSError("away")})
    result = await AsyncBatchProcessor(service, max_concurrency=1, retry=policy).process(range(5))
    assert len(service.calls) == 1
    assert result.pending_count == 4
