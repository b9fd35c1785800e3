"""The failures of a running job, grouped as they come."""

from __future__ import annotations

from itertools import islice
from time import perf_counter
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED
from ragasync.reports.error_groups import Kind, Kinds

A_LOOK = 100
"""How many failures one drawing looks at."""

A_SECOND = 1_500
"""How many the last drawing looks at for each second of the run."""

LEAST, MOST = 1_000, 20_000
"""And how many whatever the run took."""

LONGEST = 0.012
"""Seconds that one look may take, whatever the errors say: a loop may be drawing."""


class Failures:
    """
    The kinds of errors of a job so far, brought up to date a few errors at a time.

    Args:
        columns: the outcomes of the job, which another thread may be writing.
    """

    def __init__(self, columns: Columns[Any, Any]) -> None:
        self._columns = columns
        self._seen = 0
        self.left_over = 0
        """How many errors the last look left to the next; none that have come since."""
        self._unsettled: list[int] = []
        self._kinds = Kinds()

    def __repr__(self) -> str:
        return f"<Failures of {len(self._kinds):,} kinds, {self.unseen:,} not grouped>"

    @property
    def kinds(self) -> list[Kind]:
        """All kinds, the commonest first."""
        return self._kinds.ranked()

    @property
    def commonest(self) -> list[Kind]:
        """The kinds that a display tells apart, the commonest first; at hand at any time."""
        return self._kinds.commonest()

    @property
    def others(self) -> tuple[int, int]:
        """How many errors are of other kinds than those, and of how many kinds."""
        return self._kinds.others()

    @property
    def unseen(self) -> int:
        """How many errors no look has reached yet."""
        return len(self._columns.errors) - self._seen

    def look_at_all(self, seconds: float) -> None:
        """Take in what is left, as much as is decent for a run of so many seconds."""
        self.look(max(LEAST, min(MOST, round(seconds * A_SECOND))))

    def look(self, at_most: int = A_LOOK) -> bool:
        """Take in errors that came since the last look; True if this has changed anything."""
        until = perf_counter() + LONGEST
        count, there = self._kinds.count, len(self._columns.errors)
        unsettled, self._unsettled = self._unsettled, []
        for row in unsettled:
            self._take_in(row)
        for row in self._next_rows(at_most):
            self._take_in(row)
            self._seen += 1
            if perf_counter() > until:
                break
        self.left_over = max(0, there - self._seen)
        return self._kinds.count > count

    def _next_rows(self, at_most: int) -> list[int]:
        """Return the rows of the next errors; in one step of C, so safe beside other threads."""
        return list(islice(self._columns.errors, self._seen, self._seen + at_most))

    def _take_in(self, row: int) -> None:
        """Group an error by its kind, if it is the outcome of its item."""
        # An error is written before its status is, and those of cancelled items do not count.
        status = self._columns.status[row] if row < len(self._columns.status) else 0
        if status == FAILED:
            self._kinds.add(self._columns, row)
        elif not status:
            self._unsettled.append(row)
