"""Durations as services write them: in headers, in JSON and in the text of a message."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from ragasync.foreign_errors import field, guarded, plain_text

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
