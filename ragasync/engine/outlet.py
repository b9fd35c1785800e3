"""Where a stream's outcomes wait for their reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from ragasync.error_text import closing_lines
from ragasync.outcomes.outcome import CallSuccess, Outcome, RecordSuccess

T = TypeVar("T")
R = TypeVar("R")


class OutcomeBuffer(Generic[T, R]):
    """
    A bounded buffer of outcomes, in the order of their ends or in that of their items.

    It counts as full when `bound` outcomes are unread, and again has room when half of them are
    gone: so workers are not woken for every outcome that is read. In order, items that were drawn
    and have no outcome yet count as well, because all that came early waits for them.

    Args:
        ordered: whether outcomes come in the order of their items.
        bound: how many outcomes may be unread.

    Attributes:
        on_change: called when it has become full, or has room again.
        has_success: whether any item is done.
    """

    def __init__(self, *, ordered: bool, bound: int) -> None:
        self._ordered = ordered
        self._bound = bound
        self.on_change: Callable[[], None] = _ignore
        self._items: dict[int, T] = {}
        self._ready: deque[Outcome[T, R]] = deque()
        self._early: dict[int, Outcome[T, R]] = {}
        self._next = 0
        self._reader: asyncio.Future[None] | None = None
        self._ended = False
        self.is_full = False
        self.has_success = False

    def unfinished(self, limit: int | None) -> int:  # noqa: ARG002
        """Return how many items were drawn that have no outcome."""
        return len(self._items)

    def on_item(self, index: int, item: T) -> None:
        """Remember an item that was drawn; in order it takes a place from now on."""
        self._items[index] = item
        if self._ordered:
            self._look_whether_full()

    def fast_recorder(self, worker: int, started_at: float) -> RecordSuccess[R]:
        """Make the recorder of one worker: a closure for plain successes on the fast path."""

        def record(index: int, value: R, began: float, ended: float) -> None:
            outcome: Outcome[T, R] = Outcome(
                index=index,
                item=self._items.get(index),
                status="done",
                value=value,
                attempts=1,
                started=began - started_at,
                seconds=ended - began,
                worker=worker,
            )
            self.record(outcome)

        return record

    def record(self, outcome: Outcome[T, R], stack: str | None = None) -> None:
        """Take an outcome in."""
        self.has_success = self.has_success or outcome.ok
        if stack is not None and outcome.error is not None:
            outcome = replace(outcome, traceback=stack + closing_lines(outcome.error))
        del self._items[outcome.index]
        if not self._ordered:
            self._ready.append(outcome)
        else:
            self._early[outcome.index] = outcome
            while self._next in self._early:
                self._ready.append(self._early.pop(self._next))
                self._next += 1
        self._look_whether_full()
        self._wake_reader()

    def record_call(self, call: CallSuccess[T, R]) -> None:
        """Take in the outcomes of all items of a call."""
        for outcome in call.outcomes():
            self.record(outcome)

    def end(self) -> None:
        """Say that nothing more will come; what an ordered stream still held back is given out."""
        self._ended = True
        self._ready.extend(self._early.pop(index) for index in sorted(self._early))
        self._wake_reader()

    async def next(self) -> Outcome[T, R] | None:
        """Return the next outcome, or None at the end."""
        while not self._ready:
            if self._ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        outcome = self._ready.popleft()
        if self.is_full and self._unread <= self._bound // 2:
            self.is_full = False
            self.on_change()
        return outcome

    @property
    def _unread(self) -> int:
        """How many outcomes wait to be read, and in order how many items are on their way."""
        return len(self._ready) + (self._ordered and len(self._early) + len(self._items))

    def _look_whether_full(self) -> None:
        """Have nothing new begun when there is no room."""
        if not self.is_full and self._unread >= self._bound:
            self.is_full = True
            self.on_change()

    def _wake_reader(self) -> None:
        """Let the reader look, if it waits and there is something to see."""
        if self._reader is not None and not self._reader.done() and (self._ready or self._ended):
            self._reader.set_result(None)


def _ignore() -> None:
    """Do nothing: nobody draws yet."""
