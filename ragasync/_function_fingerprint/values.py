"""Fingerprints of plain values: short text if it is certainly not a secret, else a digest."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import islice
from pathlib import PurePath
from types import MappingProxyType, ModuleType
from typing import Any, Final
from uuid import UUID

from ragasync._function_fingerprint.code import digest
from ragasync._function_fingerprint.settings import NATIVE, module_of, name_of, qualname
from ragasync._redact import redact
from ragasync.foreign_errors import is_a

DEEPEST: Final = 6
"""Maximum depth of nested plain data and objects."""

CONTAINERS: Final = (list, tuple, dict, set, frozenset)
"""Types of containers of values."""

_LONGEST_SHOWN: Final = 40
_MOST_ENTRIES: Final = 10_000
_MOST_CHARACTERS: Final = 1 << 20
_BRACKETS: Final = {list: ("[", "]"), tuple: ("(", ")")}
_SECRET: Final = re.compile(
    "key|tok|secret|pass|pw|api|auth|cred|cookie|session|dsn|bearer|sign|private|header",
    re.IGNORECASE,
)
_WORD: Final = r"(?:[A-Za-z]?[a-z]{0,15}|[A-Z]{1,5}|\d{1,8}|[A-Za-z\d]{1,6})"
_SAID: Final = re.compile(rf"{_WORD}(?:[-_./:]+{_WORD})*")
_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice)
_WRITTEN_OUT: Final = (date, time, timedelta, timezone, Decimal, Fraction, UUID)


class NotPlain(Exception):
    """A value is not plain data."""


def shown(name: str, value: object) -> str:
    """
    Fingerprint part of a plain value: the value itself if it cannot be a secret, else a digest.

    Shown are numbers, names in code, and short texts of words and numbers, such as model names.

    Raises:
        NotPlain: it is not plain data.
    """
    text = plain(value)
    is_named = is_a(value, (bool, int, float, type(None), Enum, type, ModuleType, *NATIVE))
    is_said = is_named or (is_a(value, str) and _SAID.fullmatch(value) is not None)
    is_secret = _SECRET.search(name) or _SECRET.search(text) or redact(text) != text
    if is_said and not is_secret and len(text) <= _LONGEST_SHOWN + 2:
        return f"value:{text}"
    return f"digest:{digest(text)}"


def plain(value: object) -> str:
    """
    Plain data as text that is the same in every process; large data is truncated.

    Raises:
        NotPlain: it is not plain data.
    """
    return _Writing().text(value)


def entries(value: Any) -> Iterator[tuple[object, object]]:
    """Keys and entries of a container; none for a set, which has no order."""
    base: Any = next(cls for cls in CONTAINERS if is_a(value, cls))
    if base is dict:
        yield from dict.items(value)
    elif base in (list, tuple):
        yield from enumerate(base.__iter__(value))


class _Writing:
    """Writes plain data as text, up to a number of entries and characters."""

    def __init__(self) -> None:
        self._entries, self._characters = _MOST_ENTRIES, _MOST_CHARACTERS

    def text(self, value: Any, depth: int = 0) -> str:
        """A value as text."""
        kind: type = type(value)
        if is_a(value, Enum):
            return f"{qualname(kind)}.{object.__getattribute__(value, '_name_')}"
        if kind in _PLAIN:
            return self._scalar(value)
        if is_a(value, type):
            return f"class {qualname(value)}"
        if is_a(value, NATIVE):
            return name_of(value)
        if is_a(value, ModuleType):
            return f"module {vars(value).get('__name__')}"
        if is_a(value, PurePath) and module_of(kind).startswith("pathlib"):
            return f"Path({str(value)!r})"
        if kind is re.Pattern:
            return f"re({value.pattern!r}, {value.flags})"
        if kind in _WRITTEN_OUT or (
            kind is datetime and type(value.tzinfo) in (timezone, type(None))
        ):
            return repr(value)
        if kind is MappingProxyType:
            (value,) = gc.get_referents(value)  # reading the proxy may run code of the user
        if is_a(value, CONTAINERS) and depth <= DEEPEST:
            return self._container(value, depth + 1)
        return self._of_numpy(value, depth + 1)

    def _scalar(self, value: Any) -> str:
        """A scalar value as text."""
        if not is_a(value, (str, bytes)):
            return hex(value) if type(value) is int and value.bit_length() > 64 else repr(value)
        shown = value[: self._characters]
        self._characters -= len(shown)
        return repr(shown) + (f" of {len(value)}" if len(shown) < len(value) else "")

    def _container(self, value: Any, depth: int) -> str:
        """A container of plain data as text; dicts and sets are sorted."""
        base: Any = next(cls for cls in CONTAINERS if is_a(value, cls))
        size, room = base.__len__(value), self._entries
        self._entries = max(0, room - size)
        if base is dict:
            pairs = islice(dict.items(value), room)
            texts = [f"{self.text(key, depth)}: {self.text(each, depth)}" for key, each in pairs]
        elif base in (set, frozenset) and size > room:
            texts = []  # their order differs in every process
        else:
            texts = [self.text(entry, depth) for entry in islice(base.__iter__(value), room)]
        if base not in (list, tuple):
            texts.sort()
        opening, closing = _BRACKETS.get(base, ("{", "}"))
        own = "" if type(value) in CONTAINERS else qualname(type(value))
        more = f" of {size}" if size > len(texts) else ""
        return f"{own}{opening}{', '.join(texts)}{closing}{more}"

    def _of_numpy(self, value: Any, depth: int) -> str:
        """A numpy scalar or array as text, if numpy is loaded."""
        numpy = sys.modules.get("numpy")
        if numpy is not None and is_a(value, numpy.generic):
            return f"{qualname(type(value))}({self.text(numpy.generic.item(value), depth)})"
        if numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject:
            content = value.tobytes() if value.nbytes <= _MOST_CHARACTERS else b""
            return f"array({value.shape}, {value.dtype}, {digest(content.hex())})"
        raise NotPlain
