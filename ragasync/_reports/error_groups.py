"""Error groups: failures of one type whose messages differ only in numbers and quoted values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import islice
from time import perf_counter
from typing import Any

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import FAILED

GROUPS_SHOWN = 5
"""The number of error groups that a display lists; a table has all of them."""

COMPARED_CHARS = 300
"""The length of the start of a message that decides its group."""

_CACHED_MESSAGES = 10_000
"""The number of messages whose group is cached."""

_VARYING = r"""
    [0-9'"] (?:  # the first character: lets the scan skip everything else fast
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
"""The parts of a message that vary within a group. HTTP statuses and encodings do not count."""


@dataclass(slots=True)
class ErrorGroup:
    """
    Errors of one type whose messages differ only in numbers and quoted values.

    Attributes:
        error_type: the class name, without its module.
        message: the message if all are equal, otherwise the template that they share.
        example: the message of the first error.
        first_row: the row of the first item that failed this way.
        count: the number of items that failed this way.
        seconds: the time in the calls of these items, added up.
    """

    error_type: str
    message: str
    example: str
    first_row: int
    count: int = 0
    seconds: float = 0.0


def error_template(message: str) -> str:
    """
    Replace the numbers in an error message by # and its quoted values by …, in linear time.

    HTTP statuses and names of encodings stay as they are.

    Example:
        >>> error_template("item 17 is no 'path'")
        'item # is no …'
    """
    parts: list[str] = []
    done = 0
    for match in _varying().finditer(message):
        start, end = match.span()
        sort = match.lastgroup
        if sort == "hash":
            start = _hash_start(message, done, start, end)
        elif sort is not None:
            continue
        parts += message[done:start], "…" if message[start] in "'\"" else "#"
        done = end
    return "".join((*parts, message[done:]))


@cache
def _varying() -> re.Pattern[str]:
    """Compile the pattern of varying parts at the first error: it takes longer than the import."""
    return re.compile(_VARYING, re.VERBOSE | re.IGNORECASE)


def _hash_start(message: str, done: int, start: int, end: int) -> int:
    """
    Find the first character of a hash, given its first digit at `start`.

    A hash may begin with letters (`deadbeef01`), but the pattern only looks at digits. What is too
    short for a hash is a number, and begins at `start`.
    """
    before = message[max(done, start - 40) : start]
    word = before.rstrip("abcdefABCDEF")
    is_whole = not word or not (word[-1].isalnum() or word[-1] == "_")
    letters = len(before) - len(word)
    return start - letters if is_whole and end - start + letters >= 8 else start


class ErrorGroups:
    """
    The groups of the errors added so far.

    The most common groups are available at any time, however many groups there are: adding an
    error compares its group with those at the top only.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], ErrorGroup] = {}
        self._by_message: dict[tuple[str, str], ErrorGroup] = {}
        self._top: list[ErrorGroup] = []
        self.count = 0
        """The number of errors added."""

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, columns: Columns[Any, Any], row: int) -> None:
        """Add the error of a failed item."""
        name, message, _ = columns.error_text(row)
        group = self._by_message.get((name, message)) or self._group_of(name, message, row)
        if row < group.first_row:
            group.first_row, group.example = row, message
        group.count += 1
        group.seconds += columns.seconds[row]
        self.count += 1
        self._update_top(group)

    def most_common(self) -> list[ErrorGroup]:
        """The GROUPS_SHOWN groups with the most errors, largest first."""
        return self._top[:]

    def others(self) -> tuple[int, int]:
        """The number of errors outside the most common groups, and of their groups."""
        shown = sum(group.count for group in self._top)
        return self.count - shown, len(self._groups) - len(self._top)

    def ranked(self) -> list[ErrorGroup]:
        """All error groups, largest first."""
        return sorted(self._groups.values(), key=_rank)

    def _group_of(self, name: str, message: str, row: int) -> ErrorGroup:
        """Find the group of a message that is not cached, or create it."""
        start = message[:COMPARED_CHARS]
        template = error_template(start) + ("…" if len(start) < len(message) else "")
        group = self._groups.get((name, template))
        if group is None:
            group = self._groups[name, template] = ErrorGroup(name, message, message, row)
        elif message != group.example:
            group.message = template
        if len(self._by_message) < _CACHED_MESSAGES:
            self._by_message[name, message] = group
        return group

    def _update_top(self, group: ErrorGroup) -> None:
        """Keep the most common groups in order after one group grew."""
        top = self._top
        if len(top) == GROUPS_SHOWN and _rank(top[-1]) < _rank(group):
            return
        if not any(group is shown for shown in top):
            top.append(group)
        top.sort(key=_rank)
        del top[GROUPS_SHOWN:]


def _rank(group: ErrorGroup) -> tuple[int, int]:
    """The sort key of error groups: largest first, then in input order."""
    return -group.count, group.first_row


def group_errors(columns: Columns[Any, Any]) -> ErrorGroups:
    """
    Group the errors of the failed items.

    The groups are cached in the columns until another item fails, so that all views of a result
    share them.
    """
    groups = columns.views.get("error_groups")
    if not isinstance(groups, ErrorGroups) or groups.count != columns.status.count(FAILED):
        groups = ErrorGroups()
        for row in columns.rows_with(FAILED):
            groups.add(columns, row)
        columns.views["error_groups"] = groups
    return groups


# ── error groups of a running job ───────────────────────────────────────────────────────────────

UPDATE_ERRORS = 100
"""The number of errors that one update of a live view groups."""

FINAL_ERRORS_PER_SECOND = 1_500
"""The number of errors that the final update groups for each second of the run."""

FINAL_ERRORS_MIN, FINAL_ERRORS_MAX = 1_000, 20_000
"""Bounds on the number of errors that the final update groups."""

UPDATE_SECONDS = 0.012
"""The time limit of one update after its first error: it may run on the event loop."""


class LiveErrorGroups:
    """
    The error groups of a running job, updated a few errors at a time.

    Args:
        columns: the outcomes of the job; another thread may be writing them.

    Attributes:
        groups: the error groups so far.
        backlog: the number of errors that the last update left for the next one.
    """

    def __init__(self, columns: Columns[Any, Any]) -> None:
        self.columns = columns
        self.groups = ErrorGroups()
        self.backlog = 0
        self._read = 0
        self._without_status: list[int] = []

    def __repr__(self) -> str:
        return f"<LiveErrorGroups: {len(self.groups):,} groups, {self.ungrouped:,} not grouped>"

    @property
    def ungrouped(self) -> int:
        """The number of errors that no update has read yet."""
        return len(self.columns.errors) - self._read

    def update_finally(self, seconds: float) -> None:
        """Group the remaining errors, with a bound that grows with the seconds of the run."""
        errors = round(seconds * FINAL_ERRORS_PER_SECOND)
        self.update(max(FINAL_ERRORS_MIN, min(FINAL_ERRORS_MAX, errors)))

    def update(self, at_most: int = UPDATE_ERRORS) -> bool:
        """Group errors that came since the last update; True if this changed any group."""
        until = None
        grouped, available = self.groups.count, len(self.columns.errors)
        without_status, self._without_status = self._without_status, []
        for row in without_status:
            self._add(row)
        # list(islice(...)) is one step of C code, so that no other thread can add an error to the
        # dict meanwhile, which would raise a RuntimeError.
        for row in list(islice(self.columns.errors, self._read, self._read + at_most)):
            self._add(row)
            self._read += 1
            # The first error of a process compiles the patterns that find secrets and numbers,
            # which takes longer than an update may. It would be the only one of a few errors.
            until = until or perf_counter() + UPDATE_SECONDS
            if perf_counter() > until:
                break
        self.backlog = max(0, available - self._read)
        return self.groups.count > grouped

    def _add(self, row: int) -> None:
        """Add an error to its group, if its item failed."""
        # A job writes the error before the status. Errors of cancelled items do not count.
        status = self.columns.status[row] if row < len(self.columns.status) else 0
        if status == FAILED:
            self.groups.add(self.columns, row)
        elif not status:
            self._without_status.append(row)
