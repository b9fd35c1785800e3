"""The time limit of attempts: one timer watches the deadlines of all attempts of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TypeVar

from ragasync.cancellation import CancelScope
from ragasync.clock import Clock
from ragasync.errors import AttemptTimeout

A = TypeVar("A")
V = TypeVar("V")

NEVER = float("inf")
"""The deadline of a task that makes no attempt."""


class _Guard:
    """The deadline of a task's present attempt, and the scope that cancels it when it is late."""

    __slots__ = ("deadline", "scope")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.deadline = NEVER
        self.scope = CancelScope(task)


class DeadlineWatch:
    """
    Cancels attempts that take longer than their timeout.

    A timer for each attempt is expensive (asyncio.timeout costs several microseconds). Here an
    attempt writes its deadline into its task's guard and removes it at its end, and one timer
    looks for the earliest deadline. The timer never sleeps longer than `timeout`, so it also sees
    a deadline that was set while it slept.

    Args:
        timeout: the shortest timeout of any attempt, in seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        timeout: float,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._timeout = timeout
        self._is_cancelled = is_cancelled
        self._guards: dict[asyncio.Task[object], _Guard] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()  # the timer must not keep the context of the call that sets it

    def enter(self) -> None:
        """Register a guard for the current task, until it leaves."""
        self._guard_of(_current_task())

    def leave(self) -> None:
        """Remove the guard of the current task."""
        self._guards.pop(_current_task(), None)

    def extend(self, seconds: float) -> None:
        """Postpone every deadline by the time for which the loop was blocked."""
        for guard in self._guards.values():
            guard.deadline += seconds

    def with_timeout(
        self, call: Callable[[A], Awaitable[V]], timeout: float
    ) -> Callable[[A], Awaitable[V]]:
        """
        Wrap a call in a time limit for each attempt, for use in the current task only.

        Looking up the task and its guard costs as much as all the rest, so it is done once, here.
        """
        guard, clock = self._guard_of(_current_task()), self._clock
        scope = guard.scope

        async def attempt(argument: A) -> V:
            guard.deadline = clock() + timeout
            if self._timer is None:
                self._sleep(self._timeout)
            try:
                return await call(argument)
            except asyncio.CancelledError as cancelled:
                # Both may have happened: the cancellation of the run must still propagate.
                if scope.cancel_called and not self._is_cancelled():
                    raise AttemptTimeout(
                        f"the attempt took longer than {timeout:g} s"
                    ) from cancelled
                raise
            finally:
                guard.deadline = NEVER
                if scope.cancel_called:
                    scope.uncancel()

        return attempt

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _guard_of(self, task: asyncio.Task[object]) -> _Guard:
        """Look up the guard of a task, or make one."""
        guard = self._guards.get(task)
        if guard is None:
            guard = self._guards[task] = _Guard(task)
        return guard

    def _sleep(self, seconds: float) -> None:
        """Set the timer."""
        self._timer = self._loop.call_later(seconds, self._check, context=self._context)

    def _check(self) -> None:
        """Cancel late attempts, and sleep until the next deadline if there is one."""
        now, earliest = self._clock(), NEVER
        for task, guard in list(self._guards.items()):
            if task.done():
                del self._guards[task]
            elif guard.deadline <= now:
                guard.deadline = NEVER
                guard.scope.cancel()
            else:
                earliest = min(earliest, guard.deadline)
        self._timer = None  # the next attempt sets it, if none is in flight now
        if earliest < NEVER:
            self._sleep(min(self._timeout, earliest - now))


def _current_task() -> asyncio.Task[object]:
    """The task that this code runs in."""
    task = asyncio.current_task()
    assert task is not None  # a coroutine runs in a task
    return task
