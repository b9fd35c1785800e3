"""Wait in this thread for what ends in another, so that Ctrl-C and the stop button still work."""

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
from types import FrameType, TracebackType
from typing import Self, TypeAlias

from ragasync.bridge.blocking_calls import BlockingCall
from ragasync.foreign_errors import is_a, notes_of

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

# Not signal.signal, which formats both handlers in every call: 60 µs where one is bound to a task.
_get_handler: Callable[[int], object] = _signal.getsignal
_set_handler: Callable[[int, _Handler], object] = _signal.signal

GRACE = 5.0
"""Seconds that a cancelled coroutine is given for its clean-up after an interrupt."""

SLACK = 0.25
"""Seconds more for calls around others, so that those inside are the first to give up."""

LONGEST_WAIT = 0.1
"""
Seconds for which the main thread waits without a look at the interrupts that have come.

A signal ends a wait only if it arrives in the main thread while it waits. One that comes just
before, between Python's last look at its signals and the wait itself, is noted and nothing more;
neither does one wake it that the system gives to another thread, or any Ctrl-C on Windows.
"""


class Interrupted(asyncio.CancelledError):
    """A blocking call was cancelled from outside: by an interrupt, or with the call around it."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in IPython instead of a page of frames that nobody wrote."""
        return [f"Interrupted: {self}"]


class DeferredInterrupt:
    """
    Takes SIGINT over while a call blocks, and hands it on in the end.

    In a cell that awaits, and under `asyncio.run`, the handler in force only leaves a note for
    the loop of this thread, which never reads it while it is blocked. Python's own handler raises
    KeyboardInterrupt wherever the main thread happens to be. Inside this context an interrupt
    calls `notice` instead; on the way out it goes to the handler it was meant for.

    Args:
        notice: Called in the signal handler, once for each interrupt; must not block.
    """

    def __init__(self, notice: Callable[[], None]) -> None:
        self._notice = notice
        self._former: _Handler | None = None
        self._pending = False

    def __enter__(self) -> Self:
        if is_main_thread():
            former = _get_handler(signal.SIGINT)
            if callable(former) and _is_to_be_deferred(former):
                self._former = former
                _set_handler(signal.SIGINT, self._on_sigint)
        return self

    def __exit__(self, *_: object) -> None:
        former = self._restore()
        if former is not None and self._pending:
            former(signal.SIGINT, None)

    def hand_on(self) -> None:
        """
        Restore the former handler, call it, and raise Interrupted if it did not raise.

        Does nothing where no interrupt came.
        """
        former = self._restore()
        if former is not None and self._pending:
            self._pending = False
            former(signal.SIGINT, None)
            raise Interrupted("stopped while a blocking call inside this cell was waiting")

    def _on_sigint(self, _signum: int, _frame: FrameType | None) -> None:
        """Note the interrupt; whoever waits does the rest."""
        self._pending = True
        self._notice()

    def _restore(self) -> _Handler | None:
        """Put the former handler back, once, and return it."""
        former, self._former = self._former, None
        if former is not None:
            _set_handler(signal.SIGINT, former)
        return former


def is_main_thread() -> bool:
    """Return whether this is the thread in which Python calls the handlers of signals."""
    return threading.get_ident() == threading.main_thread().ident


def _is_to_be_deferred(handler: _Handler) -> bool:
    """Return whether this handler would not end a wait by itself, or would end it anywhere."""
    # Without a loop here, a program's own handler is obeyed: it raises, or it did not mean to.
    return handler is signal.default_int_handler or asyncio._get_running_loop() is not None


class InterruptibleWait:
    """
    Block this thread until `done` is called from another, or until somebody interrupts.

    An interrupt, or any other exception raised inside the context, calls `cancel` and waits for
    `done` for up to `grace` seconds; a second interrupt ends that wait. Then the interrupt goes
    up: KeyboardInterrupt as a rule, a CancelledError inside a cell that awaits. Where blocking
    calls are nested, the innermost is cancelled first, and each has that time for its clean-up.
    A wait that times out cancels nothing.

        with InterruptibleWait(cancel) as waiting:
            start(when_done=waiting.done)
            finished = waiting.wait(timeout)

    Args:
        cancel: Called after an interrupt, from any thread; sees to it that `done` is called.
        grace: Seconds for the clean-up, 5 by default.

    Attributes:
        call: The place of this call among those in progress.
    """

    def __init__(self, cancel: Callable[[], None], *, grace: float | None = None) -> None:
        # SimpleQueue, because its put may interrupt its own get: a signal handler calls it.
        self._calls: SimpleQueue[bool | None] = SimpleQueue()
        self._ended = self._interrupted = False
        self._grace = GRACE if grace is None else grace
        self._sigint = DeferredInterrupt(partial(self._calls.put, True))
        self.call = BlockingCall(
            cancel, wake=partial(self._calls.put, False), blocks=asyncio._get_running_loop()
        )

    def done(self) -> None:
        """End the wait; safe from any thread."""
        self._ended = True
        self._calls.put(False)

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait for `done`, for at most `timeout` seconds.

        Returns:
            Whether it was called. False after a cancellation: there was no end in time.

        Raises:
            KeyboardInterrupt: After an interrupt, when the clean-up has ended or the grace is up.
            asyncio.CancelledError: The same, inside a cell that awaits or under `asyncio.run`.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self._is_over():
            if until is not None and not self.call.cancel_requested and time.monotonic() >= until:
                break
            self._take(until)
        self._sigint.hand_on()
        return self._ended

    def __enter__(self) -> Self:
        self._sigint.__enter__()
        self.call.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None and not self._is_over():
                self.call.cancel()
                while not self._is_over():
                    self._take(None)
        finally:
            self.call.leave(error)
            self._sigint.__exit__()

    def _is_over(self) -> bool:
        """Return whether to wait no longer: it has ended, or its clean-up takes too long."""
        call = self.call
        if not call.cancel_requested:
            return self._ended
        if call.abandoned or (self._ended and not call.is_cancelled_inside):
            return True
        return time.monotonic() >= self._grace_ends()

    def _grace_ends(self) -> float:
        """Return when a cancelled call is left to itself."""
        slack = SLACK if self.call.children else 0.0
        return self.call.last_told() + self._grace + slack

    def _take(self, until: float | None) -> None:
        """Wait for the next event, or until an instant at which there is something to do."""
        ends = [until, self.call.next_deadline()]
        if self.call.cancel_requested:
            ends.append(self._grace_ends())
        end = min((end for end in ends if end is not None), default=math.inf)
        longest = LONGEST_WAIT if is_main_thread() else threading.TIMEOUT_MAX
        with suppress(Empty):
            if self._calls.get(timeout=min(max(end - time.monotonic(), 0.0), longest)):
                self._interrupt()
        self.call.enforce_deadlines()

    def _interrupt(self) -> None:
        """Cancel what this thread waits for, the second time without its clean-up."""
        call = self.call.outermost_in_this_thread()
        if self._interrupted:
            call.abandon()
        else:
            self._interrupted = True
            call.cancel()


def pass_notes(cancelled: BaseException | None, interrupt: BaseException) -> None:
    """Give an interrupt the notes of a cancelled coroutine on what was done."""
    if is_a(cancelled, asyncio.CancelledError) and cancelled is not interrupt:
        for note in notes_of(cancelled):
            interrupt.add_note(note)
