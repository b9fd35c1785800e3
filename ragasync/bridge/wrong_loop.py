"""Errors of objects that belong to another event loop, and the ways out of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from ragasync.errors import RunAsyncError
from ragasync.foreign_errors import text_of
from ragasync.loop_errors import find_loop_mismatch

WAYS_OUT = (
    "Three ways out: `await` the coroutine in the cell; make the object (client, session, lock) "
    "inside the coroutine, for a processor in `resources=`; or run_async(..., nested=True), which "
    "runs on the loop of this thread"
)


def as_run_async_error(error: BaseException) -> RunAsyncError | None:
    """
    Return the RunAsyncError that says what to do, if this error is about another event loop.

    One that is a RunAsyncError already says it; one that only has such a cause is explained too.
    """
    mismatch = find_loop_mismatch(error)
    if mismatch is None or isinstance(mismatch, RunAsyncError):
        return mismatch
    said = text_of(mismatch)
    explained = RunAsyncError(f"an object belongs to another event loop: {said}. {WAYS_OUT}")
    explained.__cause__ = error
    return explained


def refuse_blocked_future(
    awaitable: object, blocked: Collection[asyncio.AbstractEventLoop]
) -> None:
    """
    Refuse a future of a loop that is blocked until that very future is done.

    Raises:
        RunAsyncError: If it is one.
    """
    if asyncio.isfuture(awaitable) and not awaitable.done() and awaitable.get_loop() in blocked:
        raise RunAsyncError(
            f"{awaitable!r} can never finish here: it belongs to the loop that this call blocks. "
            f"{WAYS_OUT}"
        )


def waits_for_blocked(
    task: asyncio.Task[object], blocked: Collection[asyncio.AbstractEventLoop]
) -> bool:
    """
    Tell whether this task waits without end for futures of blocked loops, and for nothing else.

    asyncio itself refuses to await a future of another loop, except in `asyncio.wait`, which
    hangs; so that is what the chain of awaits is searched for. False means that nobody knows.
    """
    coro: object = task.get_coro()
    while (inner := getattr(coro, "cr_await", None)) is not None:
        frame = getattr(coro, "cr_frame", None)
        if frame is not None and frame.f_code is _WAIT and frame.f_locals.get("timeout") is None:
            pending = [future for future in frame.f_locals.get("fs", ()) if not future.done()]
            return bool(pending) and all(future.get_loop() in blocked for future in pending)
        coro = inner
    return False


_WAIT = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]
