"""The tasks that work side by side: how many there are, who idles, and when they look up."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from ragasync.clock import Clock
from ragasync.lazy_task import create_lazy_task

BREATH = 0.02
"""Seconds after which workers let the loop turn, however fast their calls return."""

AT_ONCE = float("-inf")

NAME = "ragasync worker"
"""What asyncio calls the task of a worker."""


class WorkerPool:
    """
    A window of tasks, each of which runs `work(worker)` to its end, opened as they are needed.

    A worker in its hot loop compares one number, `attend_at`, with the clock after every call. That
    is all it knows of pauses, retries, resizing and of the loop's need to breathe: whoever wants
    the workers' attention sets it to AT_ONCE. An async function that never suspends so still lets
    the loop turn every BREATH seconds.

    Args:
        work: a worker's life, given its number, its context, and whether it stays on the fast
            path.
        limit: how many workers there may be.
        clock: the clock of the loop.
        context: what each of them sees of context variables.
    """

    __slots__ = (
        "_breath",
        "_breath_at",
        "_cancelled",
        "_clock",
        "_context",
        "_free",
        "_idle",
        "_loop",
        "_nobody_left",
        "_over",
        "_sentinel",
        "_turning",
        "_work",
        "attend_at",
        "error",
        "idle_seconds",
        "limit",
        "tasks",
    )

    def __init__(
        self,
        work: Callable[[int, Context, bool], Coroutine[Any, Any, None]],
        limit: int,
        clock: Clock,
        context: Context,
    ) -> None:
        self._work = work
        self._context = context
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._nobody_left = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._sentinel: asyncio.Task[None] | None = None
        self._idle: deque[asyncio.Future[None]] = deque()
        self._turning = False
        self._breath = BREATH
        self._breath_at = clock() + BREATH
        self.attend_at = self._breath_at
        self.limit = limit
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[asyncio.Task[None]] = set()
        self._free: list[int] = []
        self.error: BaseException | None = None
        self.idle_seconds = 0.0

    @property
    def idle(self) -> int:
        """How many workers wait for something to do."""
        return len(self._idle)

    @property
    def surplus(self) -> bool:
        """Whether workers are open that should close."""
        return len(self.tasks) > self.limit

    def open_one(self) -> None:
        """Open a further worker, if the limit allows, under the lowest number that is free."""
        if len(self.tasks) >= self.limit:
            return
        self._open(heapq.heappop(self._free) if self._free else len(self.tasks))

    def replace(self, worker: int, *, goes_on: bool) -> None:
        """
        Let a fresh task take over a worker, whose present one ends now.

        The number goes with it, so that a timeline keeps its row.

        Args:
            worker: the number.
            goes_on: whether the task goes on in the hot loop, if nothing else is to be seen to.
        """
        self._open(worker, goes_on=goes_on)

    def has_cancelled(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether this worker was cancelled from here, and not by somebody else."""
        return task in self._cancelled

    def _open(self, worker: int, *, goes_on: bool = False) -> None:
        """Have a task do a worker's work, with bindings of context variables of its own."""
        if self._sentinel is None:
            self._sentinel = create_lazy_task(
                self._stand_by(), self._loop, name="ragasync sentinel", context=Context()
            )
        context = self._context.copy()
        work = self._work(worker, context, goes_on)
        task = create_lazy_task(work, self._loop, name=NAME, context=context)
        self.tasks[worker] = task
        task.add_done_callback(partial(self._closed, worker), context=self._context)

    def leave(self, worker: int) -> None:
        """Strike off a worker that is about to close: it is no surplus any more."""
        self._strike_off(worker)
        self.wake()  # this worker may have been woken for what another has to see

    @property
    def all_were_cancelled(self) -> bool:
        """
        Whether somebody has cancelled all tasks of the loop, as asyncio.run does at its end.

        Nobody has a reason to cancel the sentinel alone, which does nothing.
        """
        return self._sentinel is not None and self._sentinel.cancelling() > 0

    async def _stand_by(self) -> None:
        """Do nothing until no worker is left."""
        await self._over

    async def all_closed(self) -> None:
        """Wait until no worker is left."""
        if self.tasks:
            await asyncio.shield(self._nobody_left)

    async def cancel(self) -> None:
        """Cancel every worker and wait for its clean-up; a second cancellation ends the wait."""
        self.cancel_soon()
        if self.tasks:
            await asyncio.wait(self.tasks.values())

    def cancel_soon(self, workers: Collection[asyncio.Task[None]] | None = None) -> None:
        """
        Cancel these workers, or all, without waiting; but none twice.

        A second cancellation would end the clean-up that the first has begun, also where that
        came to all tasks of the loop.
        """
        me = asyncio.current_task()
        for task in self.tasks.values() if workers is None else workers:
            if task is not me and task not in self._cancelled:
                self._cancelled.add(task)
                if not (self.all_were_cancelled and task.cancelling()):
                    task.cancel()

    def heed(self, wanted: bool) -> None:
        """Have the workers look up after the call they are in, or only when a breath is due."""
        self.attend_at = AT_ONCE if wanted else self._breath_at

    @property
    def out_of_breath(self) -> bool:
        """Whether the loop has not turned for a while."""
        return self._breath_at <= self._clock()

    async def breathe(self) -> None:
        """Let the loop turn; one call at most runs between two turns."""
        while self.out_of_breath:
            if not self._turning:
                self._turning = True
                self._loop.call_soon(self.turned, context=self._context)
            await asyncio.sleep(0)

    def hold_breath(self) -> None:
        """Let the loop turn for nobody's sake: a virtual clock moves only when it turns anyway."""
        self._breath = self._breath_at = math.inf

    async def rest(self) -> None:
        """Wait until woken."""
        bed = self._loop.create_future()
        self._idle.append(bed)
        began = self._clock()
        try:
            await bed
        except asyncio.CancelledError:
            if bed in self._idle:
                self._idle.remove(bed)
            raise
        finally:
            self.idle_seconds += self._clock() - began

    def wake(self) -> bool:
        """Wake the worker that has rested longest; return whether there was one."""
        while self._idle:
            bed = self._idle.popleft()
            if not bed.done():
                bed.set_result(None)
                return True
        return False

    def wake_all(self) -> None:
        """Wake every worker that rests."""
        while self._idle:
            self.wake()

    def turned(self) -> None:
        """Note that the loop has turned: it calls this itself."""
        self._turning = False
        self._breath_at = self._clock() + self._breath
        if self.attend_at != AT_ONCE:
            self.attend_at = self._breath_at

    def _strike_off(self, worker: int) -> None:
        """Forget a worker, and give its number to the next."""
        del self.tasks[worker]
        heapq.heappush(self._free, worker)

    def _closed(self, worker: int, task: asyncio.Task[None]) -> None:
        """Strike a worker off if it is there yet; keep the first error that ended one."""
        self._cancelled.discard(task)
        is_last_of_worker = self.tasks.get(worker) is task
        if is_last_of_worker:
            self._strike_off(worker)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = self.error or error
            self.cancel_soon()
        elif worker in self.tasks and not is_last_of_worker:
            return  # it was replaced
        if self.tasks:
            self.wake()  # somebody has to see whether this was the last that had work
        elif not self._nobody_left.done():
            self._nobody_left.set_result(None)
            if not self._over.done():
                self._over.set_result(None)
