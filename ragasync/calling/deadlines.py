"""One timer that watches over the deadlines of all attempts of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ragasync.clock import Clock
from ragasync.errors import AttemptTimeout

A = TypeVar("A")
V = TypeVar("V")


class DeadlineWatch:
    """
    Cancels attempts that take longer than their time.

    A timer an attempt is the dear way (asyncio.timeout costs several microseconds). Here an
    attempt writes its deadline into a dictionary and takes it out at its end; one timer looks at
    the earliest. It never sleeps longer than `timeout`, so that a deadline set meanwhile is seen.

    Args:
        loop: the loop that the attempts run on.
        clock: its clock.
        timeout: the shortest time that an attempt is given, in seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, timeout: float) -> None:
        self._loop = loop
        self._clock = clock
        self._timeout = timeout
        self._deadlines: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def guarded(
        self, call: Callable[[A], Awaitable[V]], weight: Callable[[A], int] | None = None
    ) -> Callable[[A], Awaitable[V]]:
        """Return `call` with a deadline `timeout` (times its argument's weight) after its start."""
        deadlines, expired, clock, timeout = (
            self._deadlines,
            self._expired,
            self._clock,
            self._timeout,
        )

        async def call_in_time(argument: A) -> V:
            task = asyncio.current_task()
            assert task is not None  # a coroutine runs in a task
            allowed = timeout if weight is None else timeout * weight(argument)
            deadlines[task] = clock() + allowed
            if self._timer is None:
                self._sleep(timeout)
            try:
                return await call(argument)
            except asyncio.CancelledError as cancelled:
                # Both may have happened: a cancellation from outside must still pass.
                if task in expired and task.cancelling() == 1:
                    raise AttemptTimeout(
                        f"the attempt took longer than {allowed:g} s"
                    ) from cancelled
                raise
            finally:
                del deadlines[task]
                if task in expired:
                    expired.remove(task)
                    task.uncancel()

        return call_in_time

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _sleep(self, seconds: float) -> None:
        """Look at the deadlines after this time."""
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Cancel what is late; sleep until the next deadline, or until an attempt begins."""
        now = self._clock()
        waiting = {task: end for task, end in self._deadlines.items() if task not in self._expired}
        for task, end in waiting.items():
            if end <= now:
                self._expired.add(task)
                task.cancel()
        self._timer = None
        if waiting:
            earliest = min((end for end in waiting.values() if end > now), default=now)
            self._sleep(min(self._timeout, max(earliest - now, 0.0)) or self._timeout)
