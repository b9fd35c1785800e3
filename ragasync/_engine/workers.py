"""The pool of worker tasks, and what calls leave behind in the task of a worker."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context, copy_context
from functools import partial
from gc import get_referents
from sys import getrefcount
from typing import Any, Literal, TypeAlias
from weakref import getweakrefcount

from ragasync.cancellation import (
    CancelScope,
    ShutdownSentinel,
    create_lazy_task,
    has_pending_cancel,
)
from ragasync.clock import Clock
from ragasync.usage import CallUsage, UsageTotals, current_call

YIELD_INTERVAL = 0.02
"""Seconds after which workers let the loop turn, however fast their calls return."""

INTERRUPTED = -math.inf
"""The value of `interrupt_at` that lies before every reading of the clock."""

WORKER_NAME = "ragasync worker"
"""What asyncio calls the task of a worker."""

Interrupt: TypeAlias = Literal[
    "stop", "pause", "input pause", "resize", "retries", "rate limit", "output"
]
"""Why workers must leave the fast path."""


class WorkerPool:
    """
    Up to `limit` tasks, each of which runs `work` to its end, spawned when there is work for them.

    A worker on the fast path compares one number, `interrupt_at`, with the clock after every call.
    Whatever needs the workers' attention (a pause, a due retry, a lower limit) sets an interrupt,
    which moves that number to before any time. Without one it is the time of the next yield: an
    async function that never suspends still lets the loop turn every YIELD_INTERVAL seconds.

    Make it in the task that owns the run.

    Args:
        work: the life of a worker, given its number and whether it starts on the fast path.
        never_yield: whether nothing but the run is on the loop, so that workers need not yield.

    Attributes:
        interrupt_at: the time from which workers must leave the fast path.
        tasks: the task of each worker, by number.
        at_limiter: the tasks of workers whose call waits for the rate limit.
        error: what ended a worker, which nothing should.
    """

    __slots__ = (
        *("_cancelled", "_clock", "_context", "_empty", "_free_numbers", "_idle", "_interrupts"),
        *(
            "_limit",
            "_loop",
            "_next_number",
            "_owner",
            "_sentinel",
            "_turn_requested",
            "_work",
            "_yield_at",
        ),
        *("_yield_at", "_yield_interval"),
        *("at_limiter", "error", "interrupt_at", "tasks"),
    )

    def __init__(
        self,
        work: Callable[[int, bool], Coroutine[Any, Any, None]],
        limit: int,
        clock: Clock,
        context: Context,
        *,
        never_yield: bool = False,
    ) -> None:
        self._work = work
        self._limit = limit
        self._clock, self._context = clock, context
        self._loop = asyncio.get_running_loop()
        owner = asyncio.current_task()
        assert owner is not None  # a coroutine runs in a task
        self._owner: CancelScope | None = CancelScope(owner)
        self._empty = self._loop.create_future()
        self._sentinel: ShutdownSentinel | None = None
        self._idle: deque[asyncio.Future[None]] = deque()
        self._interrupts: set[Interrupt] = set()
        self._turn_requested = False
        # A virtual clock moves only when the loop turns anyway, so a yield would help nobody.
        self._yield_interval = math.inf if never_yield else YIELD_INTERVAL
        self._yield_at = self.interrupt_at = clock() + self._yield_interval
        self._free_numbers: list[int] = []
        self._next_number = 0
        self._cancelled: set[asyncio.Task[None]] = set()
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.at_limiter: set[asyncio.Task[Any]] = set()
        self.error: BaseException | None = None

    # ── how many workers there are ──────────────────────────────────────────────────────────────

    @property
    def limit(self) -> int:
        """The largest number of workers; with a lower limit, surplus workers retire."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._count_changed()

    @property
    def over_limit(self) -> bool:
        """Whether there are more workers than the limit allows, so that the next one retires."""
        return len(self.tasks) > self._limit

    def spawn(self) -> None:
        """Add a worker under the lowest free number, if the limit allows."""
        if len(self.tasks) < self._limit and self.error is None:
            self.start(self.take_number())

    def take_number(self) -> int:
        """Take the lowest free number, for a worker or an item in progress without one."""
        if self._free_numbers:
            return heapq.heappop(self._free_numbers)
        self._next_number += 1
        return self._next_number - 1

    def release_number(self, number: int) -> None:
        """Give a number back."""
        heapq.heappush(self._free_numbers, number)

    def start(self, worker: int, *, on_fast_path: bool = False) -> None:
        """
        Run a worker in a task of its own, with its own copy of the context variables.

        A worker whose present task ends now keeps its number in a new task, so that it stays one
        row of a timeline.
        """
        if self.error is not None:
            return  # nothing would cancel it, so the run would never end
        if self._sentinel is None:
            self._sentinel = ShutdownSentinel(self._loop)
        work = self._work(worker, on_fast_path)
        task = create_lazy_task(work, self._loop, name=WORKER_NAME, context=self._context.copy())
        self.tasks[worker] = task
        task.add_done_callback(partial(self._ended, worker), context=self._context)

    def retire(self, worker: int) -> None:
        """Take a worker that is about to end off the count."""
        self._remove(worker)
        self.wake()  # this worker may have been woken for work that another one has to do

    def _remove(self, worker: int) -> None:
        """Forget a worker; its number is free."""
        del self.tasks[worker]
        self.release_number(worker)
        self._count_changed()

    def _count_changed(self) -> None:
        """Interrupt the workers while there are too many of them."""
        self.set_interrupt("resize", self.over_limit)

    def _ended(self, worker: int, task: asyncio.Task[None]) -> None:
        """Take a task that has ended off the count; keep the first error that ended one."""
        self._cancelled.discard(task)
        is_last_of_worker = self.tasks.get(worker) is task
        if is_last_of_worker:
            self._remove(worker)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)
        elif worker in self.tasks and not is_last_of_worker:
            return  # it was replaced
        if self.tasks:
            self.wake()  # somebody has to see whether this was the last that had work
        elif not self._empty.done():
            self._empty.set_result(None)
            if self._sentinel is not None:
                self._sentinel.close()

    def fail(self, error: BaseException) -> None:
        """Cancel all workers because of an error that is no item's."""
        self.error = self.error or error
        self.cancel_soon()

    async def join(self) -> None:
        """Wait until the last worker has ended."""
        if self.tasks:
            await asyncio.shield(self._empty)

    # ── cancellation ────────────────────────────────────────────────────────────────────────────

    @property
    def owner_is_cancelled(self) -> bool:
        """Whether the task that owns the run has been cancelled since the pool was made."""
        return self._owner is not None and self._owner.cancelled_by_others

    def is_cancelled(self) -> bool:
        """
        Whether the run has cancelled the current worker, or is being cancelled itself.

        The pool cancels a worker only through `cancel_soon`; any other cancellation came from the
        function or somebody who got hold of its task, and is a failure of that call.
        """
        return self.owner_is_cancelled or asyncio.current_task() in self._cancelled

    @property
    def all_were_cancelled(self) -> bool:
        """Whether somebody has cancelled all tasks of the loop, as asyncio.run does at its end."""
        return self._sentinel is not None and self._sentinel.all_tasks_cancelled

    def cancel_soon(self, workers: Collection[asyncio.Task[None]] | None = None) -> None:
        """
        Cancel these workers, or all of them, without waiting.

        No worker is cancelled twice, because a second cancellation would cut off the clean-up that
        the first has begun. The first may also have come from the end of the loop.
        """
        me, sentinel = asyncio.current_task(), self._sentinel
        if sentinel is None:
            return  # no worker has been spawned
        for task in self.tasks.values() if workers is None else workers:
            if task is not me and task not in self._cancelled:
                self._cancelled.add(task)
                sentinel.cancel(task)

    async def cancel(self) -> None:
        """Cancel every worker and wait for its clean-up; a second cancellation ends the wait."""
        self.cancel_soon()
        if self.tasks:
            await asyncio.wait(self.tasks.values())

    def release_owner(self) -> None:
        """Drop the task that owns the run, which refers to all that the run has returned."""
        self._owner = None

    # ── interrupts and yields ───────────────────────────────────────────────────────────────────

    def set_interrupt(self, reason: Interrupt, wanted: bool = True) -> None:
        """Make workers leave the fast path after their current call, until the reason is gone."""
        if wanted:
            self._interrupts.add(reason)
        else:
            self._interrupts.discard(reason)
        self.interrupt_at = INTERRUPTED if self._interrupts else self._yield_at

    @property
    def needs_yield(self) -> bool:
        """Whether the loop has not turned for YIELD_INTERVAL seconds."""
        return self._yield_at <= self._clock()

    async def yield_to_loop(self) -> None:
        """Let the loop turn; at most one call runs between two turns."""
        while self.needs_yield:
            if not self._turn_requested:
                self._turn_requested = True
                self._loop.call_soon(self.loop_turned, context=self._context)
            await asyncio.sleep(0)

    def request_turn(self) -> None:
        """Have workers let the loop turn after their current call, for what others can start."""
        self._yield_at = self.interrupt_at = INTERRUPTED

    def loop_turned(self) -> None:
        """Put off the next yield: the loop has turned, since it runs this."""
        self._turn_requested = False
        self._yield_at = self._clock() + self._yield_interval
        if not self._interrupts:
            self.interrupt_at = self._yield_at

    # ── idle workers ────────────────────────────────────────────────────────────────────────────

    @property
    def idle(self) -> int:
        """The number of workers that wait for work."""
        return len(self._idle)

    async def wait_for_work(self) -> None:
        """Wait until woken."""
        waiter = self._loop.create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._idle:
                self._idle.remove(waiter)
            raise

    def wake(self) -> bool:
        """Wake the worker that has been idle longest; return whether there was one."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False

    def wake_all(self) -> None:
        """Wake every idle worker."""
        while self._idle:
            self.wake()


_UNBOUND = object()


class TaskState:
    """
    The state of a worker's task between two calls, compared after each call.

    Many calls run in one task, which makes them cheap. A call can leave something behind there that
    would affect the next one: a pending cancellation, a raised `cancelling()`, other bindings of
    context variables, or a strong or weak reference to the task, through which a timer may cancel
    the task later, or a registry may find the call's session. A worker whose task has changed in
    any of these ways makes no further call; a fresh task takes over.

    A call can also leave a copy of the context behind, in a task, a thread or a timer. It does not
    affect the next call, but its code may report usage late, which must not be counted for the next
    call. So the next call then gets a CallUsage of its own. Binding one for each call would cost a
    third as much as everything else.

    A clean call costs only comparisons of reference counts. A context keeps its bindings in one
    immutable mapping, a hash trie, which copies of the context share. Setting a variable makes
    another mapping, which shares only parts of the first one. Either way one of the objects between
    the mapping and the value of `current_call` gets one more reference: the mapping itself, a node
    below its root (of a large mapping), or the value. So if all of their counts are as before,
    nothing was set, and no copy is left.

    Bindings count as the same only if they are the same objects, because `==` is foreign code.

    Make it in the worker's own task, when the engine has stored all its references to that task.

    Attributes:
        task: the worker's task.
        observers: the number of weak references to the task.
        mapping: where the context keeps its bindings.
        node: the node of the mapping that holds `usage`; None if it is the root.
        usage: what the current call reports its usage to.
        is_deep: whether there are further nodes, so that the counts of these three do not suffice.
    """

    __slots__ = (
        *("_before", "_counts", "_references", "_totals"),
        *("is_deep", "mapping", "node", "observers", "task", "usage"),
    )

    def __init__(self, totals: UsageTotals) -> None:
        self.task: Any = asyncio.current_task()
        self.observers = getweakrefcount(self.task)
        self._totals = totals
        self.node: object | None = None
        self._bind_usage()
        self._references = getrefcount(self.task)

    def is_clean(self) -> bool:
        """Whether another call may be made in this task."""
        task = self.task
        return (
            not has_pending_cancel(task)
            and getrefcount(task) == self._references + 1  # the local name above
            and getweakrefcount(task) == self.observers
            and ((not self.is_deep and self._count_references() == self._counts) or self.renew())
        )

    def renew(self) -> bool:
        """
        Prepare the context for the next call if one of the reference counts has changed.

        Returns:
            Whether every context variable is bound to the same object as before.
        """
        now, before = copy_context(), self._before
        is_same_mapping = get_referents(now)[-1] is self.mapping
        if not is_same_mapping:
            if len(now) != len(before):
                return False
            if any(before.get(variable, _UNBOUND) is not value for variable, value in now.items()):
                return False
        self.usage.end()
        self._bind_usage(is_same_trie=is_same_mapping)
        return True

    def _bind_usage(self, *, is_same_trie: bool = False) -> None:
        """
        Bind a new CallUsage in this context, and note who refers to it and to the mapping.

        `is_same_trie` says that the context has the same variables as before, and so the same
        nodes in the same places.
        """
        self.usage = CallUsage(self._totals)
        current_call.set(self.usage)
        self._before = copy_context()  # keeps the mapping alive
        self.mapping = get_referents(self._before)[-1]
        if not is_same_trie or self.node is not None:
            nodes = _nodes_above(self.usage, get_referents(self.mapping)[0])
            self.is_deep = nodes is None or len(nodes) > 1
            self.node = nodes[0] if nodes else None
            del nodes  # it refers to the node, whose references are counted now
        self._counts = self._count_references()

    def _count_references(self) -> tuple[int, int, int]:
        """Count the references to the mapping, to the node and to the value."""
        return getrefcount(self.mapping), getrefcount(self.node), getrefcount(self.usage)


def _nodes_above(value: object, root: object) -> list[object] | None:
    """List the nodes of a hash trie between its root and a value; None if it is not found."""
    children = get_referents(root)
    if any(child is value for child in children):
        return []
    for child in children:
        if type(child).__name__.startswith("hamt_"):
            below = _nodes_above(value, child)
            if below is not None:
                return [child, *below]
    return None
