"""Lazy tasks: each begins in the next turn of its loop, whatever the loop's task factory does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def create_lazy_task(
    coro: Coroutine[Any, Any, T],
    loop: asyncio.AbstractEventLoop,
    *,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """
    Create a task that has not begun to run.

    `loop.create_task` asks the loop's task factory. An eager factory runs the coroutine up to its
    first suspension, perhaps to its end, before the code that creates the task has stored it.

    Args:
        coro: the coroutine that the task runs.
        loop: the loop that it runs on.
        name: the task's name; by default a number.
        context: the context variables it sees; by default a copy of the current context.
    """
    return asyncio.Task(coro, loop=loop, name=name, context=context)
