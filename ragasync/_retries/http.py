"""
HTTP responses in errors: status, headers and body, from the error of any client.

No client library is imported. Errors are read by their attributes, which covers httpx, requests,
aiohttp, urllib, openai, anthropic, botocore, grpc, google.api_core and the SDKs built on them.
Functions without `own_` in their name look at the error, the members of its groups and its
explicit causes, the outermost first.
"""

from __future__ import annotations

import enum
import functools
import json
import operator
import re
import types
from collections.abc import Callable, Iterator
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

_STATUS_NAMES: Final = ("status_code", "http_status", "status", "code", "HTTPStatusCode")

_BODY_ATTRIBUTES: Final = ("body", "details", "error_details", "errors", "error")
"""Attributes in which an error keeps the decoded JSON of a response."""

_RESPONSE_ATTRIBUTES: Final = frozenset(_STATUS_NAMES).union(
    _BODY_ATTRIBUTES,
    ("response", "headers", "resp", "trailing_metadata", "type"),
    ("retry_delay", "retry_after", "__getattr__"),
)
"""Every attribute that is read; an error without any of them has no response."""

_RAW_BODY_ATTRIBUTES: Final = ("_content", "_body")
"""
Attributes in which httpx and requests (`_content`) and aiohttp (`_body`) keep a body already read.

Their public attributes would read it now, from a connection that may be slow or closed.
"""

_MAX_BODY_BYTES: Final = 65_536
_MAX_BODIES: Final = 32

_THREE_DIGITS: Final = re.compile(r"\d{3}", re.ASCII)

_CALLED: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_NOT_BODIES: Final = (*_CALLED, str, bytes, int, float)

