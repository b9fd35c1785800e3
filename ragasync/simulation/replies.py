"""What a scripted service raises: errors that read like those of an HTTP client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Reply:
    """
    The reply behind a ServiceError.

    Attributes:
        status_code: the HTTP status.
        headers: its headers, such as Retry-After.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)


class ServiceError(Exception):
    """
    A reply of a scripted service that is no success.

    It carries a `response` with `status_code` and `headers`, as the errors of HTTP clients do, so
    that retries judge it by its status.

    Example:
        >>> from ragasync.simulation import ServiceError
        >>> error = ServiceError(429, {"retry-after": "5"})
        >>> print(error)
        429 Too Many Requests
        >>> error.response.headers["retry-after"]
        '5'
    """

    def __init__(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, headers)
        self.response = Reply(status, headers or {})

    def __str__(self) -> str:
        status = self.response.status_code
        return f"{status} {HTTPStatus(status).phrase}"
