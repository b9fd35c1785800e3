"""Redis is away: since when, for how long it is waited for, and what is said in the end."""

from __future__ import annotations

import re
from datetime import datetime

from ragasync.error_text import safe_message, type_name

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
        self._last = f"{type_name(error)}: {safe_message(error)}"

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


_ADVICE = (
    (
        "WRONGTYPE",
        "under this name it keeps something else: delete that, or give the limiter another",
    ),
    ("AUTH|password|WRONGPASS", "give the client the right username and password"),
    (
        "OOM|OutOfMemory|maxmemory",
        "its memory is full: raise its maxmemory, or delete what it need not keep",
    ),
    ("MISCONF", "it cannot write to its disk: free some space there, or see its log"),
    ("NOREPLICAS", "too few of its replicas are up: start them, or lower min-replicas-to-write"),
    ("BUSY", "another script occupies it: wait for that, or end it with SCRIPT KILL"),
    (
        "CROSSSLOT|CrossSlot|MOVED|Moved|CLUSTERDOWN|ClusterDown|AskError",
        "it is one node of a cluster: use a Redis of its own",
    ),
    ("NOPERM|permission|unknown command", "see that this user may run scripts there"),
)
"""What to do about an error with one of these words in it."""


def refusal(url: str, error: Exception) -> str:
    """Say that Redis is there and will not do it."""
    said = safe_message(error)
    named = f"{type_name(error)}: {said}"
    fitting = (todo for words, todo in _ADVICE if re.search(words, named))
    todo = next(fitting, "see its log, and run the same again once it answers")
    return f"Redis at {url} refuses to keep the rate limit ({named}): {todo}"
