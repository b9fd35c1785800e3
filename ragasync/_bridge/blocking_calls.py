"""The tree of blocking calls in progress: a cancellation reaches the innermost ones first."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from ragasync.clock import running_loop
from ragasync.foreign_errors import is_a

if TYPE_CHECKING:
    from concurrent.futures import Executor

_current: ContextVar[BlockingCall | None] = ContextVar("ragasync_blocking_call", default=None)
"""The call whose coroutine this code is part of; threads that carry the context have it too."""

_scope: ContextVar[ThreadScope | None] = ContextVar("ragasync_thread_scope", default=None)
"""The function on a thread that this code is part of."""

_INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt)


class BlockingCall:
    """
    A call that blocks its thread until work elsewhere has ended: a node in a tree of such calls.

    A loop that is blocked by a call inside it cannot process a cancellation, and a blocked thread
    cannot be cancelled at all. So `cancel` starts with the calls that have no calls inside them,
    and each call that ends passes the cancellation on to the call around it. A call that receives
    the CancelledError of the call inside it is not cancelled a second time, because that would cut
    off its clean-up.

    Args:
        cancel: Asks the work to stop, more than once if need be; safe from any thread, and must
            not block.
        wake: Called from any thread when the waiting thread should look at this call again.
        blocks: The loop that is blocked meanwhile, if any.

    Attributes:
        task: The task that the work runs in, if it runs in one.
        cancel_requested: Whether it is being cancelled, by itself or through the calls inside it.
        cancelled_at: When its own work was asked to stop (`time.monotonic`), or None.
        cancel_delivered: Whether its own work has received the cancellation.
        abandoned: Whether nobody waits for its clean-up any more.
        parent_first: Whether its work is asked to stop before the calls inside it have ended. A
            run that has calls on threads would otherwise take their ends for failures.
        deadline: When it is cancelled for lack of time (`time.monotonic`), or None.
        timed_out: Whether that has happened.
        children: The calls inside it.
    """

    def __init__(
        self,
        cancel: Callable[[], None],
        *,
        wake: Callable[[], None] | None = None,
        blocks: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self.cancel_requested = self.cancel_delivered = self.abandoned = False
        self.cancelled_at: float | None = None
        self.parent_first = False
        self.deadline: float | None = None
        self.timed_out = False
        self.children: set[BlockingCall] = set()
        self._cancel: Callable[[], None] | None = cancel
        self._wake = wake
        self._blocks = blocks
        self._thread = threading.get_ident()
        self._parent: BlockingCall | None = None

    def enter(self) -> None:
        """Join the tree inside the current call, and be cancelled if that is being cancelled."""
        self._parent = _current_call()
        if self._parent is not None:
            self._parent.children.add(self)
        scope = _scope.get()
        if scope is not None:
            scope.add(self)
        # After joining: a cancellation meanwhile either finds this call, or is found here.
        if any(
            call.cancel_requested and not call.cancel_delivered for call in self._ancestors()
        ) or (scope is not None and scope.cancelled):
            self.cancel()

    def leave(self, error: BaseException | None = None) -> None:
        """
        Leave the tree, and pass a cancellation on to the call around this one.

        Args:
            error: What this call raises in the code around it. If that is a cancellation or an
                interrupt, the task of the call around it needs no other.
        """
        self._cancel = None  # it refers to the work, and tasks that live on refer to this call
        self.task = None
        parent = self._parent
        if (scope := _scope.get()) is not None:
            scope.discard(self)
        if parent is not None:
            parent.children.discard(self)
            parent._child_ended(raised_interrupt=is_a(error, _INTERRUPTS))

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        self.leave(error)

    def make_current(self) -> None:
        """Make this the call around everything that is called in the current context."""
        _current.set(self)

    # ── cancellation ────────────────────────────────────────────────────────────────────────

    def cancel(self) -> None:
        """Cancel the innermost calls now, and the others as the calls inside them end."""
        self.cancel_requested = True  # first: a call that ends meanwhile looks at it
        if self.parent_first:
            self._cancel_own_work()
        for call in self.children.copy():
            call.cancel()
        if not self.children:
            self._cancel_own_work()

    def abandon(self) -> None:
        """Stop waiting for the clean-up of this call and of those inside it."""
        self.abandoned = True
        for call in self.children.copy():
            call.abandon()
        self._wake_waiters()

    def outermost_in_this_thread(self) -> BlockingCall:
        """The first call that this thread waits for: the one that an interrupt is meant for."""
        found = self
        for call in self._ancestors():
            if call._thread == self._thread:
                found = call
        return found

    def last_cancelled_at(self) -> float:
        """When one of these calls was last asked to stop: its clean-up began then."""
        times = [call.last_cancelled_at() for call in self.children.copy()]
        return max([self.cancelled_at or 0.0, *times])

    def _child_ended(self, *, raised_interrupt: bool) -> None:
        """React to the end of a call inside this one."""
        if not self.cancel_requested or self._cancel is None:
            return
        if raised_interrupt and self.task is not None and self.task is _current_task():
            self.cancel_delivered = True  # its own task gets the error: that is its cancellation
        if self.cancel_delivered or self.parent_first or not self.children:
            self._cancel_own_work()

    def _cancel_own_work(self) -> None:
        """Ask this call's own work to stop."""
        if self.cancelled_at is None:
            self.cancelled_at = time.monotonic()
        cancel = self._cancel
        if cancel is not None and not self.cancel_delivered:
            cancel()
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        """Wake the threads that wait in this call and in those around it."""
        for call in (self, *self._ancestors()):
            if call._wake is not None:
                call._wake()

    # ── time limits ─────────────────────────────────────────────────────────────────────────

    def next_deadline(self) -> float | None:
        """The earliest deadline of this call and those around it, or None."""
        limited = [
            call.deadline
            for call in (self, *self._ancestors())
            if call.deadline is not None and not call.cancel_requested
        ]
        return min(limited, default=None)

    def enforce_deadlines(self) -> None:
        """
        Cancel this call and those around it whose deadlines have passed.

        A call with nested=True cannot do that itself while a call inside it blocks its loop.
        """
        now = time.monotonic()
        for call in (self, *self._ancestors()):
            if call.deadline is not None and call.deadline <= now:
                call.time_out()

    def time_out(self) -> None:
        """Cancel this call for lack of time, unless it is being cancelled already."""
        if not self.cancel_requested:
            self.timed_out = True
            self.cancel()

    # ── the tree ────────────────────────────────────────────────────────────────────────────

    @property
    def has_cancelled_children(self) -> bool:
        """Whether calls inside this one are still being cancelled with it."""
        return self.cancel_requested and bool(self.children)

    @property
    def has_left(self) -> bool:
        """Whether nobody waits in this call any more."""
        return self._cancel is None

    def blocked_loops(self) -> Iterator[asyncio.AbstractEventLoop]:
        """Yield the loops that are blocked until this call and those around it return."""
        for call in (self, *self._ancestors()):
            if call._blocks is not None:
                yield call._blocks

    def _ancestors(self) -> Iterator[BlockingCall]:
        """Yield the calls around this one that still wait, the nearest first."""
        call = self._parent
        while call is not None:
            if not call.has_left:
                yield call
            call = call._parent


