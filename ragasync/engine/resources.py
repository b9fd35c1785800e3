"""The opening of what a run needs, which a stop meanwhile breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

V = TypeVar("V")


class CancellableSetup:
    """
    Waits in the run's own task, because what is opened there may have to be closed there.

    `cancel` cancels that task; the cancellation ends here and is no concern of those outside,
    unless one of their own came as well.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False

    async def wait_for(self, opened: Coroutine[Any, Any, V]) -> V | None:
        """Return what is opened, or None when broken off, before it began or meanwhile."""
        if self._cancelled:
            opened.close()
            return None
        return await self._wait_unless_cancelled(opened)

    async def _wait_unless_cancelled(self, opened: Coroutine[Any, Any, V]) -> V | None:
        """Wait in the task that `cancel` cancels."""
        task = self._task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()  # not 0 where code before us left a cancellation behind
        try:
            return await opened
        except asyncio.CancelledError:
            if not self._cancelled or task.cancelling() > before + 1:
                raise
            return None
        finally:
            self._task = None
            if self._cancelled:
                task.uncancel()

    def cancel(self) -> None:
        """End the wait, or let none begin."""
        if self._task is not None and not self._cancelled:
            self._task.cancel()
        self._cancelled = True
