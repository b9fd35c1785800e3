"""How a function is called: on the loop, on a thread, or in hops to an executor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeGuard, cast

from ragasync.calls.executor_kinds import names_its_functions
from ragasync.calls.executors import ResilientExecutor
from ragasync.calls.groups import GroupResult, ItemGroup, ItemNames, RemoteFunction
from ragasync.calls.threads import DaemonThreadPool
from ragasync.calls.timeouts import DeadlineWatch
from ragasync.clock import loop_clock
from ragasync.error_text import describe
from ragasync.errors import ResultCountError
from ragasync.foreign_errors import is_a, is_error
from ragasync.outcomes.stats import ExecutorHalt
from ragasync.settings import BatchSettings


class AbandonedCall(Protocol):
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
        is_ending: says whether the run has cancelled the current task.
    """

    def __init__(
        self,
        plan: BatchSettings[Any, Any],
        loop: asyncio.AbstractEventLoop,
        resource: object,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._abandoned: dict[asyncio.Task[Any], AbandonedCall] = {}
        self._loop = loop
        self._function = _with_resource(plan, resource)
        self._pools: ResilientExecutor | None = None
        if plan.executor is not None:
            by_name = names_its_functions(plan.executor)
            self._errand = RemoteFunction(self._function, by_name=by_name)
            self._pools = ResilientExecutor(
                plan.executor, lambda call: self._abandon(_Remote(call)), loop
            )
        self._threads: DaemonThreadPool | None = None
        self._timeout = plan.timeout
        self._watch: DeadlineWatch | None = None
        if plan.timeout is not None:
            self._watch = DeadlineWatch(loop, loop_clock(loop), plan.timeout, is_ending)
        self._call = self._call_for(plan)

    def enter(self) -> None:
        """Begin to make calls in the current task."""
        if self._watch is not None:
            self._watch.enter()

    def leave(self) -> None:
        """Make no further call in the current task."""
        if self._watch is not None:
            self._watch.leave()

    def held_up(self, seconds: float) -> None:
        """Do not count a time for which the loop stood still against the calls in flight."""
        if self._watch is not None:
            self._watch.extend(seconds)

    @property
    def one(self) -> Callable[[Any], Awaitable[Any]]:
        """The call of one item, for use in the current task alone."""
        return self._in_time()

    async def many(
        self, items: Sequence[Any], indices: Sequence[int], *, apart: bool = False
    ) -> Sequence[Any]:
        """Call a batched function, and check that it gave a value for each item."""
        if self._pools is None:
            values = await self._in_time()(items)
        else:
            reply = await self._sent([items], [_named_together(indices)], apart=apart)
            ((values, error, _),) = reply.taken()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # or its traceback, this frame and it would hold each other
        return checked_values(values, len(items))

    async def hop(
        self, items: Sequence[Any], indices: Sequence[int], *, apart: bool = False
    ) -> GroupResult:
        """
        Call for several items in one hop to an executor, which has time for each of them.

        Args:
            items: what to call with.
            indices: what to call them in errors.
            apart: whether a worker may have died of them: see `ResilientExecutor.send`.
        """
        return await self._sent(items, ItemNames(tuple(indices)), apart=apart)

    @property
    def halt(self) -> ExecutorHalt:
        """For how long the workers of an executor were found to start nothing, and why."""
        return ExecutorHalt() if self._pools is None else self._pools.watch.halt

    @property
    def running_threads(self) -> int:
        """How many threads are inside a call."""
        return 0 if self._threads is None else self._threads.running

    def close(self) -> None:
        """Let go of threads, timers and the executors that replaced a broken one."""
        if self._watch is not None:
            self._watch.close()
        if self._threads is not None:
            self._threads.close()
        if self._pools is not None:
            self._pools.close()

    def _call_for(self, plan: BatchSettings[Any, Any]) -> Callable[[Any], Awaitable[Any]]:
        """Choose the way to call."""
        if plan.is_async or plan.executor is not None:
            return self._function
        self._threads = DaemonThreadPool(self._loop)
        return self._on_thread

    async def _sent(
        self, arguments: Sequence[Any], names: Sequence[str], *, apart: bool
    ) -> GroupResult:
        """Send arguments to the executor, and return what became of them."""
        assert self._pools is not None
        send: Callable[[ItemGroup], Awaitable[GroupResult]] = partial(self._pools.send, apart=apart)
        if self._watch is not None and self._timeout is not None:
            send = self._watch.with_timeout(send, self._timeout * len(arguments))
        reply = await send(ItemGroup(self._errand, list(arguments), names, context=copy_context()))
        if reply.trouble is not None:
            raise reply.trouble
        return reply

    def _in_time(self) -> Callable[[Any], Awaitable[Any]]:
        """Return the call with its time limit, if it has one, for use in the current task."""
        if self._watch is None or self._timeout is None:
            return self._call
        return self._watch.with_timeout(self._call, self._timeout)

    async def _on_thread(self, argument: object) -> object:
        """Call on a thread; a function that only made an awaitable has it awaited here."""
        assert self._threads is not None
        call = self._threads.submit(self._function, argument)
        try:
            value = await call
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        return await value if hasattr(type(value), "__await__") else value

    def abandoned_by_me(self) -> AbandonedCall | None:
        """Take the call that the current task has given up and that still goes on, if any."""
        task = asyncio.current_task()
        return self._abandoned.pop(task, None) if task else None

    def _abandon(self, call: AbandonedCall) -> None:
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


def _named_together(indices: Sequence[int]) -> str:
    """Return what to call the items of a batch."""
    first, last = indices[0], indices[-1]
    return f"item {first}" if len(indices) == 1 else f"one of the items {first} to {last}"


def _with_resource(plan: BatchSettings[Any, Any], resource: object) -> Callable[[Any], Any]:
    """Bind the second argument where there is one."""
    function = plan.process_fn
    if plan.resources is None:
        return function

    def call(argument: object) -> object:
        return function(argument, resource)

    return call


def returned_coroutine(value: Coroutine[Any, Any, object]) -> TypeError:
    """Close a coroutine that a function returned as its value, and return the error of that."""
    value.close()  # or Python would complain that it was never awaited
    return TypeError(
        f"process_fn returned a coroutine, {value!r:.200}, that nobody awaits: pass an async "
        f"function that awaits it and returns its value"
    )


def checked_values(values: object, expected: int) -> Sequence[Any]:
    """
    Return what a batched function gave, if it is one value an item.

    Raises:
        TypeError: no sequence of values at all.
        ResultCountError: too many or too few.
    """
    if is_a(values, Coroutine):
        raise returned_coroutine(values)
    error = values if is_error(values) else None
    if error is not None or not _is_sequence(values):
        got = type(values).__name__ if error is None else describe(error)
        raise TypeError(
            f"a batched process_fn must return a list of as many values as it was given items "
            f"({expected}), got {got}"
        ) from error
    if len(values) != expected:
        raise ResultCountError(
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
