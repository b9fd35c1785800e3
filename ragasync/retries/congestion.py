"""Which errors say that a service has too much to do, so that fewer calls at once would help."""

from __future__ import annotations

from typing import Literal

from ragasync.foreign_errors import class_names
from ragasync.retries.classify import speaking_links, statuses_of

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
    statuses = statuses_of(error)
    if statuses:
        if _REFUSED in statuses:
            return "refused"
        return "congestion" if statuses & _CONGESTED else None
    names = (name for link in speaking_links(error) for name in class_names(type(link)))
    return "congestion" if any("Timeout" in name for name in names) else None
