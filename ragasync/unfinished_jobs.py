"""The jobs in progress: at the exit of the interpreter they are cancelled, and a line says so."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from ragasync.bridge.blocking_calls import BlockingCall
from ragasync.engine.job_run import JobRun
from ragasync.job_future import JobFuture
from ragasync.result import BatchResult

GRACE = 2.0
"""Seconds for the clean-up of all jobs at exit; a notebook server kills its kernel after five."""

_POOLS = ("concurrent.futures.thread", "concurrent.futures.process", "loky.process_executor")
"""Modules with threads that live until the interpreter tells them that it exits."""


class UnfinishedJob:
    """
    A job between its start and its end, as the exit of the interpreter sees it.

    Args:
        batch: The run.
        loop: The loop that it runs on.
        future: Its result or error, once it has ended.
        place: Its place in the tree of calls; cancelling that cancels the job.
    """

    def __init__(
        self,
        batch: JobRun[Any, Any],
        loop: asyncio.AbstractEventLoop,
        future: JobFuture[Any],
        place: BlockingCall,
    ) -> None:
        self._batch, self._loop, self._place = batch, loop, place
        self.future = future
        self._process = os.getpid()
        _unfinished[self] = None
        _register_exit()

    async def follow(self, running: Awaitable[BatchResult[Any]]) -> None:
        """Await the job, as its task, to whatever end."""
        try:
            await self.future.follow(running)
        finally:
            _unfinished.pop(self, None)
            self._place.leave()
            del self  # what the job raised leads to this frame, and is kept

    @property
    def is_ours(self) -> bool:
        """Whether this process runs it; a forked child inherits a mere copy."""
        return self._process == os.getpid()

    def cancel(self) -> None:
        """Cancel it, if its loop still takes orders."""
        with suppress(RuntimeError):  # closed, and the job with it
            self._place.cancel()

    def wait(self, until: float) -> None:
        """Wait for its end until an instant; a loop that has stopped is run for it."""
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

    def last_words(self) -> str:
        """Say in one line how far it came."""
        progress = self._batch.progress()
        total = "" if progress.total is None else f" of {progress.total:,}"
        line = (
            f"ragasync: a job was still running at exit and was cancelled: "
            f"{progress.done:,}{total} items were done and {progress.failed:,} had failed"
        )
        use = self._batch.run.plan.journal
        if use is not None:
            line += f"; the journal {os.fspath(use.journal.path)} has them"
        return line


_unfinished: dict[UnfinishedJob, None] = {}
_pools_seen: set[str] | None = None
"""The modules of pools that were there when the exit was last registered."""


def _register_exit() -> None:
    """
    Have the jobs cancelled at exit before the pools that they may run on are shut down.

    A pool is shut down by a callback that its module registers when it is imported; callbacks are
    called in reverse order. So ours is registered again whenever there is such a module more.
    """
    global _pools_seen
    if _pools_seen is None:
        atexit.register(_cancel_all)
    pools = {name for name in _POOLS if name in sys.modules}
    if pools != _pools_seen:
        _pools_seen = pools
        register = getattr(threading, "_register_atexit", None)
        if register is not None:  # not public: without it there is atexit
            with suppress(RuntimeError):  # the interpreter is exiting
                register(_cancel_before_pools_close)


def _cancel_before_pools_close() -> None:
    """Cancel all jobs, unless a thread goes on for which the interpreter will wait."""
    main = threading.main_thread()
    others = [each for each in threading.enumerate() if not each.daemon and each is not main]
    if all(_is_of_a_pool(thread) for thread in others):
        _cancel_all()


def _is_of_a_pool(thread: threading.Thread) -> bool:
    """Return whether this is a thread of an executor, which waits for the exit itself."""
    target = getattr(thread, "_target", None)
    return type(thread).__module__ in _POOLS or getattr(target, "__module__", None) in _POOLS


def _cancel_all() -> None:
    """Cancel the jobs that run, wait for their clean-up for a while, and say what was done."""
    jobs = [job for job in _unfinished if job.is_ours and not job.future.done]
    for job in jobs:
        job.cancel()
    until = time.monotonic() + GRACE
    for job in jobs:
        with suppress(KeyboardInterrupt):  # then it is waited for no longer
            job.wait(until)
        _unfinished.pop(job, None)
        if sys.stderr is not None:
            print(job.last_words(), file=sys.stderr, flush=True)  # noqa: T201  # what it is for
