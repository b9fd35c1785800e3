"""Errors about an object that is used on another event loop than its own, and how to tell them."""

from __future__ import annotations

import re
import sys
from typing import Final

from ragasync.errors import RunAsyncError
from ragasync.foreign_errors import stands_alone, text_of, walk_errors

# The messages of asyncio 3.11 to 3.13 and of uvloop, each as a whole: a message that only quotes
# one of them is about the item. What varies in them are reprs, which asyncio writes itself.
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
    Return the error in a tree of groups and causes that is about another event loop, or None.

    Causes count because clients wrap asyncio's RuntimeError in connection errors of their own.
    """
    if stands_alone(error):  # by far the most: every failed attempt is looked at
        return error if _is_mismatch(error) else None
    return next(filter(_is_mismatch, walk_errors(error, contexts=False)), None)


def _is_mismatch(error: BaseException) -> bool:
    """Return whether this very error is asyncio's, or our own, about another loop."""
    kind = type(error)
    if issubclass(kind, RuntimeError):
        # Whole, because a task's repr may be long and the end of the message is what counts.
        return issubclass(kind, RunAsyncError) or _is_of_asyncio(text_of(error, sys.maxsize))
    return issubclass(kind, ValueError) and text_of(error) == _OF_A_VALUE_ERROR


def _is_of_asyncio(message: str) -> bool:
    """Return whether a RuntimeError's message is, from beginning to end, one of asyncio's."""
    if message in _EXACTLY:
        return True
    # The end first: a pattern that looks through a megabyte costs more than a suffix.
    return message.endswith(_ENDS) and _WITH_REPRS.fullmatch(message) is not None
