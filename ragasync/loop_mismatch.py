"""How an error says that an object belongs to another event loop than the one it is used on."""

from __future__ import annotations

from ragasync.errors import RunAsyncError

# Tasks and futures, locks and queues, a loop that is gone; and what a client finds whose time
# limits look for the current task on the loop that it was made on.
_WORDINGS: tuple[str, ...] = (
    "different loop",
    "different event loop",
    "Event loop is closed",
    "Timeout context manager should be used inside a task",
)
_DEEPEST_CAUSE = 10  # ends a circle


def mismatch_behind(error: BaseException) -> BaseException | None:
    """
    Return the error, or the one of its causes, that is about another event loop; None if none is.

    Causes count because clients wrap asyncio's RuntimeError in connection errors of their own.
    """
    link: BaseException | None = error
    if error.__cause__ is None and not isinstance(error, RuntimeError | ValueError):
        return None  # by far the most: every failed attempt is looked at
    for _ in range(_DEEPEST_CAUSE):
        if link is None or isinstance(link, RunAsyncError) or _says_so(link):
            return link
        link = link.__cause__
    return None


def _says_so(error: BaseException) -> bool:
    """Return whether this very error is worded like one about another loop."""
    if isinstance(error, RuntimeError):
        wordings = _WORDINGS
    elif isinstance(error, ValueError):
        wordings = _WORDINGS[:1]  # what `ensure_future` says of a future
    else:
        return False
    try:
        said = str(error)
    except Exception:
        return False
    return any(wording in said for wording in wordings)
