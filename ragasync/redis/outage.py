"""An outage of Redis: the delays between attempts, and the error after `unavailable_timeout`."""

from __future__ import annotations

from datetime import datetime

from ragasync.error_text import safe_message, type_name

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0
"""Seconds: the bounds of the delays between attempts in an outage, which double (full jitter)."""


class Outage:
    """An outage of Redis as one dispatcher sees it: its start, its attempts, its error message."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self._began: float | None = None
        self._began_at = ""  # by the wall clock, for the message
        self._attempts = 0
        self._last_error = ""

    def record_failure(self, now: float, error: Exception) -> None:
        """Record a failed attempt, which may begin the outage."""
        if self._began is None:
            self._began = now
            self._began_at = datetime.now().astimezone().isoformat(" ", "seconds")
        self._attempts += 1
        self._last_error = f"{type_name(error)}: {safe_message(error)}"

    def end(self) -> None:
        """Record a reply, which ends the outage."""
        self._began, self._attempts = None, 0

    def since(self, now: float) -> float:
        """Return the time at which the outage began, or `now` without one."""
        return now if self._began is None else self._began

    def delay(self, share: float) -> float:
        """Return the delay before the next attempt: a share of its bound."""
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(self._attempts, 10))
        return max(0.01, share * bound)

    def message(self, now: float) -> str:
        """Return the error message for a caller whose time is over."""
        return (
            f"the rate limit is kept in Redis at {self.url}, which has not answered for "
            f"{now - self.since(now):.1f} s, since {self._began_at}, in {self._attempts} attempts "
            f"(the latest: {self._last_error}). Start it, or check that this machine reaches it; "
            "then run the rest. To wait for longer than "
            f"{self.timeout:g} s, set unavailable_timeout="
        )
