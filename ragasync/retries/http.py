"""
What a service's reply says: status, headers and Retry-After, read from the error of any client.

No client library is imported: errors are read by their attributes, so that those of httpx,
requests, aiohttp, urllib, openai, anthropic, botocore, grpc, google.api_core and the SDKs built
upon them are understood alike. Every function looks at the whole error: the error itself, the
members of its groups and its explicit causes, the outermost first.
"""

from __future__ import annotations

import enum
import functools
import json
import operator
import re
import time
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, cast

from ragasync.foreign_errors import (
    attribute,
    class_names,
    field,
    guarded,
    plain_text,
    stands_alone,
    text_of,
    walk_errors,
)
from ragasync.retries.durations import advised_waits, number_of, seconds_of
from ragasync.retries.grpc_metadata import metadata_of, retry_delays

_STATUS_NAMES: Final = ("status_code", "http_status", "status", "code", "HTTPStatusCode")

_ANSWERS: Final = ("body", "details", "error_details", "errors", "error")
"""Where an error keeps the decoded JSON of the service's answer."""

_PLACES: Final = frozenset(
    {
        *(*_STATUS_NAMES, *_ANSWERS, "response", "headers", "resp", "trailing_metadata", "type"),
        *("retry_delay", "retry_after", "__getattr__"),
    }
)
"""Every attribute that is read, so that errors without any of them are known quickly."""

_READ_BODIES: Final = ("_content", "_body")
"""
Where httpx and requests, and aiohttp, keep a body that was read.

Their public attributes would read it now, from a connection that may be slow or closed.
"""

_LONGEST_BODY: Final = 65_536
_MOST_ANSWERS: Final = 32

_THREE_DIGITS: Final = re.compile(r"\d{3}", re.ASCII)

_CALLED: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_NO_ANSWERS: Final = (*_CALLED, str, bytes, int, float)

_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms", "grpc-retry-pushback-ms")

_FIRST_EPOCH: Final = 1e9
"""The seconds from which on a reset is an instant since 1970; times 100, in milliseconds."""

# google.rpc.Code in HTTP, as https://github.com/googleapis/googleapis has it in code.proto.
_OF_GRPC: Final = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}

# AWS answers 400 to many of these. The first two lines of each are those of botocore's own
# retries (botocore/retries/standard.py); 401 is for keys, 403 for what a key may not do.
_OF_AWS: Final = {
    **dict.fromkeys(
        (
            *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled"),
            *("RequestThrottledException", "TooManyRequestsException", "EC2ThrottledException"),
            *("ProvisionedThroughputExceededException", "TransactionInProgressException"),
            *("RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException"),
            *("SlowDown", "PriorRequestNotComplete", "TooManyRequests"),
        ),
        429,
    ),
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutException"), 408),
    **dict.fromkeys(
        (
            *("ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException"),
            *("UnrecognizedClient", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure"),
            *("InvalidToken", "SignatureDoesNotMatch", "InvalidSignatureException"),
            *("IncompleteSignature", "MissingAuthenticationToken"),
            *("MissingAuthenticationTokenException", "TokenRefreshRequired"),
        ),
        401,
    ),
    **dict.fromkeys(("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"), 403),
}

_OVERRULED_BY_AWS: Final = frozenset({None, 400, 403})
"""Statuses of AWS that say less than the code in the body."""


def http_status(error: BaseException) -> int | None:
    """
    Return the first HTTP status in an error, its groups and causes, or None.

    A status is a whole number from 100 to 599 (an int, an enum's value or three digits) named
    `status_code`, `http_status`, `status` or `code`: of an error, then of its `response`, which may
    be a dict. A code of gRPC or AWS becomes the HTTP status that means the same:
    RESOURCE_EXHAUSTED and ThrottlingException are 429.
    """
    return next((status for status in map(own_status, whole(error)) if status is not None), None)


def headers_of(error: BaseException) -> dict[str, str]:
    """
    Return the headers of the reply in an error, its groups and causes, by lower-case name.

    Where two of them have a header, the outermost counts, and an error's own before those of its
    response. The trailing metadata of gRPC are headers too.
    """
    found: dict[str, str] = {}
    for link in whole(error):
        for name, value in own_headers(link).items():
            found.setdefault(name, value)
    return found


def retry_after_of(error: BaseException, now: float | None = None) -> float | None:
    """
    Return how long the service asks to wait, in seconds, or None where it does not say.

    The first of these that says anything counts, and there the longest time in the whole error:

    1. With any status: the header `retry-after-ms`, or else `Retry-After`, which is a number of
       seconds or an HTTP date (RFC 9110, section 10.2.3); RetryInfo of Google's errors.
    2. On a 429: `x-ratelimit-reset-*` of each limit whose `x-ratelimit-remaining-*` is 0.
    3. On a 429 or 503: the words of the message, as in "try again in 1m30s".

    A time that is past, negative, infinite or no time at all counts as absent.

    Args:
        error: What a client raised.
        now: The wall clock in seconds since 1970, which dates are measured against; by default
            `time.time()`.
    """
    if stands_alone(error) and not may_have_reply(error):
        return None
    links = tuple(whole(error))
    stated = [wait for link in links for wait in _stated_waits(link, now)]
    if stated:
        return max(stated)
    status = http_status(error)
    if status is None:
        return None
    # An error without a status of its own wraps the one that has it.
    statuses = [(link, own_status(link) or status) for link in links]
    waits = [wait for link, said in statuses if said == 429 for wait in _resets(link, now)]
    if not waits:
        overloaded = (link for link, said in statuses if said in (429, 503))
        waits = [wait for link in overloaded for wait in advised_waits(text_of(link))]
    return max(waits, default=None)


def describe_wait(seconds: float) -> str:
    """Return a long wait in words: its length, and the time of the local clock when it ends."""
    length = f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.3g} s"
    try:
        end = datetime.now().astimezone() + timedelta(seconds=seconds)
    except OverflowError:  # after the year 9999
        return length
    return f"{length}, until {end:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def whole(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the members of its groups and its explicit causes, the outermost first."""
    # Not what was being handled: an error raised while handling a 404 is no 404.
    return iter((error,)) if stands_alone(error) else walk_errors(error, contexts=False)


