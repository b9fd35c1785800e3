"""
What a service's reply says, read from the error that a client made of it.

No client library is imported: an error is read by its attributes, so that those of httpx,
requests, aiohttp, urllib and the SDKs built upon them are understood alike.
"""

from __future__ import annotations

import functools
import math
import time
from contextlib import suppress
from typing import Any

_PARTS = ("response", "headers", "status_code", "status", "code", "__getattr__")


def status_of(error: BaseException) -> int | None:
    """
    Return the HTTP status that an error carries, or None.

    The first whole number among `status_code`, `status` and `code`, of the error and then of its
    `response`, is the status; one outside 100 to 599 belongs to something else than HTTP.
    """
    for speaker in _speakers(error):
        for name in ("status_code", "status", "code"):
            value = _attribute(speaker, name)
            if isinstance(value, int) and not isinstance(value, bool):
                return int(value) if 100 <= value <= 599 else None
    return None


def headers_of(error: BaseException) -> dict[str, str]:
    """Return the reply's headers by lower-case name: the error's own, then its response's."""
    found: dict[str, str] = {}
    for speaker in _speakers(error):
        headers = _attribute(speaker, "headers")
        items = None if headers is None else _attribute(headers, "items")
        if not callable(items):
            continue
        with suppress(TypeError, ValueError):
            for name, value in items():
                found.setdefault(str(name).lower(), str(value).strip())
    return found


def retry_after_of(error: BaseException, *, now: float | None = None) -> float | None:
    """
    Return how many seconds the service asks to wait, or None where it does not say.

    `retry-after-ms` goes before `retry-after`, which is a number of seconds or an HTTP date
    (RFC 9110, section 10.2.3). A date in the past is 0.0; what is neither is None.

    Args:
        error: The error, whose own headers or whose response's headers are read.
        now: The wall clock in seconds since 1970, which a date is measured against; by default
            `time.time()`.
    """
    if not carries_reply(error):
        return None
    headers = headers_of(error)
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    return _seconds_until(value, now) if seconds is None else seconds


def carries_reply(error: BaseException) -> bool:
    """Return whether there may be a reply to read; False is quick, as most errors have none."""
    kind: Any = type(error)
    return bool(error.__dict__) or _kind_carries_reply(kind)


def _speakers(error: BaseException) -> tuple[object, ...]:
    """Return the objects that may carry a status and headers."""
    response = _attribute(error, "response")
    # Asked for None and not for its truth: a failed response of requests is false.
    return (error,) if response is None else (error, response)


def _attribute(owner: object, name: str) -> object:
    """Return an attribute, or None where there is none or reading it raises."""
    try:
        value: object = getattr(owner, name, None)
    except Exception:
        return None
    return value


@functools.lru_cache(maxsize=512)
def _kind_carries_reply(kind: type[BaseException]) -> bool:
    """Return whether the type itself has a place for any part of a reply."""
    return any(hasattr(kind, name) for name in _PARTS)


def _number(value: str | None) -> float | None:
    """Return a header's value as a number that can be waited for."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _seconds_until(date: str, now: float | None) -> float | None:
    """Return the seconds until an HTTP date, which is in UTC even where it does not say so."""
    # Costly imports for a rare header.
    import email.utils
    from datetime import UTC

    try:
        when = email.utils.parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    # A service names an instant of the wall clock, so only the wall clock can measure it.
    return max(0.0, when.timestamp() - (time.time() if now is None else now))
