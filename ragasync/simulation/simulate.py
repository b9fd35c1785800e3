"""simulate: the real engine on a virtual clock, against a scripted service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, TypeVar

from ragasync._engine.controls import RunControls
from ragasync._engine.job_run import limit_of, run_stats
from ragasync._engine.run import execute
from ragasync._limits.limiter import Limiter, RateLimiter
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.stats import Limit
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, check_number
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings, as_limiters, parse_concurrency
from ragasync.simulation.latency import LatencyLike, random_bits, scramble, unit_interval
from ragasync.simulation.service import ScriptedService
from ragasync.simulation.virtual_time import run_on_virtual_clock

R = TypeVar("R")

Weight: TypeAlias = Callable[[int], float]
"""A function that returns the weight of an item, by its number."""


def simulate(
    n_items: int,
    *,
    max_concurrency: int | Literal["auto"] = 4,
    rate_limiter: Limiter | Sequence[Limiter] | None = None,
    latency: LatencyLike = 1.0,
    error_rate: float | Mapping[int, float] = 0.0,
    permanent_error_rate: float = 0.0,
    retry: AsyncRetry | None = None,
    retry_count: int = 3,
    retry_delay: float = 1.0,
    batch_size: int = 32,
    batched: bool = False,
    timeout: float | None = None,
    max_errors: int | None = None,
    max_error_rate: float | None = None,
    weight: float | Sequence[float] | None = None,
    service: ScriptedService | None = None,
    seed: int = 0,
) -> BatchResult[int]:
    """
    Run the real engine against a scripted service on a virtual clock.

    An hour of calls takes about a second. The result is like that of `process`, with virtual
    times: `to_dataframe`, `explain` and the plots show where the time would go. The items are the
    numbers from 0, and none of your functions or limiters is called. The same seed gives the same
    result, however busy the machine is.

        >>> from ragasync import RateLimiter, simulate
        >>> simulate(100, max_concurrency=10)
        <BatchResult 100 of 100 done in 10.00 s>
        >>> simulate(100, max_concurrency=10, rate_limiter=RateLimiter(5, burst_size=1))
        <BatchResult 100 of 100 done in 20.80 s>

    It may be called anywhere, also in a cell, whose event loop waits for it. A million items take
    about half a minute.

    Args:
        n_items: the number of items.
        max_concurrency: the highest number of calls in flight; "auto" adapts it to the service.
        rate_limiter: one limiter or several, of which copies with the same rate and burst are used.
        latency: seconds per call: a number, a `Latency` such as `Latency.lognormal(0.8, 0.5)`,
            measured seconds to draw from, or a function of a random.Random.
        error_rate: the share of calls that fail with the transient error 503; or shares by
            status, as in {503: 0.02, 429: 0.01}.
        permanent_error_rate: the share of items whose calls always fail.
        retry: an AsyncRetry, instead of `retry_count` and `retry_delay`. Its counts and delays are
            used, its `retry_on` and `on_retry` are not.
        retry_count: retries after the first attempt.
        retry_delay: the base of the exponential back-off, in seconds.
        batch_size: with `batched`, the maximum number of items in one call.
        batched: whether a call takes several items; `latency` is then that of a whole call.
        timeout: seconds for one attempt.
        max_errors: the number of failed items allowed; one more stops the run.
        max_error_rate: the share of the last 100 items that may fail.
        weight: the weight of an item (in tokens, say) for limiters that weigh items: a number, or
            a sequence of weights to draw from.
        service: a ScriptedService, which may have a rate limit, a capacity or outages, instead of
            `latency`, `error_rate` and `permanent_error_rate`. A copy with this `seed` is used.
        seed: the seed of latencies, errors and jitter.

    Returns:
        The outcomes, whose values are the items, with times in virtual seconds.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range.
    """
    check_count("n_items", n_items, at_least=0)
    check_count("retry_count", retry_count, at_least=0)
    check_number("retry_delay", retry_delay)
    if retry is None:
        retry = AsyncRetry(retry_count, retry_delay)
    if service is None:
        service = ScriptedService(
            latency, error_rate, permanent_error_rate=permanent_error_rate, seed=seed
        )
    else:
        _check_service(service, latency, error_rate, permanent_error_rate)
    at_once, adaptive = parse_concurrency(max_concurrency)
    plan: BatchSettings[int, int] = BatchSettings(
        service.fresh(seed),
        is_async=True,
        batch_size=batch_size,
        max_concurrency=at_once,
        adaptive=adaptive,
        batched=batched,
        limiters=copy_limiters(rate_limiter, _weight_of(weight, seed)),
        retry=_copy_retry(retry, seed),
        timeout=timeout,
        max_errors=max_errors,
        max_error_rate=max_error_rate,
    )
    return run_on_virtual_clock(run_simulation(plan, n_items))


async def run_simulation(settings: BatchSettings[int, R], n_items: int) -> BatchResult[R]:
    """
    Run a job over the numbers from 0 on the running loop, whose clock is virtual.

    No heartbeat wakes the loop and no worker yields to it, because a simulation has no stop button
    and no progress bar, and the clock moves only when all workers wait. That halves its time.
    """
    clock, items = asyncio.get_running_loop().time, range(n_items)
    columns: Columns[int, R] = Columns(items)
    run = RunControls(settings)
    started = clock()
    await execute(run, items, columns, total=n_items, never_yield=True)
    seconds = clock() - started
    columns.close(None)
    return BatchResult.of(
        columns,
        seconds=seconds,
        stopped_because=run.stopped_because,
        stats=run_stats(run, "list", None),
    )


def copy_limiters(
    limiters: Limiter | Sequence[Limiter] | None, weight: Weight | None
) -> tuple[RateLimiter, ...]:
    """
    Make limiters with the same rates and bursts, full and without waiters.

    Args:
        limiters: one limiter or several.
        weight: replaces the `weight` of those that have one, which takes the job's real items.

    Raises:
        TypeError: an argument is not a limiter, or a limiter without a rate.
        ValueError: a limiter has a weight, and `weight` is None.
    """
    return tuple(_copy_limiter(limiter, weight) for limiter in as_limiters(limiters))


def _copy_limiter(limiter: Limiter, weight: Weight | None) -> RateLimiter:
    """Make a limiter with the same rate and burst."""
    if limiter.weight is not None and weight is None:
        raise ValueError(
            f"{limiter!r} weighs items, but the items of a simulation are numbers: pass "
            "weight=, the weight of an item: a number, or a sequence of weights to draw from"
        )
    limit = limit_of(limiter)
    if limit.rate is None:
        raise TypeError(
            f"a simulation copies limiters by their rate, and {limiter!r} has none: "
            "pass a RateLimiter(...) with its rate and burst"
        )
    return limiter_of(limit, weight)


def limiter_of(limit: Limit, weight: Callable[..., float] | None) -> RateLimiter:
    """Make a new limiter for a limit."""
    assert limit.rate is not None
    weight = weight if limit.weighs else None
    if limit.window is None:
        return RateLimiter(limit.rate, limit.burst, weight=weight)
    return RateLimiter.at_most(round(limit.rate * limit.window, 9), limit.window, weight=weight)


def _copy_retry(retry: AsyncRetry, seed: int) -> AsyncRetry:
    """
    Make a retry policy with the same counts and delays, whose jitter depends on the seed.

    It classifies errors in the default way, because `retry_on` was written for other errors than
    those of a scripted service, and it has no `on_retry`.
    """
    if not isinstance(retry, AsyncRetry):
        raise TypeError(
            f"retry must be an AsyncRetry, got {retry!r}: "
            f"for 3 retries pass retry_count=3 or AsyncRetry(3)"
        )
    jitter = random.Random(f"jitter {seed}").random
    return replace(retry, retry_on=None, on_retry=None, _random=jitter)


def _check_service(
    service: object, latency: object, error_rate: object, permanent_error_rate: object
) -> None:
    """Check that a service is a ScriptedService, and that its settings are not given twice."""
    if not isinstance(service, ScriptedService):
        raise TypeError(f"service must be a ScriptedService, got {service!r}")
    given = ((latency, 1.0), (error_rate, 0.0), (permanent_error_rate, 0.0))
    if not all(isinstance(value, int | float) and value == usual for value, usual in given):
        raise ValueError(
            "pass either service= or latency, error_rate and permanent_error_rate, not both: "
            "these are arguments of ScriptedService too"
        )


def _weight_of(weight: float | Sequence[float] | None, seed: int) -> Weight | None:
    """A function that returns the weight of an item, by its number."""
    if weight is None:
        return None
    weights = list(weight) if isinstance(weight, Iterable) else [weight]
    if not weights:
        raise ValueError("weight must be a number or a sequence of weights, got an empty one")
    for each in weights:
        check_number("weight", each)
    count, weight_seed = len(weights), scramble(seed ^ 0xC057)
    return lambda item: weights[int(unit_interval(random_bits(weight_seed, item)) * count)]
