"""The executor of a run: who is in flight on it, who died there, and what takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future

from ragasync.calls.cluster_watch import ClusterWatch
from ragasync.calls.executor_kinds import clone_executor, is_worker_crash
from ragasync.calls.groups import GroupResult, ItemGroup, run_group
from ragasync.errors import WorkerDied


class Pool:
    """
    An executor and the hops that are in flight on it.

    Attributes:
        executor: where they run.
        is_ours: whether the run has made it, and must shut it down.
        in_flight: how many have not come back, given up or not.
        one_died: whether one hop alone was in flight when a worker died; None while none has.
    """

    def __init__(self, executor: Executor, *, is_ours: bool = False) -> None:
        self.executor, self.is_ours = executor, is_ours
        self.in_flight = 0
        self.one_died: bool | None = None

    def submit(self, hop: ItemGroup) -> tuple[Future[GroupResult], asyncio.Future[GroupResult]]:
        """Send a hop; return its future there and the one to await here."""
        remote = self.executor.submit(run_group, hop)
        local = asyncio.wrap_future(remote)
        self.in_flight += 1
        local.add_done_callback(self._came_back)
        return remote, local

    def _came_back(self, local: asyncio.Future[GroupResult]) -> None:
        """Count, and see at the first death who it may have been: all others end with it."""
        error = None if local.cancelled() else local.exception()
        if error is not None and is_worker_crash(error) and self.one_died is None:
            self.one_died = self.in_flight == 1
        self.in_flight -= 1

    def close(self) -> None:
        """Shut down what the run has made."""
        if self.is_ours:
            self.executor.shutdown(wait=False)


class ResilientExecutor:
    """
    Sends hops to an executor, and goes on when one of its workers dies.

    A process pool is broken for good then, with everything that is in flight: another made alike
    takes its place. Who the worker died of is not known where several hops were in flight, so
    each of them goes apart, to a pool of one worker of its own: what dies there is at fault. An
    executor that mends itself, such as a Dask cluster, gets them one at a time.

    Args:
        executor: the user's own, which is left to its owner.
        abandon: called with a call that was given up and goes on.
        loop: the run's loop.

    Attributes:
        watch: knows whether the executor starts nothing.
    """

    def __init__(
        self,
        executor: Executor,
        abandon: Callable[[asyncio.Future[GroupResult]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.watch = ClusterWatch(executor, loop)
        self._shared = Pool(executor)
        self._abandon = abandon
        self._apart: list[Pool] = []
        self._made: list[Pool] = []
        self._turn = asyncio.Lock()

    async def send(self, hop: ItemGroup, *, apart: bool = False) -> GroupResult:
        """
        Return what came back of a hop.

        Args:
            hop: what to do.
            apart: whether it is under suspicion, and goes where it can harm no other.

        Raises:
            WorkerDied: the worker ended before it answered.
        """
        self.watch.sent()
        try:
            if not apart:
                return await self._on(self._shared, hop, is_sure=False)
            if (pool := self._pool_apart()) is None:
                async with self._turn:
                    return await self._on(self._shared, hop, is_sure=True)
            reply = await self._on(pool, hop, is_sure=True)
            self._apart.append(pool)
            return reply
        finally:
            self.watch.came_back()

    def close(self) -> None:
        """Shut down what was made here."""
        self.watch.close()
        for pool in self._made:
            pool.close()

    async def _on(self, pool: Pool, hop: ItemGroup, *, is_sure: bool) -> GroupResult:
        """Send a hop to this pool and wait for it."""
        try:
            try:
                remote, local = pool.submit(hop)
            except BrokenExecutor:  # it broke before: nothing was tried on it
                pool = self._renewed(pool)
                remote, local = pool.submit(hop)
            try:
                return await asyncio.shield(local)
            except asyncio.CancelledError:
                if not remote.cancel():
                    self._abandon(local)
                raise
        except Exception as error:
            if not is_worker_crash(error):
                raise
            is_sure = is_sure or bool(pool.one_died)
            self._renewed(pool)
            raise WorkerDied(
                f"the worker process ended before it answered: {error}", is_sure=is_sure
            ) from error

    def _renewed(self, broken: Pool) -> Pool:
        """Return the pool to go on with; one is made for all who were on the broken one."""
        broken.close()
        if self._shared is broken:
            alike = clone_executor(broken.executor)
            if alike is None:
                broken.one_died = None  # it goes on as it is
            else:
                self._shared = self._ours(alike)
        return self._shared

    def _pool_apart(self) -> Pool | None:
        """Return a pool of one worker, or None where none can be made."""
        if self._apart:
            return self._apart.pop()
        alike = clone_executor(self._shared.executor, workers=1)
        return None if alike is None else self._ours(alike)

    def _ours(self, executor: Executor) -> Pool:
        """Note a pool that is ours to shut down."""
        pool = Pool(executor, is_ours=True)
        self._made.append(pool)
        return pool
