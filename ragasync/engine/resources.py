"""The opening of what a run needs, which a stop meanwhile breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

V = TypeVar("V")


class Opening:
    """
    Waits in the run's own task, because what is opened there may have to be closed there.

    `break_off` cancels that task; the cancellation ends here and is no concern of those outside,
    unless one of their own came as well.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._broken_off = False

    async def wait_for(self, opened: Coroutine[Any, Any, V]) -> V | None:
        """Return what is opened, or None when broken off, before it began or meanwhile."""
        if self._broken_off:
            opened.close()
            return None
        return await self._unless_broken_off(opened)

    async def _unless_broken_off(self, opened: Coroutine[Any, Any, V]) -> V | None:
        """Wait in the task that `break_off` cancels."""
        task = self._task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()  # not 0 where code before us left a cancellation behind
        try:
            return await opened
        except asyncio.CancelledError:
            if not self._broken_off or task.cancelling() > before + 1:
                raise
            return None
        finally:
            self._task = None
            if self._broken_off:
                task.uncancel()

    def break_off(self) -> None:
        """End the wait, or let none begin."""
        if self._task is not None and not self._broken_off:
            self._task.cancel()
        self._broken_off = True
