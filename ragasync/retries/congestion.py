"""Which errors say that a service has too much to do, so that fewer calls at once would help."""

from __future__ import annotations

from ragasync.retries.replies import status_of

_CONGESTED = frozenset({408, 429, 503, 504, 529})
"""Statuses of a service that is overloaded, or of a gateway that has waited for it in vain."""


def is_congestion(error: BaseException) -> bool:
    """
    Return whether fewer calls at once would have spared a call this error.

    So it is for a status of overload (429, 503 and their like) and for what ran out of time, by
    our timeout or a client's own: those of httpx and requests are no TimeoutError, but say so in
    their names. An error that is the item's own fault is none.
    """
    status = status_of(error)
    if status is not None:
        return status in _CONGESTED
    if isinstance(error, TimeoutError):
        return True
    return any("Timeout" in kind.__name__ for kind in type(error).__mro__)
