"""Tasks of our own: each begins in the next turn of its loop, on every loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def own_task(
    coro: Coroutine[Any, Any, T],
    loop: asyncio.AbstractEventLoop,
    *,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """
    Return a task that has not begun.

    `create_task` asks the loop's task factory. One that makes eager tasks runs the coroutine up to
    its first suspension, perhaps to its end, before whoever makes the task has kept it anywhere.

    Args:
        coro: what the task runs.
        loop: the loop that it runs on.
        name: what asyncio calls it; by default a number.
        context: what it sees of context variables; by default a copy of the present context.
    """
    return asyncio.Task(coro, loop=loop, name=name, context=context)
