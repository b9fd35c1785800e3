"""Caller: how a run calls its function, on the loop, on threads or in groups on an executor."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeGuard, cast

from ragasync._calls.executors import ResilientExecutor, names_its_functions
from ragasync._calls.groups import GroupResult, ItemGroup, ItemNames, RemoteFunction
from ragasync._calls.threads import DaemonThreadPool
from ragasync._calls.timeouts import DeadlineWatch
from ragasync._outcomes.stats import ExecutorHalt
from ragasync.clock import loop_clock
from ragasync.error_text import describe
from ragasync.errors import ResultCountError
from ragasync.foreign_errors import is_a, is_error
from ragasync.settings import BatchSettings
from ragasync.usage import UsageTotals, current_call


class Caller:
    """
    Calls the function of one run, in the way that its settings ask for.

    `call_one` is for a function of one item, `call_batch` for a batched function, and `call_group`
    for a function of one item on an executor, which gets several items in one hand-over.

    Args:
        resource: the object that `resources=` has opened, passed as second argument.
        usage: counts the usage that the run's calls report.
    """

    def __init__(
        self,
        settings: BatchSettings[Any, Any],
        loop: asyncio.AbstractEventLoop,
        resource: object,
        is_cancelled: Callable[[], bool] = lambda: False,
        usage: UsageTotals | None = None,
    ) -> None:
        self._usage = usage or UsageTotals()
        self._abandoned: dict[asyncio.Task[Any], AbandonedCall] = {}
        self._function = _with_resource(settings, resource)
        self._executor: ResilientExecutor | None = None
        self._threads: DaemonThreadPool | None = None
        self._call: Callable[[Any], Awaitable[Any]] = self._function
        if settings.executor is not None:
            by_name = names_its_functions(settings.executor)
            self._remote = RemoteFunction(self._function, by_name=by_name)
            self._executor = ResilientExecutor(
                settings.executor,
                lambda call: self._abandon(_AbandonedGroup(call, self._usage)),
                loop,
            )
        elif not settings.is_async:
            self._threads = DaemonThreadPool(loop)
            self._call = self._on_thread
        self._timeout = settings.timeout
        self._deadlines: DeadlineWatch | None = None
        if settings.timeout is not None:
            self._deadlines = DeadlineWatch(loop, loop_clock(loop), settings.timeout, is_cancelled)

    def enter_task(self) -> None:
        """Prepare the current task for making calls."""
        if self._deadlines is not None:
            self._deadlines.enter()

    def leave_task(self) -> None:
        """Make no more calls in the current task."""
        if self._deadlines is not None:
            self._deadlines.leave()

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count the time for which the loop was blocked against the calls in flight."""
        if self._deadlines is not None:
            self._deadlines.extend(seconds)

    @property
    def call_one(self) -> Callable[[Any], Awaitable[Any]]:
        """The call of one item with its time limit, for use in the current task only."""
        if self._deadlines is None or self._timeout is None:
            return self._call
        return self._deadlines.with_timeout(self._call, self._timeout)

    async def call_batch(
        self, items: Sequence[Any], indices: Sequence[int], *, isolate: bool = False
    ) -> Sequence[Any]:
        """Call a batched function, and check that it returned one value for each item."""
        if self._executor is None:
            values = await self.call_one(items)
        else:
            result = await self._call_remotely([items], [_batch_name(indices)], isolate=isolate)
            if (current := current_call.get()) is not None and 0 in result.usage:
                current.attribute(result.usage[0])
            ((values, error, _),) = result.take()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # or its traceback, this frame and it would hold each other
        return check_values(values, len(items))

    async def call_group(
        self,
        items: Sequence[Any],
        indices: Sequence[int],
        *,
        isolate: bool = False,
        max_seconds: float = math.inf,
    ) -> GroupResult:
        """
        Call the function for several items in one hand-over to the executor.

        `isolate` says that they may have crashed a worker: see `ResilientExecutor.send`. Items that
        have not been called after `max_seconds` are left out of the result.
        """
        names = ItemNames(tuple(indices))
        return await self._call_remotely(items, names, isolate=isolate, max_seconds=max_seconds)

    @property
    def halt(self) -> ExecutorHalt:
        """For how long the executor's workers have started nothing, and why."""
        return ExecutorHalt() if self._executor is None else self._executor.watch.halt

    @property
    def running_threads(self) -> int:
        """How many threads are making a call."""
        return 0 if self._threads is None else self._threads.running

    def close(self) -> None:
        """Release the threads, the timers and the executors that have replaced a broken one."""
        if self._deadlines is not None:
            self._deadlines.close()
        if self._threads is not None:
            self._threads.close()
        if self._executor is not None:
            self._executor.close()

    def take_abandoned(self) -> AbandonedCall | None:
        """Take the call that the current task has abandoned and that is still running, if any."""
        task = asyncio.current_task()
        return self._abandoned.pop(task, None) if task else None

    def _abandon(self, call: AbandonedCall) -> None:
        """Keep the call that the current task no longer waits for."""
        task = asyncio.current_task()
        assert task is not None
        self._abandoned[task] = call

    async def _on_thread(self, argument: object) -> object:
        """Call on a thread, and await the value here if it is awaitable."""
        assert self._threads is not None
        call = self._threads.submit(self._function, argument)
        try:
            value = await call
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        return await value if hasattr(type(value), "__await__") else value

    async def _call_remotely(
        self,
        arguments: Sequence[Any],
        names: Sequence[str],
        *,
        isolate: bool,
        max_seconds: float = math.inf,
    ) -> GroupResult:
        """Send arguments to the executor as one group, which has `timeout` for each of them."""
        assert self._executor is not None
        send: Callable[[ItemGroup], Awaitable[GroupResult]]
        send = partial(self._executor.send, isolate=isolate)
        if self._deadlines is not None and self._timeout is not None:
            send = self._deadlines.with_timeout(send, self._timeout * len(arguments))
        group = ItemGroup(
            self._remote,
            list(arguments),
            names,
            context=copy_context(),
            totals=self._usage,
            max_seconds=max_seconds,
        )
        result = await send(group)
        if result.uncounted is not None:
            current = current_call.get()
            self._usage.add(result.uncounted, None, () if current is None else current.limiters)
        if result.problem is not None:
            raise result.problem
        return result


