"""
Retry-After: the wait that a service asks for, in headers, in gRPC's RetryInfo, or in its message.

The durations in them are numbers of seconds, or texts like "1m30s" and "250ms".
"""

from __future__ import annotations

import math
import numbers
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from ragasync._retries.http import (
    http_status,
    linked_errors,
    may_have_response,
    own_headers,
    own_status,
    response_bodies,
    trailing_metadata,
)
from ragasync.foreign_errors import attribute, field, guarded, plain_text, stands_alone, text_of

_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms", "grpc-retry-pushback-ms")

_FIRST_EPOCH: Final = 1e9
"""From this many seconds on, a reset is a time since 1970; from 100 times as many, in ms."""

_RETRY_INFO = "google.rpc.retryinfo-bin"
_STATUS_DETAILS = "grpc-status-details-bin"

_NUMBER: Final = re.compile(r"\d+(?:\.\d*)?(?:e\+?\d+)?", re.ASCII | re.IGNORECASE)

_SECONDS: Final = {
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_UNIT: Final = "us|µs|ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?"
_PART: Final = re.compile(
    rf"(\d{{1,12}}(?:\.\d{{1,12}})?) ?({_UNIT})(?![a-z])", re.ASCII | re.IGNORECASE
)
# Each repetition begins with a digit and ends with a unit, so that matching never backtracks.
_LENGTH: Final = rf"(?:{_PART.pattern}(?:,? (?:and )?(?=\d))?)+"
_WHOLE: Final = re.compile(_LENGTH, re.ASCII | re.IGNORECASE)
_ADVICE: Final = re.compile(
    r"\b(?:again|retry|retrying|wait)(?: (?:your|the|this) \w{1,12})?(?: again)?[ -]"
    r"(?:(?:in|after|for|at least|about|approximately|another) ){0,3}"
    rf"(?P<length>{_LENGTH})",
    re.ASCII | re.IGNORECASE,
)


def retry_after_of(error: BaseException, now: float | None = None) -> float | None:
    """
    Return the Retry-After of an error in seconds; 0 asks for no wait, None says nothing of it.

    The first of these sources that is present counts; if it is present several times, the longest:

    1. With any status: the header `retry-after-ms`, or else `Retry-After`, which is a number of
       seconds or an HTTP date (RFC 9110, section 10.2.3); RetryInfo of Google's errors.
    2. On a 429: `x-ratelimit-reset-*` of each limit whose `x-ratelimit-remaining-*` is 0.
    3. On a 429 or 503: the text of the message, as in "try again in 1m30s".

    A time that is past, negative, infinite or malformed counts as absent.

    Args:
        error: The exception that a client raised.
        now: The wall-clock time in seconds since 1970, for HTTP dates; by default `time.time()`.
    """
    if stands_alone(error) and not may_have_response(error):
        return None
    links = tuple(linked_errors(error))
    stated = [wait for link in links for wait in _stated_waits(link, now)]
    if stated:
        return max(stated)
    status = http_status(error)
    if status is None:
        return None
    # An error without a status of its own wraps the one that has it.
    statuses = [(link, own_status(link) or status) for link in links]
    waits = [wait for link, own in statuses if own == 429 for wait in _resets(link, now)]
    if not waits:
        overloaded = (link for link, own in statuses if own in (429, 503))
        waits = [wait for link in overloaded for wait in advised_waits(text_of(link))]
    return max(waits, default=None)


def describe_wait(seconds: float) -> str:
    """Return a wait as text: its duration, and the local time at which it ends."""
    length = f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.3g} s"
    try:
        end = datetime.now().astimezone() + timedelta(seconds=seconds)
    except OverflowError:  # after the year 9999
        return length
    return f"{length}, until {end:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def _stated_waits(error: BaseException, now: float | None) -> Iterator[float]:
    """Yield the waits in seconds from the headers and the RetryInfo of this one error."""
    if not may_have_response(error):
        return
    headers = own_headers(error)
    milliseconds = (number_of(headers.get(name)) for name in _MILLISECONDS)
    wait = next((each / 1000 for each in milliseconds if each is not None), None)
    if wait is None and (value := headers.get("retry-after")) is not None:
        wait = number_of(value)
        wait = _seconds_until(value, now) if wait is None else wait
    waits = [wait, seconds_of(attribute(error, "retry_after")), *_retry_info_delays(error)]
    waits += [
        seconds_of(field(part, name))
        for part in response_bodies(error)
        for name in ("retry_delay", "retryDelay")
    ]
    yield from (seconds for seconds in waits if seconds is not None)


def _resets(error: BaseException, now: float | None) -> Iterator[float]:
    """Yield the seconds until each exhausted rate limit resets, according to the headers."""
    headers = own_headers(error)
    for name, value in headers.items():
        before, found, kind = name.partition("x-ratelimit-reset")
        if before or not found or number_of(headers.get(f"x-ratelimit-remaining{kind}")) != 0:
            continue
        seconds = seconds_of(value)
        if seconds is not None and seconds >= _FIRST_EPOCH:  # a time since 1970, not a duration
            seconds = seconds / 1000 if seconds >= _FIRST_EPOCH * 100 else seconds
            seconds = number_of(seconds - (time.time() if now is None else now))
        if seconds is not None:
            yield seconds


