"""
ResilientExecutor: a run's executor, which survives the crash of a worker.

DaskWatch notices why a Dask cluster starts no calls while a run waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor
from functools import partial
from typing import Any, Final

from ragasync._calls.groups import GroupResult, ItemGroup, run_group
from ragasync._outcomes.stats import ExecutorHalt
from ragasync.errors import WorkerDied
from ragasync.foreign_errors import attribute, field, guarded, is_a, plain_text

PATIENCE: Final = 2.0
"""Seconds without a result after which the cluster is asked, and between two questions."""

_MAX_NAMED: Final = 3
"""Workers that the warning names; there may be thousands."""


class ResilientExecutor:
    """
    Sends groups of items to an executor, and goes on when one of its workers crashes.

    A crash breaks a process pool for good, with every group in flight on it, so a clone of the pool
    takes its place. Which group has crashed the worker is not known. The engine therefore sends
    each item in question again, isolated: alone on a pool of one worker, where only the culprit
    can crash. An executor that repairs itself, such as a Dask cluster, gets isolated groups one at
    a time.

    Args:
        executor: the user's own, which the run does not shut down.
        abandon: called with the future of a group that was abandoned and is still running.

    Attributes:
        watch: knows whether the executor's workers have stopped starting calls.
    """

    def __init__(
        self,
        executor: Executor,
        abandon: Callable[[asyncio.Future[GroupResult]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.watch = DaskWatch(executor, loop)
        self._shared = executor
        self._abandon = abandon
        self._clones: list[Executor] = []
        self._idle_isolated: list[Executor] = []
        self._one_at_a_time = asyncio.Lock()

    async def send(self, group: ItemGroup, *, isolate: bool = False) -> GroupResult:
        """
        Send a group to the executor, and wait for its result.

        Args:
            group: the function and its arguments.
            isolate: whether it may have crashed a worker, and must run where it can harm no other.

        Raises:
            WorkerDied: the worker crashed before the group was done.
        """
        self.watch.group_sent()
        try:
            if not isolate:
                return await self._run(self._shared, group)
            if (executor := self._isolated_executor()) is None:
                async with self._one_at_a_time:
                    return await self._run(self._shared, group)
            result = await self._run(executor, group)
            self._idle_isolated.append(executor)
            return result
        finally:
            self.watch.group_returned()

    def close(self) -> None:
        """Shut down the clones."""
        self.watch.close()
        for executor in self._clones:
            executor.shutdown(wait=False)

    async def _run(self, executor: Executor, group: ItemGroup) -> GroupResult:
        """Run a group on this executor."""
        try:
            try:
                remote = executor.submit(run_group, group)
            except BrokenExecutor:  # it broke earlier: nothing of this group has been tried
                executor = self._replace(executor)
                remote = executor.submit(run_group, group)
            local = asyncio.wrap_future(remote)
            try:
                return await asyncio.shield(local)
            except asyncio.CancelledError:
                if not remote.cancel():
                    self._abandon(local)
                raise
        except Exception as error:
            if not is_worker_crash(error):
                raise
            self._replace(executor)
            raise WorkerDied(f"the worker process ended before it answered: {error}") from error

    def _replace(self, broken: Executor) -> Executor:
        """Replace a broken executor, once for all groups that were on it; return the shared one."""
        if broken in self._clones:
            broken.shutdown(wait=False)
        if self._shared is broken and (clone := clone_executor(broken)) is not None:
            self._clones.append(clone)
            self._shared = clone
        return self._shared

    def _isolated_executor(self) -> Executor | None:
        """Take an idle pool of one worker or make one; None if this executor has no clones."""
        if self._idle_isolated:
            return self._idle_isolated.pop()
        clone = clone_executor(self._shared, workers=1)
        if clone is not None:
            self._clones.append(clone)
        return clone


def is_worker_crash(error: BaseException) -> bool:
    """Whether an executor reports with this error that a worker has crashed."""
    if is_a(error, BrokenExecutor):
        return True
    kind = type(error)  # Dask raises it when a task has crashed several workers
    return kind.__name__ == "KilledWorker" and kind.__module__.startswith("distributed.")


def names_its_functions(executor: Executor) -> bool:
    """Whether functions must be pickled by name: an initializer sets globals of their modules."""
    return getattr(executor, "_initializer", None) is not None


def count_workers(executor: Executor | None) -> float:
    """How many calls a pool of threads or processes can run; infinite if that is not known."""
    workers = attribute(executor, "_max_workers")
    return workers if type(workers) is int else math.inf


def clone_executor(executor: Executor, workers: int | None = None) -> Executor | None:
    """
    Make a process pool with the settings of this one; None for any other kind of executor.

    A process pool, also one of loky, accepts nothing more once one of its processes has crashed,
    and keeps its settings in private attributes only. Other executors may repair themselves.
    """
    from concurrent.futures import ProcessPoolExecutor  # not at import: brings multiprocessing

    workers = workers or getattr(executor, "_max_workers", None)
    initializer = getattr(executor, "_initializer", None)
    arguments = getattr(executor, "_initargs", ())
    if isinstance(executor, ProcessPoolExecutor):
        context = getattr(executor, "_mp_context", None)
        tasks = getattr(executor, "_max_tasks_per_child", None)
        return ProcessPoolExecutor(
            workers, context, initializer, arguments, max_tasks_per_child=tasks
        )
    if type(executor).__module__.startswith("loky."):
        import loky

        pool: Executor = loky.ProcessPoolExecutor(
            workers,
            context=getattr(executor, "_context", None),
            initializer=initializer,
            initargs=arguments,
        )
        return pool
    return None


class DaskWatch:
    """
    Asks a Dask cluster for the state of its workers when it has returned nothing for a while.

    A worker whose memory is full is paused: it finishes its running calls and starts no others. If
    the function keeps the data it loads, that lasts forever and looks like a slow call. A warning
    says so once. The cluster is asked on a separate thread, because the question blocks.

    Args:
        executor: the run's executor; only one of Dask's is ever asked.
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
    """Describe the workers of a cluster that start no calls, with advice; empty if all do."""
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