def blocked_loops() -> tuple[asyncio.AbstractEventLoop, ...]:
    """The event loops that are blocked until the current call of run_async returns."""
    call = _current_call()
    return () if call is None else tuple(call.blocked_loops())


def cancel_parent_first() -> None:
    """Have the current blocking call cancelled before the calls inside it have ended."""
    call = _current_call()
    if call is not None:
        call.parent_first = True


def is_tree_variable(variable: ContextVar[Any]) -> bool:
    """Whether this context variable belongs to the tree, and must not be copied to a caller."""
    return variable is _current or variable is _scope


def _current_call() -> BlockingCall | None:
    """The innermost call around this code that still waits, if any."""
    call = _current.get()
    while call is not None and call.has_left:
        call = call._parent
    return call


def _current_task() -> asyncio.Task[object] | None:
    """The task that runs in this thread, if any."""
    loop = running_loop()
    return None if loop is None else asyncio.current_task(loop)


# ── functions on threads ────────────────────────────────────────────────────────────────────────


class ThreadScope:
    """
    The blocking calls made inside one function on a thread, to be cancelled with it.

    A thread cannot be interrupted, but a `run_async` that it waits in can.
    """

    __slots__ = ("_calls", "cancelled")

    def __init__(self) -> None:
        self._calls: set[BlockingCall] | None = None  # most functions on threads make none
        self.cancelled = False

    def add(self, call: BlockingCall) -> None:
        """Have a blocking call cancelled with this scope, as long as the call lasts."""
        if self._calls is None:
            self._calls = set()
        self._calls.add(call)

    def discard(self, call: BlockingCall) -> None:
        """Forget a blocking call that has ended."""
        if self._calls is not None:
            self._calls.discard(call)

    def make_current(self) -> None:
        """Have the blocking calls of the current context join this scope."""
        _scope.set(self)

    def cancel(self) -> None:
        """Cancel the blocking calls in progress, and those made later."""
        self.cancelled = True
        if self._calls is not None:
            for call in self._calls.copy():
                call.cancel()


def carry_context_to_threads(loop: asyncio.AbstractEventLoop) -> None:
    """
    Patch a loop so that functions it runs on threads get the caller's context, and a scope.

    `asyncio.to_thread` carries the context, `run_in_executor` does not; without it nobody knows
    which call a `run_async` on such a thread is part of. The function itself cannot be
    interrupted when the task that awaits it is cancelled, but a `run_async` in it can.
    """
    original = loop.run_in_executor
    if not hasattr(original, "_carries_context"):
        run = partial(_run_in_executor, original)
        run._carries_context = True  # type: ignore[attr-defined]
        with suppress(AttributeError):  # a loop in C, of another policy, has no room for it
            loop.run_in_executor = run  # type: ignore[assignment,method-assign]


def _run_in_executor(
    original: Callable[..., asyncio.Future[Any]],
    executor: Executor | None,
    function: Callable[..., object],
    *args: object,
) -> asyncio.Future[Any]:
    """Submit a function as `loop.run_in_executor` does, in a scope if it runs on a thread."""
    from concurrent.futures import ThreadPoolExecutor  # costs too much at import

    if executor is not None and not isinstance(executor, ThreadPoolExecutor):
        return original(executor, function, *args)
    context, scope = copy_context(), ThreadScope()
    context.run(scope.make_current)
    future = original(executor, context.run, function, *args)

    def cancel_scope(ended: asyncio.Future[Any]) -> None:
        if ended.cancelled():
            scope.cancel()

    future.add_done_callback(cancel_scope)
    return future
