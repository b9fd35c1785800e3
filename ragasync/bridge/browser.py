"""Run a coroutine where Python has no threads: in a browser, under Pyodide."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from ragasync.errors import RunAsyncError

T = TypeVar("T")


def run_in_browser(coro: Coroutine[Any, Any, T], context: Context) -> asyncio.Task[T]:
    """
    Run the coroutine on the browser's own loop and return its ended task.

    The browser puts the calling Python stack aside meanwhile (JavaScript Promise Integration).

    Raises:
        RunAsyncError: If this browser cannot do that.
    """
    from pyodide.ffi import can_run_sync, run_sync  # type: ignore[import-not-found]

    if not can_run_sync():
        coro.close()
        raise RunAsyncError(
            "run_async cannot block in this browser, which has no threads and no promise "
            "integration: `await` the coroutine instead"
        )
    task = asyncio.get_running_loop().create_task(coro, context=context)
    run_sync(asyncio.wait({task}))
    return task
