"""How a job ended: kept for whoever asks, in whatever thread or loop, and logged if nobody does."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar, cast

from ragasync.bridge.interrupts import Interrupted
from ragasync.error_text import traceback_text
from ragasync.foreign_errors import is_a
from ragasync.result import BatchResult

R = TypeVar("R")

log = logging.getLogger("ragasync")


def _mask_secrets(record: logging.LogRecord) -> bool:
    """Have logging print the traceback redacted; the exception itself stays as it is."""
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = traceback_text(record.exc_info[1])  # which formatters prefer
    return True


log.addFilter(_mask_secrets)


class JobFuture(Generic[R]):
    """
    The end of a job, seen from other threads and loops.

    The job's task and the job's handle refer to it. When both are gone, an exception that nobody
    fetched is logged: so also that of a job whose handle went first.

    Attributes:
        error: What the job raised, if it has ended so; to look at it is not to fetch it.
        reached: Whether the job has ended.
    """

    def __init__(self) -> None:
        self.reached = False
        self.error: BaseException | None = None
        self._result: BatchResult[R] | None = None
        self._fetched = False
        self._listeners: dict[object, Callable[[], object]] = {}
        self._lock = threading.Lock()

    async def follow(self, running: Awaitable[BatchResult[R]]) -> None:
        """Await the job, as its task, and keep what it ends with: SystemExit would end the loop."""
        try:
            self._result = await running
        except asyncio.CancelledError as error:
            self._fetched = True  # the loop was shut down, or interrupted: no news for its owner
            if is_a(error, Interrupted):
                self.error = error
            else:
                self.error = asyncio.CancelledError("the loop that the job ran on cancelled it")
        except BaseException as error:
            self.error = error
        with self._lock:
            self.reached = True
            listeners = list(self._listeners.values())
        for listener in listeners:
            listener()
        del self  # what the job raised refers to this frame, and is kept here

    def __del__(self) -> None:
        if self.error is not None and not self._fetched:
            log.error("a job's exception was never fetched", exc_info=self.error)

    def fetch(self) -> BatchResult[R]:
        """Return or raise what the job ended with; it must have ended."""
        self._fetched = True
        try:
            if self.error is not None:
                raise self.error
            return cast("BatchResult[R]", self._result)
        finally:
            del self  # the error's traceback holds this frame, and this object the error

    @contextmanager
    def telling(self, listener: Callable[[], object]) -> Iterator[None]:
        """
        Have this called at the end while the context lasts; at once if the end is past.

        It is called in the thread of the job, or in this one.
        """
        key = object()
        with self._lock:
            past = self.reached
            if not past:
                self._listeners[key] = listener
        try:
            if past:
                listener()
            yield
        finally:
            self._listeners.pop(key, None)

    async def wait(self) -> None:
        """Wait on this loop until the job has ended; a cancellation of the wait is only that."""
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()

        def tell_loop() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(seen.set)

        with self.telling(tell_loop):
            await seen.wait()
