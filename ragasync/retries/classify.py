"""
What an error says about another attempt: a verdict on the call, and on the batch it was in.

Every question here is asked of the whole error: of it, of the members of its groups, and of what
it was explicitly raised from. An error with a reply of its own speaks for its cause, and so does an
error of ragasync: a 503 raised from a KeyError is a 503.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import json
from collections.abc import Iterator
from typing import Any, Final

from ragasync.errors import (
    CallAborted,
    RagasyncError,
    RedisUnavailable,
    RemoteError,
    SerializationError,
)
from ragasync.foreign_errors import (
    class_names,
    field,
    plain_text,
    stands_alone,
    text_of,
    walk_errors,
)
from ragasync.loop_errors import find_loop_mismatch
from ragasync.retries.http import (
    answers_of,
    http_status,
    may_have_reply,
    own_headers,
    own_status,
    retry_after_of,
)

__all__ = [
    "FATAL",
    "Fatal",
    "default_retry",
    "http_status",
    "is_loop_mismatch",
    "is_programming_error",
    "may_split",
    "retry_after_of",
    "should_split",
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

_SPLITS_AT_ONCE = frozenset({400, 413, 422})

_NEVER_SPLITS = frozenset({401, 402, 403, 429})

# Codes of OpenAI, Anthropic, AWS and Google for an account that has no more money or quota. Rate
# limits, which pass, have other codes.
_QUOTA_USED_UP = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "ServiceQuotaExceededException",
        "dailyLimitExceeded",
        "billingNotEnabled",
        "BILLING_DISABLED",
    }
)
_CODE_FIELDS = ("code", "type", "reason", "Code")

_PROGRAMMING = (
    TypeError,
    AttributeError,
    NameError,
    AssertionError,
    ImportError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
)

_NOT_RETRYABLE = (
    *_PROGRAMMING,
    LookupError,
    ArithmeticError,
    UnicodeError,
    MemoryError,
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    SerializationError,
    CallAborted,
)

_ABOUT_THE_REPLY = (OSError, json.JSONDecodeError)

# Classes of httpx, requests, urllib3 and aiohttp, by name because none of them is imported.
_WRONG_ADDRESS = frozenset(
    {
        *("InvalidURL", "UnsupportedProtocol", "MissingSchema", "InvalidSchema", "URLRequired"),
        *("LocationParseError", "URLSchemeUnknown", "NonHttpUrlClientError"),
    }
)

# What aiohttp, httpx and concurrent.futures say once they are closed for good.
_CLOSED = frozenset(
    {
        "Session is closed",
        "Connector is closed",
        "Connector is closed.",
        "Cannot send a request, as the client has been closed.",
        "Cannot reopen a client instance, once it has been closed.",
        "cannot schedule new futures after shutdown",
    }
)


_SAY_SO = frozenset({"RuntimeError", "ClientConnectionError"})
"""Classes of such errors."""


def default_retry(error: BaseException) -> bool | Fatal:
    """
    Return True if another attempt may help, False if it must fail the same way, or `FATAL`.

    `FATAL` are a rejected key, a used-up quota, an object bound to another event loop and a rate
    limit whose Redis is gone: every later call would fail too. Then an `x-should-retry` header
    decides, by which a service overrules what its status usually means; then the status, where a
    403 with a Retry-After may be retried; then the type. Unknown errors are retried. A client
    that is closed, or an address that no client can use, is not, but other items may have others.

    Of a group of several errors any `FATAL` is fatal, and otherwise any False is False: the call
    as a whole would fail the same way. A CancelledError that nobody asked for is a lost
    connection; any other BaseException that is no Exception is never retried.
    """
    if is_loop_mismatch(error):
        return FATAL
    if stands_alone(error):
        return _own_verdict(error, error)
    verdicts = [_own_verdict(link, error) for link in speaking_links(error)]
    return FATAL if FATAL in verdicts else all(verdicts)


def is_loop_mismatch(error: BaseException) -> bool:
    """Return whether an object was used on another event loop than its own, or on a closed one."""
    return find_loop_mismatch(error) is not None


def is_programming_error(error: BaseException) -> bool:
    """
    Return whether the code itself is wrong, whatever the data.

    LookupError, ArithmeticError, UnicodeError and MemoryError are not among these, though they
    are never retried: they are about the data, so that splitting a batch finds the item.
    """
    return any(issubclass(type(link), _PROGRAMMING) for link in speaking_links(error))


def should_split(error: BaseException) -> bool:
    """
    Return whether a failed batch should be halved without another attempt as a whole.

    It should where the service or the function refuses the data: status 400, 413 or 422, or,
    without any status, a ValueError. One that is an OSError too, such as a certificate that does
    not verify, is about the connection, and a JSONDecodeError that another error was raised
    from is about a reply that was cut short.
    """
    statuses = statuses_of(error)
    if statuses:
        refused = not _SPLITS_AT_ONCE.isdisjoint(statuses)
    else:
        refused = any(
            issubclass(type(link), ValueError)
            and not issubclass(type(link), OSError if link is error else _ABOUT_THE_REPLY)
            for link in speaking_links(error)
        )
    return refused and may_split(error)


def may_split(error: BaseException) -> bool:
    """Return whether halving a failed batch, at once or after its retries, can save any item."""
    if is_programming_error(error) or is_loop_mismatch(error):
        return False
    return not any(
        own_status(link) in _NEVER_SPLITS or _is_quota_used_up(link) or _is_closed(link)
        for link in speaking_links(error)
    )


def speaking_links(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that count: not those behind one whose own reply says what happened."""
    if stands_alone(error):
        return iter((error,))
    return walk_errors(
        error,
        contexts=False,
        speaks_for_cause=lambda link: _is_ours(type(link)) or own_status(link) is not None,
    )