def may_have_reply(error: BaseException) -> bool:
    """Return whether this very error may hold a reply; False is quick, as most errors do not."""
    kind: Any = type(error)
    try:
        has_places = _has_places(kind)
        return not _PLACES.isdisjoint(error.__dict__) if has_places is None else has_places
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # an instance or a class that hides what it has
        return True


def own_status(error: BaseException) -> int | None:
    """Return the status in this very error."""
    if not may_have_reply(error):
        return None
    response = attribute(error, "response")
    status = _status_in(error)
    if response is not None:  # not its truth: a failed response of requests is false
        if status is None:
            status = _status_in(response)
        if status in _OVERRULED_BY_AWS and issubclass(type(response), dict):
            code = plain_text(field(field(response, "Error"), "Code"))
            return _OF_AWS.get(code or "", status)
    return status


def _status_in(speaker: object) -> int | None:
    """Return the status in an error, a response object, or a dict of decoded JSON."""
    for name in _STATUS_NAMES:
        status = _as_status(field(speaker, name), called=name == "code")
        if status is not None:
            return status
    if issubclass(type(speaker), dict):
        for name in ("ResponseMetadata", "error"):
            if issubclass(type(inner := field(speaker, name)), dict):
                return _status_in(inner)
    return None


def own_headers(error: BaseException) -> dict[str, str]:
    """Return the headers in this very error by lower-case name."""
    if not may_have_reply(error):
        return {}
    found: dict[str, str] = {}
    response = attribute(error, "response")
    for pairs in (
        _items(attribute(error, "headers")),
        _items(field(response, "headers")),
        _items(field(field(response, "ResponseMetadata"), "HTTPHeaders")),
        _items(attribute(error, "resp")),  # google-api-python-client: a dict of headers
        metadata_of(error),
    ):
        for name, value in pairs:
            found.setdefault(_header_text(name).lower(), _header_text(value))
    return found


def _items(headers: object) -> list[tuple[object, object]]:
    """Return the pairs of a mapping of headers; none of what is no mapping."""
    items = None if headers is None else attribute(headers, "items")
    if items is None:
        return []
    pairs = guarded(lambda: [(name, value) for name, value in islice(items(), 256)])  # type: ignore[operator]
    return pairs if isinstance(pairs, list) else []


def _header_text(value: object) -> str:
    """Return the name or the value of a header as text."""
    text = plain_text(value)
    return (text_of(value) if text is None else text).strip()


def answers_of(error: BaseException) -> list[object]:
    """
    Return this very error and the parts of the service's answer that it keeps, the nearest first.

    These are decoded JSON, with the dicts and lists in it, and the objects of SDKs that stand for
    it. Of the error of a bare client (httpx, requests, aiohttp) it is the JSON of its response, if
    that has been read and is no longer than an error is; other texts and bytes are not parsed.
    """
    found: list[object] = [error]
    for place in _ANSWERS:
        _add(found, attribute(error, place))
    response = attribute(error, "response")
    found.append(response if issubclass(type(response), dict) else _json_of(response))  # botocore's
    for part in found[1:]:
        if issubclass(type(part), dict):
            for within in ("error", "Error"):
                inner = field(part, within)
                _add(found, inner)
                _add(found, field(inner, "details"))
                _add(found, field(inner, "errors"))
    return found[:_MOST_ANSWERS]


