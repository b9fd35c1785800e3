"""Interruptible waits of a thread for another, in which Ctrl-C and the stop button still work."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import asyncio
import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Self, TypeAlias

from ragasync._bridge.blocking_calls import BlockingCall
from ragasync.clock import running_loop
from ragasync.foreign_errors import is_a, notes_of

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

# signal.signal formats both handlers in every call: 60 µs if one of them is bound to a task.
_get_handler: Callable[[int], object] = _signal.getsignal
_set_handler: Callable[[int, _Handler], object] = _signal.signal

GRACE = 5.0
"""Seconds that a cancelled coroutine gets for its clean-up after an interrupt."""

SLACK = 0.25
"""Seconds more for the calls around others, so that the innermost give up first."""

LONGEST_WAIT = 0.1
"""
Seconds that the main thread waits before it looks for interrupts.

A signal ends a wait only if it arrives in the main thread during the wait. A signal that arrives
just before, between Python's last check for signals and the wait itself, is only noted. A signal
that the system delivers to another thread does not end the wait, and on Windows no Ctrl-C does.
"""


class Interrupted(asyncio.CancelledError):
    """A blocking call was cancelled from outside: by an interrupt, or with the call around it."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in IPython instead of a page of frames of asyncio and this library."""
        return [f"Interrupted: {self}"]


class DeferredInterrupt:
    """
    A context that takes over SIGINT while a call blocks, and delivers it to its handler at the end.

    In a cell that awaits, and under `asyncio.run`, the installed handler only schedules something
    on the loop of this thread, which cannot run it while it is blocked. Python's own handler raises
    KeyboardInterrupt wherever the main thread happens to be. Inside this context an interrupt
    calls `on_interrupt` instead; at the exit, the former handler is called.

    Args:
        on_interrupt: Called in the signal handler, once for each interrupt; must not block.
    """

    def __init__(self, on_interrupt: Callable[[], None]) -> None:
        self._on_interrupt = on_interrupt
        self._former: _Handler | None = None
        self._pending = False

    def __enter__(self) -> Self:
        if is_main_thread():
            former = _get_handler(signal.SIGINT)
            if callable(former) and _must_be_deferred(former):
                self._former = former
                _set_handler(signal.SIGINT, self._on_sigint)
        return self

    def __exit__(self, *_: object) -> None:
        former = self._restore()
        if former is not None and self._pending:
            former(signal.SIGINT, None)

    def deliver(self) -> None:
        """
        Restore the former handler, call it, and raise Interrupted if it did not raise.

        Without an interrupt it does nothing.
        """
        former = self._restore()
        if former is not None and self._pending:
            self._pending = False
            former(signal.SIGINT, None)
            raise Interrupted("stopped while a blocking call inside this cell was waiting")

    def _on_sigint(self, _signum: int, _frame: FrameType | None) -> None:
        """Record the interrupt; the waiting code does the rest."""
        self._pending = True
        self._on_interrupt()

    def _restore(self) -> _Handler | None:
        """Reinstall the former handler, once, and return it."""
        former, self._former = self._former, None
        if former is not None:
            _set_handler(signal.SIGINT, former)
        return former


def is_main_thread() -> bool:
    """Whether this is the thread in which Python calls signal handlers."""
    return threading.get_ident() == threading.main_thread().ident


def _must_be_deferred(handler: _Handler) -> bool:
    """Whether this signal handler would not end a wait, or would raise anywhere in it."""
    # Where no loop runs, a program's own handler works as it is: it raises if it wants to.
    return handler is signal.default_int_handler or running_loop() is not None


class InterruptibleWait:
    """
    A wait that blocks this thread until another thread calls `done`, or until an interrupt.

    An interrupt, or any other exception raised inside the context, calls `cancel` and waits up to
    `grace` seconds for `done`; a second interrupt ends that wait. Then the interrupt propagates:
    usually as KeyboardInterrupt, inside a cell that awaits as CancelledError. Of nested blocking
    calls, the innermost is cancelled first, and each gets that time for its clean-up. A wait that
    times out cancels nothing.

        with InterruptibleWait(cancel) as waiting:
            start(when_done=waiting.done)
            finished = waiting.wait(timeout)

    Args:
        cancel: Called after an interrupt, from any thread; must lead to a call of `done`.
        grace: Seconds for the clean-up, 5 by default.

    Attributes:
        call: Its place in the tree of blocking calls.
    """

    def __init__(self, cancel: Callable[[], None], *, grace: float | None = None) -> None:
        # SimpleQueue, because its put may interrupt its own get: a signal handler calls it.
        self._events: SimpleQueue[bool | None] = SimpleQueue()
        self._ended = self._interrupted = False
        self._grace = GRACE if grace is None else grace
        self._sigint = DeferredInterrupt(partial(self._events.put, True))
        self.call = BlockingCall(
            cancel, wake=partial(self._events.put, False), blocks=running_loop()
        )

    def done(self) -> None:
        """End the wait; safe from any thread."""
        self._ended = True
        self._events.put(False)

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait for `done`, for at most `timeout` seconds.

        Returns:
            Whether `done` was called. False if the timeout or the grace period ended first.

        Raises:
            KeyboardInterrupt: After an interrupt, when the clean-up or the grace period has ended.
            asyncio.CancelledError: The same, inside a cell that awaits or under `asyncio.run`.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self._is_over():
            if until is not None and not self.call.cancel_requested and time.monotonic() >= until:
                break
            self._next_event(until)
        self._sigint.deliver()
        return self._ended

    def __enter__(self) -> Self:
        self._sigint.__enter__()
        self.call.enter()
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is not None and not self._is_over():
                self.call.cancel()
                while not self._is_over():
                    self._next_event(None)
        finally:
            self.call.leave(error)
            self._sigint.__exit__()

    def _is_over(self) -> bool:
        """Whether the wait is over: the work has ended, or its clean-up takes too long."""
        call = self.call
        if not call.cancel_requested:
            return self._ended
        if call.abandoned or (self._ended and not call.has_cancelled_children):
            return True
        return time.monotonic() >= self._grace_ends()

    def _grace_ends(self) -> float:
        """When the grace period of a cancelled call ends."""
        slack = SLACK if self.call.children else 0.0
        return self.call.last_cancelled_at() + self._grace + slack

    def _next_event(self, until: float | None) -> None:
        """Wait for the next event: a wake-up, an interrupt, a deadline."""
        ends = [until, self.call.next_deadline()]
        if self.call.cancel_requested:
            ends.append(self._grace_ends())
        end = min((end for end in ends if end is not None), default=math.inf)
        longest = LONGEST_WAIT if is_main_thread() else threading.TIMEOUT_MAX
        with suppress(Empty):
            if self._events.get(timeout=min(max(end - time.monotonic(), 0.0), longest)):
                self._interrupt()
        self.call.enforce_deadlines()

    def _interrupt(self) -> None:
        """Cancel the calls of this thread; a second interrupt ends their clean-up."""
        call = self.call.outermost_in_this_thread()
        if self._interrupted:
            call.abandon()
        else:
            self._interrupted = True
            call.cancel()


def copy_notes(cancelled: BaseException | None, interrupt: BaseException) -> None:
    """Copy the notes of a cancelled coroutine, which say what was done, to an interrupt."""
    if is_a(cancelled, asyncio.CancelledError) and cancelled is not interrupt:
        for note in notes_of(cancelled):
            interrupt.add_note(note)
