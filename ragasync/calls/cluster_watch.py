"""ClusterWatch: why a Dask cluster starts nothing, while a run waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

from ragasync.foreign_errors import attribute, field, guarded, plain_text
from ragasync.outcomes.stats import ExecutorHalt

PATIENCE: Final = 2.0
"""Seconds without an answer after which the cluster is asked, and between two questions."""

_MOST_NAMED: Final = 3
"""Workers that are named; there may be thousands."""


class ClusterWatch:
    """
    Asks a Dask cluster for its workers when nothing comes back from it for a while.

    A worker whose memory is full is paused: it finishes what it runs and starts nothing else. If
    the function keeps what it loads, that lasts forever, and looks like a slow call. A warning says
    so once. The question is asked on a thread of its own, because it blocks.

    Args:
        executor: the run's; nothing is asked of one that is not Dask's.
        loop: the run's loop.
    """

    def __init__(self, executor: Executor, loop: asyncio.AbstractEventLoop) -> None:
        is_dask = type(executor).__module__.partition(".")[0] == "distributed"
        self._client: Any = attribute(executor, "_client") if is_dask else None
        self._loop = loop
        self._in_flight = 0
        self._answered = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._halted_since: float | None = None
        self._has_warned = False
        self._seconds = 0.0
        self._why = ""

    @property
    def halt(self) -> ExecutorHalt:
        """For how long workers were found halted, why, and whether they are now."""
        now = 0.0 if self._halted_since is None else self._loop.time() - self._halted_since
        return ExecutorHalt(self._seconds + now, self._why, self._halted_since is not None)

    def sent(self) -> None:
        """Note that a call was sent to the executor."""
        if not self._in_flight:
            self._answered = self._loop.time()
        self._in_flight += 1
        if self._client is not None and self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._look)

    def came_back(self) -> None:
        """Note that one came back, or was given up."""
        self._in_flight -= 1
        self._answered = self._loop.time()
        if self._in_flight:
            self._end_halt()
        else:
            self.close()

    def close(self) -> None:
        """Ask no more."""
        self._end_halt()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Ask the cluster if nothing has come back for a while."""
        left = self._answered + PATIENCE - self._loop.time()
        if left > 0.0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            threading.Thread(target=self._ask, name="ragasync-dask", daemon=True).start()

    def _ask(self) -> None:
        """Ask, on a thread; a cluster that does not say is taken to be at work."""
        why = halted_workers(self._client)
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._heard, why)

    def _heard(self, why: str) -> None:
        """Note what the cluster said, and ask again later."""
        if self._timer is None:
            return
        self._timer = self._loop.call_later(PATIENCE, self._look)
        if not why or self._loop.time() - self._answered < PATIENCE:
            self._end_halt()
            return
        self._why = why
        if self._halted_since is None:
            self._halted_since = self._answered
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(why, UserWarning, stacklevel=1)

    def _end_halt(self) -> None:
        """Add up the time of a halt that is over."""
        if self._halted_since is not None:
            self._seconds += self._loop.time() - self._halted_since
            self._halted_since = None


def halted_workers(client: Any) -> str:
    """
    Return which workers of a cluster start nothing, and what to do; nothing where all do.

    Args:
        client: a `distributed.Client`.
    """
    info = guarded(partial(client.scheduler_info, n_workers=-1))
    if info is None:  # versions before 2025.4 have no such argument
        info = guarded(client.scheduler_info)
    workers = field(info, "workers")
    if not isinstance(workers, dict):
        return ""
    if not workers:
        return (
            "the Dask cluster has no workers, so none of the calls is started: add some, or see in "
            "its logs why they ended"
        )
    paused = [
        (plain_text(address) or "", worker)
        for address, worker in workers.items()
        if field(worker, "status") == "paused"
    ]
    if not paused:
        return ""
    names = ", ".join(f"{address}{_memory_of(worker)}" for address, worker in paused[:_MOST_NAMED])
    more = f" and {len(paused) - _MOST_NAMED:,} more" if len(paused) > _MOST_NAMED else ""
    return (
        f"{len(paused):,} of {len(workers):,} Dask workers {'is' if len(paused) == 1 else 'are'} "
        f"paused, out of memory ({names}{more}): no call starts there until some is freed. Does "
        "the function keep what it loads? client.restart() empties the workers; a larger "
        "memory_limit=, a smaller batch_size= or smaller values give them room"
    )


def _memory_of(worker: object) -> str:
    """Return how much of its memory a worker uses, as far as it says."""
    used, limit = field(field(worker, "metrics"), "memory"), field(worker, "memory_limit")
    if not (isinstance(used, int | float) and isinstance(limit, int | float) and limit):
        return ""
    return f": {used / 2**20:,.0f} of {limit / 2**20:,.0f} MiB"
