"""A scenario: the settings of a forecast run, the pilot's own or the caller's changes to them."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ragasync._engine.job_run import limit_of
from ragasync._limits.limiter import Limiter, RateLimiter
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, check_number, check_positive
from ragasync.errors import AttemptTimeout
from ragasync.settings import as_limiters, check_concurrency
from ragasync.simulation.pilot import Pilot
from ragasync.simulation.simulate import copy_limiters, limiter_of

DEFAULT_RETRIES = 3
"""The default `retry_count` of a processor."""


class UsePilot(enum.Enum):
    """The type of `USE_PILOT`."""

    USE_PILOT = "as in the pilot"

    def __repr__(self) -> str:
        return "USE_PILOT"


USE_PILOT: Final = UsePilot.USE_PILOT
"""The default of `rate_limiter`, where None means no limiter."""


class TransientError(Exception):
    """The error of a simulated attempt that may be retried after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__("drawn from the pilot")
        self.delay = delay


class PermanentError(ValueError):
    """The error of a simulated attempt that is not retried; as a ValueError it splits a batch."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    The settings of a run to forecast.

    Args:
        max_concurrency: the highest number of calls in flight.
        limiters: the limiters as given, which are only ever copied.
        batch_size: the maximum number of items in a call; 0 for a function of one item.
        max_retries: retries after the first attempt.
        retry: the retry policy; None for the delays of the pilot.
        retry_delay: the base of the back-off after errors that the pilot did not meet, in seconds.
        timeout: seconds for an attempt; None for the pilot's, which its attempts show already.
        error_rate: the share of attempts that fail and may be retried; None for the pilot's.
        error_factor: the factor on the pilot's rate of such errors: 0.5 for half of them.
    """

    max_concurrency: int
    limiters: tuple[Limiter, ...] = ()
    batch_size: int = 0
    max_retries: int = DEFAULT_RETRIES
    retry: AsyncRetry | None = None
    retry_delay: float = 1.0
    timeout: float | None = None
    error_rate: float | None = None
    error_factor: float = 1.0

    @property
    def items_per_call(self) -> int:
        """The maximum number of items in one call."""
        return self.batch_size or 1

    @property
    def strictest_limiter(self) -> Limiter | None:
        """The limiter of calls with the lowest rate; None if no limiter counts calls."""
        of_calls = (limiter for limiter in self.limiters if limiter.weight is None)
        return min(of_calls, key=lambda limiter: limit_of(limiter).rate or 0.0, default=None)

    @property
    def rate(self) -> float | None:
        """The lowest rate of a limiter that counts calls, in calls per second."""
        limiter = self.strictest_limiter
        return None if limiter is None else limit_of(limiter).rate

    def fresh_limiters(
        self, rate_factor: float, adapt: Callable[[Callable[..., float]], Callable[..., float]]
    ) -> tuple[RateLimiter, ...]:
        """
        Copies of the limiters, full and without waiters.

        Args:
            rate_factor: the factor on their rates.
            adapt: turns the `weight` of a limiter into one that takes an item of the simulation.
        """
        copies: list[RateLimiter] = []
        for limiter in self.limiters:
            weight = None if limiter.weight is None else adapt(limiter.weight)
            copies += copy_limiters(limiter, weight)
        if rate_factor != 1.0:
            for copy in copies:
                copy.rate *= rate_factor
        return tuple(copies)

    def retry_policy(self, seed: int) -> AsyncRetry:
        """The retry policy of a simulated run: the one given, or one with the pilot's delays."""
        jitter = random.Random(f"jitter {seed}").random
        if self.retry is None:
            return AsyncRetry(
                self.max_retries, self.retry_delay, retry_on=_delay_of_pilot, _random=jitter
            )
        errors = (TransientError, AttemptTimeout)
        return replace(self.retry, retry_on=errors, on_retry=None, _random=jitter)


def _delay_of_pilot(error: Exception) -> bool | float:
    """The delay that followed this error in the pilot; whether to retry an error without one."""
    return error.delay if isinstance(error, TransientError) else isinstance(error, AttemptTimeout)


def scenario_of(
    pilot: Pilot,
    *,
    max_concurrency: int | None,
    rate_limiter: Limiter | Sequence[Limiter] | UsePilot | None,
    batch_size: int | None,
    retry: AsyncRetry | None,
    error_rate: float | None,
    timeout: float | None,
) -> Scenario:
    """
    Combine the pilot's settings with the caller's changes.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, or one that the pilot cannot supply.
    """
    settings, stats = pilot.result.stats.settings, pilot.result.stats
    workers = stats.max_concurrency if max_concurrency is None else max_concurrency
    if not workers and max_concurrency is None:
        raise ValueError("the concurrency of the pilot is not known: pass max_concurrency=")
    check_concurrency(workers)
    if retry is not None and not isinstance(retry, AsyncRetry):
        raise TypeError(f"retry must be an AsyncRetry, got {retry!r}: pass AsyncRetry(3)")
    if timeout is not None:
        check_positive("timeout", timeout)
    if error_rate is not None:
        check_number("error_rate", error_rate)
        if error_rate > 1:
            raise ValueError(f"error_rate must be a share between 0 and 1, got {error_rate!r}")
    return Scenario(
        workers,
        _limiters(pilot, rate_limiter),
        _batch_size(pilot, batch_size),
        _retries(pilot) if retry is None else retry.max_retries,
        retry,
        settings.retry_delay,
        None if timeout == settings.timeout else timeout,
        error_rate,
    )


def _limiters(
    pilot: Pilot, given: Limiter | Sequence[Limiter] | UsePilot | None
) -> tuple[Limiter, ...]:
    """The limiters given, or those of the pilot."""
    if given is USE_PILOT:
        limits = pilot.result.stats.settings.limits
        if not pilot.knows_limits:
            raise ValueError(
                "the pilot had a rate limiter whose rate, or whose weight of an item, is no longer "
                "known: pass rate_limiter= (it is copied, never used), or rate_limiter=None"
            )
        return tuple(limiter_of(limit, limit.weight) for limit in limits)
    limiters = tuple(as_limiters(given))
    copy_limiters(limiters, weight=lambda _: 1.0)  # raises if the rate of one is not known
    return limiters


def _batch_size(pilot: Pilot, given: int | None) -> int:
    """The maximum number of items in a call; 0 for a function of one item."""
    settings = pilot.result.stats.settings
    if given is None:
        if settings.bounded_by_weight:
            return max(1, round(pilot.items_per_call))
        return settings.batch_size
    check_count("batch_size", given, at_least=1)
    if not settings.batch_size:
        raise ValueError(
            f"batch_size={given!r} has no effect on a function of one item, as in this pilot: "
            "run a pilot with batched=True"
        )
    return given


def _retries(pilot: Pilot) -> int:
    """After how many retries the pilot gave up; the default if it never did."""
    if (gave_up := pilot.gave_up_after) is not None:
        return gave_up - 1
    return max(DEFAULT_RETRIES, pilot.most_attempts - 1)
