"""Wait in this thread for what ends in another, so that Ctrl-C and the stop button still work."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Self, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

# Not signal.signal, which formats both handlers in every call: 60 µs where one is bound to a task.
_get_handler: Callable[[int], object] = _signal.getsignal
_set_handler: Callable[[int, _Handler], object] = _signal.signal

GRACE = 5.0
"""Seconds that a cancelled coroutine is given for its clean-up after an interrupt."""

# Windows tells the main thread of a Ctrl-C only between two waits; elsewhere a wait ends at once.
_LONGEST_WAIT = 0.25 if os.name == "nt" else threading.TIMEOUT_MAX


class Interrupted(asyncio.CancelledError):
    """The cell was interrupted while a blocking call inside it was waiting."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in IPython instead of a page of frames that nobody wrote."""
        return [f"Interrupted: {self}"]


class DeferredInterrupt:
    """
    Take SIGINT over for a while, and hand it on in the end.

    In a cell that awaits, and under `asyncio.run`, the handler in force only leaves a note for
    the loop of this thread, which never reads it while it is blocked. Inside this context an
    interrupt calls `notice` instead; on the way out it goes to the handler it was meant for.

    Args:
        notice: Called in the signal handler, once for each interrupt; must not block.
        always: Take over Python's own handler too, which raises KeyboardInterrupt wherever the
            main thread happens to be.
    """

    def __init__(self, notice: Callable[[], None], *, always: bool = False) -> None:
        self._notice = notice
        self._always = always
        self._former: _Handler | None = None
        self._pending = False

    def __enter__(self) -> Self:
        if threading.get_ident() == threading.main_thread().ident:
            former = _get_handler(signal.SIGINT)
            if callable(former) and self._is_deaf(former):
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

    def _is_deaf(self, handler: _Handler) -> bool:
        """Tell whether this handler would not end a wait by itself."""
        if handler is signal.default_int_handler:
            return self._always
        # Without a loop here, a program's own handler is obeyed: it raises, or it did not mean to.
        return asyncio._get_running_loop() is not None

    def _on_sigint(self, _signum: int, _frame: FrameType | None) -> None:
        """Note the interrupt; whoever waits does the rest."""
        self._pending = True
        self._notice()

    def _restore(self) -> _Handler | None:
        """Put the former handler back, once, and return it."""
        if self._former is not None:
            _set_handler(signal.SIGINT, self._former)
        return self._former


class InterruptibleWait:
    """
    Block this thread until `done` is called from another, or until somebody interrupts.

    An interrupt, or any other exception raised inside the context, calls `cancel` and waits for
    `done` for up to `grace` seconds; a second interrupt ends that wait. Then the interrupt goes
    up: KeyboardInterrupt as a rule, a CancelledError inside a cell that awaits. A wait that times
    out cancels nothing.

        with InterruptibleWait(cancel) as waiting:
            start(when_done=waiting.done)
            finished = waiting.wait(timeout)

    Args:
        cancel: Called once, in this thread, after an interrupt; sees to it that `done` is called.
        grace: Seconds for the clean-up.
    """

    def __init__(self, cancel: Callable[[], None], *, grace: float = GRACE) -> None:
        self._cancel = cancel
        self._grace = grace
        self._ended = False
        self._gave_up = False
        # SimpleQueue, because its put may interrupt its own get: a signal handler calls it.
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._sigint = DeferredInterrupt(partial(self._calls.put, False))

    def done(self) -> None:
        """End the wait; safe from any thread."""
        self._ended = True
        self._calls.put(True)

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait for `done`, for at most `timeout` seconds.

        Returns:
            Whether it was called.

        Raises:
            KeyboardInterrupt: After an interrupt, when the clean-up has ended or the grace is up.
            asyncio.CancelledError: The same, inside a cell that awaits or under `asyncio.run`.
        """
        if self._ended:
            return True
        if self._receive(timeout) is False:
            self._give_up()
            self._sigint.hand_on()
        return self._ended

    def __enter__(self) -> Self:
        self._sigint.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                self._give_up()
        finally:
            self._sigint.__exit__()

    def _give_up(self) -> None:
        """Cancel, once, and wait for the end, a second interrupt or the end of the grace."""
        if not self._ended and not self._gave_up:
            self._gave_up = True
            self._cancel()
            self._receive(self._grace)

    def _receive(self, timeout: float | None) -> bool | None:
        """Return True when done, False at an interrupt, None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _LONGEST_WAIT if deadline is None else deadline - time.monotonic()
            try:
                return self._calls.get(timeout=min(max(left, 0.0), _LONGEST_WAIT))
            except Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    return None


def pass_notes(task: asyncio.Task[Any] | None, interrupt: BaseException) -> None:
    """Give the interrupt the notes that the task left, when it was cancelled, on what was done."""
    if task is None or not task.cancelled():
        return
    try:
        task.result()
    except asyncio.CancelledError as cancelled:
        for note in getattr(cancelled, "__notes__", ()):
            interrupt.add_note(note)
