"""For how long nothing went on: a service asked for it, or an executor started nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

_HALF_A_DAY = 43_200.0


@dataclass(frozen=True, slots=True)
class ServicePauses:
    """
    What replies with a Retry-After added up to.

    Attributes:
        count: how many there were.
        seconds: how long nothing was to be sent; what overlaps counts once.
        until: the instant, on the run's clock, at which the last of these pauses ends.
        asked: what the reply said that asked for that pause, and when it ends by the wall clock.
    """

    count: int = 0
    seconds: float = 0.0
    until: float = float("-inf")
    asked: str = ""

    def with_reply(self, now: float, seconds: float, asked: str) -> ServicePauses:
        """Return these and a further reply, which asks to wait."""
        until = max(self.until, now + seconds)
        longer = until - max(self.until, now) if until > self.until else 0.0
        return ServicePauses(
            self.count + 1,
            self.seconds + longer,
            until,
            asked if longer else self.asked,
        )

    def merged_with(self, later: ServicePauses) -> ServicePauses:
        """Return the pauses of two runs, or of two stages, as one."""
        last = later if later.count else self
        return ServicePauses(
            self.count + later.count, self.seconds + later.seconds, last.until, last.asked
        )


@dataclass(frozen=True, slots=True)
class ExecutorHalt:
    """
    That the workers of an executor started nothing.

    Attributes:
        seconds: for how long, added up.
        why: what is wrong with them, and what to do; of the last time.
        is_now: whether it lasts.
    """

    seconds: float = 0.0
    why: str = ""
    is_now: bool = False

    def merged_with(self, later: ExecutorHalt) -> ExecutorHalt:
        """Return the halts of two runs as one."""
        last = later if later.why and (later.is_now or not self.is_now) else self
        return ExecutorHalt(self.seconds + later.seconds, last.why, self.is_now or later.is_now)


def wall_time_in(seconds: float) -> str:
    """Return the local time of day in so many seconds, with the date if that is another day."""
    try:
        then = datetime.now() + timedelta(seconds=seconds)
    except OverflowError:
        return "a day beyond the calendar"
    return then.strftime("%H:%M:%S" if seconds < _HALF_A_DAY else "%Y-%m-%d %H:%M")
