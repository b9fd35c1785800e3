"""How a function is called: on the loop, on a thread, or in hops to an executor."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import BrokenExecutor, Executor
from functools import partial
from typing import Any, Protocol, TypeGuard, cast

from ragasync.calling.deadlines import DeadlineWatch
from ragasync.calling.executors import HopReply, replacement_of, run_hop
from ragasync.calling.threads import CallThreads
from ragasync.clock import clock_of
from ragasync.errors import WorkerDied, WrongNumberOfValues
from ragasync.plan import Plan


class Returning(Protocol):
    """A call that was given up but goes on, because a thread or process cannot be interrupted."""

    async def wait_until_returned(self) -> None:
        """Wait until the call has returned, whatever it returned."""


class Calls:
    """
    The calls of one run: `one(item)`, `many(items)` or `hop(items)`, by what the function is.

    Args:
        plan: says what to call, how, and for how long.
        loop: the run's loop.
        resource: what the plan's `resources` gave, to be passed as second argument.
    """

    def __init__(
        self, plan: Plan[Any, Any], loop: asyncio.AbstractEventLoop, resource: object
    ) -> None:
        self._abandoned: dict[asyncio.Task[Any], Returning] = {}
        self._loop = loop
        self._function = _with_resource(plan, resource)
        self._executor = plan.executor
        self._own_executor: Executor | None = None
        self._threads: CallThreads | None = None
        self._timeout = plan.timeout
        self._watch: DeadlineWatch | None = None
        if plan.timeout is not None:
            self._watch = DeadlineWatch(loop, clock_of(loop), plan.timeout)
        self._call = self._call_for(plan)

    @property
    def one(self) -> Callable[[Any], Awaitable[Any]]:
        """The call of one item, for use in the current task alone."""
        return self._in_time()

    async def many(self, items: Sequence[Any]) -> Sequence[Any]:
        """Call a batched function, and check that it gave a value for each item."""
        return checked_values(await self._in_time()(items), len(items))

    async def hop(self, items: Sequence[Any]) -> HopReply:
        """Call for several items in one hop to an executor, which has time for each of them."""
        reply: HopReply = await self._in_time(len(items))(items)
        return reply

    @property
    def running_threads(self) -> int:
        """How many threads are inside a call."""
        return 0 if self._threads is None else self._threads.running

    def close(self) -> None:
        """Let go of threads, timers and the executor that replaced a broken one."""
        if self._watch is not None:
            self._watch.close()
        if self._threads is not None:
            self._threads.close()
        if self._own_executor is not None:
            self._own_executor.shutdown(wait=False)

    def _call_for(self, plan: Plan[Any, Any]) -> Callable[[Any], Awaitable[Any]]:
        """Choose the way to call."""
        if plan.is_async:
            return self._function
        if plan.executor is None:
            self._threads = CallThreads(self._loop)
            return self._on_thread
        return self._in_a_hop if plan.in_hops else self._batch_on_executor

    def _in_time(self, items: int = 1) -> Callable[[Any], Awaitable[Any]]:
        """Return the call with its time limit, if it has one, for use in the current task."""
        if self._watch is None or self._timeout is None:
            return self._call
        return self._watch.guarded(self._call, self._timeout * items)

    async def _on_thread(self, argument: object) -> object:
        """Call on a thread; a function that only made an awaitable has it awaited here."""
        assert self._threads is not None
        call = self._threads.submit(self._function, argument)
        try:
            value = await call
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        return await value if hasattr(value, "__await__") else value

    async def _in_a_hop(self, items: Sequence[Any]) -> HopReply:
        """Call for several items on the executor."""
        reply: HopReply = await self._on_executor(run_hop, self._function, list(items))
        return reply

    async def _batch_on_executor(self, items: Sequence[Any]) -> object:
        """Call a batched function on the executor."""
        return await self._on_executor(self._function, items)

    async def _on_executor(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Submit and await; a broken pool is replaced for those who come after."""
        executor = self._executor
        assert executor is not None
        try:
            try:
                remote = executor.submit(function, *arguments)
            except BrokenExecutor:  # it broke before: nothing was tried on it
                executor = self._replace(executor)
                remote = executor.submit(function, *arguments)
            local = asyncio.wrap_future(remote)
            try:
                return await asyncio.shield(local)
            except asyncio.CancelledError:
                if not remote.cancel():
                    self._abandon(_Remote(local))
                raise
        except BrokenExecutor as broken:
            self._replace(executor)
            raise WorkerDied(f"the worker process ended before it answered: {broken}") from broken

    def _replace(self, broken: Executor) -> Executor:
        """Return the executor to go on with; made once, and ours to shut down."""
        if self._executor is broken:
            self._executor = replacement_of(broken)
            if self._executor is not broken:
                self._own_executor = self._executor
        assert self._executor is not None
        return self._executor

    def abandoned_by_me(self) -> Returning | None:
        """Take the call that the current task has given up and that still goes on, if any."""
        task = asyncio.current_task()
        return self._abandoned.pop(task, None) if task else None

    def _abandon(self, call: Returning) -> None:
        """Remember that this task's call goes on without it."""
        task = asyncio.current_task()
        assert task is not None
        self._abandoned[task] = call


class _Remote:
    """A call on an executor that was given up."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        future.add_done_callback(_look_at)

    async def wait_until_returned(self) -> None:
        """Wait for the executor's answer."""
        await asyncio.wait([self._future])


def _look_at(future: asyncio.Future[Any]) -> None:
    """Fetch a late error, so that asyncio does not log it as never retrieved."""
    if not future.cancelled():
        future.exception()


def _with_resource(plan: Plan[Any, Any], resource: object) -> Callable[[Any], Any]:
    """Bind the second argument where there is one."""
    function = plan.process_fn
    if plan.resources is None:
        return function

    def call(argument: object) -> object:
        return function(argument, resource)

    return call


def is_async(function: Callable[..., object]) -> bool:
    """
    Return whether calling this gives a coroutine: a function, method, partial or object.

    Raises:
        TypeError: it is no callable, or one that yields instead of returning.
    """
    if not callable(function):
        raise TypeError(f"process_fn must be callable, got {function!r}")
    target: Any = function
    while isinstance(target, partial):
        target = target.func
    for candidate in (target, type(target).__call__):
        if inspect.isasyncgenfunction(candidate) or inspect.isgeneratorfunction(candidate):
            raise TypeError(
                f"process_fn must return one value, but {function!r} yields: return a list instead"
            )
        if inspect.iscoroutinefunction(candidate):
            return True
    return False


def checked_values(values: object, expected: int) -> Sequence[Any]:
    """
    Return what a batched function gave, if it is one value an item.

    Raises:
        TypeError: no sequence of values at all.
        WrongNumberOfValues: too many or too few.
    """
    if not _is_sequence(values):
        raise TypeError(
            f"a batched process_fn must return a list of as many values as it was given items "
            f"({expected}), got {type(values).__name__}"
        )
    if len(values) != expected:
        raise WrongNumberOfValues(
            f"a batched process_fn must return a value for each item: "
            f"got {len(values)} values for {expected} items"
        )
    return values


def _is_sequence(values: object) -> TypeGuard[Sequence[Any]]:
    """Return whether this is a list, a tuple, an array: a table gives columns, and counts rows."""
    if type(values) in (list, tuple):
        return True
    if type(values).__name__ == "ndarray":
        return bool(cast("Any", values).ndim)
    if isinstance(values, str | bytes | Mapping | AbstractSet) or not hasattr(values, "__len__"):
        return False
    return len(list(cast("Iterable[Any]", values))) == len(values)
