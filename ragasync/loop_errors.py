"""Errors about objects of another event loop: how they are recognized, and the advice on them."""

from __future__ import annotations

import re
import sys
from typing import Final

from ragasync.errors import RunAsyncError
from ragasync.foreign_errors import stands_alone, text_of, walk_errors

ADVICE: Final = (
    "Three ways out: `await` the coroutine in the cell; make the object (client, session, lock) "
    "inside the coroutine, for a processor in `resources=`; or run_async(..., nested=True), which "
    "runs on the loop of this thread"
)

# The messages of asyncio 3.11 to 3.13 and of uvloop, each in full: a message that only quotes
# one of them is about the item. The parts that vary are reprs that asyncio writes itself.
_EXACTLY: Final = frozenset(
    {
        "Event loop is closed",
        "Non-thread-safe operation invoked on an event loop other than the current one",
        # aiohttp looks for the current task on the loop that the session was made on.
        "Timeout context manager should be used inside a task",
    }
)
_WITH_REPRS: Final = re.compile(
    r"Task <[\w.]+ (?:pending|cancelling)\b.*> got Future <.*> attached to a different loop"
    r"|<\w[\w.<>]* (?:object )?at 0x[0-9a-fA-F]+\b.*> is bound to a different event loop",
    re.DOTALL,
)
_ENDS: Final = (" attached to a different loop", " is bound to a different event loop")
_OF_A_VALUE_ERROR: Final = (
    "The future belongs to a different loop than the one specified as the loop argument"
)


def find_loop_mismatch(error: BaseException) -> BaseException | None:
    """
    Find the error about another event loop in a tree of groups and causes, if there is one.

    Causes count because clients wrap asyncio's RuntimeError in connection errors of their own.
    """
    if stands_alone(error):  # as most do, and every failed attempt is checked
        return error if _is_mismatch(error) else None
    return next(filter(_is_mismatch, walk_errors(error, contexts=False)), None)


def as_run_async_error(error: BaseException) -> RunAsyncError | None:
    """
    Make a RunAsyncError with advice out of an error about another event loop; else None.

    An error that is a RunAsyncError, or has one in its tree, already has the advice.
    """
    mismatch = find_loop_mismatch(error)
    if mismatch is None or isinstance(mismatch, RunAsyncError):
        return mismatch
    message = text_of(mismatch)
    explained = RunAsyncError(f"an object belongs to another event loop: {message}. {ADVICE}")
    explained.__cause__ = error
    return explained


def _is_mismatch(error: BaseException) -> bool:
    """Whether this error itself, and not a cause of it, is about another event loop."""
    kind = type(error)
    if issubclass(kind, RuntimeError):
        # In full, because a task's repr may be long and the end of the message decides.
        return issubclass(kind, RunAsyncError) or _is_of_asyncio(text_of(error, sys.maxsize))
    return issubclass(kind, ValueError) and text_of(error) == _OF_A_VALUE_ERROR


def _is_of_asyncio(message: str) -> bool:
    """Whether a RuntimeError's message is, from beginning to end, one of asyncio's."""
    if message in _EXACTLY:
        return True
    # The end first: a suffix costs less than a pattern over a megabyte of text.
    return message.endswith(_ENDS) and _WITH_REPRS.fullmatch(message) is not None
