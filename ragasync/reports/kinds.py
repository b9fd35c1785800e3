"""Errors as text, and the few kinds that many errors fall into."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED
from ragasync.saying import message_of, type_name

_VARYING = r"""
      (?P<kept> ^[45]\d\d(?=[\s,:]) | \b(?:http|status|code|error)\b\W{1,3}[45]\d\d\b
              | \b(?:cp|utf-?|iso-?)\d[\d-]*\b )                             # an encoding
    | (?<!\w) (?: '[^'\n]*' | "[^"\n]*" ) (?!\w)                           # a quoted value
    | \b 0x[0-9a-f]+ \b
    | \b (?=[0-9a-f-]*\d) [0-9a-f]{8,} (?:-[0-9a-f]{4,})* \b               # a hash or a UUID
    | \d+ (?:\.\d+)*
    """
"""What differs between messages of one kind; HTTP statuses and encodings are kept apart."""


@dataclass(slots=True)
class Kind:
    """
    Errors of one type whose messages differ in numbers and quoted values only.

    `message` is their message where all are alike, else the pattern they share. `seconds` is the
    time in calls of all of them together; `first_row` the first that failed so.
    """

    error_type: str
    message: str
    example: str
    first_row: int
    count: int = 0
    seconds: float = 0.0


def pattern_of(message: str) -> str:
    """
    Return a message with numbers as # and quoted values as …, but HTTP statuses as they are.

    Example:
        >>> pattern_of("item 17 is no 'path'")
        'item # is no …'
    """
    # Compiled at the first error: that takes longer than to import this package.
    return re.sub(_VARYING, _blank, message, flags=re.VERBOSE | re.IGNORECASE)


def _blank(found: re.Match[str]) -> str:
    """Return what stands in the pattern for one varying part."""
    text = found.group()
    if found["kept"]:
        return text
    return "…" if text[0] in "'\"" else "#"


def kinds_of(columns: Columns[Any, Any], rows: Iterable[int] | None = None) -> list[Kind]:
    """Return the kinds of errors among the items that failed, the commonest first."""
    kinds: dict[tuple[str, str], Kind] = {}
    patterns: dict[str, str] = {}
    for row in columns.rows_with(FAILED) if rows is None else rows:
        error = columns.errors[row]
        name, message = type_name(error), message_of(error)
        pattern = patterns.get(message)
        if pattern is None:
            pattern = patterns[message] = pattern_of(message)
        kind = kinds.get((name, pattern))
        if kind is None:
            kind = kinds[name, pattern] = Kind(name, message, message, row)
        elif message != kind.example:
            kind.message = pattern
        kind.count += 1
        kind.seconds += columns.seconds[row]
    return sorted(kinds.values(), key=lambda kind: (-kind.count, kind.first_row))


def one_line(text: str, longest: int = 160) -> str:
    """Return text fit for one line of a display: bounded, and free of what cannot be shown."""
    start = text[: 4 * longest]
    line = " ".join(start.split()).encode("utf-8", "backslashreplace").decode()
    line = "".join(sign if sign.isprintable() else "�" for sign in line)
    return line if len(line) <= longest and start == text else line[: longest - 1] + "…"
