"""A run that might have been: the real engine on a virtual clock, over what a pilot's calls did."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ragasync.engine.controls import RunControls
from ragasync.engine.run import execute
from ragasync.errors import AttemptTimeout
from ragasync.outcomes.columns import Columns
from ragasync.reports.time_breakdown import time_breakdown
from ragasync.result import BatchResult, RunStats
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import BatchSettings
from ragasync.simulation.circumstances import Scenario, fresh
from ragasync.simulation.pilot import Pilot, Tried
from ragasync.simulation.virtual_time import run_on_virtual_clock

SCARCE = 5
"""With fewer later attempts than this to draw from, a later attempt fares as any other."""

LONGEST_ROUND = 500
"""The most calls that are drawn from a pilot: a longer one gives no narrower interval."""


class TransientError(Exception):
    """What an attempt fails of that may be tried again after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__("drawn from the pilot")
        self.delay = delay


class PermanentError(ValueError):
    """What an item fails of for good; as a ValueError it has a batch split."""


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """
    How a run went.

    Args:
        result: its outcomes.
        calls: how many calls were made, each attempt.
        ends: when each item that succeeded did so, in seconds since the start, in order.
    """

    result: BatchResult[Any]
    calls: int
    ends: Sequence[float]

    @property
    def busy(self) -> float:
        """The share of the time of its workers that was spent in calls."""
        account = time_breakdown(self.result)
        return account.work / account.worker_seconds if account.worker_seconds else 0.0


class BootstrapService:
    """
    A service that fares as the pilot's did, drawn with replacement from its calls.

    The pilot itself is drawn anew first, for another pilot would have seen other calls: that is
    the bootstrap (Bradley Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of
    Statistics 7, 1979). A run of n calls has a chance of its own beside that of its pilot's N; so
    fewer than N are drawn, 1 / (1 / N + 1 / n), whose mean varies as both together, and these are
    dealt out in rounds, which adds nothing. What an item meets hangs on the seed and its place
    alone, so that runs under other circumstances meet the same.

    Args:
        pilot: what to draw from.
        under: the knobs.
        simulated: the items of this run.
        n_items: the items of the run that it stands for.
        seed: the chance that it meets.
    """

    def __init__(
        self, pilot: Pilot, under: Scenario, simulated: int, n_items: int, seed: int
    ) -> None:
        self._under, self._seed = under, seed
        chance = random.Random(seed)
        calls = chance.choices(range(len(pilot.calls)), k=round_of(pilot, under, n_items))
        later = [tried for call in calls for tried in pilot.calls[call][1:]]
        every = [tried for call in calls for tried in pilot.calls[call]]
        self._later = later if len(later) >= SCARCE else every
        self._well = [tried for tried in every if tried.fate == "done"] or every
        self._delays = [tried.delay for tried in every if tried.fate == "passing"] or [1.0]
        poison = chance.choices(pilot.poisoned, k=len(pilot.poisoned)) if pilot.poisoned else []
        self._round = calls
        self._first = [pilot.calls[call][0] for call in calls]
        self._poisoned = chance.choices(poison, k=simulated) if any(poison) else None
        self._tries: dict[int, int] = {}
        self.calls = 0
        self.ends: list[float] = []

    def call_of(self, item: int) -> int:
        """Return which call of the pilot an item is dealt."""
        return self._round[self._place_of(item)]

    def _place_of(self, item: int) -> int:
        """Return the place of an item's call in its round."""
        return item // self._under.items_per_call % len(self._round)

    async def one(self, item: int) -> None:
        """Serve one item."""
        await self._serve((item,))

    async def many(self, items: list[int]) -> list[None]:
        """Serve a batch."""
        await self._serve(items)
        return [None] * len(items)

    async def _serve(self, items: Sequence[int]) -> None:
        """Take as long as was drawn, and end as was drawn."""
        self.calls += 1
        tried = self._draw(items[0])
        if tried.fate != "done" or self._under.timeout is not None:  # it may yet be cut short
            self._tries[items[0]] = self._tries.get(items[0], 0) + 1
        if tried.seconds:
            await asyncio.sleep(tried.seconds)
        if tried.fate == "passing":
            raise TransientError(tried.delay)
        if tried.fate == "lasting" or self._is_poisoned(items):
            raise PermanentError("drawn from the pilot")
        self.ends += [asyncio.get_running_loop().time()] * len(items)

    def _draw(self, item: int) -> Tried:
        """Return what an item's next attempt meets."""
        under, attempt = self._under, self._tries.get(item, 0)
        plain = under.error_rate is None and under.errors == 1.0
        first = self._first[self._place_of(item)]
        if not attempt and plain:
            return first
        chance = random.Random(f"{self._seed} {item} {attempt}")
        tried = chance.choice(self._later) if attempt else first
        if plain or tried.fate == "lasting":
            return tried
        well, chosen = chance.choice(self._well), chance.random()
        if under.error_rate is None:
            return well if tried.fate == "passing" and chosen >= under.errors else tried
        if chosen < under.error_rate:
            return replace(tried, fate="passing", delay=chance.choice(self._delays))
        return well if tried.fate == "passing" else tried

    def _is_poisoned(self, items: Sequence[int]) -> bool:
        """Return whether one of these fails every call that it is in."""
        return self._poisoned is not None and any(self._poisoned[item] for item in items)


