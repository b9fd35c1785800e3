"""The limits on errors of a job: a count, a rate, or the same failure of all its first calls."""

from __future__ import annotations

import re
from collections import deque
from itertools import repeat
from typing import TypeAlias

from ragasync._reports.summary import counted
from ragasync._retries.classify import http_status, retry_after_of
from ragasync.error_text import describe
from ragasync.foreign_errors import text_of

WINDOW = 100
"""The number of latest finished items that max_error_rate is computed from."""
MIN_FINISHED = 20
"""Finished items before max_error_rate applies: a few early failures prove little."""


class ErrorLimit:
    """
    The limits `max_errors` and `max_error_rate` on failed items.

    Args:
        max_errors: the number of failed items that is allowed; one more stops the job. None allows
            any number.
        max_error_rate: the share of failures, in (0, 1), that is allowed among the last WINDOW
            finished items, from MIN_FINISHED items on. None allows any share.
    """

    def __init__(self, max_errors: int | None, max_error_rate: float | None) -> None:
        self._max_errors, self._max_error_rate = max_errors, max_error_rate
        self.counts_successes = max_error_rate is not None
        self._failed = 0
        self._latest: deque[bool] = deque(maxlen=WINDOW)

    def note_successes(self, items: int = 1) -> None:
        """Count items that succeeded; only max_error_rate needs this."""
        self._latest.extend(repeat(False, items))

    def note_failure(self) -> str | None:
        """Count an item that failed for good; return why to stop, or None."""
        self._failed += 1
        if self._max_errors is not None and self._failed > self._max_errors:
            return (
                f"{counted(self._failed, 'item')} failed, more than max_errors={self._max_errors}"
            )
        if self._max_error_rate is None:
            return None
        self._latest.append(True)
        seen, failed = len(self._latest), sum(self._latest)
        if seen < MIN_FINISHED or failed / seen <= self._max_error_rate:
            return None
        rate = f"max_error_rate={self._max_error_rate:g}"
        return f"{failed} of the last {seen} items failed, more than {rate}"


REQUEST_ERRORS = frozenset({400, 401, 403, 404, 405})
"""Statuses that say that the request is wrong, so that sending it again is no use."""

_VARIABLE = re.compile(
    r"https?://[^\s'\"<>]{1,500}"
    r"|\b(?:req|request|trace|chatcmpl|msg)[-_][A-Za-z0-9_-]{4,80}"
    r"|\brequest[ _-]?id['\"]?\s{0,3}[:=]?\s{0,3}['\"]?[A-Za-z0-9_-]{4,80}"
    r"|\b(?=[0-9a-fA-F-]{0,40}\d)[0-9a-fA-F]{8,64}(?:-[0-9a-fA-F]{4,12}){0,4}\b",
    re.IGNORECASE,
)
"""The parts in which two messages about the same mistake differ: URLs and request ids."""

_Failure: TypeAlias = tuple[int, str]
"""The HTTP status of a failed call, and its error message without URLs and ids."""


class InitialFailures:
    """
    The limit `max_initial_failures`: all first calls of a run fail in the same way.

    That happens with a wrong model, path or key. One success, one other failure, or one response
    with a Retry-After switches the rule off. The parts of a batch that was split are about items
    that have failed already, so they count only once two whole batches have failed; until then
    they wait for the second one.

    Args:
        limit: the number of failed calls that stops the job; None switches the rule off.

    Attributes:
        defers_parts: whether the parts of a failed batch have to wait for another batch.
        have_stopped: whether all calls so far failed in the same way and reached the limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._failure: _Failure | None = None
        self._whole = self._parts = 0
        self.defers_parts = self.have_stopped = False

    def note(self, error: BaseException, is_part: bool, has_success: bool) -> str | None:
        """
        Count a call that failed and will not be retried as it was; return why to stop, or None.

        Args:
            error: what it raised.
            is_part: whether it is a part of a batch that was split.
            has_success: whether any item of the run is done.
        """
        if self._limit is None:
            return None
        failure = None if has_success else _failure_of(error)
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


def _failure_of(error: BaseException) -> _Failure | None:
    """The failure that other calls may share, or None if it says nothing about other calls."""
    status = http_status(error)
    if status not in REQUEST_ERRORS or retry_after_of(error) is not None:
        return None
    return status, _VARIABLE.sub("", text_of(error))
