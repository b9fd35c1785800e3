"""What a process knows of a limit kept in Redis, told with each request in case Redis lost it."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Final

from ragasync.redis.script import Reply, Request, Terms

LEASE: Final = 0.1
"""
Seconds for which places count after their process last heard of the state that gave them.

So none of them is used later than that after the state was lost.
"""


class LocalState:
    """
    The terms in force, the pause, and which places were used, as far as this process knows.

    Redis may lose its state: killed, flushed, replaced. Then the next request of each process
    brings what it knows. Used from any thread.

    Args:
        terms: of the limiter; they are said with the first request.
        weighs: whether the limiter has a `weight`.
    """

    def __init__(self, terms: Terms, *, weighs: bool = False) -> None:
        self._lock = threading.Lock()
        self._terms, self._set_at = terms, 0.0
        self._weighs = weighs
        # What was set here is numbered, to tell what Redis knows of it.
        self._version, self._said = 1, 0
        self._terms_set, self._paused, self._resumed = 1, 0, 0
        self._opens = -1.0
        self._epoch, self._full_at = "", 0.0

    @property
    def terms(self) -> Terms:
        """What is in force, as far as known; set it to say so to all."""
        return self._terms

    @terms.setter
    def terms(self, terms: Terms) -> None:
        with self._lock:
            self._terms = terms
            self._version = self._terms_set = self._version + 1

    @property
    def pause(self) -> float:
        """The seconds that are left of the pause in force, as far as known."""
        return max(0.0, self._opens - monotonic())

    def close(self, seconds: float) -> None:
        """Pause for so many seconds, for all; a pause in force that ends later stays."""
        with self._lock:
            if (opens := monotonic() + seconds) > self._opens and seconds > 0.0:
                self._opens = opens
                self._version = self._paused = self._version + 1

    def reopen(self) -> None:
        """End the pause in force, for all."""
        with self._lock:
            self._opens = -1.0
            self._version = self._resumed = self._version + 1

    def request(self, weights: tuple[float, ...]) -> tuple[Request, int]:
        """Return what to tell and to ask, and the version of what was set here."""
        with self._lock:
            self._weighs = self._weighs or any(weight != 1.0 for weight in weights)
            ahead = max(0.0, self._full_at - monotonic())
            asked = Request(
                self._epoch,
                ahead,
                self.pause,
                self._terms,
                self._terms_set > self._said,
                weights,
                pauses=self._paused > self._said,
                resumes=self._resumed > self._said,
                waits_out=True,
                weighs=self._weighs,
                lapse=LEASE + _settling(self._terms),
                set_at=self._set_at,
            )
            return asked, self._version

    def used(self, weight: float) -> None:
        """Note that a place was used now: the bucket is full again after its burst at most."""
        with self._lock:
            owed = max(weight, self._terms.burst) / self._terms.rate
            self._full_at = max(self._full_at, monotonic() + owed)

    def learn(self, reply: Reply, version: int) -> None:
        """Take in what Redis said to a request with this version; newer settings are kept."""
        with self._lock:
            self._epoch = reply.epoch
            self._said = max(self._said, version)
            if self._terms_set <= version:
                self._terms, self._set_at = reply.terms, reply.set_at
            if max(self._paused, self._resumed) <= version:
                self._opens = monotonic() + reply.closed if reply.closed else -1.0


def _settling(terms: Terms) -> float:
    """
    Return how long after the last place of a lost state one of a new state may come.

    What was given before went at the rate, but for a burst. A bucket's bound allows for that burst
    and the new state's is empty; so the next place is due after 1 / rate. The bound of a window
    does not allow for it; its places may also be used 20 ms late.
    """
    if not terms.per:
        return 1 / terms.rate
    return 0.02 + (1 + terms.burst) / terms.rate
