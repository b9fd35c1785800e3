"""Random schedules of batched jobs: a service with poison items and outages, and the options."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

from ragasync import AsyncRetry
from tests.support.random_schedules import seconds
from tests.support.services import StatusError


@dataclass(frozen=True)
class Scale:
    """Items by weight, which of them are poison, and how a job is to put them together."""

    weights: list[int]
    most: int
    batch_size: int
    max_concurrency: int
    poison: frozenset[int]
    effect: Literal["refused", "wrong", "miscounted"]
    outages: frozenset[int]
    retries: int
    seconds: float

    @property
    def has_outages(self) -> bool:
        """Whether calls fail without poison; not where poison, too, is tried again."""
        return self.effect == "refused" and bool(self.outages)

    @property
    def retries_in_all(self) -> int:
        """Enough for all outages: the parts of a batch share their retries."""
        return len(self.outages) if self.has_outages else self.retries

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a processor."""
        return {
            "batch_size": self.batch_size,
            "max_concurrency": self.max_concurrency,
            "batched": True,
            "weight": self.weights.__getitem__,
            "max_batch_weight": self.most,
            "retry": AsyncRetry(self.retries_in_all, 0.5, jitter=None),
        }


scales = st.builds(
    Scale,
    weights=st.lists(st.integers(0, 7), max_size=30),
    most=st.integers(3, 12),
    batch_size=st.integers(1, 9),
    max_concurrency=st.integers(1, 4),
    poison=st.frozensets(st.integers(0, 29), max_size=5),
    effect=st.sampled_from(["refused", "wrong", "miscounted"]),
    outages=st.frozensets(st.integers(1, 8), max_size=3),
    retries=st.integers(0, 2),
    seconds=seconds(1),
)


class Poisoned:
    """
    A batched function that returns ten times each item, unless one of them is poison.

    Attributes:
        broken: what was asked of it that must not be.
        raised: the last error of a call with each item alone.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.calls = self.in_flight = 0
        self.broken: list[str] = []
        self.raised: dict[int, Exception] = {}
        self.calls_with: Counter[int] = Counter()

    async def __call__(self, items: list[int]) -> list[int]:
        """Answer for all, or for none."""
        self.calls += 1
        call = self.calls
        self.in_flight += 1
        self.calls_with.update(items)
        self._look_at(items)
        await asyncio.sleep(self.scale.seconds)
        self.in_flight -= 1
        if self.scale.has_outages and call in self.scale.outages:
            raise ConnectionError("away")
        if self.scale.poison.isdisjoint(items):
            return [10 * item for item in items]
        if self.scale.effect == "miscounted":
            return [0] * (len(items) + 1)
        error = StatusError(413) if self.scale.effect == "refused" else ValueError("no")
        if len(items) == 1:
            self.raised[items[0]] = error
        raise error

    def _look_at(self, items: list[int]) -> None:
        """Note what is wrong with a call."""
        weight = sum(self.scale.weights[item] for item in items)
        reasons = {
            "too many items": len(items) > self.scale.batch_size,
            "too heavy": weight > self.scale.most,
            "no items": not items,
            "not in order": items != sorted(set(items)),
            "too many concurrent calls": self.in_flight > self.scale.max_concurrency,
        }
        self.broken += [f"{reason}: {items}" for reason, holds in reasons.items() if holds]