def _is_ours(kind: type) -> bool:
    """Return whether errors of a class are ragasync's own, and stand for nobody else's."""
    return issubclass(kind, RagasyncError) and not issubclass(kind, RemoteError)


def statuses_of(error: BaseException) -> set[int]:
    """Return the statuses of all errors that count."""
    return {status for link in speaking_links(error) if (status := own_status(link)) is not None}


def _own_verdict(link: BaseException, error: BaseException) -> bool | Fatal:
    """Return the verdict on one link of an error, by its reply if it has one, else by its type."""
    verdict = _verdict_of_reply(link) if may_have_reply(link) else None
    if verdict is not None:
        return verdict
    kind: Any = type(link)
    try:
        of_type = _verdict_of_type(kind)
    except TypeError:  # a metaclass that cannot be hashed
        of_type = _verdict_of_type.__wrapped__(kind)
    if of_type is not None:
        return of_type
    if issubclass(kind, EOFError):
        # A stream that ended early is a lost connection where a client speaks of one.
        return "Connection" in "".join(class_names(type(error)))
    return not _is_closed(link)


@functools.lru_cache(maxsize=512)
def _verdict_of_type(kind: type) -> bool | Fatal | None:
    """Return the verdict on the errors of a class; None where it depends on more than that."""
    if issubclass(kind, RedisUnavailable):
        return FATAL
    if not issubclass(kind, Exception):
        return issubclass(kind, asyncio.CancelledError | BaseExceptionGroup)
    if issubclass(kind, EOFError):
        return True if issubclass(kind, asyncio.IncompleteReadError) else None
    names = class_names(kind)
    if issubclass(kind, _NOT_RETRYABLE) or not _WRONG_ADDRESS.isdisjoint(names):
        return False
    return True if _SAY_SO.isdisjoint(names) else None


def _verdict_of_reply(error: BaseException) -> bool | Fatal | None:
    """Return what the reply in this very error says of another attempt; None if nothing."""
    status = own_status(error)
    if status in (401, 402) or _is_quota_used_up(error):
        return FATAL
    asked = own_headers(error).get("x-should-retry", "").lower()
    if asked in ("true", "false"):
        return asked == "true"
    if status is None:
        return None
    if status == 403:
        return retry_after_of(error) is not None
    return status in _RETRYABLE_4XX or not 400 <= status < 500


def _is_quota_used_up(error: BaseException) -> bool:
    """
    Return whether the fields of a reply say that the account has no quota left.

    Only whole fields count: the word may also stand in a text that an error quotes.
    """
    if not may_have_reply(error) or (own_status(error) or 400) >= 500:
        return False
    return any(
        plain_text(field(answer, name)) in _QUOTA_USED_UP
        for answer in answers_of(error)
        for name in _CODE_FIELDS
    )


def _is_closed(error: BaseException) -> bool:
    """Return whether a client, or an executor, says that it is closed for good."""
    return text_of(error) in _CLOSED and not _SAY_SO.isdisjoint(class_names(type(error)))
