"""Rate limits as a service states them in the headers of its answers, and a limiter that heeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ragasync._limits.limiter import RateLimiter
from ragasync._retries.retry_after import number_of, seconds_of

Kind = Literal["requests", "tokens"]
"""What a limit counts."""

MINUTE = 60.0
"""Seconds that a stated limit is for, and the longest pause that a header alone can ask for."""

UNLIMITED = 1e18
"""A second: the rate of a limiter that has not heard of any limit; nothing is ever owed at it."""


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """
    What one answer says of one limit; None where it does not say.

    Attributes:
        limit: how much a minute.
        remaining: how much of it is left.
        reset: seconds until all of it is there again.
    """

    limit: float | None
    remaining: float | None
    reset: float | None


def said_of(headers: Mapping[str, str], kind: Kind) -> RateLimitHeaders:
    """
    Return what `x-ratelimit-limit-*`, `-remaining-*` and `-reset-*` say of requests or tokens.

    Args:
        headers: by lower-case name.
        kind: which of the two.
    """
    limit, remaining, reset = (
        headers.get(f"x-ratelimit-{part}-{kind}") for part in ("limit", "remaining", "reset")
    )
    stated = number_of(limit)
    return RateLimitHeaders(stated or None, number_of(remaining), seconds_of(reset))


class HeaderRateLimiter:
    """
    A limiter that does what a service says of its limit.

    Where no rate was given it takes the stated one, and each later one, unless somebody sets the
    limiter's rate by hand meanwhile. Where nothing remains it pauses until the reset, but for a
    minute at most: the limits are for a minute, and of longer ones a 429 tells.

    Args:
        kind: what it counts.
        per_minute: the rate; None for the one that the service states.
        weight: what an item weighs, as in RateLimiter.
    """

    def __init__(
        self, kind: Kind, per_minute: float | None, weight: Callable[[str], float] | None = None
    ) -> None:
        self._kind = kind
        rate = UNLIMITED * MINUTE if per_minute is None else per_minute
        self.limiter = RateLimiter(rate=rate, per=MINUTE, weight=weight)
        self._own_rate = self.limiter.rate if per_minute is None else None

    def hear(self, headers: Mapping[str, str]) -> None:
        """Do what an answer's headers, by lower-case name, say of this limit."""
        said, limiter = said_of(headers, self._kind), self.limiter
        if said.limit is not None and limiter.rate == self._own_rate:
            self._own_rate = said.limit / MINUTE
            if limiter.rate != self._own_rate:
                limiter.rate = self._own_rate
        if said.remaining == 0 and said.reset is not None:
            limiter.pause(min(said.reset, MINUTE))
