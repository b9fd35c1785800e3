"""Usage of a run: the tokens and the cost of its calls, as its embedder reports them."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ragasync.arguments import check_process_fn

_ALMOST = 1 - 1e-9
"""Rounding makes sums of prices such as 0.1 fall short of a bound."""


class Meter:
    """
    Adds up the usage of the calls of one run; thread-safe.

    Args:
        max_cost: the cost at which the run stops, or None.
        when_spent: called once with the reason, in the thread that reported the last cost.

    Attributes:
        tokens: the tokens so far.
        cost: the cost so far, in the unit that the embedder reports.
        process_id: the process of the run, a forked copy of which reports nothing.
    """

    def __init__(
        self, max_cost: float | None = None, when_spent: Callable[[str], None] | None = None
    ) -> None:
        self.tokens = 0
        self.cost = 0.0
        self.process_id = os.getpid()
        self._max_cost, self._when_spent = max_cost, when_spent
        self._lock = threading.Lock()

    def add(self, tokens: int, cost: float) -> None:
        """Add the usage of one call; report once that the cost has reached its bound."""
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
    The usage of one call for several texts, which also counts for the run.

    Args:
        meter: the meter of the run.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.tokens = 0

    def add(self, tokens: int, cost: float) -> None:
        """Add usage to the call and to its run."""
        self.tokens += tokens
        self.meter.add(tokens, cost)

    def on(self, texts: Sequence[str], rows: Sequence[Any]) -> Sequence[Any]:
        """The rows of a call, each with its share of the tokens if any were reported."""
        if not self.tokens:
            return rows
        parts = shares(self.tokens, [len(text) for text in texts])
        return [Metered(row, part) for row, part in zip(rows, parts, strict=True)]


@dataclass(frozen=True, slots=True)
class Metered:
    """A text's vector, and its share of the tokens of the call that made it."""

    row: Any
    tokens: int


_current: ContextVar[Meter | Bill | None] = ContextVar("current_meter", default=None)
"""The call, or else the run, for which usage is reported."""


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
    if (current := _receiver()) is not None:
        current.add(tokens, cost)


def metered_by(meter: Meter) -> Callable[[], None]:
    """Set the meter for calls in this context; return a function that restores the previous one."""
    token = _current.set(meter)
    return lambda: _current.reset(token)


def shares(whole: int, weights: Sequence[int]) -> list[int]:
    """
    Divide a whole number by weights, so that the parts add up to it exactly.

    A part is the rounded-down share of all weights up to its own, minus the parts before it: each
    is off by less than 1, and none is negative.

    Args:
        whole: the number to divide.
        weights: the weights; if all are 0, the parts are equal.
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
    """An embedding function whose calls each have a Bill."""

    fn: Callable[..., Any]

    def __call__(self, texts: Sequence[str], *resource: object) -> Any:
        """One row per text; an awaitable if the function returned one."""
        if (meter := _meter()) is None:
            return self.fn(texts, *resource)
        bill = Bill(meter)
        token = _current.set(bill)
        try:
            rows = self.fn(texts, *resource)
        finally:
            _current.reset(token)
        return (
            self._later(rows, texts, bill) if hasattr(rows, "__await__") else bill.on(texts, rows)
        )

    async def _later(self, rows: Any, texts: Sequence[str], bill: Bill) -> Sequence[Any]:
        """Await the rows of a function that is not declared async but returned an awaitable."""
        token = _current.set(bill)
        try:
            return bill.on(texts, await rows)
        finally:
            _current.reset(token)


@dataclass(frozen=True, slots=True)
class MeteringAsync:
    """An async embedding function whose calls each have a Bill."""

    fn: Callable[..., Any]

    async def __call__(self, texts: Sequence[str], *resource: object) -> Sequence[Any]:
        """One row per text."""
        if (meter := _meter()) is None:
            rows: Sequence[Any] = await self.fn(texts, *resource)
            return rows
        bill = Bill(meter)
        token = _current.set(bill)
        try:
            return bill.on(texts, await self.fn(texts, *resource))
        finally:
            _current.reset(token)


def metering(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an embedding function so that its calls have Bills; async if it is."""
    return MeteringAsync(fn) if check_process_fn(fn) else Metering(fn)


def _receiver() -> Meter | Bill | None:
    """The call or the run that gets reports of usage; None in a forked copy of its process."""
    receiver = _current.get()
    if receiver is None:
        return None
    meter = receiver.meter if isinstance(receiver, Bill) else receiver
    return receiver if meter.process_id == os.getpid() else None


def _meter() -> Meter | None:
    """The meter of the current run; None outside of a run."""
    receiver = _receiver()
    return receiver.meter if isinstance(receiver, Bill) else receiver
