"""One timer that watches over the deadlines of all attempts of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TypeVar

from ragasync.clock import Clock
from ragasync.errors import AttemptTimeout

A = TypeVar("A")
V = TypeVar("V")

NEVER = float("inf")
"""The deadline of a task that is in no attempt."""


class _Guard:
    """What the watch knows of a task: when its attempt must end, and whether it was late."""

    __slots__ = ("ends_at", "was_late")

    def __init__(self) -> None:
        self.ends_at = NEVER
        self.was_late = False


class DeadlineWatch:
    """
    Cancels attempts that take longer than their time.

    A timer an attempt is the dear way (asyncio.timeout costs several microseconds). Here an
    attempt notes its deadline in its task's guard and strikes it out at its end; one timer looks
    at the earliest. It never sleeps longer than `timeout`, so that a deadline set meanwhile is
    seen.

    Args:
        loop: the loop that the attempts run on.
        clock: its clock.
        timeout: the shortest time that an attempt is given, in seconds.
        is_ending: says whether the run has cancelled the current task.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        timeout: float,
        is_ending: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._timeout = timeout
        self._is_ending = is_ending
        self._guards: dict[asyncio.Task[object], _Guard] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()  # a timer needs none of the call that happens to set it

    def enter(self) -> None:
        """Keep a guard for the current task, until it leaves."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._guards[task] = _Guard()

    def leave(self) -> None:
        """Let go of the current task."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._guards.pop(task, None)

    def extend(self, seconds: float) -> None:
        """Give every attempt so much longer: it could not go on, for the loop stood still."""
        for guard in self._guards.values():
            guard.ends_at += seconds

    def guarded(
        self, call: Callable[[A], Awaitable[V]], allowed: float
    ) -> Callable[[A], Awaitable[V]]:
        """
        Return `call` with so many seconds for each attempt, for use in the current task alone.

        Looking up the task and its guard costs as much as all the rest, so it is done here once.
        """
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        guard = self._guards.setdefault(task, _Guard())
        clock = self._clock

        async def call_in_time(argument: A) -> V:
            guard.ends_at = clock() + allowed
            if self._timer is None:
                self._sleep(self._timeout)
            try:
                return await call(argument)
            except asyncio.CancelledError as cancelled:
                # Both may have happened: a cancellation of the run must still pass.
                if guard.was_late and not self._is_ending():
                    raise AttemptTimeout(
                        f"the attempt took longer than {allowed:g} s"
                    ) from cancelled
                raise
            finally:
                guard.ends_at = NEVER
                if guard.was_late:
                    guard.was_late = False
                    task.uncancel()

        return call_in_time

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _sleep(self, seconds: float) -> None:
        """Look at the deadlines after this time."""
        self._timer = self._loop.call_later(seconds, self._look, context=self._context)

    def _look(self) -> None:
        """Cancel what is late; sleep until the next deadline, or until an attempt begins."""
        now, earliest = self._clock(), NEVER
        for task, guard in list(self._guards.items()):
            if task.done():
                del self._guards[task]
            elif guard.ends_at <= now:
                guard.ends_at, guard.was_late = NEVER, True
                task.cancel()
            else:
                earliest = min(earliest, guard.ends_at)
        self._timer = None
        if earliest < NEVER:
            self._sleep(min(self._timeout, earliest - now))
