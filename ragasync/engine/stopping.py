"""When a job has seen enough errors: a count, or a share of the latest items."""

from __future__ import annotations

from collections import deque
from itertools import repeat

from ragasync.reports.words import counted

WINDOW = 100
"""How many of the latest finished items a fraction looks at."""
AT_LEAST = 20
"""How many must have finished before a fraction says anything: ten early failures prove little."""


class ErrorLimit:
    """
    Says when to stop, given each item's end.

    Args:
        max_errors: a count, of which one more stops the job; or a fraction in (0, 1) of the last
            WINDOW finished items, AT_LEAST of them; None never stops it.
    """

    def __init__(self, max_errors: float | None) -> None:
        self._limit = max_errors
        self.counts_successes = type(max_errors) is float
        self._failed = 0
        self._latest: deque[bool] = deque(maxlen=WINDOW)

    def note_successes(self, items: int = 1) -> None:
        """Note that items succeeded; only a fraction needs to know."""
        self._latest.extend(repeat(False, items))

    def note_failure(self) -> str | None:
        """Note that an item failed for good; return why to stop, or None."""
        self._failed += 1
        if self._limit is None:
            return None
        if not self.counts_successes:
            return (
                f"{counted(self._failed, 'item')} failed, more than max_errors={self._limit}"
                if self._failed > self._limit
                else None
            )
        self._latest.append(True)
        seen, failed = len(self._latest), sum(self._latest)
        if seen < AT_LEAST or failed / seen <= self._limit:
            return None
        return f"{failed} of the last {seen} items failed, more than max_errors={self._limit:g}"
