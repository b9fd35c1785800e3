"""Which errors say that a service has too much to do, so that fewer calls at once would help."""

from __future__ import annotations

from typing import Literal

from ragasync.retries.replies import status_of

_REFUSED = 429

_CONGESTED = frozenset({408, 503, 504, 529})
"""Statuses of a service that is overloaded, or of a gateway that has waited for it in vain."""


def congestion_of(error: BaseException) -> Literal["refused", "congestion"] | None:
    """
    Return whether fewer calls at once would, or may, have spared a call this error.

    A 429 is a refusal: they would. Other statuses of overload (503 and its like) and what ran out
    of time, by our timeout or a client's own, also come to services that have little to do: they
    may. Clients' timeouts are no TimeoutError, but say so in their names. An error that is the
    item's own fault is neither.
    """
    status = status_of(error)
    if status is not None:
        if status == _REFUSED:
            return "refused"
        return "congestion" if status in _CONGESTED else None
    timed_out = any("Timeout" in kind.__name__ for kind in type(error).__mro__)
    return "congestion" if timed_out else None
