"""ResilientExecutor: a run's executor, which survives the crash of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor

from ragasync._calls.dask_watch import DaskWatch
from ragasync._calls.groups import GroupResult, ItemGroup, run_group
from ragasync.errors import WorkerDied
from ragasync.foreign_errors import is_a


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
        loop: the run's loop.

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


def clone_executor(executor: Executor, workers: int | None = None) -> Executor | None:
    """
    Make a process pool with the settings of this one; None for any other kind of executor.

    A process pool, also one of loky, accepts nothing more once one of its processes has crashed,
    and keeps its settings in private attributes only. Other executors may repair themselves.

    Args:
        executor: a user's executor.
        workers: the number of processes, if not the same.
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
