"""Whatever happens at whatever time: every item is accounted for, and every promise is kept."""

import asyncio
import math
from collections.abc import Sequence
from itertools import zip_longest

from hypothesis import example, given

from ragasync import AsyncBatchProcessor, BatchResult, Job, RateLimiter
from ragasync.testing import run_on_virtual_clock
from tests.support.random_schedules import (
    A_TURN,
    ControlStep,
    JobOptions,
    Source,
    Try,
    control_steps,
    examples,
    options,
    services,
    sources,
)
from tests.support.services import about, now, other_tasks, turns
from tests.support.watched_service import (
    A_MOMENT,
    SourceBroke,
    Watched,
    check_outcome,
    is_refused,
    items_from,
    most_owed,
)


async def steer(job: Job[int, int], service: Watched, steps: Sequence[ControlStep]) -> None:
    """Use the controls of a job at their times, and tell the service."""
    for step in steps:
        await asyncio.sleep(step.at - now())
        match step.action:
            case "pause":
                job.pause()
                service.paused = True
            case "resume":
                job.resume()
                service.resume()
            case "resize":
                job.max_concurrency = service.limit = step.value
            case "rate":
                job.rate = step.value
                service.rates.append((now(), step.value))
            case "cancel":
                service.cancelled = not job.done
                job.cancel()


async def run_job(
    service: Watched, source: Source, steps: Sequence[ControlStep], limiters: list[RateLimiter]
) -> tuple[BatchResult[int], bool]:
    """Run a schedule to its end; return the result, and whether the source raised."""
    processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
        service, **service.options.arguments(limiters)
    )
    job = processor.start(items_from(source, len(service.script)), on_current_loop=True)
    controlling = asyncio.create_task(steer(job, service, steps))
    broke = False
    try:
        await job
    except SourceBroke:
        broke = True
    controlling.cancel()
    await asyncio.wait([controlling])
    assert processor.last_result is not None
    return processor.last_result, broke


async def nothing_is_left(limiters: Sequence[RateLimiter]) -> None:
    """Find no task, no timer and nobody in line."""
    await turns()
    assert other_tasks() == set()
    timers = getattr(asyncio.get_running_loop(), "_scheduled", [])  # asyncio has no other way
    assert [timer for timer in timers if not timer.cancelled()] == []
    assert all("waiting=0" in repr(limiter) for limiter in limiters)


def check_counts(result: BatchResult[int]) -> None:
    """Find every item in exactly one state, in its place."""
    states = [outcome.status for outcome in result]
    assert states.count("done") == result.success_count == len(result.get_successful())
    assert states.count("failed") == result.error_count == len(result.get_failed())
    assert states.count("cancelled") == result.cancelled_count
    assert states.count("pending") == result.pending_count
    assert len(states) == len(result.results) == len(result.errors) == result.total
    assert [(outcome.index, outcome.item) for outcome in result] == [
        (index, index) for index in range(result.total)
    ]


def check_limits(service: Watched, limiters: Sequence[RateLimiter]) -> None:
    """Find no window with more calls than a limiter, or a rate that was set, allows."""
    for limiter, (rate, _, weight) in zip(limiters, service.options.limiters, strict=True):
        most, _ = most_owed([(call.began, weight) for call in service.calls], rate)
        assert most <= max(limiter.burst, weight) + A_MOMENT
    ends = [when for when, _ in service.rates[1:]]
    for (since, rate), until in zip_longest(service.rates, ends, fillvalue=math.inf):
        if rate is not None:  # who was let through at the very instant of a change goes free
            began = [call.began for call in service.calls if since < call.began < until]
            most, _ = most_owed([(when, 1.0) for when in began], rate)
            assert most <= RateLimiter(rate).burst + A_MOMENT


async def check_tokens(service: Watched, limiters: Sequence[RateLimiter]) -> None:
    """Find in each limiter exactly what the calls that began have left there."""
    for limiter, (rate, _, weight) in zip(limiters, service.options.limiters, strict=True):
        _, owed = most_owed([(call.began, weight) for call in service.calls], rate)
        last = service.calls[-1].began if service.calls else 0.0
        full_at = max(last + owed / rate, service.closed_until, now())
        await limiter.acquire(limiter.burst)
        assert now() == about(full_at)


FAST, SLOW = [[Try(A_TURN, "value")]] * 20, [[Try(2.0, "value")]] * 8
AS_IT_COMES, LIST = JobOptions(2, 0, 0.0, None, None, ()), Source("list")
NARROW = JobOptions(5, 0, 0.0, None, None, ((3.0, 1.0, 1.0),))


# What chance finds too seldom: knobs that are turned while calls begin in one moment, or in line.
@example(FAST, AS_IT_COMES, LIST, [ControlStep(3 * A_TURN, "pause"), ControlStep(1.0, "resume")])
@example(FAST, AS_IT_COMES, LIST, [ControlStep(3 * A_TURN, "resize", 1)])
@example(FAST, AS_IT_COMES, LIST, [ControlStep(3 * A_TURN, "rate", 4.0)])
@example(SLOW, NARROW, LIST, [ControlStep(0.5, "resize", 1)])
@example(SLOW, NARROW, LIST, [ControlStep(0.5, "pause"), ControlStep(1.5, "cancel")])
@examples(100)
@given(services(), options, sources, control_steps())
def test_every_item_of_a_steered_job_is_accounted_for(script, options, source, steps):
    """Pauses, sizes, rates, cancellation, errors, time limits and limiters, at any time."""

    async def run() -> None:
        service, limiters = Watched(script, options), options.fresh_limiters()
        result, broke = await run_job(service, source, steps, limiters)
        await nothing_is_left(limiters)
        assert service.broken == []
        check_counts(result)
        for outcome in result:
            check_outcome(outcome, service)
        check_limits(service, limiters)
        stopped = service.cancelled or service.has_fatal or service.had_enough or broke
        if not stopped and not (is_refused(options) and options.max_errors is not None):
            assert (result.pending_count, result.cancelled_count) == (0, 0)
            assert result.total == len(script)
            assert result.stopped_because is None
        if not service.was_stopped_at_once:
            assert result.cancelled_count == 0
        if result.pending_count or result.cancelled_count or service.had_enough:
            assert result.stopped_because is not None
        await check_tokens(service, limiters)

    run_on_virtual_clock(run())


async def test_a_pause_costs_the_limiter_nothing():
    """Who stood in line when the job was paused takes no place that it does not use."""
    limiter = RateLimiter(1, burst_size=1)
    service = Watched([[Try(None, "value")]] * 4, JobOptions(3, 0, 0.0, None, None, ()))
    processor = AsyncBatchProcessor(service, max_concurrency=3, rate_limiter=limiter)
    job = processor.start(range(4), on_current_loop=True)
    await asyncio.sleep(0.5)
    job.pause()
    await asyncio.sleep(1.0)
    assert limiter.try_acquire(), "nobody has taken the place that was due after a second"
    job.cancel()
    await job
