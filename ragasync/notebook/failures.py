"""The failures of a running job, grouped as they come."""

from __future__ import annotations

from itertools import islice
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED
from ragasync.reports.kinds import Kind, kinds_of, pattern_of

A_LOOK = 100
"""How many failures one drawing looks at: at 12 µs each, ten times a second, that is 1%."""

A_SECOND = 1_500
"""How many the last drawing looks at for each second of the run: 2% of it."""

LEAST, MOST = 1_000, 20_000
"""And how many whatever the run took: 12 ms for the shortest, a quarter of a second at most."""


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
        self._kinds: dict[tuple[str, str], Kind] = {}

    def __repr__(self) -> str:
        return f"<Failures of {len(self._kinds):,} kinds, {self.unseen:,} not grouped>"

    @property
    def kinds(self) -> list[Kind]:
        """The kinds, the commonest first."""
        return sorted(self._kinds.values(), key=lambda kind: (-kind.count, kind.first_row))

    @property
    def unseen(self) -> int:
        """How many errors no look has reached yet."""
        return len(self._columns.errors) - self._seen

    def look_at_all(self, seconds: float) -> None:
        """Take in what is left, as much as is decent for a run of so many seconds."""
        self.look(max(LEAST, min(MOST, round(seconds * A_SECOND))))

    def look(self, at_most: int = A_LOOK) -> bool:
        """Take in errors that came since the last look; True if this has changed anything."""
        rows = self._unsettled + self._next_rows(at_most)
        status = self._columns.status
        failed = [row for row in rows if status[row] == FAILED]
        # An error is written before its status is, and those of cancelled items do not count.
        self._unsettled = [row for row in rows if not status[row]]
        for kind in kinds_of(self._columns, failed):
            self._add(kind)
        return bool(failed)

    def _next_rows(self, at_most: int) -> list[int]:
        """Return the rows of the next errors; in one step of C, so safe beside other threads."""
        there = len(self._columns.errors)
        rows = []
        if there > self._seen:
            rows = list(islice(self._columns.errors, self._seen, self._seen + at_most))
            self._seen += len(rows)
        self.left_over = max(0, there - self._seen)
        return rows

    def _add(self, new: Kind) -> None:
        """Add some errors of one kind to those that were seen of it."""
        key = new.error_type, pattern_of(new.example)
        kind = self._kinds.setdefault(key, new)
        if kind is new:
            return
        if new.message != kind.message:
            kind.message = key[1]
        if new.first_row < kind.first_row:
            kind.first_row, kind.example = new.first_row, new.example
        kind.count += new.count
        kind.seconds += new.seconds
