"""A virtual clock beside the loop that may run here: in a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ragasync.bridge.interrupts import InterruptibleWait
from ragasync.simulation.leaping import FastVirtualLoop

T = TypeVar("T")


def run_on_virtual_clock(coro: Coroutine[Any, Any, T]) -> T:
    """
    Run what only sleeps to its end on a virtual clock, also where a loop runs in this thread.

    The calling thread waits. An interrupt cancels the coroutine and goes on up. In a browser,
    where there are no threads, it runs in this one.

    Raises:
        BaseException: what the coroutine raises, or the interrupt.
    """
    loop = FastVirtualLoop()
    task = loop.create_task(coro)
    if sys.platform == "emscripten":
        _run_here(loop, task)
    else:
        _run_in_thread(loop, task)
    return task.result()


def _run_in_thread(loop: FastVirtualLoop, task: asyncio.Task[Any]) -> None:
    """Run a task in a thread of its own, and wait for it."""

    def cancel() -> None:
        with suppress(RuntimeError):  # closed: it has just ended
            loop.call_soon_threadsafe(task.cancel)

    with InterruptibleWait(cancel) as waiting:

        def run() -> None:
            try:
                _complete(loop, task)
            finally:
                waiting.done()

        threading.Thread(target=run, name="ragasync-simulation", daemon=True).start()
        waiting.wait()


def _run_here(loop: FastVirtualLoop, task: asyncio.Task[Any]) -> None:
    """Run a task in this thread, whose own loop stands still meanwhile."""
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        _complete(loop, task)
    finally:
        asyncio._set_running_loop(running)


def _complete(loop: FastVirtualLoop, task: asyncio.Task[Any]) -> None:
    """Run the loop until the task has ended; what it raised stays with the task."""
    try:
        with suppress(BaseException):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