# ── calls that outlive their attempt ────────────────────────────────────────────────────────────


class AbandonedCall(Protocol):
    """A call that nobody waits for and that goes on, because it cannot be interrupted."""

    async def wait_until_returned(self) -> None:
        """Wait until the call has returned or failed."""


class _AbandonedGroup:
    """An abandoned group on an executor; what its calls have used still counts for the run."""

    def __init__(self, future: asyncio.Future[GroupResult], usage: UsageTotals) -> None:
        self._future = future
        future.add_done_callback(partial(_count_late, usage))

    async def wait_until_returned(self) -> None:
        """Wait for the executor's result."""
        await asyncio.wait([self._future])


def _count_late(usage: UsageTotals, future: asyncio.Future[GroupResult]) -> None:
    """Count late usage, and retrieve a late error, or asyncio would log it as never retrieved."""
    if future.cancelled() or future.exception() is not None:
        return
    if (uncounted := future.result().uncounted) is not None:
        usage.add(uncounted)


class StuckCalls:
    """
    Counts the workers that abandoned calls occupy, and stops the run if nothing else can go on.

    A thread cannot be killed. Its worker stays occupied until the call returns, or the function
    would run more often concurrently than allowed. If no other call can make progress, because
    abandoned calls occupy all workers or are the last ones, the run waits a further `timeout` for
    them and then stops with a reason, instead of waiting for ever.

    Args:
        can_progress_without: says whether any other call can go on with this many workers occupied.
        stop: called with the reason when it cannot.
    """

    def __init__(
        self,
        timeout: float | None,
        can_progress_without: Callable[[int], bool],
        stop: Callable[..., None],
    ) -> None:
        self._timeout = timeout or 0.0
        self._can_progress_without = can_progress_without
        self._stop = stop
        self._occupied = 0
        self._timer: asyncio.TimerHandle | None = None

    async def until_returned(self, call: AbandonedCall | None) -> None:
        """Occupy a worker until this call has returned; None if the call was interrupted."""
        if call is None:
            return
        self._occupied += 1
        self._set_timer()
        try:
            await call.wait_until_returned()
        finally:
            self._occupied -= 1

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        """Check again after a further `timeout`."""
        self.close()
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._check)

    def _check(self) -> None:
        """Stop the run if nothing can go on; check again later if calls are still running."""
        if not self._occupied:
            return
        if self._can_progress_without(self._occupied):
            self._set_timer()
            return
        held = "the one slot in use is held by a call"
        if self._occupied > 1:
            held = f"all {self._occupied} slots in use are held by calls"
        self._stop(
            f"{held} that outlived timeout={self._timeout:g} s and cannot be interrupted",
            cancel=True,
        )


# ── the function and its values ─────────────────────────────────────────────────────────────────


def _with_resource(settings: BatchSettings[Any, Any], resource: object) -> Callable[[Any], Any]:
    """Bind the function's second argument if the settings have `resources`."""
    function = settings.process_fn
    if settings.resources is None:
        return function

    def call(argument: object) -> object:
        return function(argument, resource)

    return call


def _batch_name(indices: Sequence[int]) -> str:
    """The name of a batch's items in errors."""
    first, last = indices[0], indices[-1]
    return f"item {first}" if len(indices) == 1 else f"one of the items {first} to {last}"


def returned_coroutine(value: Coroutine[Any, Any, object]) -> TypeError:
    """Close a coroutine that a function has returned as its value, and make the error about it."""
    value.close()  # or Python would warn that it was never awaited
    return TypeError(
        f"process_fn returned a coroutine, {value!r:.200}, that nobody awaits: pass an async "
        f"function that awaits it and returns its value"
    )


def check_values(
    values: object, expected: int, function: str = "a batched process_fn"
) -> Sequence[Any]:
    """
    Check that a batched function, as its user knows it, has returned one value for each item.

    Raises:
        TypeError: it did not return a sequence.
        ResultCountError: it returned too many or too few values.
    """
    if is_a(values, Coroutine):
        raise returned_coroutine(values)
    error = values if is_error(values) else None
    if error is not None or not _is_sequence(values):
        got = type(values).__name__ if error is None else describe(error)
        raise TypeError(
            f"{function} must return a list with one value for each item ({expected}), got {got}"
        ) from error
    if len(values) != expected:
        raise ResultCountError(
            f"{function} must return a value for each item: "
            f"got {len(values)} values for {expected} items"
        )
    return values


def _is_sequence(values: object) -> TypeGuard[Sequence[Any]]:
    """Whether this is a list, a tuple or an array; a table is not: it iterates over columns."""
    if type(values) in (list, tuple):
        return True
    if type(values).__name__ == "ndarray":
        return bool(cast("Any", values).ndim)
    if isinstance(values, str | bytes | Mapping | AbstractSet) or not hasattr(values, "__len__"):
        return False
    return len(list(cast("Iterable[Any]", values))) == len(values)
