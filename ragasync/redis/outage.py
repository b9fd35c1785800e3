"""Redis is away: since when, for how long it is waited for, and what is said in the end."""

from __future__ import annotations

from datetime import datetime

from ragasync.saying import message_of, type_name

_FIRST, _LONGEST = 0.05, 1.0
"""Seconds: the bounds of the delays between tries, which double (full jitter)."""


class Outage:
    """
    Whether Redis is away, as one desk sees it.

    Args:
        url: of Redis, without secrets.
        timeout: seconds for which it is waited for.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self._began: float | None = None
        self._noticed = ""
        self._tries = 0
        self._last = ""

    def begins(self, now: float, error: Exception) -> None:
        """Note a try that failed."""
        if self._began is None:
            self._began = now
            self._noticed = datetime.now().astimezone().isoformat(" ", "seconds")
        self._tries += 1
        self._last = f"{type_name(error)}: {message_of(error)}"

    def is_over(self) -> None:
        """Note an answer."""
        self._began, self._tries = None, 0

    def since(self, now: float) -> float:
        """Return when it began; now where Redis is there."""
        return now if self._began is None else self._began

    def delay(self, share: float) -> float:
        """Return this share of the longest delay before the next try."""
        return max(0.01, share * min(_LONGEST, _FIRST * 2.0 ** min(self._tries, 10)))

    def words(self, now: float) -> str:
        """Say that it took too long."""
        return (
            f"the rate limit is kept in Redis at {self.url}, which has not answered for "
            f"{now - self.since(now):.1f} s, since {self._noticed}, in {self._tries} tries "
            f"(the latest: {self._last}). Start it, or see that this machine reaches it; then run "
            f"what is left. To wait for longer than {self.timeout:g} s, set unavailable_timeout="
        )


def is_away(error: Exception) -> bool:
    """Return whether Redis may answer later: it is gone, starting up, or changing its role."""
    from redis import exceptions as of_redis

    if isinstance(error, of_redis.AuthenticationError | of_redis.AuthorizationError):
        return False
    away = (of_redis.ConnectionError, of_redis.TimeoutError)  # a server that starts is the former
    changing = (of_redis.MasterDownError, of_redis.ReadOnlyError)
    return isinstance(error, (*away, *changing, OSError))


def refusal(url: str, error: Exception) -> str:
    """Say that Redis is there and will not do it."""
    said = message_of(error)
    todo = "see that this user may run scripts there"
    if "WRONGTYPE" in said:
        todo = "under this name it keeps something else: delete that, or give the limiter another"
    elif "AUTH" in said or "password" in said or "WRONGPASS" in said:
        todo = "give the client the right username and password"
    elif "OOM" in said:
        todo = "its memory is full"
    return f"Redis at {url} refuses to keep the rate limit ({type_name(error)}: {said}): {todo}"
