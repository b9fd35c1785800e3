"""Run a coroutine where Python has no threads: in a browser, under Pyodide."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from ragasync.bridge.coroutine_call import close_unawaited, run_on_this_loop
from ragasync.errors import RunAsyncError

T = TypeVar("T")


def run_in_browser(awaitable: Awaitable[T], timeout: float | None) -> T:
    """
    Run an awaitable on the browser's own loop and return its value.

    The browser puts the calling Python stack aside meanwhile (JavaScript Promise Integration).

    Raises:
        RunAsyncError: If this browser cannot do that.
        BaseException: Whatever the awaitable raises.
    """
    from pyodide.ffi import can_run_sync, run_sync  # type: ignore[import-not-found]

    if not can_run_sync():
        close_unawaited(awaitable)
        raise RunAsyncError(
            "run_async cannot block in this browser, which has no threads and no promise "
            "integration: `await` the coroutine instead"
        )
    loop = asyncio.get_running_loop()
    return run_on_this_loop(
        awaitable, loop, timeout, lambda _, task: run_sync(asyncio.wait({task}))
    )
