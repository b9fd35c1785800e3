"""What a pilot took beyond its own calls, limits and retries: it is run once more without that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ragasync.settings import BatchSettings
from ragasync.simulation.circumstances import Scenario
from ragasync.simulation.copies import limiter_of
from ragasync.simulation.pilot import Pilot
from ragasync.simulation.resampling import PermanentError, TransientError, complete, policy_of
from ragasync.simulation.virtual_time import run_on_virtual_clock

MUCH = 1.25
"""With more than so many times its replay, something went on in a pilot that is worth a word."""

REAL = 0.02
"""The share by which a real run may differ from a forecast at its best: timers are late."""


def estimate_overhead(pilot: Pilot) -> tuple[float, float, str]:
    """
    Return what to multiply forecasts by, at least and at most, and what is to be said of it.

    A start (connections, first calls) or a stall is paid once and weighs little in a long run;
    what slows every call weighs as much as in the pilot. One cannot tell them apart in one run,
    so that the truth lies between. On a virtual clock there is neither, and both are 1.
    """
    replayed = _replayed(pilot)
    ratio = 1.0 if replayed is None else round(pilot.result.seconds / replayed, 9)
    note = ""
    low, high = min(1.0, ratio), max(1.0, ratio)
    if high > MUCH:
        note = (
            f"The pilot took {ratio:.2g} times as long as its calls, limits and retries account "
            "for: the interval reaches from a run without that to one as slow all through. "
            "result.explain() may know why."
        )
    if pilot.result.stats.cpu_seconds is not None:  # it ran on a real clock
        low, high = low * (1 - REAL), high * (1 + REAL)
    return low, high, note


def _replayed(pilot: Pilot) -> float | None:
    """Return how long the pilot takes on a clock that is never late; None: nobody knows."""
    stats = pilot.result.stats
    known = stats.max_concurrency and pilot.knows_limits and not pilot.was_split
    if not known or pilot.source_pace is not None:
        return None
    tries = [0] * len(pilot.calls)

    async def again(call: int) -> None:
        """Take as long as this call did, and end as it did."""
        tried = pilot.calls[call][min(tries[call], len(pilot.calls[call]) - 1)]
        tries[call] += 1
        if tried.seconds:
            await asyncio.sleep(tried.seconds)
        if tried.fate == "passing":
            raise TransientError(tried.delay)
        if tried.fate == "lasting":
            raise PermanentError("as in the pilot")

    def weight_of(weight: Callable[..., float] | None) -> Callable[..., float] | None:
        if weight is None:
            return None
        return lambda call: sum(
            weight(pilot.item_of(call, place)) for place in range(len(pilot.rows[call]))
        )

    limits = stats.settings.limits
    retries = Scenario(1, max_retries=pilot.most_attempts - 1)
    plan: BatchSettings[int, None] = BatchSettings(
        again,
        is_async=True,
        max_concurrency=stats.max_concurrency,
        limiters=tuple(limiter_of(limit, weight_of(limit.weight)) for limit in limits),
        retry=policy_of(retries, seed=0),
    )
    return run_on_virtual_clock(complete(plan, len(pilot.calls))).seconds or None
