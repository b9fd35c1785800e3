"""Errors as text, and the few kinds that many errors fall into."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED

KINDS_SHOWN = 5
"""How many kinds of errors a display tells apart; a table has all."""

_REMEMBERED = 10_000
"""Messages whose kind is known without another look at them."""

_VARYING = r"""
    [0-9'"] (?:  # what a part begins with, so that all else is passed over fast
      (?<= \d ) (?: (?<= [45] ) (?= \d\d \b ) (?P<status>
            (?: (?<= ^. ) (?= .. [\s,:] )
            | (?<= \b(?:http|code)\b\W. ) | (?<= \b(?:http|code)\b\W\W. )
            | (?<= \b(?:http|code)\b\W\W\W. ) | (?<= \berror\b\W. ) | (?<= \berror\b\W\W. )
            | (?<= \berror\b\W\W\W. ) | (?<= \bstatus\b\W. ) | (?<= \bstatus\b\W\W. )
            | (?<= \bstatus\b\W\W\W. ) ) \d\d )
        | (?<= [pfo-]. ) (?P<encoding>
            (?: (?<= \bcp. ) | (?<= \b(?:utf|iso). ) | (?<= \b(?:utf|iso)-. ) ) [\d-]*+ \b )
        | (?<! [a-f_]. ) \d*+ (?: \.\d++ )*+ (?! [a-fx] | -[0-9a-f]{4} )
        | (?<= 0 ) (?<! \w0 ) x [0-9a-f]++ \b
        | (?P<hash> [0-9a-f]*+ (?: -[0-9a-f]{4,}+ )*+ ) \b
        | \d*+ )
    | (?<= ' ) (?<! \w' ) [^'\n]*+ ' (?!\w)
    | (?<= " ) (?<! \w" ) [^"\n]*+ " (?!\w) )
    """
"""What differs between messages of one kind; HTTP statuses and encodings are kept apart."""

COMPARED = 300
"""Characters of a message that tell which kind it is of."""


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


def error_template(message: str) -> str:
    """
    Return a message with numbers as # and quoted values as …, but HTTP statuses as they are.

    The time is linear in the message.

    Example:
        >>> error_template("item 17 is no 'path'")
        'item # is no …'
    """
    parts: list[str] = []
    done = 0
    for found in _varying().finditer(message):
        start, end = found.span()
        sort = found.lastgroup
        if sort == "hash":
            start = _hash_start(message, done, start, end)
        elif sort is not None:
            continue
        parts += message[done:start], "…" if message[start] in "'\"" else "#"
        done = end
    return "".join((*parts, message[done:]))


@cache
def _varying() -> re.Pattern[str]:
    """Return what varies, compiled at the first error: that takes longer than the import."""
    return re.compile(_VARYING, re.VERBOSE | re.IGNORECASE)


def _hash_start(message: str, done: int, start: int, end: int) -> int:
    """Return where the hash begins that has its first digit at `start`; a number begins there."""
    before = message[max(done, start - 40) : start]
    word = before.rstrip("abcdefABCDEF")
    is_whole = not word or not (word[-1].isalnum() or word[-1] == "_")
    letters = len(before) - len(word)
    return start - letters if is_whole and end - start + letters >= 8 else start


class Kinds:
    """
    The kinds that errors fall into, grouped as they are added.

    The commonest are at hand at any time, however many kinds there are.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._of_message: dict[tuple[str, str], Kind] = {}
        self._commonest: list[Kind] = []
        self.count = 0
        """How many errors were added."""

    def __len__(self) -> int:
        return len(self._kinds)

    def add(self, columns: Columns[Any, Any], row: int) -> None:
        """Add the error of an item that failed."""
        name, message, _ = columns.error_text(row)
        kind = self._of_message.get((name, message)) or self._kind_of(name, message, row)
        if row < kind.first_row:
            kind.first_row, kind.example = row, message
        kind.count += 1
        kind.seconds += columns.seconds[row]
        self.count += 1
        self._rank(kind)

    def commonest(self) -> list[Kind]:
        """Return the KINDS_SHOWN kinds with the most errors."""
        return self._commonest[:]

    def others(self) -> tuple[int, int]:
        """Return how many errors are not of the commonest kinds, and of how many kinds they are."""
        top = self._commonest
        return self.count - sum(kind.count for kind in top), len(self._kinds) - len(top)

    def ranked(self) -> list[Kind]:
        """Return all kinds, the commonest first."""
        return sorted(self._kinds.values(), key=_rank_of)

    def _kind_of(self, name: str, message: str, row: int) -> Kind:
        """Return the kind of a message that was not seen before, a new one if it is like none."""
        start = message[:COMPARED]
        pattern = error_template(start) + ("…" if len(start) < len(message) else "")
        kind = self._kinds.get((name, pattern))
        if kind is None:
            kind = self._kinds[name, pattern] = Kind(name, message, message, row)
        elif message != kind.example:
            kind.message = pattern
        if len(self._of_message) < _REMEMBERED:
            self._of_message[name, message] = kind
        return kind

    def _rank(self, kind: Kind) -> None:
        """Keep the commonest in order after one of them, or one that may become one, grew."""
        top = self._commonest
        if len(top) == KINDS_SHOWN and _rank_of(top[-1]) < _rank_of(kind):
            return
        if not any(kind is one for one in top):
            top.append(kind)
        top.sort(key=_rank_of)
        del top[KINDS_SHOWN:]


def _rank_of(kind: Kind) -> tuple[int, int]:
    """Return what kinds are ordered by: the commonest first, then as they came."""
    return -kind.count, kind.first_row


def grouped(columns: Columns[Any, Any]) -> Kinds:
    """
    Return the errors among the items that failed, grouped by kind.

    They are grouped once for columns that do not change any more: all views share that.
    """
    kinds = columns.views.get("kinds")
    if not isinstance(kinds, Kinds) or kinds.count != columns.status.count(FAILED):
        kinds = Kinds()
        for row in columns.rows_with(FAILED):
            kinds.add(columns, row)
        columns.views["kinds"] = kinds
    return kinds


def group_errors(columns: Columns[Any, Any]) -> list[Kind]:
    """Return the kinds of errors among the items that failed, the commonest first."""
    return grouped(columns).ranked()


def one_line(text: str, longest: int = 160) -> str:
    """Return text fit for one line of a display: bounded, and free of what cannot be shown."""
    start = text[: 4 * longest]
    line = " ".join(start.split()).encode("utf-8", "backslashreplace").decode()
    line = "".join(sign if sign.isprintable() else "�" for sign in line)
    return line if len(line) <= longest and start == text else line[: longest - 1] + "…"
