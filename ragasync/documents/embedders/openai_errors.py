"""
What may be wrong with the answer of an embedding service.

    RagasyncError
    ├── ServiceRefusal                        it answered with a status of failure
    ├── BrokenReply                           its answer is cut short, or no such answer at all
    ├── WrongVector (ValueError)              a vector of another dimension, or not finite
    ├── WrongDimension (NotImplementedError)  it does not heed the dimension that was asked for
    └── RedirectRefused (NotImplementedError) it redirects to another host
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from itertools import islice

from ragasync._redact import redact
from ragasync.errors import RagasyncError

_LONGEST = 300
_LONGEST_HEADER = 200
_MOST_HEADERS = 256
_KEPT_HEADERS = ("retry-after", "x-should-retry", "x-ratelimit", "x-request-id")


class ServiceRefusal(RagasyncError):
    """
    A service answered with an error.

    Attributes:
        status_code: the HTTP status.
        code: the service's own word for it, such as "insufficient_quota".
        type: the sort of error, in the service's words.
        headers: those that say when to come again, by lower-case name.
    """

    def __init__(
        self,
        where: str,
        status: int,
        said: str,
        headers: Mapping[str, str],
        *,
        code: str | None = None,
        type: str | None = None,  # noqa: A002  # as the service calls it
    ) -> None:
        message = f"{where} answered {status}{_phrase(status)}"
        super().__init__(redact(f"{message}: {said}" if said else message))
        self.status_code = status
        self.code = code
        self.type = type
        self.headers = headers_to_keep(headers.items())


class BrokenReply(RagasyncError):
    """A service's answer could not be read; the next one may be whole."""


class WrongVector(RagasyncError, ValueError):
    """A service gave a vector of another dimension than the others, or one that is not finite."""


class WrongDimension(RagasyncError, NotImplementedError):
    """A service does not heed `dimensions=`: every later vector would be of the wrong one too."""


class RedirectRefused(RagasyncError, NotImplementedError):
    """A service redirects to another host, or in a circle: every later call would fail too."""


def headers_to_keep(headers: Iterable[tuple[object, object]]) -> dict[str, str]:
    """Return those headers that say when to call again, each cut, by lower-case name."""
    named = ((str(name).lower(), value) for name, value in islice(headers, _MOST_HEADERS))
    return {
        name: str(value)[:_LONGEST_HEADER]
        for name, value in named
        if name.startswith(_KEPT_HEADERS)
    }


def refusal(
    where: str,
    status: int,
    body: bytes | bytearray,
    headers: Mapping[str, str],
    without_secrets: Callable[[str], str] = str,
) -> ServiceRefusal:
    """
    Return the error that a reply is; its text is JSON as of OpenAI, or anything.

    Args:
        where: the host.
        status: the HTTP status.
        body: of the reply.
        headers: of the reply.
        without_secrets: takes the key out of a text, which the service may have quoted.
    """
    text = body[: 64 * _LONGEST].decode(errors="replace")
    error: object = None
    try:
        answer = json.loads(text)
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
    except (ValueError, RecursionError):
        pass
    code = kind = None
    if isinstance(error, dict):
        code, kind = _word(error.get("code")), _word(error.get("type"))
        text = str(error.get("message") or error.get("detail") or text)
    elif isinstance(error, str):
        text = error
    said = short_text(without_secrets(text))
    code, kind = (word and without_secrets(word) for word in (code, kind))
    return ServiceRefusal(where, status, said, headers, code=code, type=kind)


def short_text(text: str) -> str:
    """Return the beginning of a text in one line; masked first, as a cut secret is not known."""
    line = " ".join(redact(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _word(value: object) -> str | None:
    """Return a word of the service's; a number would pass for a status."""
    return value[:_LONGEST] if isinstance(value, str) else None


def _phrase(status: int) -> str:
    """Return what a status is called."""
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
