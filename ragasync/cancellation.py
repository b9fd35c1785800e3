"""
Who cancelled a task: the owner of a CancelScope, other code, or the shutdown of its loop.

`CancellableSetup` lets a stop interrupt what a run sets up. `create_lazy_task` creates a task that
begins later, so that its owner can store and cancel it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class CancelScope:
    """
    A cancellation of one task by one owner, counted separately from those by all others.

    asyncio counts in `cancelling()` how many cancellations of a task have not been taken back, but
    not who asked for them. A scope remembers the count at its creation and whether it has added to
    it, so the rest comes from others. A CancelledError that only this scope caused ends at the
    scope's owner; all others must propagate.

    Args:
        task: the task that may be cancelled.

    Attributes:
        cancel_called: whether this scope has cancelled the task.
    """

    __slots__ = ("_before", "_task", "cancel_called")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._before = task.cancelling()  # not 0 where earlier code has left a cancellation behind
        self.cancel_called = False

    def cancel(self) -> None:
        """Cancel the task, once: a second cancellation would cut off its clean-up."""
        if not self.cancel_called:
            self.cancel_called = True
            self._task.cancel()

    def uncancel(self) -> None:
        """Take this scope's cancellation back, after which it may cancel the task again."""
        if self.cancel_called:
            self.cancel_called = False
            self._task.uncancel()

    @property
    def cancelled_by_others(self) -> bool:
        """Whether the task has been cancelled, since this scope was made, by anybody else."""
        return self._task.cancelling() > self._before + self.cancel_called


class ShutdownSentinel:
    """
    A task that does nothing, and whose cancellation shows that the loop is being shut down.

    `asyncio.run` cancels all tasks of the loop at its end, in any order. Nobody has a reason to
    cancel this one alone. Tasks that the shutdown has cancelled must not be cancelled a second
    time: that would cut off the clean-up that the first cancellation has begun.

    Args:
        loop: the loop whose shutdown is to be noticed.
    """

    __slots__ = ("_over", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._over: asyncio.Future[None] = loop.create_future()
        self._task = create_lazy_task(
            _wait_for(self._over), loop, name="ragasync sentinel", context=Context()
        )

    @property
    def all_tasks_cancelled(self) -> bool:
        """Whether somebody has cancelled all tasks of the loop."""
        return self._task.cancelling() > 0

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task, unless the loop's shutdown already has."""
        if not (self.all_tasks_cancelled and task.cancelling()):
            task.cancel()

    def close(self) -> None:
        """Let the sentinel's task end."""
        if not self._over.done():
            self._over.set_result(None)


async def _wait_for(over: asyncio.Future[None]) -> None:
    """Wait for the end of what the sentinel watches over."""
    await over


def has_pending_cancel(task: asyncio.Task[Any]) -> bool:
    """Whether a task has a cancellation that nobody has taken back: an await may raise it."""
    # Before Python 3.13, uncancel() lowers the count but leaves `_must_cancel` set.
    return task.cancelling() > 0 or task._must_cancel  # type: ignore[attr-defined]


def create_lazy_task(
    coro: Coroutine[Any, Any, T],
    loop: asyncio.AbstractEventLoop,
    *,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """
    Create a task that has not begun to run.

    `loop.create_task` asks the loop's task factory. An eager factory runs the coroutine up to its
    first suspension, perhaps to its end, before the code that creates the task has stored it.

    Args:
        coro: the coroutine that the task runs.
        loop: the loop that it runs on.
        name: the task's name; by default a number.
        context: the context variables it sees; by default a copy of the current context.
    """
    return asyncio.Task(coro, loop=loop, name=name, context=context)


class CancellableSetup:
    """
    Awaits setup steps in the run's own task, and lets `cancel` interrupt them.

    They run in that task, because what is opened there (a task group, say) may have to be closed in
    the same task. So `cancel` cancels the task itself. That cancellation ends here and does not
    reach the code around the run, unless that has cancelled the task too.
    """

    def __init__(self) -> None:
        self._scope: CancelScope | None = None
        self._cancelled = False

    async def wait_for(self, step: Coroutine[Any, Any, T]) -> T | None:
        """Await a setup step; None if `cancel` was called before or during it."""
        if self._cancelled:
            step.close()
            return None
        task = asyncio.current_task()
        assert task is not None
        scope = self._scope = CancelScope(task)
        try:
            return await step
        except asyncio.CancelledError:
            if not scope.cancel_called or scope.cancelled_by_others:
                raise
            return None
        finally:
            self._scope = None
            scope.uncancel()

    def cancel(self) -> None:
        """Interrupt the current step, and let none begin."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
