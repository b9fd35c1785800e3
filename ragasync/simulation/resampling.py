"""Simulated runs with calls drawn from a pilot's, and the pilot's own overhead."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ragasync.result import BatchResult
from ragasync.settings import BatchSettings
from ragasync.simulation.pilot import PermanentError, Pilot, PilotAttempt, Scenario, TransientError
from ragasync.simulation.simulate import limiter_of, run_on_virtual_clock, run_simulation

MIN_RETRIES = 5
"""With fewer retries in the pilot to draw from, a retry is drawn from all attempts."""

MAX_SAMPLE = 500
"""The highest number of calls drawn from a pilot: more would not narrow the interval."""

NOTABLE_OVERHEAD = 1.25
"""The overhead of a pilot, as a factor, from which a note says so."""

TIMER_ERROR = 0.02
"""The relative error of a forecast at its best, because real timers are late."""


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """
    A run drawn from a pilot.

    Args:
        ends: when each item that succeeded ended, in seconds since the start, in order.
    """

    result: BatchResult[Any]
    calls: int
    ends: Sequence[float]


class BootstrapService:
    """
    A service whose calls are drawn with replacement from those of a pilot.

    Another pilot would have met other calls, so the sample itself is drawn first: that is the
    bootstrap (Bradley Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of
    Statistics 7, 1979). A run of n calls varies by itself, in addition to its pilot of N. So the
    sample has 1 / (1 / N + 1 / n) calls, fewer than N, whose mean varies as much as both together;
    dealing it out in rounds adds no variance. The fate of an item depends on the seed and its
    position only, so runs of different scenarios meet the same calls.

    Args:
        simulated: the number of items in this run.
        n_items: the number of items in the run that it represents.
    """

    def __init__(
        self, pilot: Pilot, scenario: Scenario, simulated: int, n_items: int, seed: int
    ) -> None:
        self._scenario, self._seed = scenario, seed
        rng = random.Random(seed)
        sample = rng.choices(range(len(pilot.calls)), k=sample_size(pilot, scenario, n_items))
        attempts = [attempt for call in sample for attempt in pilot.calls[call]]
        retries = [attempt for call in sample for attempt in pilot.calls[call][1:]]
        self._retries = retries if len(retries) >= MIN_RETRIES else attempts
        self._successes = [each for each in attempts if each.fate == "done"] or attempts
        self._delays = [each.delay for each in attempts if each.fate == "transient"] or [1.0]
        failed = (
            rng.choices(pilot.item_failed, k=len(pilot.item_failed)) if pilot.item_failed else []
        )
        self._sample = sample
        self._first = [pilot.calls[call][0] for call in sample]
        self._always_fails = rng.choices(failed, k=simulated) if any(failed) else None
        self._attempts: dict[int, int] = {}  # by the first item of a call
        self.calls = 0
        self.ends: list[float] = []

    def call_of(self, item: int) -> int:
        """The number of the pilot's call that an item is dealt."""
        return self._sample[self._place_of(item)]

    async def serve_one(self, item: int) -> None:
        """Serve one item."""
        await self._serve((item,))

    async def serve_batch(self, items: list[int]) -> list[None]:
        """Serve a batch."""
        await self._serve(items)
        return [None] * len(items)

    async def _serve(self, items: Sequence[int]) -> None:
        """Take the time of the attempt drawn, and end like it."""
        self.calls += 1
        attempt = self._draw(items[0])
        if attempt.fate != "done" or self._scenario.timeout is not None:  # it may be retried
            self._attempts[items[0]] = self._attempts.get(items[0], 0) + 1
        await take_time_and_fail(attempt)
        if self._always_fails is not None and any(self._always_fails[item] for item in items):
            raise PermanentError("drawn from the pilot")
        self.ends += [asyncio.get_running_loop().time()] * len(items)

    def _place_of(self, item: int) -> int:
        """The place of an item's call in the sample."""
        return item // self._scenario.items_per_call % len(self._sample)

    def _draw(self, item: int) -> PilotAttempt:
        """The attempt of the pilot that an item's next attempt repeats."""
        scenario, number = self._scenario, self._attempts.get(item, 0)
        has_pilots_errors = scenario.error_rate is None and scenario.error_factor == 1.0
        first = self._first[self._place_of(item)]
        if not number and has_pilots_errors:
            return first
        rng = random.Random(f"{self._seed} {item} {number}")
        attempt = rng.choice(self._retries) if number else first
        if has_pilots_errors or attempt.fate == "permanent":
            return attempt
        success, drawn = rng.choice(self._successes), rng.random()
        if scenario.error_rate is None:
            succeeds = attempt.fate == "transient" and drawn >= scenario.error_factor
            return success if succeeds else attempt
        if drawn < scenario.error_rate:
            return replace(attempt, fate="transient", delay=rng.choice(self._delays))
        return success if attempt.fate == "transient" else attempt


