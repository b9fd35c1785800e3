"""What the calls of a run used, in tokens and money, as its embedder reports it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ragasync.arguments import check_process_fn

_ALMOST = 1 - 1e-9
"""Sums of prices such as 0.1 fall short of their bound by their rounding."""


class Meter:
    """
    Add up what the calls of one run used; told from any thread.

    Args:
        max_cost: the money after which the run is to stop, or None.
        when_spent: called once, with the reason, in the thread that reported the last of it.

    Attributes:
        tokens: the tokens so far.
        money: the cost so far, in whatever unit it is reported.
    """

    def __init__(
        self, max_cost: float | None = None, when_spent: Callable[[str], None] | None = None
    ) -> None:
        self.tokens = 0
        self.cost = 0.0
        self._max_cost, self._when_spent = max_cost, when_spent
        self._lock = threading.Lock()

    def add(self, tokens: int, cost: float) -> None:
        """Add what one call used; say when the bound is reached."""
        with self._lock:
            self.tokens += tokens
            self.cost += cost
            bound, say = self._max_cost, self._when_spent
            if say is None or bound is None or self.cost < bound * _ALMOST:
                return
            self._when_spent = None
            reason = f"{self.cost:.6g} was spent, which reaches max_cost={bound:g}"
        say(reason)


class Bill:
    """
    What one call for several texts used.

    Args:
        meter: the run's.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.tokens = 0

    def add(self, tokens: int, cost: float) -> None:
        """Add to what the call used, and to what the run did."""
        self.tokens += tokens
        self.meter.add(tokens, cost)

    def on(self, texts: Sequence[str], rows: Sequence[Any]) -> Sequence[Any]:
        """Return the rows of a call, with its tokens shared among them if it reported any."""
        if not self.tokens:
            return rows
        parts = shares(self.tokens, [len(text) for text in texts])
        return [Metered(row, part) for row, part in zip(rows, parts, strict=True)]


@dataclass(frozen=True, slots=True)
class Metered:
    """A text's vector, and its share of the tokens of the call that made it."""

    row: Any
    tokens: int


_told: ContextVar[Meter | Bill | None] = ContextVar("told_of_usage", default=None)
"""Whoever is to be told of usage: the call that is being made, or the run that it is made in."""


def note_usage(*, tokens: int = 0, cost: float = 0.0) -> None:
    """
    Report the usage of a call to its run; outside of a run this does nothing.

    Embedders call it after each response, in the call itself or on its thread; calls in other
    processes have no effect.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import HashingEmbedder, note_usage
        >>> hashing = HashingEmbedder()
        >>> def embed(texts):
        ...     note_usage(tokens=12, cost=12 * 2e-8)  # what the service's response says
        ...     return hashing(texts)
        >>> result = AsyncDocumentProcessor(embed=embed).process_sync([("guide", "It refills.")])
        >>> result[0].value.tokens
        12

    Args:
        tokens: the number of tokens used.
        cost: the cost, in the same currency as `max_cost`.

    Raises:
        ValueError: a number is negative or not finite.
    """
    if not (tokens >= 0 and 0 <= cost < math.inf):
        raise ValueError(
            f"usage must be finite and at least 0, got tokens={tokens!r}, cost={cost!r}"
        )
    if (told := _told.get()) is not None:
        told.add(tokens, cost)


def metered_by(meter: Meter) -> Callable[[], None]:
    """Have what is called from here on report to a meter; return what ends that."""
    token = _told.set(meter)
    return lambda: _told.reset(token)


def shares(whole: int, weights: Sequence[int]) -> list[int]:
    """
    Divide a whole number by weights, so that the parts add up to it exactly.

    Each part is that up to which the weights so far entitle, less what those before it got: no
    part is off by as much as 1, and none is below 0.

    Args:
        whole: what there is to share.
        weights: what each is entitled by; equal where all are 0.
    """
    if not any(weights):
        weights = [1] * len(weights)
    total, parts = sum(weights), []
    so_far = given = 0
    for weight in weights:
        so_far += weight
        due = whole * so_far // total
        parts.append(due - given)
        given = due
    return parts


@dataclass(frozen=True, slots=True)
class Metering:
    """An embedding function, each of whose calls has a bill of its own."""

    fn: Callable[..., Any]

    def __call__(self, texts: Sequence[str], *resource: object) -> Any:
        """Return a row a text; an awaitable where the function made one."""
        if (meter := _meter()) is None:
            return self.fn(texts, *resource)
        bill = Bill(meter)
        token = _told.set(bill)
        try:
            rows = self.fn(texts, *resource)
        finally:
            _told.reset(token)
        return (
            self._later(rows, texts, bill) if hasattr(rows, "__await__") else bill.on(texts, rows)
        )

    async def _later(self, rows: Any, texts: Sequence[str], bill: Bill) -> Sequence[Any]:
        """Await what a function gives that is async without saying so."""
        token = _told.set(bill)
        try:
            return bill.on(texts, await rows)
        finally:
            _told.reset(token)


@dataclass(frozen=True, slots=True)
class MeteringAsync:
    """The same for an async function."""

    fn: Callable[..., Any]

    async def __call__(self, texts: Sequence[str], *resource: object) -> Sequence[Any]:
        """Return a row a text."""
        if (meter := _meter()) is None:
            rows: Sequence[Any] = await self.fn(texts, *resource)
            return rows
        bill = Bill(meter)
        token = _told.set(bill)
        try:
            return bill.on(texts, await self.fn(texts, *resource))
        finally:
            _told.reset(token)


def metering(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return an embedding function whose calls have bills, async where it is."""
    return MeteringAsync(fn) if check_process_fn(fn) else Metering(fn)


def _meter() -> Meter | None:
    """Return the meter of the run that this is called in, if it is in one."""
    told = _told.get()
    return told.meter if isinstance(told, Bill) else told
