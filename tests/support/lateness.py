"""How late a loop wakes on a loaded machine, for tests that time calls on the real clock."""

from __future__ import annotations

import asyncio
import time
from typing import Self

LATE = 0.04
"""Seconds by which a call may begin late on a calm machine; see `Lateness`."""


class Lateness:
    """Measures how late this loop wakes: by so much a window may be shorter than it seems."""

    def __init__(self) -> None:
        self.most = LATE

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _measure(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.most = max(self.most, time.monotonic() - before + LATE)