def round_of(pilot: Pilot, under: Scenario, n_items: int) -> int:
    """Return how many calls are drawn, to be dealt out again and again."""
    seen, coming = len(pilot.calls), math.ceil(n_items / under.items_per_call)
    return min(LONGEST_ROUND, math.ceil(1 / (1 / seen + 1 / coming)))


def course_of(
    pilot: Pilot,
    under: Scenario,
    simulated: int,
    n_items: int,
    *,
    seed: int,
    rate: float = 1.0,
) -> SimulatedRun:
    """
    Return how the first items of a run would go, once.

    Args:
        pilot: what to draw from.
        under: the knobs.
        simulated: how many items.
        n_items: the items of the whole run.
        seed: the chance that it meets.
        rate: what the rates of all limiters are multiplied by.
    """
    service = BootstrapService(pilot, under, simulated, n_items, seed)

    def weight_of(weight: Callable[..., float]) -> Callable[..., float]:
        size = under.items_per_call
        return lambda item: weight(pilot.item_of(service.call_of(item), item % size))

    plan: BatchSettings[int, None] = BatchSettings(
        service.many if under.batch_size else service.one,
        is_async=True,
        batch_size=under.items_per_call,
        max_concurrency=under.max_concurrency,
        batched=bool(under.batch_size),
        limiters=tuple(fresh(limiter, rate, weight_of) for limiter in under.limiters),
        retry=policy_of(under, seed),
        timeout=under.timeout,
    )
    result = run_on_virtual_clock(complete(plan, simulated))
    return SimulatedRun(result, service.calls, service.ends)


def policy_of(under: Scenario, seed: int) -> AsyncRetry:
    """Return when to try again: by the policy that was given, or as the pilot did."""
    chance = random.Random(f"jitter {seed}").random
    if under.retry is None:
        again = _as_the_pilot
        return AsyncRetry(under.max_retries, under.retry_delay, retry_on=again, _random=chance)
    kinds = (TransientError, AttemptTimeout)
    return replace(under.retry, retry_on=kinds, on_retry=None, _random=chance)


def _as_the_pilot(error: Exception) -> bool | float:
    """Return the delay that the pilot had after this error."""
    return error.delay if isinstance(error, TransientError) else isinstance(error, AttemptTimeout)


async def complete(plan: BatchSettings[int, Any], n_items: int) -> BatchResult[Any]:
    """Run a plan on the engine itself: nobody is there to press a stop button meanwhile."""
    items = range(n_items)
    columns: Columns[int, Any] = Columns(items)
    run = RunControls(plan)
    await execute(run, items, columns, total=n_items)
    shared = bool(plan.batched)
    stats = RunStats(
        max_concurrency=plan.max_concurrency,
        worked=run.totals.call_seconds if shared else None,
        limiter_waited=run.totals.limiter_seconds if shared else None,
    )
    return BatchResult.of(columns, seconds=asyncio.get_running_loop().time(), stats=stats)
