"""When a job has seen enough errors: a count, a share of the latest items, or all of the first."""

from __future__ import annotations

import re
from collections import deque
from itertools import repeat
from typing import TypeAlias

from ragasync.error_text import describe
from ragasync.foreign_errors import text_of
from ragasync.reports.summary import counted
from ragasync.retries.classify import http_status, retry_after_of

WINDOW = 100
"""Finished items that max_error_rate looks at: the latest."""
AT_LEAST = 20
"""Items that must have finished before max_error_rate counts: ten early failures prove little."""


class ErrorLimit:
    """
    Says when to stop, given each item's end.

    Args:
        max_errors: failed items that are allowed; one more stops the job. None allows any number.
        max_error_rate: the share of failures, in (0, 1), that is allowed among the last WINDOW
            finished items, judged from AT_LEAST items on. None allows any share.
    """

    def __init__(self, max_errors: int | None, max_error_rate: float | None) -> None:
        self._max_errors, self._max_error_rate = max_errors, max_error_rate
        self.counts_successes = max_error_rate is not None
        self._failed = 0
        self._latest: deque[bool] = deque(maxlen=WINDOW)

    def note_successes(self, items: int = 1) -> None:
        """Note that items succeeded; only a rate needs to know."""
        self._latest.extend(repeat(False, items))

    def note_failure(self) -> str | None:
        """Note that an item failed for good; return why to stop, or None."""
        self._failed += 1
        if self._max_errors is not None and self._failed > self._max_errors:
            return (
                f"{counted(self._failed, 'item')} failed, more than max_errors={self._max_errors}"
            )
        if self._max_error_rate is None:
            return None
        self._latest.append(True)
        seen, failed = len(self._latest), sum(self._latest)
        if seen < AT_LEAST or failed / seen <= self._max_error_rate:
            return None
        rate = f"max_error_rate={self._max_error_rate:g}"
        return f"{failed} of the last {seen} items failed, more than {rate}"


TELLING = frozenset({400, 401, 403, 404, 405})
"""Statuses by which a service says that the request is wrong, whoever sends it again."""

_PASSING = re.compile(
    r"https?://[^\s'\"<>]{1,500}"
    r"|\b(?:req|request|trace|chatcmpl|msg)[-_][A-Za-z0-9_-]{4,80}"
    r"|\brequest[ _-]?id['\"]?\s{0,3}[:=]?\s{0,3}['\"]?[A-Za-z0-9_-]{4,80}"
    r"|\b(?=[0-9a-fA-F-]{0,40}\d)[0-9a-fA-F]{8,64}(?:-[0-9a-fA-F]{4,12}){0,4}\b",
    re.IGNORECASE,
)
"""What differs between two messages about the same mistake: addresses, and the ids of requests."""

_Failure: TypeAlias = tuple[int, str]
"""The status of a failed call, and what its error says beside addresses and ids."""


class InitialFailures:
    """
    Notices that the first calls of a run all fail alike: a wrong model, path or key.

    One success, one other failure, or one reply that asks to wait, and it looks no further. The
    parts of a batch that was split are about items that have failed already. So they count only
    once two whole batches have failed, and until then they wait for the second one.

    Args:
        limit: how many failed calls stop the job; None switches the rule off.

    Attributes:
        defers_parts: whether the parts of a failed batch are to wait for further batches.
        have_stopped: whether all that were noted so far failed alike, and were enough.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._failure: _Failure | None = None
        self._whole = self._parts = 0
        self.defers_parts = self.have_stopped = False

    def note(self, error: BaseException, is_part: bool, has_success: bool) -> str | None:
        """
        Note that a call failed and is not made again as it was; return why to stop, or None.

        Args:
            error: what it raised.
            is_part: whether its call was split from another.
            has_success: whether any item of the run is done.
        """
        if self._limit is None:
            return None
        failure = None if has_success else _telling(error)
        if failure is None or self._failure not in (None, failure):
            self._limit, self.defers_parts, self.have_stopped = None, False, False
            return None
        self._failure = failure
        if is_part:
            self._parts += 1
        else:
            self._whole += 1
        self.defers_parts = self._whole < 2
        failed = self._whole if self.defers_parts else self._whole + self._parts
        if failed < self._limit:
            return None
        self.have_stopped = True
        return (
            f"{'the first call' if failed == 1 else f'the first {failed} calls all'} failed with "
            f"status {failure[0]}, as every other would "
            f"(max_initial_failures={self._limit}): {describe(error)}"
        )


def _telling(error: BaseException) -> _Failure | None:
    """Return what tells this failure from others, or None where it says nothing of the rest."""
    status = http_status(error)
    if status not in TELLING or retry_after_of(error) is not None:
        return None
    return status, _PASSING.sub("", text_of(error))
