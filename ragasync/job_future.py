"""
JobFuture: the result or the error of a job, for every thread and loop that waits for it.

When the interpreter exits, jobs that still run are cancelled, with one line about each on stderr.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from ragasync._bridge.blocking_calls import BlockingCall
from ragasync._bridge.interrupts import Interrupted
from ragasync._engine.job_run import JobRun
from ragasync.error_text import traceback_text
from ragasync.foreign_errors import is_a
from ragasync.result import BatchResult

R = TypeVar("R")

log = logging.getLogger("ragasync")

GRACE = 2.0
"""Seconds for the clean-up of all jobs at exit; a notebook server kills its kernel after 5 s."""

_POOLS = ("concurrent.futures.thread", "concurrent.futures.process", "loky.process_executor")
"""Modules whose threads live until the interpreter's exit stops them."""


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


class UnfinishedJob:
    """
    A job between its start and its end, which the interpreter's exit cancels.

    Args:
        call: Its place in the tree of blocking calls; cancelling that cancels the job.
    """

    def __init__(
        self,
        job_run: JobRun[Any, Any],
        loop: asyncio.AbstractEventLoop,
        future: JobFuture[Any],
        call: BlockingCall,
    ) -> None:
        self._job_run, self._loop, self._call = job_run, loop, call
        self.future = future
        self._process = os.getpid()
        _unfinished[self] = None
        _register_exit()

    async def follow(self, running: Awaitable[BatchResult[Any]]) -> None:
        """Await the job until it ends in any way; this is the job's task."""
        try:
            await self.future.follow(running)
        finally:
            _unfinished.pop(self, None)
            self._call.leave()
            del self  # the job's error is kept, and its traceback refers to this frame

    @property
    def is_ours(self) -> bool:
        """Whether this process runs the job; a forked child only inherits a copy."""
        return self._process == os.getpid()

    def cancel(self) -> None:
        """Cancel the job, unless its loop is closed."""
        with suppress(RuntimeError):  # the loop is closed, and the job with it
            self._call.cancel()

    def wait(self, until: float) -> None:
        """Wait until the job has ended, or until an instant; a stopped loop is run again for it."""
        ended = threading.Event()
        self.future.add_done_callback(ended.set)
        try:
            if self._loop.is_running():
                ended.wait(max(until - time.monotonic(), 0.0))
            elif not self._loop.is_closed() and not ended.is_set():
                limit = max(until - time.monotonic(), 0.0)
                with suppress(TimeoutError, RuntimeError):
                    self._loop.run_until_complete(asyncio.wait_for(self.future.wait(), limit))
        finally:
            self.future.remove_done_callback(ended.set)

    def exit_message(self) -> str:
        """One line about the job's progress."""
        progress = self._job_run.progress()
        total = "" if progress.total is None else f" of {progress.total:,}"
        line = (
            f"ragasync: a job was still running at exit and was cancelled: "
            f"{progress.done:,}{total} items were done and {progress.failed:,} had failed"
        )
        use = self._job_run.run.settings.journal
        if use is not None:
            line += f"; the journal {os.fspath(use.journal.path)} has them"
        return line


_unfinished: dict[UnfinishedJob, None] = {}
_pools_seen: set[str] | None = None
"""The pool modules that were imported when the exit callback was last registered."""


def _register_exit() -> None:
    """
    Register a callback that cancels the jobs at exit, before the pools that they use shut down.

    A pool is shut down by a callback that its module registers at import, and callbacks are called
    in reverse order. So this one is registered again whenever another such module is imported.
    """
    global _pools_seen
    if _pools_seen is None:
        atexit.register(_cancel_all)
    pools = {name for name in _POOLS if name in sys.modules}
    if pools != _pools_seen:
        _pools_seen = pools
        register = getattr(threading, "_register_atexit", None)
        if register is not None:  # not public; without it, atexit has to do
            with suppress(RuntimeError):  # the interpreter is exiting
                register(_cancel_before_pools_close)


def _cancel_before_pools_close() -> None:
    """Cancel all jobs, unless the interpreter first waits for another thread to end."""
    main = threading.main_thread()
    others = [each for each in threading.enumerate() if not each.daemon and each is not main]
    if all(_is_of_a_pool(thread) for thread in others):
        _cancel_all()


def _is_of_a_pool(thread: threading.Thread) -> bool:
    """Whether this thread belongs to an executor, and ends only at the interpreter's exit."""
    target = getattr(thread, "_target", None)
    return type(thread).__module__ in _POOLS or getattr(target, "__module__", None) in _POOLS


def _cancel_all() -> None:
    """Cancel the running jobs, wait up to GRACE for their clean-up, and print their progress."""
    jobs = [job for job in _unfinished if job.is_ours and not job.future.done]
    for job in jobs:
        job.cancel()
    until = time.monotonic() + GRACE
    for job in jobs:
        with suppress(KeyboardInterrupt):  # the user does not want to wait for it
            job.wait(until)
        _unfinished.pop(job, None)
        if sys.stderr is not None:
            print(job.exit_message(), file=sys.stderr, flush=True)  # noqa: T201  # that is its purpose
