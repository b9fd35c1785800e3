"""What an error says about trying again: a verdict on the call, and on the batch it was in."""

from __future__ import annotations

import enum
import inspect
from typing import Final

from ragasync.errors import CannotTravel, RedisUnavailable
from ragasync.loop_mismatch import mismatch_behind
from ragasync.retries.replies import carries_reply, headers_of, retry_after_of, status_of

__all__ = [
    "FATAL",
    "Fatal",
    "default_verdict",
    "is_loop_mismatch",
    "is_programming_error",
    "may_split",
    "retry_after_of",
    "splits_at_once",
    "status_of",
]


class Fatal(enum.Enum):
    """The type of `FATAL`."""

    FATAL = "FATAL"

    def __repr__(self) -> str:
        return "FATAL"


FATAL: Final = Fatal.FATAL
"""
The verdict that no later call can succeed either, so that the whole job should stop.

Example:
    >>> from ragasync import FATAL, AsyncBatchProcessor, AsyncRetry
    >>> def verdict(error):
    ...     return FATAL if "used up" in str(error) else True
    >>> def call(item):
    ...     raise RuntimeError("the quota is used up")
    >>> processor = AsyncBatchProcessor(call, retry=AsyncRetry(retry_on=verdict))
    >>> processor.process_sync(range(100)).stopped_because
    'a fatal error: RuntimeError: the quota is used up'
"""

_RETRYABLE_4XX = frozenset({408, 409, 425, 429})

_PROGRAMMING = (
    TypeError,
    AttributeError,
    NameError,
    AssertionError,
    ImportError,
    NotImplementedError,
    RecursionError,
)

_FAILS_THE_SAME_WAY = (
    *_PROGRAMMING,
    LookupError,
    UnicodeError,
    MemoryError,
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    CannotTravel,
)


def default_verdict(error: Exception) -> bool | Fatal:
    """
    Return True if trying again may help, False if it must fail the same way, or `FATAL`.

    `FATAL` are a refused key, a used-up quota, an object bound to another event loop and a rate
    limit whose Redis is gone: every later call would fail too. Then an `x-should-retry` header
    decides, by which a service overrules what its status usually means; then the status; then the
    type. Unknown errors are tried again.
    """
    if is_loop_mismatch(error) or isinstance(error, RedisUnavailable):
        return FATAL
    verdict = _verdict_of_reply(error) if carries_reply(error) else None
    return not isinstance(error, _FAILS_THE_SAME_WAY) if verdict is None else verdict


def is_loop_mismatch(error: BaseException) -> bool:
    """Return whether an object was used on another event loop than its own, or on a closed one."""
    return mismatch_behind(error) is not None


def is_programming_error(error: BaseException) -> bool:
    """
    Return whether the code itself is wrong, whatever the data.

    LookupError, UnicodeError and MemoryError are not among these, though they are never tried
    again: they are about the data, so that splitting a batch finds the item.
    """
    return isinstance(error, _PROGRAMMING)


def splits_at_once(error: Exception) -> bool:
    """
    Return whether a failed batch should be halved without trying it again as a whole.

    So it is where the service or the function refuses the data: status 400, 413 or 422, or,
    without a status, a ValueError. One that is an OSError too, such as a certificate that does
    not verify, is about the connection.
    """
    status = status_of(error)
    if status is not None:
        return status in (400, 413, 422)
    return isinstance(error, ValueError) and not isinstance(error, OSError)


def may_split(error: Exception) -> bool:
    """Return whether halving a failed batch, at once or after its retries, can save any item."""
    if is_programming_error(error) or is_loop_mismatch(error) or _account_is_refused(error):
        return False
    return status_of(error) not in (403, 429)


def _verdict_of_reply(error: Exception) -> bool | Fatal | None:
    """Return what the service's reply says of trying again, or None where it says nothing."""
    if _account_is_refused(error):
        return FATAL
    asked = headers_of(error).get("x-should-retry")
    if asked in ("true", "false"):
        return asked == "true"
    status = status_of(error)
    return None if status is None else status in _RETRYABLE_4XX or not 400 <= status < 500


def _account_is_refused(error: Exception) -> bool:
    """Return whether the service refuses whatever this key asks: a bad key, or no quota left."""
    status = status_of(error)
    return status in (401, 402) or (status in (403, 429) and _names_used_up_quota(error))


def _names_used_up_quota(error: Exception) -> bool:
    """Return whether a refusal is about money: a rate limit looks the same but for this word."""
    # Read statically: a property may warn that it is deprecated, as `code` of aiohttp's does.
    said = (inspect.getattr_static(error, name, None) for name in ("code", "type", "body"))
    return any("insufficient_quota" in _text(value) for value in (error, *said))


def _text(value: object) -> str:
    """Return a value as text, or nothing where it cannot say."""
    try:
        return str(value)
    except Exception:
        return ""
