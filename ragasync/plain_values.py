"""Plain data as text that is the same in every process, and shown only where it is no secret."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import islice
from pathlib import PurePath
from types import ModuleType
from typing import Any, Final
from uuid import UUID

from ragasync.function_code import digest
from ragasync.masking.masked import masked
from ragasync.object_settings import NATIVE, is_a, name_of, qualname

DEEPEST: Final = 6
"""How deep plain data, and objects, are looked into."""

CONTAINERS: Final = (list, tuple, dict, set, frozenset)
"""What holds other values."""

_LONGEST_SHOWN: Final = 40
_MOST_ENTRIES: Final = 10_000
_MOST_BYTES: Final = 1 << 20
_SECRET: Final = re.compile(
    "key|token|secret|passw|pwd|auth|cred|cookie|session|dsn|bearer|sign|private|header",
    re.IGNORECASE,
)
_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice)
_WRITTEN_OUT: Final = (date, time, timedelta, timezone, Decimal, Fraction, UUID)


class NotPlain(Exception):
    """A value is no plain data."""


def shown(name: str, text: str) -> str:
    """Return a plain value as a part: itself where it is short and surely no secret."""
    if len(text) > _LONGEST_SHOWN + 2 or _SECRET.search(name) or _SECRET.search(text):
        return f"digest:{digest(text)}"
    return f"value:{text}" if masked(text) == text else f"digest:{digest(text)}"


def plain(value: Any, depth: int = 0) -> str:
    """
    Return plain data as text that is the same in every process.

    Raises:
        NotPlain: it is none.
    """
    kind: type = type(value)
    if is_a(value, Enum):
        return f"{qualname(kind)}.{object.__getattribute__(value, '_name_')}"
    if kind in _PLAIN:
        return _scalar(value)
    if is_a(value, type):
        return f"class {qualname(value)}"
    if is_a(value, NATIVE):
        return name_of(value)
    if is_a(value, ModuleType):
        return f"module {vars(value).get('__name__')}"
    if is_a(value, PurePath) and kind.__module__.startswith("pathlib"):
        return f"Path({str(value)!r})"
    if kind is re.Pattern:
        return f"re({value.pattern!r}, {value.flags})"
    if kind in _WRITTEN_OUT or (kind is datetime and type(value.tzinfo) in (timezone, type(None))):
        return repr(value)
    if is_a(value, CONTAINERS) and depth <= DEEPEST:
        return _container(value, depth)
    return _of_numpy(value, depth)


def _scalar(value: Any) -> str:
    """Return a number, text or the like as text; of a huge one its beginning and its size."""
    if is_a(value, (str, bytes)) and len(value) > _MOST_BYTES:
        return f"{value[:_MOST_BYTES]!r} of {len(value)}"
    return hex(value) if type(value) is int and value.bit_length() > 64 else repr(value)


def _container(value: Any, depth: int) -> str:
    """Return a list, tuple, set or dict of plain data as text; only a list's order counts."""
    kind = type(value)
    texts = [
        ": ".join(plain(part, depth + 1) for part in entry)
        if is_a(value, dict)
        else plain(entry, depth + 1)
        for entry in islice(
            dict.items(value) if is_a(value, dict) else entries(value), _MOST_ENTRIES
        )
    ]
    if not is_a(value, (list, tuple)):
        texts.sort()
    size = kind.__len__(value) if kind in CONTAINERS else len(texts)
    more = f" of {size}" if size > len(texts) else ""
    opening, closing = (
        ("{", "}")
        if not is_a(value, (list, tuple))
        else ("[", "]")
        if is_a(value, list)
        else ("(", ")")
    )
    own = "" if kind in CONTAINERS else qualname(kind)
    return f"{own}{opening}{', '.join(texts)}{closing}{more}"


def entries(value: Any) -> Iterator[object]:
    """Yield the entries of a container by the method of Python's own class."""
    base: Any = next(cls for cls in CONTAINERS if is_a(value, cls))
    if base is dict:
        return iter(list(dict.values(value)))
    found: Iterator[object] = base.__iter__(value)
    return found


def _of_numpy(value: Any, depth: int) -> str:
    """Return a number or a small array of numpy's as text, where numpy is loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and is_a(value, numpy.generic):
        return f"{type(value).__name__}({plain(numpy.generic.item(value), depth + 1)})"
    if numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject:
        content = value.tobytes() if value.nbytes <= _MOST_BYTES else b""
        return f"array({value.shape}, {value.dtype}, {digest(content.hex())})"
    raise NotPlain