def _seconds_until(date: str, now: float | None) -> float | None:
    """Return the seconds until an HTTP date, which is in UTC even if it does not say so."""
    import email.utils  # slow to import, for a rare header

    when: Any = guarded(lambda: email.utils.parsedate_to_datetime(date[:64]))
    if when is None:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    # The service names a wall-clock time, so the wall clock has to measure it.
    return number_of(when.timestamp() - (time.time() if now is None else now))


def _retry_info_delays(error: BaseException) -> Iterator[float]:
    """Yield the delay in seconds of each google.rpc.RetryInfo in a gRPC error's metadata."""
    for name, value in trailing_metadata(error):
        if name == _RETRY_INFO:
            yield from _seconds_in_retry_info(value)
        elif name == _STATUS_DETAILS:
            # Field 3 of google.rpc.Status has the details, each an Any: 1 is its type, 2 its value.
            for detail in (dict(_fields(value)) for number, value in _fields(value) if number == 3):
                kind = detail.get(1)
                if isinstance(kind, bytes) and kind.endswith(b"google.rpc.RetryInfo"):
                    yield from _seconds_in_retry_info(detail.get(2))


def _seconds_in_retry_info(message: object) -> Iterator[float]:
    """Yield the delay of a google.rpc.RetryInfo: field 1, a Duration (1 seconds, 2 nanos)."""
    duration = dict(_fields(dict(_fields(message)).get(1)))
    seconds, nanos = duration.get(1, 0), duration.get(2, 0)
    # A negative number is encoded in 64 bits, so it would be too large for a Duration.
    if not (duration and isinstance(seconds, int) and isinstance(nanos, int)):
        return
    if seconds < 1 << 62 and nanos < 10**9:
        yield seconds + nanos / 1e9


def _fields(message: object) -> list[tuple[int, object]]:
    """
    Return the fields of a protobuf message: pairs of a field number and an int or bytes.

    It reads the wire format (protobuf.dev/programming-guides/encoding), because grpc works without
    Google's classes for these messages. Of a truncated message the complete fields count.
    """
    found: list[tuple[int, object]] = []
    data = iter(message if isinstance(message, bytes) else b"")
    while (key := _varint(data)) is not None:
        kind = key & 7
        size = {1: 8, 5: 4}.get(kind, 0) or _varint(data)
        if size is None:
            break
        found.append((key >> 3, size if kind == 0 else bytes(islice(data, min(size, 1 << 20)))))
    return found


def _varint(data: Iterator[int]) -> int | None:
    """Return the next varint of a protobuf message (7 bits a byte), or None at its end."""
    number = 0
    for place, byte in enumerate(islice(data, 10)):
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number
    return None


def number_of(value: object) -> float | None:
    """Return a non-negative finite number, given as a number or in ASCII digits; else None."""
    text = plain_text(value)
    if text is not None:
        number = float(text) if len(text) < 32 and _NUMBER.fullmatch(text) else math.nan
    elif issubclass(type(value), numbers.Real) and type(value) is not bool:
        read = guarded(float, value)
        number = read if isinstance(read, float) else math.nan
    else:
        return None
    return number if 0 <= number < math.inf else None


def seconds_of(length: object) -> float | None:
    """
    Return a duration in seconds, or None if the value is not a duration.

    It may be a number, a text with or without units, a timedelta, or a protobuf Duration (also as
    a dict).

    Example:
        >>> [seconds_of(text) for text in ("6m0s", "1s", "250ms", "1h2m3.5s", "7", "soon")]
        [360.0, 1.0, 0.25, 3723.5, 7.0, None]
    """
    if (seconds := number_of(length)) is not None or length is None:
        return seconds
    if (text := plain_text(length)) is not None:
        text = text.strip()
        is_length = len(text) < 64 and " " not in text and _WHOLE.fullmatch(text)
        return _sum(text) if is_length else number_of(text)
    if issubclass(type(length), timedelta):
        return number_of(length.total_seconds())  # type: ignore[attr-defined]
    whole, nanos = (number_of(field(length, name)) for name in ("seconds", "nanos"))
    return None if whole is None and nanos is None else (whole or 0.0) + (nanos or 0.0) / 1e9


def advised_waits(message: str) -> Iterator[float]:
    """Yield the durations in seconds that a message asks to wait ("try again in 1m30s")."""
    yield from (_sum(match["length"]) for match in _ADVICE.finditer(message))


def _sum(length: str) -> float:
    """Return a matched duration in seconds, its parts added up."""
    return math.fsum(float(number) * _seconds(unit) for number, unit in _PART.findall(length))


def _seconds(unit: str) -> float:
    """Return a unit of time in seconds, by its short or long name."""
    unit = unit.lower()
    return _SECONDS.get(unit) or _SECONDS["ms" if unit.startswith("milli") else unit[0]]
