"""The tree of blocking calls in progress, so that a cancellation reaches the innermost first."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Self

from ragasync.foreign_errors import is_a

_current: ContextVar[BlockingCall | None] = ContextVar("ragasync_blocking_call", default=None)
"""The call whose coroutine this code is part of; threads that carry the context have it too."""

_scope: ContextVar[CallScope | None] = ContextVar("ragasync_call_scope", default=None)
"""The call on a processor's thread that this code is part of."""

_INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt)


class BlockingCall:
    """
    A call that blocks its thread until work elsewhere has ended: a node in a tree of such calls.

    A loop that is blocked by a call inside it cannot take a cancellation, and a thread that is
    blocked cannot be cancelled at all. So `cancel` starts with the calls that have no call inside
    them; each call that ends passes the cancellation on to the one around it. A call around it
    that gets the CancelledError of the inner call is not cancelled a second time: that would cut
    off its clean-up.

    Args:
        cancel: Tells the work to stop, more than once if need be; safe from any thread, and must
            not block.
        wake: Called from any thread when the waiting thread should look at this call again.
        blocks: The loop that stands still meanwhile, if any.

    Attributes:
        task: The task that the work runs in, where it is one.
        cancel_requested: Whether it is being cancelled, itself or by way of the calls inside it.
        cancelled_at: When its own work was told to stop (`time.monotonic`), or None.
        stopping: Whether its own work has taken notice of that.
        abandoned: Whether nobody waits for its clean-up any more.
        at_once: Whether its work is told to stop without waiting for the calls inside it. A run
            that has calls on threads would otherwise take their ends for failures.
        deadline: When it is cancelled for lack of time (`time.monotonic`), or None.
        timed_out: Whether that has happened.
    """

    def __init__(
        self,
        cancel: Callable[[], None],
        *,
        wake: Callable[[], None] | None = None,
        blocks: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self.cancel_requested = self.stopping = self.abandoned = False
        self.cancelled_at: float | None = None
        self.at_once = False
        self.deadline: float | None = None
        self.timed_out = False
        self.children: set[BlockingCall] = set()
        self._cancel: Callable[[], None] | None = cancel
        self._wake = wake
        self._blocks = blocks
        self._thread = threading.get_ident()
        self._parent: BlockingCall | None = None

    def enter(self) -> None:
        """Take the place inside the call that this code is part of; cancelled if that one is."""
        self._parent = _current_call()
        if self._parent is not None:
            self._parent.children.add(self)
        scope = _scope.get()
        if scope is not None:
            scope.join(self)
        # After joining: whoever cancels meanwhile either finds this call, or is found here.
        if any(call.cancel_requested and not call.stopping for call in self._outer()) or (
            scope is not None and scope.cancelled
        ):
            self.cancel()

    def leave(self, error: BaseException | None = None) -> None:
        """
        Give up the place, and pass a cancellation on to the call around this one.

        Args:
            error: What the code that made this call gets from it. A cancellation or an interrupt
                may be all that the task of the call around it needs.
        """
        self._cancel = None  # it refers to the work, and tasks that live on refer to this call
        self.task = None
        parent = self._parent
        if (scope := _scope.get()) is not None:
            scope.leave(self)
        if parent is not None:
            parent.children.discard(self)
            parent._inner_ended(raised=is_a(error, _INTERRUPTS))

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        self.leave(error)

    def make_current(self) -> None:
        """Make this the call around all that is called in the present context."""
        _current.set(self)

    # ── cancellation ────────────────────────────────────────────────────────────────────────

    def cancel(self) -> None:
        """Cancel the innermost calls now, and the others as those inside them end."""
        self.cancel_requested = True  # first: a call that ends meanwhile looks at it
        if self.at_once:
            self._tell()
        for call in self.children.copy():
            call.cancel()
        if not self.children:
            self._tell()

    def abandon(self) -> None:
        """Wait no longer for the clean-up of this call and of those inside it."""
        self.abandoned = True
        for call in self.children.copy():
            call.abandon()
        self._look_again()

    def outermost_in_this_thread(self) -> BlockingCall:
        """Return the first call that this thread waits for: the one that an interrupt is for."""
        found = self
        for call in self._outer():
            if call._thread == self._thread:
                found = call
        return found

    def last_told(self) -> float:
        """Return when one of these calls was last told to stop: its clean-up began then."""
        times = [call.last_told() for call in self.children.copy()]
        return max([self.cancelled_at or 0.0, *times])

    def _inner_ended(self, *, raised: bool) -> None:
        """Take note of the end of a call inside this one."""
        if not self.cancel_requested or self._cancel is None:
            return
        if raised and self.task is not None and self.task is _task_here():
            self.stopping = True  # its own task gets the error: that is its cancellation
        if self.stopping or self.at_once or not self.children:
            self._tell()

    def _tell(self) -> None:
        """Tell the work to stop."""
        if self.cancelled_at is None:
            self.cancelled_at = time.monotonic()
        cancel = self._cancel
        if cancel is not None and not self.stopping:
            cancel()
        self._look_again()

    def _look_again(self) -> None:
        """Have the waiting thread look at this call, and those that wait for calls around it."""
        for call in (self, *self._outer()):
            if call._wake is not None:
                call._wake()

    # ── time limits ─────────────────────────────────────────────────────────────────────────

    def next_deadline(self) -> float | None:
        """Return when this call, or one around it, is out of time, if ever."""
        limited = [
            call.deadline
            for call in (self, *self._outer())
            if call.deadline is not None and not call.cancel_requested
        ]
        return min(limited, default=None)

    def enforce_deadlines(self) -> None:
        """
        Cancel this call or those around it, if they are out of time.

        A call with nested=True cannot do that itself while a call inside it blocks its loop.
        """
        now = time.monotonic()
        for call in (self, *self._outer()):
            if call.deadline is not None and call.deadline <= now:
                call.run_out_of_time()

    def run_out_of_time(self) -> None:
        """Cancel this call for lack of time, if nobody has cancelled it before."""
        if not self.cancel_requested:
            self.timed_out = True
            self.cancel()

    # ── the tree ────────────────────────────────────────────────────────────────────────────

    @property
    def is_cancelled_inside(self) -> bool:
        """Whether calls inside this one are still being cancelled with it."""
        return self.cancel_requested and bool(self.children)

    @property
    def has_left(self) -> bool:
        """Whether nobody waits in this call any more."""
        return self._cancel is None

    def blocked_loops(self) -> Iterator[asyncio.AbstractEventLoop]:
        """Yield the loops that stand still until this call returns, and those around it."""
        for call in (self, *self._outer()):
            if call._blocks is not None:
                yield call._blocks

    def _outer(self) -> Iterator[BlockingCall]:
        """Yield the calls around this one that still wait, from the inside out."""
        call = self._parent
        while call is not None:
            if not call.has_left:
                yield call
            call = call._parent


class CallScope:
    """
    The blocking calls made inside one call on a processor's thread, to be cancelled with it.

    A thread cannot be interrupted, but a `run_async` that it waits in can.
    """

    __slots__ = ("_calls", "cancelled")

    def __init__(self) -> None:
        self._calls: set[BlockingCall] | None = None  # for most calls on threads there are none
        self.cancelled = False

    def join(self, call: BlockingCall) -> None:
        """Have a blocking call cancelled with this scope, as long as it lasts."""
        if self._calls is None:
            self._calls = set()
        self._calls.add(call)

    def leave(self, call: BlockingCall) -> None:
        """Forget a blocking call that has ended."""
        if self._calls is not None:
            self._calls.discard(call)

    def make_current(self) -> None:
        """Have the blocking calls of the present context join this scope."""
        _scope.set(self)

    def cancel(self) -> None:
        """Cancel the blocking calls in progress, and those that come later."""
        self.cancelled = True
        if self._calls is not None:
            for call in self._calls.copy():
                call.cancel()


def blocked_loops() -> tuple[asyncio.AbstractEventLoop, ...]:
    """Return the loops that stand still until the present call of run_async returns."""
    call = _current_call()
    return () if call is None else tuple(call.blocked_loops())


def cancel_at_once() -> None:
    """Have the call around this code told to stop before the calls inside it have ended."""
    call = _current_call()
    if call is not None:
        call.at_once = True


def is_marker(variable: ContextVar[Any]) -> bool:
    """Return whether this variable is one of the tree's own, and stays where it was set."""
    return variable is _current or variable is _scope


def _current_call() -> BlockingCall | None:
    """Return the innermost call around this code that still waits, if any."""
    call = _current.get()
    while call is not None and call.has_left:
        call = call._parent
    return call


def _task_here() -> asyncio.Task[object] | None:
    """Return the task that runs in this thread, if any."""
    loop = asyncio._get_running_loop()
    return None if loop is None else asyncio.current_task(loop)
