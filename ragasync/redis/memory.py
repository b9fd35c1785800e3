"""What a process knows of a limit kept in Redis, told with each request in case Redis lost it."""

from __future__ import annotations

import threading
from time import monotonic

from ragasync.redis.script import Reply, Request, Terms


class Memory:
    """
    The terms in force, the pause, and how much was taken, as far as this process knows.

    Redis may lose its state: killed, flushed, replaced. Then the next request of each process
    brings what it knows, and no burst goes over the bound. Used from any thread.

    Args:
        terms: of the limiter; they are said with the first request.
    """

    def __init__(self, terms: Terms) -> None:
        self._lock = threading.Lock()
        self._terms = terms
        self._version, self._said = 1, 0  # of the terms: set here, and known to Redis
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
            self._version += 1

    @property
    def pause(self) -> float:
        """The seconds that are left of the latest pause made here."""
        return max(0.0, self._opens - monotonic())

    def close(self, seconds: float) -> None:
        """Have every request bring a pause that ends in so many seconds, or later."""
        with self._lock:
            self._opens = max(self._opens, monotonic() + seconds)

    def request(self, costs: tuple[float, ...]) -> tuple[Request, int]:
        """Return what to tell and to ask, and the version of the terms in it."""
        with self._lock:
            ahead = max(0.0, self._full_at - monotonic())
            says = self._version > self._said
            asked = Request(self._epoch, ahead, self.pause, self._terms, says, costs)
            return asked, self._version

    def learn(self, reply: Reply, version: int) -> None:
        """Take in what Redis said to a request with this version of the terms."""
        with self._lock:
            self._epoch, self._full_at = reply.epoch, monotonic() + reply.ahead
            self._said = max(self._said, version)
            if version == self._version:  # else newer ones are still to be said
                self._terms = reply.terms