async def take_time_and_fail(attempt: PilotAttempt) -> None:
    """Sleep as long as an attempt took, and raise if it failed."""
    if attempt.seconds:
        await asyncio.sleep(attempt.seconds)
    if attempt.fate == "transient":
        raise TransientError(attempt.delay)
    if attempt.fate == "permanent":
        raise PermanentError("drawn from the pilot")


def sample_size(pilot: Pilot, scenario: Scenario, n_items: int) -> int:
    """The number of calls to draw from a pilot, which are dealt out in rounds."""
    of_pilot, of_run = len(pilot.calls), math.ceil(n_items / scenario.items_per_call)
    return min(MAX_SAMPLE, math.ceil(1 / (1 / of_pilot + 1 / of_run)))


def simulate_run(
    pilot: Pilot,
    scenario: Scenario,
    simulated: int,
    n_items: int,
    *,
    seed: int,
    rate_factor: float = 1.0,
) -> SimulatedRun:
    """Simulate the first items of a run, once."""
    service = BootstrapService(pilot, scenario, simulated, n_items, seed)

    def by_number(weight: Callable[..., float]) -> Callable[..., float]:
        size = scenario.items_per_call
        return lambda item: weight(pilot.item_of(service.call_of(item), item % size))

    settings: BatchSettings[int, None] = BatchSettings(
        service.serve_batch if scenario.batch_size else service.serve_one,
        is_async=True,
        batch_size=scenario.items_per_call,
        max_concurrency=scenario.max_concurrency,
        batched=bool(scenario.batch_size),
        limiters=scenario.fresh_limiters(rate_factor, by_number),
        retry=scenario.retry_policy(seed),
        timeout=scenario.timeout,
    )
    result = run_on_virtual_clock(run_simulation(settings, simulated))
    return SimulatedRun(result, service.calls, service.ends)


def estimate_overhead(pilot: Pilot) -> tuple[float, float, str]:
    """
    Estimate what slowed the pilot in addition to its calls, limits and retries, by replaying it.

    A slow start (connections, first calls) or a stall happens once and matters little in a long
    run; what slows every call matters as much as in the pilot. One run does not tell them apart,
    so the truth lies in between. A pilot on a virtual clock has neither, and both factors are 1.

    Returns:
        The lowest and the highest factor on a forecast, and a note; empty if there is none.
    """
    replayed = _replay(pilot)
    ratio = 1.0 if replayed is None else round(pilot.result.seconds / replayed, 9)
    note = ""
    low, high = min(1.0, ratio), max(1.0, ratio)
    if high > NOTABLE_OVERHEAD:
        note = (
            f"The pilot took {ratio:.2g} times as long as its calls, limits and retries explain. "
            "The interval reaches from a run without that overhead to one that is as slow "
            "throughout; result.explain() may show the cause."
        )
    if pilot.result.stats.cpu_seconds is not None:  # it ran on a real clock
        low, high = low * (1 - TIMER_ERROR), high * (1 + TIMER_ERROR)
    return low, high, note


def _replay(pilot: Pilot) -> float | None:
    """The seconds that the pilot takes on a virtual clock; None if it cannot be replayed."""
    stats = pilot.result.stats
    is_known = stats.max_concurrency and pilot.knows_limits and not pilot.was_split
    if not is_known or pilot.source_rate is not None:
        return None
    attempts = [0] * len(pilot.calls)

    async def repeat(call: int) -> None:
        attempt = pilot.calls[call][min(attempts[call], len(pilot.calls[call]) - 1)]
        attempts[call] += 1
        await take_time_and_fail(attempt)

    def of_call(weight: Callable[..., float] | None) -> Callable[..., float] | None:
        if weight is None:
            return None
        return lambda call: sum(
            weight(pilot.item_of(call, place)) for place in range(len(pilot.rows[call]))
        )

    limits = stats.settings.limits
    settings: BatchSettings[int, None] = BatchSettings(
        repeat,
        is_async=True,
        max_concurrency=stats.max_concurrency,
        limiters=tuple(limiter_of(limit, of_call(limit.weight)) for limit in limits),
        retry=Scenario(1, max_retries=pilot.most_attempts - 1).retry_policy(seed=0),
    )
    replay = run_simulation(settings, len(pilot.calls))
    return run_on_virtual_clock(replay).seconds or None
