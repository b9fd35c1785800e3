"""JobFuture: the result or the error of a job, for every thread and loop that waits for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar, cast

from ragasync._bridge.interrupts import Interrupted
from ragasync.error_text import traceback_text
from ragasync.foreign_errors import is_a
from ragasync.result import BatchResult

R = TypeVar("R")

log = logging.getLogger("ragasync")


def _mask_secrets(record: logging.LogRecord) -> bool:
    """Mask secrets in the traceback of a log record; the exception itself keeps them."""
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = traceback_text(record.exc_info[1])  # formatters prefer it to their own
    return True


log.addFilter(_mask_secrets)


class JobFuture(Generic[R]):
    """
    The future of a job: its result or its error, safe to use from any thread or loop.

    Both the job's task and its handle refer to it. When both are gone and nobody has asked for
    `result`, an error is logged, as asyncio logs one that was never retrieved.

    Attributes:
        done: Whether the job has ended.
        error: What the job raised, if it failed. Reading it does not count as retrieving it.
    """

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None
        self._result: BatchResult[R] | None = None
        self._retrieved = False
        self._callbacks: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    async def follow(self, run: Awaitable[BatchResult[R]]) -> None:
        """Await a run in the job's task and keep its result or its error, even a SystemExit."""
        try:
            self._result = await run
        except asyncio.CancelledError as error:
            self._retrieved = True  # the loop was shut down or interrupted: nothing to log
            if is_a(error, Interrupted):
                self.error = error
            else:
                self.error = asyncio.CancelledError("the loop that the job ran on cancelled it")
        except BaseException as error:  # a SystemExit that left the task would end the loop
            self.error = error
        with self._lock:
            self.done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        del self  # the error's traceback refers to this frame, and this object to the error

    def __del__(self) -> None:
        if self.error is not None and not self._retrieved:
            log.error("a job's exception was never retrieved", exc_info=self.error)

    def result(self) -> BatchResult[R]:
        """Return the result of a job that has ended, or raise its error."""
        self._retrieved = True
        try:
            if self.error is not None:
                raise self.error
            return cast("BatchResult[R]", self._result)
        finally:
            del self  # the error's traceback refers to this frame, and this object to the error

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Call a function when the job ends, in the job's thread; immediately if it has ended."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback()

    def remove_done_callback(self, callback: Callable[[], object]) -> None:
        """Forget a callback, so that a wait that was given up leaves nothing behind."""
        with self._lock, suppress(ValueError):
            self._callbacks.remove(callback)

    async def wait(self) -> None:
        """Wait on this loop until the job has ended; cancelling the wait leaves the job alone."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def notify_loop() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile, with its waiters
                loop.call_soon_threadsafe(ended.set)

        self.add_done_callback(notify_loop)
        try:
            await ended.wait()
        finally:
            self.remove_done_callback(notify_loop)
