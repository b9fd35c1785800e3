"""Wakes a loop ten times a second while somebody waits on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

INTERVAL = 0.1
"""Seconds between two beats: a stop button is noticed only when the loop wakes."""


class Heartbeat:
    """
    A context in which the running loop wakes ten times a second, and calls something if asked.

    An interrupt of a cell that awaits becomes a cancellation, and a sleeping loop sees it only
    when it next wakes: after seconds, or never. So it is woken.
    """

    def __init__(self, beat: Callable[[], None] | None = None) -> None:
        self._beat = beat
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(INTERVAL, self._tick, loop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat, and arrange the next one first: the beat may raise."""
        self._timer = loop.call_later(INTERVAL, self._tick, loop)
        if self._beat is not None:
            self._beat()
