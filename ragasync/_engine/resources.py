"""The setup of what a run needs (its journal and `resources=`), which a stop can cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ragasync.cancellation import CancelScope

V = TypeVar("V")


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

    async def wait_for(self, step: Coroutine[Any, Any, V]) -> V | None:
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
