"""simulate: how a job would go, from the real engine on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from ragasync.arguments import check_count, check_number
from ragasync.limits.limiter import Limiter
from ragasync.result import BatchResult
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import BatchSettings, parse_concurrency
from ragasync.simulation.chance import draw, scrambled, share
from ragasync.simulation.copies import copied_limiters, copied_retry
from ragasync.simulation.latency import LatencyLike
from ragasync.simulation.rehearsal import run_simulation
from ragasync.simulation.service import ScriptedService
from ragasync.simulation.virtual_time import run_on_virtual_clock


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
    Run the real engine against a scripted service, on a clock that does not wait.

    An hour of calls takes about a second, and the result reads like that of `process`, with
    virtual times: `to_dataframe`, `explain` and the plots tell where the time would go. The items
    are the numbers from 0; nothing of yours is called or touched. The same seed gives the same
    result, whatever else the machine does.

        >>> from ragasync import RateLimiter, simulate
        >>> simulate(100, max_concurrency=10)
        <BatchResult 100 of 100 done in 10.00 s>
        >>> simulate(100, max_concurrency=10, rate_limiter=RateLimiter(5, burst_size=1))
        <BatchResult 100 of 100 done in 20.80 s>

    It may be called anywhere, also in a cell, whose loop stands still meanwhile; a million items
    take about half a minute.

    Args:
        n_items: how many items.
        max_concurrency: the most calls in flight at once; "auto" adapts to what the service bears.
        rate_limiter: one limiter or several, of which only the rates and bursts are taken.
        latency: seconds a call takes: a number, a `Latency` such as `Latency.lognormal(0.8, 0.5)`,
            measured seconds to draw from, or a function of a random.Random.
        error_rate: the share of calls that fail though another attempt may succeed, with status
            503; or shares by status, as {503: 0.02, 429: 0.01}.
        permanent_error_rate: the share of items that fail each time.
        retry: an AsyncRetry, instead of `retry_count` and `retry_delay`; its counts and delays are
            taken, not its `retry_on` and `on_retry`.
        retry_count: retries after the first attempt.
        retry_delay: the base of the exponential back-off, in seconds.
        batch_size: with `batched`, the most items in one call.
        batched: whether calls take several items; `latency` is then that of a whole call.
        timeout: seconds for one attempt.
        max_errors: failed items that are allowed; one more stops the run.
        max_error_rate: the share of the last 100 items that may fail.
        weight: what an item weighs at limiters that weigh items (by tokens, say): a number, or the
            weights of some items to draw from.
        service: a ScriptedService, instead of `latency`, `error_rate` and
            `permanent_error_rate`: with a limit of its own, a capacity, outages. Its script is
            taken, with this `seed`.
        seed: the chance that latencies, errors and jitter come from.

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
        limiters=copied_limiters(rate_limiter, _weight_of(weight, seed)),
        retry=copied_retry(retry, seed),
        timeout=timeout,
        max_errors=max_errors,
        max_error_rate=max_error_rate,
    )
    return run_on_virtual_clock(run_simulation(plan, n_items))


def _check_service(service: object, latency: object, error_rate: object, poison: object) -> None:
    """Refuse what is no service, and a second script beside its own."""
    if not isinstance(service, ScriptedService):
        raise TypeError(f"service must be a ScriptedService, got {service!r}")
    said = ((latency, 1.0), (error_rate, 0.0), (poison, 0.0))
    if not all(isinstance(value, int | float) and value == usual for value, usual in said):
        raise ValueError(
            "expected latency, error_rate and permanent_error_rate, or service=, got both: "
            "tell the ScriptedService what they are"
        )


def _weight_of(given: float | Sequence[float] | None, seed: int) -> Callable[[int], float] | None:
    """Return what an item costs, by its number."""
    if given is None:
        return None
    weights = list(given) if isinstance(given, Iterable) else [given]
    if not weights:
        raise ValueError("weight must be a number or the weights of some items, got none")
    for each in weights:
        check_number("weight", each)
    count, root = len(weights), scrambled(seed ^ 0xC057)
    return lambda item: weights[int(share(draw(root, item)) * count)]
