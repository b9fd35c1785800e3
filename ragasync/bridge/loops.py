"""The persistent event loops in daemon threads, on which run_async and background jobs run."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Container
from contextlib import suppress

from ragasync.bridge.thread_scopes import carry_context_to_threads
from ragasync.errors import RunAsyncError

_PATIENCE = 0.1
"""Seconds that a loop has to take a turn before it counts as stuck."""


class LoopThreads:
    """
    The loops of one process, made as they are needed and kept until it ends.

    The first serves everybody, so that a client made in one call still works in the next. The
    others are for calls that come from inside a loop, which is blocked until they return.
    """

    def __init__(self) -> None:
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._stuck: set[asyncio.AbstractEventLoop] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<LoopThreads {len(self._loops)} running>"

    def outside(self, blocked: Container[asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
        """Return the first loop that is neither among those that are blocked nor stuck."""
        with self._lock:
            for loop in self._loops:
                if loop not in blocked and loop not in self._stuck:
                    return loop
            loop = _start_loop(f"ragasync-loop-{len(self._loops)}")
            self._loops.append(loop)
            return loop

    def set_aside_if_stuck(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Use other loops until this one turns again, if it does not do so now.

        A coroutine was cancelled there and did not end, or begin, in time. Perhaps something
        blocks the loop, and later calls must not wait for that.
        """
        turned = threading.Event()

        def turn() -> None:
            turned.set()
            self._stuck.discard(loop)

        loop.call_soon_threadsafe(turn)
        if not turned.wait(_PATIENCE):
            self._stuck.add(loop)
            if turned.is_set():  # between these two lines
                self._stuck.discard(loop)


_of_process: dict[int, LoopThreads] = {}


def loop_threads() -> LoopThreads:
    """
    Return the loops of this process.

    A forked child starts without any, because threads do not survive a fork. It keeps those of
    its parent unused: closing them would take the parent's sockets out of its selector.
    """
    threads = _of_process.get(os.getpid())
    return threads or _of_process.setdefault(os.getpid(), LoopThreads())


def background_loop() -> asyncio.AbstractEventLoop:
    """
    Return the loop that run_async and background jobs use, starting it at first use.

    It runs in a daemon thread until the process ends; use `call_soon_threadsafe` to reach it.

    Raises:
        RunAsyncError: Where Python has no threads (Pyodide).
    """
    if sys.platform == "emscripten":
        raise RunAsyncError(
            "a background loop needs a thread, and Python in a browser has none: "
            "`await` the coroutine, or run the job with on_current_loop=True"
        )
    return loop_threads().outside(())


def _start_loop(name: str) -> asyncio.AbstractEventLoop:
    """Return a new loop that runs in a daemon thread of this name."""
    loop = asyncio.new_event_loop()
    carry_context_to_threads(loop)
    threading.Thread(target=_run_for_good, args=(loop,), name=name, daemon=True).start()
    return loop


def _run_for_good(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop in this thread, whatever the coroutines on it do."""
    while True:
        # sys.exit() in a coroutine leaves the loop too; its task carries it to the caller.
        with suppress(KeyboardInterrupt, SystemExit):
            loop.run_forever()
