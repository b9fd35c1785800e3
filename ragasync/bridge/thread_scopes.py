"""Which blocking calls belong to which function on a thread, so that they end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from ragasync.bridge.blocking_calls import CallScope

if TYPE_CHECKING:
    from concurrent.futures import Executor


def carry_context_to_threads(loop: asyncio.AbstractEventLoop) -> None:
    """
    Have functions that this loop runs on threads see their caller's context, and end with it.

    `asyncio.to_thread` carries the context, `run_in_executor` does not; without it nobody knows
    which call a `run_async` on such a thread is part of. The function itself cannot be
    interrupted when its awaiter is cancelled, but a `run_async` that it waits in can.
    """
    original = loop.run_in_executor
    if not hasattr(original, "_carries_context"):
        run = partial(_run_in_executor, original)
        run._carries_context = True  # type: ignore[attr-defined]
        with suppress(AttributeError):  # a loop in C, of another policy, has no room for it
            loop.run_in_executor = run  # type: ignore[assignment,method-assign]


def _run_in_executor(
    original: Callable[..., asyncio.Future[Any]],
    executor: Executor | None,
    function: Callable[..., object],
    *args: object,
) -> asyncio.Future[Any]:
    """Submit a function as `loop.run_in_executor` does, in a scope if it runs on a thread."""
    from concurrent.futures import ThreadPoolExecutor  # costs too much at import

    if executor is not None and not isinstance(executor, ThreadPoolExecutor):
        return original(executor, function, *args)
    context, scope = copy_context(), CallScope()
    context.run(scope.make_current)
    future = original(executor, context.run, function, *args)

    def end_scope(ended: asyncio.Future[Any]) -> None:
        if ended.cancelled():
            scope.cancel()

    future.add_done_callback(end_scope)
    return future
