"""Limiters and retries as they were at their beginning: a simulation touches none of yours."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from ragasync.engine.telling import limit_of
from ragasync.limits.limiter import Limiter, RateLimiter
from ragasync.outcomes.facts import Limit
from ragasync.plan import as_limiters
from ragasync.retries.retry import AsyncRetry

Cost = Callable[[int], float]
"""What an item weighs, by its number."""


def copied_limiters(
    given: Limiter | Sequence[Limiter] | None, cost: Cost | None
) -> tuple[RateLimiter, ...]:
    """
    Return limiters with the same rates and bursts, full and with nobody in line.

    Args:
        given: one limiter or several.
        cost: takes the place of the `cost` of those that have one: it knows other items.

    Raises:
        TypeError: one is no limiter, or none whose rate is known.
        ValueError: one has a cost, and none is given.
    """
    return tuple(_copied(limiter, cost) for limiter in as_limiters(given))


def _copied(limiter: Limiter, cost: Cost | None) -> RateLimiter:
    """Return a limiter as this one was at its beginning."""
    if limiter.cost is not None and cost is None:
        raise ValueError(
            f"{limiter!r} weighs items, and a simulation has only their numbers: pass "
            "cost=, what an item costs there: a number, or the costs of some items to draw from"
        )
    limit = limit_of(limiter)
    if limit.rate is None:
        raise TypeError(
            f"a simulation copies limiters by their rate, got {limiter!r}, which has none: "
            "pass RateLimiter(...) with the rate and burst of it"
        )
    return limiter_of(limit, cost)


def limiter_of(limit: Limit, cost: Callable[..., float] | None) -> RateLimiter:
    """
    Return a new limiter that allows this.

    Args:
        limit: what it allows; its rate is known.
        cost: what an item costs, where the limiter weighs items.
    """
    assert limit.rate is not None
    cost = cost if limit.weighs else None
    if limit.window is None:
        return RateLimiter(limit.rate, limit.burst, cost=cost)
    return RateLimiter.at_most(round(limit.rate * limit.window, 9), limit.window, cost=cost)


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
