"""Limiters and retries as they were at their beginning: a simulation touches none of yours."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from ragasync.engine.telling import limit_of
from ragasync.limits.limiter import Limiter, RateLimiter
from ragasync.outcomes.stats import Limit
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import as_limiters

Cost = Callable[[int], float]
"""What an item weighs, by its number."""


def copied_limiters(
    given: Limiter | Sequence[Limiter] | None, weight: Cost | None
) -> tuple[RateLimiter, ...]:
    """
    Return limiters with the same rates and bursts, full and with nobody in line.

    Args:
        given: one limiter or several.
        weight: takes the place of the `weight` of those that have one: it knows other items.

    Raises:
        TypeError: one is no limiter, or none whose rate is known.
        ValueError: one has a weight, and none is given.
    """
    return tuple(_copied(limiter, weight) for limiter in as_limiters(given))


def _copied(limiter: Limiter, weight: Cost | None) -> RateLimiter:
    """Return a limiter as this one was at its beginning."""
    if limiter.weight is not None and weight is None:
        raise ValueError(
            f"{limiter!r} weighs items, and a simulation has only their numbers: pass "
            "weight=, what an item weighs there: a number, or weights to draw from"
        )
    limit = limit_of(limiter)
    if limit.rate is None:
        raise TypeError(
            f"a simulation copies limiters by their rate, got {limiter!r}, which has none: "
            "pass RateLimiter(...) with the rate and burst of it"
        )
    return limiter_of(limit, weight)


def limiter_of(limit: Limit, weight: Callable[..., float] | None) -> RateLimiter:
    """
    Return a new limiter that allows this.

    Args:
        limit: what it allows; its rate is known.
        weight: what an item weighs, where the limiter weighs items.
    """
    assert limit.rate is not None
    weight = weight if limit.weighs else None
    if limit.window is None:
        return RateLimiter(limit.rate, limit.burst, weight=weight)
    return RateLimiter.at_most(round(limit.rate * limit.window, 9), limit.window, weight=weight)


def copied_retry(retry: AsyncRetry, seed: int) -> AsyncRetry:
    """
    Return a retry with the same counts and delays, whose jitter hangs on the seed.

    It judges errors in the usual way, because scripted ones are of no type that `retry_on` could
    know; and it calls no `on_retry`.

    Raises:
        TypeError: it is no AsyncRetry.
    """
    if not isinstance(retry, AsyncRetry):
        raise TypeError(
            f"retry must be an AsyncRetry, got {retry!r}: "
            f"for 3 retries pass retry_count=3 or AsyncRetry(3)"
        )
    chance = random.Random(f"jitter {seed}").random
    return replace(retry, retry_on=None, on_retry=None, _random=chance)
