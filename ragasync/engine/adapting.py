"""A run whose bound on calls at once is found while it runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ragasync.clock import Clock
from ragasync.limits.adaptive import ConcurrencyLimit
from ragasync.limits.samples import CallEnd
from ragasync.retries.congestion import congestion_of

V = TypeVar("V")


class ConcurrencyController:
    """
    Watches the calls of a run, and moves its bound.

    Args:
        first: the calls at once to begin with.
        clock: the run's clock.
        resize: called with the bound whenever it changes.
    """

    def __init__(self, first: int, clock: Clock, resize: Callable[[int], None]) -> None:
        self._bound = ConcurrencyLimit(first)
        self._clock, self._resize = clock, resize
        self._in_flight = 0
        self._closed = False
        self._told = first
        self._tell()

    def close(self) -> None:
        """Move nothing any more; calls that are still in flight have another bound by now."""
        self._closed = True

    def __repr__(self) -> str:
        return f"<Adapting {self._bound!r}, {self._in_flight} in flight>"

    async def watch(self, call: Coroutine[Any, Any, V]) -> V:
        """Await a call, and learn from it."""
        self._in_flight += 1
        mark, began = self._bound.begin(self._in_flight), self._clock()
        how: CallEnd = "error"
        try:
            answer = await call
            how = "success"
            return answer
        except Exception as error:
            how = congestion_of(error) or "error"
            raise
        finally:
            self._in_flight -= 1
            self._bound.end(mark, self._clock() - began, how)
            self._tell()

    def _tell(self) -> None:
        """Tell of the bound, if it is another one."""
        bound = self._bound.bound
        if bound != self._told and not self._closed:
            self._told = bound
            self._resize(bound)