def _json_of(response: object) -> dict[str, object]:
    """Return the JSON object that a response holds; an empty one where it holds nothing of it."""
    for place in _READ_BODIES:
        body = attribute(response, place)
        if type(body) is bytes and len(body) <= _LONGEST_BODY:
            return _json_object(body)
    return {}


@functools.lru_cache(maxsize=64)
def _json_object(body: bytes) -> dict[str, object]:
    """Return a JSON object, or an empty one where this is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if type(value) is dict else {}


def _add(found: list[object], value: object) -> None:
    """Add an answer, or the first entries of a list of them."""
    if value is None or issubclass(type(value), _NO_ANSWERS):
        return
    if issubclass(type(value), list | tuple):
        entries = guarded(lambda: list(islice(value, 8)))  # type: ignore[call-overload]
        found.extend(entries if isinstance(entries, list) else ())
    else:
        found.append(value)


@functools.lru_cache(maxsize=512)
def _has_places(kind: type) -> bool | None:
    """Return whether a class has a place for any part of a reply; None where instances may."""
    if "HttpProcessingError" in class_names(kind):
        return False  # aiohttp could not read the reply; its code is what a server would answer
    return any(hasattr(kind, name) for name in _PLACES) or None


def _as_status(value: object, *, called: bool) -> int | None:
    """Return the HTTP status that a value stands for, or None."""
    if value is None:
        return None
    if type(value) is int:
        return value if 100 <= value <= 599 else None
    if called and issubclass(type(value), _CALLED):
        # grpc: code() is a StatusCode, whose value is (14, "unavailable").
        value = guarded(cast("Callable[[], object]", value))
        if not issubclass(type(value), enum.Enum):
            return None
    name = attribute(value, "name") if issubclass(type(value), enum.Enum) else None
    number = value if name is None else attribute(value, "value")
    if (text := plain_text(number)) is not None:
        number = int(text) if _THREE_DIGITS.fullmatch(text) else None
    # operator.index takes what is a whole number, such as one of numpy, and nothing else.
    status = None if issubclass(type(number), bool) else guarded(operator.index, number)
    if isinstance(status, int) and 100 <= status <= 599:
        return int(status)
    return _OF_GRPC.get(name) if isinstance(name, str) else None


def _stated_waits(error: BaseException, now: float | None) -> Iterator[float]:
    """Yield the seconds that this very error states, in headers and in RetryInfo."""
    if not may_have_reply(error):
        return
    headers = own_headers(error)
    milliseconds = (number_of(headers.get(name)) for name in _MILLISECONDS)
    wait = next((each / 1000 for each in milliseconds if each is not None), None)
    if wait is None and (value := headers.get("retry-after")) is not None:
        wait = number_of(value)
        wait = _seconds_until(value, now) if wait is None else wait
    said = [wait, seconds_of(attribute(error, "retry_after")), *retry_delays(error)]
    said += [
        seconds_of(field(part, name))
        for part in answers_of(error)
        for name in ("retry_delay", "retryDelay")
    ]
    yield from (seconds for seconds in said if seconds is not None)


def _resets(error: BaseException, now: float | None) -> Iterator[float]:
    """Yield the seconds until each limit that is used up begins anew, as headers state it."""
    headers = own_headers(error)
    for name, value in headers.items():
        before, found, kind = name.partition("x-ratelimit-reset")
        if before or not found or number_of(headers.get(f"x-ratelimit-remaining{kind}")) != 0:
            continue
        seconds = seconds_of(value)
        if seconds is not None and seconds >= _FIRST_EPOCH:  # an instant, not a length
            seconds = seconds / 1000 if seconds >= _FIRST_EPOCH * 100 else seconds
            seconds = number_of(seconds - (time.time() if now is None else now))
        if seconds is not None:
            yield seconds


def _seconds_until(date: str, now: float | None) -> float | None:
    """Return the seconds until an HTTP date, which is in UTC even where it does not say so."""
    import email.utils  # costly, for a rare header

    when: Any = guarded(lambda: email.utils.parsedate_to_datetime(date[:64]))
    if when is None:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    # A service names an instant of the wall clock, so only the wall clock can measure it.
    return number_of(when.timestamp() - (time.time() if now is None else now))
