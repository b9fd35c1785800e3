"""What a forecast goes by: the knobs as the pilot had them, and as the caller changes them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ragasync.arguments import check_count, check_number, check_positive
from ragasync.engine.telling import limit_of
from ragasync.limits.limiter import Limiter, RateLimiter
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import as_limiters, check_concurrency
from ragasync.simulation.copies import copied_limiters, limiter_of
from ragasync.simulation.pilot import Pilot

USUAL_RETRIES = 3
"""What a processor is told unless it is told something else."""


class AsInThePilot(enum.Enum):
    """The type of `USE_PILOT`."""

    USE_PILOT = "as in the pilot"

    def __repr__(self) -> str:
        return "USE_PILOT"


USE_PILOT: Final = AsInThePilot.USE_PILOT
"""Nothing was said of a limiter, while None says that there is none."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    The knobs of a run that is foreseen.

    Args:
        max_concurrency: the most calls at once.
        limiters: as they were given; never touched, only copied.
        batch_size: the most items in a call; 0 where each goes alone.
        max_retries: retries after the first attempt.
        retry: when to try again; None: with the delays that the pilot had.
        retry_delay: the base of the back-off after what the pilot did not meet, in seconds.
        timeout: seconds for an attempt; None: as in the pilot, whose attempts show it.
        error_rate: the share of attempts that fail and may be tried again; None: as in the pilot.
        errors: how many of the pilot's such failures happen: 0.5 for half of them.
    """

    max_concurrency: int
    limiters: tuple[Limiter, ...] = ()
    batch_size: int = 0
    max_retries: int = USUAL_RETRIES
    retry: AsyncRetry | None = None
    retry_delay: float = 1.0
    timeout: float | None = None
    error_rate: float | None = None
    errors: float = 1.0

    @property
    def items_per_call(self) -> int:
        """The most items in one call."""
        return self.batch_size or 1

    @property
    def strictest(self) -> Limiter | None:
        """The limiter of calls with the lowest rate; None where none counts calls."""
        counting = (limiter for limiter in self.limiters if limiter.weight is None)
        return min(counting, key=lambda limiter: limit_of(limiter).rate or 0.0, default=None)

    @property
    def rate(self) -> float | None:
        """The calls a second of the strictest limiter that counts calls."""
        return None if self.strictest is None else limit_of(self.strictest).rate


def circumstances_of(
    pilot: Pilot,
    *,
    max_concurrency: int | None,
    rate_limiter: Limiter | Sequence[Limiter] | AsInThePilot | None,
    batch_size: int | None,
    retry: AsyncRetry | None,
    error_rate: float | None,
    timeout: float | None,
) -> Scenario:
    """
    Return the pilot's knobs with these changes.

    Raises:
        TypeError: a change of the wrong kind.
        ValueError: a change out of range, or a knob that has to be told.
    """
    knobs, stats = pilot.result.stats.settings, pilot.result.stats
    workers = stats.max_concurrency if max_concurrency is None else max_concurrency
    if not workers and max_concurrency is None:
        raise ValueError(
            "the pilot does not tell how many calls went at once: pass max_concurrency="
        )
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
        knobs.retry_delay,
        None if timeout == knobs.timeout else timeout,
        error_rate,
    )


def _limiters(
    pilot: Pilot, given: Limiter | Sequence[Limiter] | AsInThePilot | None
) -> tuple[Limiter, ...]:
    """Return the limiters that were given, or those of the pilot."""
    if given is USE_PILOT:
        limits = pilot.result.stats.settings.limits
        if not pilot.knows_limits:
            raise ValueError(
                "the pilot had a rate limiter whose rate, or whose weight of an item, is not known "
                "any more: pass it as rate_limiter= (it is copied, and not touched), or "
                "rate_limiter=None"
            )
        return tuple(limiter_of(limit, limit.weight) for limit in limits)
    limiters = tuple(as_limiters(given))
    copied_limiters(limiters, weight=lambda _: 1.0)  # refuses those whose rate is not known
    return limiters


def _batch_size(pilot: Pilot, given: int | None) -> int:
    """Return the most items in a call."""
    knobs = pilot.result.stats.settings
    if given is None:
        return max(1, round(pilot.size)) if knobs.bounded_by_weight else knobs.batch_size
    check_count("batch_size", given, at_least=1)
    if not knobs.batch_size:
        raise ValueError(
            f"batch_size={given!r} changes nothing where each item goes alone, as in this pilot: "
            "run one with batched=True"
        )
    return given


def _retries(pilot: Pilot) -> int:
    """Return after how many retries the pilot gave up; where it never did, the usual number."""
    if (gave_up := pilot.gave_up_after) is not None:
        return gave_up - 1
    return max(USUAL_RETRIES, pilot.most_attempts - 1)


def fresh(
    limiter: Limiter,
    times: float,
    weight_of: Callable[[Callable[..., float]], Callable[..., float]],
) -> RateLimiter:
    """
    Return a limiter as this one was at its beginning.

    Args:
        limiter: the one to copy.
        times: what its rate is to be multiplied by.
        weight_of: makes of its `weight` one that takes what the run calls an item.
    """
    (copy,) = copied_limiters(
        limiter, None if limiter.weight is None else weight_of(limiter.weight)
    )
    if times != 1.0:
        copy.rate *= times
    return copy