# The HTTP status of each google.rpc.Code, from code.proto in github.com/googleapis/googleapis.
_GRPC_STATUSES: Final = {
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

# AWS sends status 400 with many of these codes. The codes for 429 and 408 are those that botocore
# itself retries (botocore/retries/standard.py); 401 is for bad keys, 403 for missing permissions.
_AWS_STATUSES: Final = {
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
"""Statuses for which the AWS error code in the body decides."""


def http_status(error: BaseException) -> int | None:
    """
    Return the first HTTP status in an error, its groups and causes, or None.

    A status is an integer from 100 to 599 (an int, an enum's value or three digits) in an
    attribute `status_code`, `http_status`, `status` or `code`, of the error or else of its
    `response`, which may be a dict. A gRPC or AWS code becomes the corresponding HTTP status:
    RESOURCE_EXHAUSTED and ThrottlingException are 429.
    """
    return next(
        (status for status in map(own_status, linked_errors(error)) if status is not None), None
    )


def headers_of(error: BaseException) -> dict[str, str]:
    """
    Return the response headers in an error, its groups and causes, by lower-case name.

    If two of them have a header, the outermost error wins, and its own attribute wins over that of
    its response. gRPC's trailing metadata are headers too.
    """
    found: dict[str, str] = {}
    for link in linked_errors(error):
        for name, value in own_headers(link).items():
            found.setdefault(name, value)
    return found


def linked_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the members of its groups and its explicit causes, the outermost first."""
    # Implicit contexts do not count: an error raised while handling a 404 is not a 404.
    return iter((error,)) if stands_alone(error) else walk_errors(error, contexts=False)


def may_have_response(error: BaseException) -> bool:
    """Return whether this one error may have a response; quick, as most errors have none."""
    kind: Any = type(error)
    try:
        of_class = _may_have_attributes(kind)
        if of_class is not None:
            return of_class
        return not _RESPONSE_ATTRIBUTES.isdisjoint(error.__dict__)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # raised by an instance or a class that hides its attributes
        return True


def own_status(error: BaseException) -> int | None:
    """Return the HTTP status in this one error."""
    if not may_have_response(error):
        return None
    response = attribute(error, "response")
    status = _status_in(error)
    if response is not None:  # not `if response`: a failed response of requests is falsy
        if status is None:
            status = _status_in(response)
        if status in _OVERRULED_BY_AWS and issubclass(type(response), dict):
            code = plain_text(field(field(response, "Error"), "Code"))
            return _AWS_STATUSES.get(code or "", status)
    return status


def _status_in(speaker: object) -> int | None:
    """Return the HTTP status in an error, a response object, or a dict of decoded JSON."""
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
    """Return the response headers in this one error by lower-case name."""
    if not may_have_response(error):
        return {}
    found: dict[str, str] = {}
    response = attribute(error, "response")
    for pairs in (
        _items(attribute(error, "headers")),
        _items(field(response, "headers")),
        _items(field(field(response, "ResponseMetadata"), "HTTPHeaders")),
        _items(attribute(error, "resp")),  # google-api-python-client: a dict of headers
        trailing_metadata(error),
    ):
        for name, value in pairs:
            found.setdefault(_header_text(name).lower(), _header_text(value))
    return found


def trailing_metadata(error: BaseException) -> list[tuple[str, object]]:
    """Read the trailing metadata of a gRPC error: lower-case names, with str or bytes values."""
    read = attribute(error, "trailing_metadata")
    if read is None:
        return []
    pairs = guarded(lambda: [(str(k).lower(), v) for k, v in islice(read(), 64)])  # type: ignore[operator]
    return pairs if isinstance(pairs, list) else []


def _items(headers: object) -> list[tuple[object, object]]:
    """Return the items of a mapping of headers, or [] if it is not a mapping."""
    items = None if headers is None else attribute(headers, "items")
    if items is None:
        return []
    pairs = guarded(lambda: [(name, value) for name, value in islice(items(), 256)])  # type: ignore[operator]
    return pairs if isinstance(pairs, list) else []


def _header_text(value: object) -> str:
    """Return a header's name or value as text."""
    text = plain_text(value)
    return (text_of(value) if text is None else text).strip()


def response_bodies(error: BaseException) -> list[object]:
    """
    Return this one error and the parts of the response body that it keeps, the nearest first.

    These are decoded JSON, with the dicts and lists in it, and SDK objects that represent it. For
    a plain client (httpx, requests, aiohttp) it is the JSON of the response, if that has been read
    and is at most `_MAX_BODY_BYTES` long; other texts and bytes are not parsed.
    """
    found: list[object] = [error]
    for name in _BODY_ATTRIBUTES:
        _add(found, attribute(error, name))
    response = attribute(error, "response")
    found.append(response if issubclass(type(response), dict) else _json_of(response))  # botocore's
    for part in found[1:]:
        if issubclass(type(part), dict):
            for within in ("error", "Error"):
                inner = field(part, within)
                _add(found, inner)
                _add(found, field(inner, "details"))
                _add(found, field(inner, "errors"))
    return found[:_MAX_BODIES]


def _json_of(response: object) -> dict[str, object]:
    """Return the JSON object in a response's body, or {} if there is none."""
    for name in _RAW_BODY_ATTRIBUTES:
        body = attribute(response, name)
        if type(body) is bytes and len(body) <= _MAX_BODY_BYTES:
            return _json_object(body)
    return {}


@functools.lru_cache(maxsize=64)
def _json_object(body: bytes) -> dict[str, object]:
    """Return a body decoded as a JSON object, or {} if it is not one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if type(value) is dict else {}


def _add(found: list[object], value: object) -> None:
    """Add a part of a body, or the first entries of a list of parts."""
    if value is None or issubclass(type(value), _NOT_BODIES):
        return
    if issubclass(type(value), list | tuple):
        entries = guarded(lambda: list(islice(value, 8)))  # type: ignore[call-overload]
        found.extend(entries if isinstance(entries, list) else ())
    else:
        found.append(value)


@functools.lru_cache(maxsize=512)
def _may_have_attributes(kind: type) -> bool | None:
    """Return whether an error class has an attribute of a response; None if its instances may."""
    if "HttpProcessingError" in class_names(kind):
        return False  # aiohttp could not parse a response; its code is the one a server would send
    return any(hasattr(kind, name) for name in _RESPONSE_ATTRIBUTES) or None


def _as_status(value: object, *, called: bool) -> int | None:
    """Return a value as an HTTP status, or None."""
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
    # operator.index accepts integers only, those of numpy included.
    status = None if issubclass(type(number), bool) else guarded(operator.index, number)
    if isinstance(status, int) and 100 <= status <= 599:
        return int(status)
    return _GRPC_STATUSES.get(name) if isinstance(name, str) else None
