"""How a job ended: kept for whoever asks, in whatever thread or loop, and logged if nobody does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from ragasync.outcomes.tracebacks import whole_text
from ragasync.result import BatchResult

R = TypeVar("R")

log = logging.getLogger("ragasync")


def _mask_secrets(record: logging.LogRecord) -> bool:
    """Have a traceback of ours printed with its secrets masked; the exception stays as it is."""
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = whole_text(record.exc_info[1])  # formatters take it instead of their own
    return True


log.addFilter(_mask_secrets)


class Ending(Generic[R]):
    """
    The end of a job's task, seen from other threads and loops.

    The task has it as its callback, and the job's handle has it too. When both are gone, an
    exception that nobody fetched is logged: so also that of a job whose handle went first.
    """

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[BatchResult[R]] = concurrent.futures.Future()
        self._fetched = False

    def __call__(self, task: asyncio.Task[BatchResult[R]]) -> None:
        """Take what the task has ended with."""
        if task.cancelled():
            self._fetched = True  # the loop was shut down: no news for its owner
            self._future.set_exception(
                asyncio.CancelledError("the loop that the job ran on cancelled it")
            )
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())

    def __del__(self) -> None:
        if self._fetched or not self._future.done():
            return
        if (error := self._future.exception()) is not None:
            log.error("a job's exception was never fetched", exc_info=error)

    @property
    def reached(self) -> bool:
        """Whether the job has ended."""
        return self._future.done()

    @property
    def error(self) -> BaseException | None:
        """What the job raised, if it has ended so; to look at it is not to fetch it."""
        return self._future.exception() if self._future.done() else None

    def fetch(self) -> BatchResult[R]:
        """Return or raise what the job ended with; it must have ended."""
        self._fetched = True
        return self._future.result(timeout=0)

    def tell(self, listener: Callable[[], object]) -> None:
        """Call this at the end, in the thread of the job; at once if the end is past."""
        self._future.add_done_callback(lambda _: listener())

    async def wait(self) -> None:
        """Wait on this loop until the job has ended; a cancellation of the wait is only that."""
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()

        def tell_loop() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(seen.set)

        self.tell(tell_loop)
        await seen.wait()
