"""A call that gave a value for each of its items, recorded as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Generic, TypeVar

from ragasync.outcomes.outcome import Attempt, Outcome

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class CallSuccess(Generic[T, R]):
    """
    The items of one call with their values, and the facts that they share.

    `seconds` is one number for a call that served all of its items at once, and one for each item
    where they were done one after the other. See Outcome for the meaning of the facts.
    """

    indices: Sequence[int]
    items: Sequence[T]
    values: Sequence[R]
    attempts: int
    started: float
    seconds: float | Sequence[float]
    waited: float
    backed_off: float
    batch: int | None
    worker: int
    history: tuple[Attempt, ...]

    @property
    def rows(self) -> slice | None:
        """The rows that its items fill without a gap and in order, or None."""
        first, count = self.indices[0], len(self.indices)
        if self.indices[-1] - first != count - 1:  # they ascend, and none is there twice
            return None
        return slice(first, first + count)

    def outcomes(self) -> Iterator[Outcome[T, R]]:
        """Yield the outcome of each item."""
        each = repeat(self.seconds) if isinstance(self.seconds, float) else self.seconds
        rows = zip(self.indices, self.items, self.values, strict=True)
        for (index, item, value), seconds in zip(rows, each, strict=False):
            yield Outcome(
                index=index,
                item=item,
                status="done",
                value=value,
                attempts=self.attempts,
                started=self.started,
                seconds=seconds,
                waited=self.waited,
                backed_off=self.backed_off,
                batch=self.batch,
                worker=self.worker,
                history=self.history,
            )
