"""Canonical text of items: the same for equal data, in every run and on every machine."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

PLAIN = (str, int, float, bool, type(None))

_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

encode_scalar = _encoder.encode
"""Encodes one text or number."""


def canonical_json(value: object) -> str | None:
    """Plain data as JSON that does not depend on the order of dicts; None for other data."""
    if not _is_plain(value):
        return None
    try:
        return _encoder.encode(value)
    except (ValueError, RecursionError):  # a cycle, or an int with too many digits
        return None


def canonical_row(value: object) -> str | None:
    """
    Data as rows of DataFrames have it, as text; None if a part of it has no canonical form.

    Dates, times, Decimals, UUIDs, bytes, arrays, sets and dicts with other keys than texts are
    tagged with their kind. A Timestamp of pandas is a datetime, and each missing value is None.
    """
    try:
        return _encoder.encode(_tagged(value))
    except Exception:  # of a foreign class, or data that is nested too deeply
        return None


def _is_plain(value: object) -> bool:
    """Whether a value consists of plain data only, without subclasses or other dict keys."""
    kind = type(value)
    if kind in PLAIN:
        return True
    try:
        if isinstance(value, list | tuple) and kind in (list, tuple):
            return all(map(_is_plain, value))
        if isinstance(value, dict) and kind is dict:
            return all(type(name) is str for name in value) and all(map(_is_plain, value.values()))
    except RecursionError:
        return False
    return False


def _tagged(value: Any) -> Any:
    """
    Data as JSON in which everything but scalars and lists is a dict of one tag.

    Raises:
        TypeError: a part of it has no canonical form.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind in (list, tuple):
        return list(map(_tagged, value))
    if kind is dict:
        pairs = [[_tagged(name), _tagged(each)] for name, each in value.items()]
        return {"dict": sorted(pairs, key=lambda pair: _encoder.encode(pair[0]))}
    if kind in (set, frozenset):
        return {"set": sorted(map(_tagged, value), key=_encoder.encode)}
    if kind in (bytes, bytearray):
        return {"bytes": value.hex()}
    if kind in (Decimal, UUID):
        return {kind.__name__: str(value)}
    library = kind.__module__.partition(".")[0]
    if library == "pandas" and kind.__name__ in ("NAType", "NaTType"):
        return None
    if library == "pandas" and kind.__name__ in ("Period", "Interval"):
        return {kind.__name__: str(value)}
    if library == "numpy" and hasattr(value, "dtype"):
        return _of_numpy(value)
    return _of_time(value)


def _of_time(value: Any) -> Any:
    """A date, a time or a duration, with the nanoseconds of pandas."""
    if isinstance(value, datetime.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, datetime.date | datetime.time):
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, datetime.timedelta):
        nanoseconds = getattr(value, "nanoseconds", 0)
        return {"timedelta": [value.days, value.seconds, value.microseconds, nanoseconds]}
    raise TypeError(f"{value!r:.200} has no canonical form")


def _of_numpy(value: Any) -> Any:
    """A scalar or an array of numpy; one of objects by its elements."""
    if value.dtype.kind in "mM":
        return {str(value.dtype): value.astype("int64").tolist()}
    plain = value.tolist()
    return _tagged(plain) if value.ndim == 0 else {"array": _tagged(plain)}
