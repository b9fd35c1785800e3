"""
Error classification: retry, split the batch, stop the job, or slow down; the user's `retry_on`.

Each function looks at the error, at the members of its groups and at its explicit causes. The
cause of an error that has an HTTP response, or that ragasync raised, is ignored: a 503 raised from
a KeyError is a 503.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, cast

from ragasync._retries.http import may_have_response, own_headers, own_status, response_bodies
from ragasync._retries.retry_after import retry_after_of
from ragasync.arguments import check_seconds, check_sync
from ragasync.error_text import describe
from ragasync.errors import (
    CallAborted,
    RagasyncError,
    RedisUnavailable,
    RemoteError,
    SerializationError,
    find_loop_mismatch,
)
from ragasync.foreign_errors import (
    INTERRUPTS,
    class_names,
    field,
    is_a,
    leaves_of,
    plain_text,
    stands_alone,
    text_of,
    walk_errors,
)


class Fatal(enum.Enum):
    """The type of `FATAL`."""

    FATAL = "FATAL"

    def __repr__(self) -> str:
        return "FATAL"


FATAL: Final = Fatal.FATAL
"""
The retry verdict that no later call can succeed either: the whole job stops.

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

Verdict: TypeAlias = bool | float | timedelta | Fatal
"""The answer of `retry_on`: True to retry, False not to, a delay (s or timedelta), or `FATAL`."""

RetryOn: TypeAlias = (
    type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], Verdict] | None
)
"""The errors to retry: a type, several, a predicate, or None for `default_retry`."""

_RETRYABLE_4XX = frozenset({408, 409, 425, 429})

_SPLIT_STATUSES = frozenset({400, 413, 422})

_NO_SPLIT_STATUSES = frozenset({401, 402, 403, 429})

