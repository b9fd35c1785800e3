"""How often and how long a service asked to be left alone, by Retry-After."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

DAY = 86_400.0


@dataclass(slots=True)
class ServicePauses:
    """
    What replies with a Retry-After added up to.

    Attributes:
        count: how many there were.
        seconds: how long nothing was to be sent; what overlaps counts once.
        until: the instant, on the run's clock, at which the last of these pauses ends.
        asked: what the reply said that asked for that pause, with the time of day of its end.
    """

    count: int = 0
    seconds: float = 0.0
    until: float = float("-inf")
    asked: str = ""

    def note(self, now: float, seconds: float, asked: str) -> None:
        """Note a reply that asks to wait."""
        self.count += 1
        if now + seconds > self.until:
            self.seconds += now + seconds - max(self.until, now)
            self.until, self.asked = now + seconds, asked


def wall_time_in(seconds: float) -> str:
    """Return the local time of day in so many seconds, with the date if that is another day."""
    try:
        then = datetime.now() + timedelta(seconds=seconds)
    except OverflowError:
        return "a day beyond the calendar"
    return then.strftime("%H:%M:%S" if seconds < DAY / 2 else "%Y-%m-%d %H:%M")
