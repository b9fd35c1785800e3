"""DaskWatch: why a Dask cluster starts no calls, while a run waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

from ragasync._outcomes.stats import ExecutorHalt
from ragasync.foreign_errors import attribute, field, guarded, plain_text

PATIENCE: Final = 2.0
"""Seconds without a result after which the cluster is asked, and between two questions."""

_MAX_NAMED: Final = 3
"""Workers that the warning names; there may be thousands."""


class DaskWatch:
    """
    Asks a Dask cluster for the state of its workers when it has returned nothing for a while.

    A worker whose memory is full is paused: it finishes its running calls and starts no others. If
    the function keeps the data it loads, that lasts forever and looks like a slow call. A warning
    says so once. The cluster is asked on a separate thread, because the question blocks.

    Args:
        executor: the run's executor; only one of Dask's is ever asked.
        loop: the run's loop.
    """

    def __init__(self, executor: Executor, loop: asyncio.AbstractEventLoop) -> None:
        is_dask = type(executor).__module__.partition(".")[0] == "distributed"
        self._client: Any = attribute(executor, "_client") if is_dask else None
        self._loop = loop
        self._in_flight = 0
        self._last_result_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._halted_since: float | None = None
        self._has_warned = False
        self._seconds = 0.0
        self._why = ""

    @property
    def halt(self) -> ExecutorHalt:
        """For how long workers were found to start nothing, why, and whether they still do."""
        now = 0.0 if self._halted_since is None else self._loop.time() - self._halted_since
        return ExecutorHalt(self._seconds + now, self._why, self._halted_since is not None)

    def group_sent(self) -> None:
        """Record that a group was sent to the executor."""
        if not self._in_flight:
            self._last_result_at = self._loop.time()
        self._in_flight += 1
        if self._client is not None and self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._check)

    def group_returned(self) -> None:
        """Record that a group has returned, or was abandoned."""
        self._in_flight -= 1
        self._last_result_at = self._loop.time()
        if self._in_flight:
            self._end_halt()
        else:
            self.close()

    def close(self) -> None:
        """Stop the timer."""
        self._end_halt()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """Ask the cluster if no group has returned for a while."""
        left = self._last_result_at + PATIENCE - self._loop.time()
        if left > 0.0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            threading.Thread(target=self._ask, name="ragasync-dask", daemon=True).start()

    def _ask(self) -> None:
        """Ask, on a thread; a cluster that does not reply counts as working."""
        why = halted_workers(self._client)
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._on_reply, why)

    def _on_reply(self, why: str) -> None:
        """Record the cluster's reply, and ask again later."""
        if self._timer is None:
            return
        self._timer = self._loop.call_later(PATIENCE, self._check)
        if not why or self._loop.time() - self._last_result_at < PATIENCE:
            self._end_halt()
            return
        self._why = why
        if self._halted_since is None:
            self._halted_since = self._last_result_at
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(why, UserWarning, stacklevel=1)

    def _end_halt(self) -> None:
        """Add the time of a halt that is over to the total."""
        if self._halted_since is not None:
            self._seconds += self._loop.time() - self._halted_since
            self._halted_since = None


def halted_workers(client: Any) -> str:
    """
    Describe the workers of a cluster that start no calls, with advice; empty if all do.

    Args:
        client: a `distributed.Client`.
    """
    info = guarded(partial(client.scheduler_info, n_workers=-1))
    if info is None:  # versions before 2025.4 do not have that argument
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
    names = ", ".join(f"{address}{_memory_of(worker)}" for address, worker in paused[:_MAX_NAMED])
    more = f" and {len(paused) - _MAX_NAMED:,} more" if len(paused) > _MAX_NAMED else ""
    return (
        f"{len(paused):,} of {len(workers):,} Dask workers {'is' if len(paused) == 1 else 'are'} "
        f"paused, out of memory ({names}{more}): no call starts there until some is freed. Does "
        "the function keep what it loads? client.restart() empties the workers; a larger "
        "memory_limit=, a smaller batch_size= or smaller values give them room"
    )


def _memory_of(worker: object) -> str:
    """How much of its memory a worker uses, if it says."""
    used, limit = field(field(worker, "metrics"), "memory"), field(worker, "memory_limit")
    if not (isinstance(used, int | float) and isinstance(limit, int | float) and limit):
        return ""
    return f": {used / 2**20:,.0f} of {limit / 2**20:,.0f} MiB"