# Error codes of OpenAI, Anthropic, AWS and Google for an account without money or quota. Rate
# limits, which pass, have other codes.
_QUOTA_CODES = frozenset(
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

_PROGRAMMING_ERRORS = (
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
    *_PROGRAMMING_ERRORS,
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

_CONNECTION_OR_BODY_ERRORS = (OSError, json.JSONDecodeError)

# Exception classes of httpx, requests, urllib3 and aiohttp: by name, as none of them is imported.
_INVALID_URL_CLASSES = frozenset(
    {
        *("InvalidURL", "UnsupportedProtocol", "MissingSchema", "InvalidSchema", "URLRequired"),
        *("LocationParseError", "URLSchemeUnknown", "NonHttpUrlClientError"),
    }
)

# Messages of aiohttp, httpx and concurrent.futures once they are closed for good.
_CLOSED_MESSAGES = frozenset(
    {
        "Session is closed",
        "Connector is closed",
        "Connector is closed.",
        "Cannot send a request, as the client has been closed.",
        "Cannot reopen a client instance, once it has been closed.",
        "cannot schedule new futures after shutdown",
    }
)


_CLOSED_CLASSES = frozenset({"RuntimeError", "ClientConnectionError"})

_RATE_LIMITED = 429

_OVERLOAD_STATUSES = frozenset({408, 503, 504, 529})
"""HTTP statuses of an overloaded service, or of a gateway that timed out waiting for it."""


def default_retry(error: BaseException) -> bool | Fatal:
    """
    Return the retry verdict on an error: True, False (a retry must fail the same way) or `FATAL`.

    A rejected key, an exhausted quota, an object bound to another event loop and an unreachable
    Redis of a rate limiter are `FATAL`: every later call would fail too. Otherwise the header
    `x-should-retry` decides, by which a service overrules its status; then the status (a 403 is
    retried if it has a Retry-After); then the type. Unknown errors are retried. A closed client
    and an invalid URL are not, but they are not fatal, because other items may use others.

    A group is `FATAL` if one of its errors is, and otherwise False if one of them is: the call as
    a whole would fail the same way. A CancelledError without a cancellation counts as a lost
    connection; no other BaseException outside Exception is retried.
    """
    if is_loop_mismatch(error):
        return FATAL
    if stands_alone(error):
        return _verdict_of_link(error, error)
    verdicts = [_verdict_of_link(link, error) for link in decisive_errors(error)]
    return FATAL if FATAL in verdicts else all(verdicts)


def is_loop_mismatch(error: BaseException) -> bool:
    """Return whether an error comes from an object of another event loop, or of a closed one."""
    return find_loop_mismatch(error) is not None


def is_programming_error(error: BaseException) -> bool:
    """
    Return whether an error is a bug in the code, whatever the data.

    LookupError, ArithmeticError, UnicodeError and MemoryError do not count, although they are
    never retried either: they depend on the data, and splitting the batch finds the item.
    """
    return any(issubclass(type(link), _PROGRAMMING_ERRORS) for link in decisive_errors(error))


def should_split(error: BaseException) -> bool:
    """
    Return whether a failed batch should be split immediately, without a retry as a whole.

    It should if the service or the function rejects the data: status 400, 413 or 422, or a
    ValueError without any status. Two kinds of ValueError are not about the data: one that is
    also an OSError, such as a certificate that does not verify, is about the connection, and a
    JSONDecodeError as a cause is about a response that was cut off.
    """
    statuses = http_statuses(error)
    if statuses:
        refused = not _SPLIT_STATUSES.isdisjoint(statuses)
    else:
        refused = any(
            issubclass(type(link), ValueError)
            and not issubclass(type(link), OSError if link is error else _CONNECTION_OR_BODY_ERRORS)
            for link in decisive_errors(error)
        )
    return refused and may_split(error)


def may_split(error: BaseException) -> bool:
    """Return whether splitting a failed batch, before or after its retries, can save any item."""
    if is_programming_error(error) or is_loop_mismatch(error):
        return False
    if is_a(error, RagasyncError) and error._of_whole_call:
        return False
    return not any(
        own_status(link) in _NO_SPLIT_STATUSES or _is_quota_used_up(link) or _is_closed(link)
        for link in decisive_errors(error)
    )


def decisive_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that decide the verdict: no causes of an error with an HTTP response."""
    if stands_alone(error):
        return iter((error,))
    return walk_errors(
        error,
        contexts=False,
        # A RemoteError stands for a foreign error; all others of ragasync are its own.
        speaks_for_cause=lambda link: (
            (issubclass(type(link), RagasyncError) and not issubclass(type(link), RemoteError))
            or own_status(link) is not None
        ),
    )


def http_statuses(error: BaseException) -> set[int]:
    """Return the HTTP statuses of all errors that decide the verdict."""
    return {status for link in decisive_errors(error) if (status := own_status(link)) is not None}


def _verdict_of_link(link: BaseException, error: BaseException) -> bool | Fatal:
    """Return the verdict on one linked error: by its response if it has one, else by its type."""
    verdict = _verdict_of_response(link) if may_have_response(link) else None
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
        # An EOFError is a lost connection only if the client's class name says so.
        return "Connection" in "".join(class_names(type(error)))
    return not _is_closed(link)


@functools.lru_cache(maxsize=512)
def _verdict_of_type(kind: type) -> bool | Fatal | None:
    """Return the verdict on an error class; None if the class alone does not decide."""
    if issubclass(kind, RedisUnavailable):
        return FATAL
    if not issubclass(kind, Exception):
        return issubclass(kind, asyncio.CancelledError | BaseExceptionGroup)
    if issubclass(kind, EOFError):
        return True if issubclass(kind, asyncio.IncompleteReadError) else None
    names = class_names(kind)
    if issubclass(kind, _NOT_RETRYABLE) or not _INVALID_URL_CLASSES.isdisjoint(names):
        return False
    return True if _CLOSED_CLASSES.isdisjoint(names) else None


def _verdict_of_response(error: BaseException) -> bool | Fatal | None:
    """Return the verdict by the HTTP response in this one error; None if there is none."""
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
    Return whether an error code in the response says that the account has no quota left.

    Only whole fields count, because a message may quote such a code.
    """
    if not may_have_response(error) or (own_status(error) or 400) >= 500:
        return False
    return any(
        plain_text(field(body, name)) in _QUOTA_CODES
        for body in response_bodies(error)
        for name in _CODE_FIELDS
    )


def _is_closed(error: BaseException) -> bool:
    """Return whether the error of a client or an executor says that it is closed for good."""
    return text_of(error) in _CLOSED_MESSAGES and not _CLOSED_CLASSES.isdisjoint(
        class_names(type(error))
    )


def congestion(error: BaseException) -> Literal["rate_limited", "overloaded"] | None:
    """
    Return how an error says that the service is overloaded, or None.

    A 429 is "rate_limited": fewer concurrent calls would have avoided it. The other statuses of
    overload (503 and its like) and timeouts, ours or a client's own, are "overloaded": fewer calls
    may have avoided them, but idle services send them too. Clients' timeouts are not all
    TimeoutErrors, but their class names contain the word.
    """
    statuses = http_statuses(error)
    if statuses:
        if _RATE_LIMITED in statuses:
            return "rate_limited"
        return "overloaded" if statuses & _OVERLOAD_STATUSES else None
    names = (name for link in decisive_errors(error) for name in class_names(type(link)))
    return "overloaded" if any("Timeout" in name for name in names) else None


# ── the user's `retry_on` ───────────────────────────────────────────────────────────────────────


def check_retry_on(retry_on: object) -> None:
    """Raise TypeError unless `retry_on` is None, a type, types or a predicate of Exceptions."""
    if retry_on is None:
        return
    if not isinstance(retry_on, (type, tuple)):
        check_sync("retry_on, if neither None nor a type or a tuple of types,", retry_on)
        return
    for kind in retry_on if isinstance(retry_on, tuple) else (retry_on,):
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(
                f"retry_on must name subclasses of Exception, got {kind!r}; "
                "CancelledError, KeyboardInterrupt and SystemExit are never retried"
            )


def verdict_of(error: BaseException, retry_on: RetryOn) -> bool | float | Fatal:
    """
    Return the retry verdict of `retry_on` on an error.

    An object bound to another event loop is always `FATAL`. A type matches errors of that type,
    and groups whose members all are. A CancelledError without a cancellation is treated as a
    ConnectionError, by types and predicates. Any other BaseException outside Exception, such as a
    panic, is never retried, and neither is a CallAborted, which stands for one in a worker process.

    Raises:
        Exception: The predicate's own error, TypeError or ValueError for an invalid verdict, or
            RuntimeError for a panic; from `error`.
    """
    if retry_on is None:
        return default_retry(error)
    if issubclass(type(error), CallAborted):
        return False
    if is_loop_mismatch(error):
        return FATAL
    kinds = [
        ConnectionError if issubclass(kind, asyncio.CancelledError) else kind
        for kind in map(type, leaves_of(error))
    ]
    if not all(issubclass(kind, Exception) for kind in kinds):
        return False
    if isinstance(retry_on, (type, tuple)):
        return issubclass(type(error), retry_on) or all(issubclass(k, retry_on) for k in kinds)
    return _call_predicate(retry_on, error)


def _call_predicate(
    predicate: Callable[[Exception], object], error: BaseException
) -> bool | float | Fatal:
    """Return the verdict of a predicate, checked, with a delay in seconds."""
    try:
        verdict = predicate(cast("Exception", error))
        if isinstance(verdict, (bool, Fatal)):
            return verdict
        if inspect.iscoroutine(verdict):
            verdict.close()
        return check_seconds("what retry_on returns, if not True, False or FATAL,", verdict)
    except BaseException as problem:
        if problem is error:
            if is_a(error, Exception):
                raise
            return False  # re-raised here, a stray CancelledError would cancel the task
        if is_a(problem, INTERRUPTS):
            raise
        if not is_a(problem, Exception):
            raise RuntimeError(f"retry_on raised {describe(problem)}") from error
        raise problem from error
