"""Something done often, drawn seldom."""

from __future__ import annotations

from ragasync.clock import Clock


class Throttle:
    """
    Say whether enough time has passed since it last said yes.

    Args:
        interval: the least number of seconds between two times of saying yes.
        clock: what tells the seconds.
    """

    def __init__(self, interval: float, clock: Clock) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")

    def __repr__(self) -> str:
        return f"<Throttle every {self._interval:g} s>"

    def due(self) -> bool:
        """Return True, and not again before the interval has passed."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._interval
        return True
