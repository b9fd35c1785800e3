"""
Responses of an embedding service: the vectors in them, one for each text, and the errors.

    RagasyncError
    ├── ServiceRefusal                        the service replied with an error status
    ├── BrokenReply                           the reply is cut short, or has no embeddings
    ├── WrongVector (ValueError)              a vector of another dimension, or not finite
    ├── WrongDimension (NotImplementedError)  the service ignores `dimensions=`
    └── RedirectRefused (NotImplementedError) the service redirects to another host
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from types import NoneType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ragasync.arguments import check_count
from ragasync.errors import RagasyncError, ResultCountError
from ragasync.foreign_errors import attribute, guarded, text_of
from ragasync.redact import redact

_LONGEST = 300
_LONGEST_HEADER = 200
_MOST_HEADERS = 256
_KEPT_HEADERS = ("retry-after", "x-should-retry", "x-ratelimit", "x-request-id")


class ServiceRefusal(RagasyncError):
    """
    A service replied with an error.

    Attributes:
        status_code: the HTTP status.
        code: the service's error code, such as "insufficient_quota".
        type: the service's type of error.
        headers: those about retries and rate limits, by lower-case name.
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
        phrase = f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""
        message = f"{where} answered {status}{phrase}"
        super().__init__(redact(f"{message}: {said}" if said else message))
        self.status_code = status
        self.code = code
        self.type = type
        self.headers = headers_to_keep(headers.items())


class BrokenReply(RagasyncError):
    """A service's reply could not be read; the next one may be complete."""


class WrongVector(RagasyncError, ValueError):
    """A service returned a vector of another dimension, or one that is not finite."""


class WrongDimension(RagasyncError, NotImplementedError):
    """A service ignores `dimensions=`: every later vector would have the wrong one too."""


class RedirectRefused(RagasyncError, NotImplementedError):
    """A service redirects to another host, or in a circle: every later call would fail too."""


def headers_to_keep(headers: Iterable[tuple[object, object]]) -> dict[str, str]:
    """Return the headers about retries and rate limits, each cut, by lower-case name."""
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
    Make the error of a reply from a host, whose body is JSON like OpenAI's, or any text.

    `without_secrets` masks the key in a text, which the service may have quoted.
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
    """Return the beginning of a text on one line; masked first, as a cut secret is not found."""
    line = " ".join(redact(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _word(value: object) -> str | None:
    """Return a str of the service; a number would pass for a status."""
    return value[:_LONGEST] if isinstance(value, str) else None


_MOST_TOKENS: Final = 2**53
"""The maximum count of tokens that is plausible; a float holds every integer up to it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed response; indices and tokens are None where the service does not give them."""

    vectors: Sequence[object]  # one per text in any order: lists of numbers, or float32 in base64
    indices: Sequence[object]  # the position of each vector's text
    tokens: int | None
    headers: Mapping[str, str]  # by lower-case name


def reply_of(
    answer: object, headers: Mapping[str, str], without_secrets: Callable[[str], str] = str
) -> Reply:
    """Make a Reply of parsed JSON or a client's object; BrokenReply without embeddings."""
    data = _part(answer, "data")
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        got = short_text(without_secrets(text_of(guarded(repr, answer))))
        raise BrokenReply(f"expected a list of embeddings under 'data', got {got}")
    usage = _part(answer, "usage")
    tokens = _part(usage, "total_tokens")
    return Reply(
        [_part(entry, "embedding") for entry in data],
        [_part(entry, "index") for entry in data],
        tokens if type(tokens) is int and 0 <= tokens <= _MOST_TOKENS else None,
        headers,
    )


def vectors_of(reply: Reply, expected: int) -> list[NDArray[np.float32] | None]:
    """Return one vector per text in order, None for an invalid one; else ResultCountError."""
    vectors, indices = reply.vectors, reply.indices
    if len(vectors) != expected:
        raise ResultCountError(
            f"expected a vector for each of {expected} texts, got {len(vectors)} from the service"
        )
    read = [_vector(vector) for vector in vectors]
    if all(index is None for index in indices):
        return read
    are_indices = all(type(index) is int for index in indices)
    placed = dict(zip(indices, read, strict=True)) if are_indices else {}
    if placed.keys() != set(range(expected)):
        raise ResultCountError(
            f"expected a vector for each of {expected} texts, got {len(placed)} from the service, "
            f"by the index of each: {list(indices)!r:.200}"
        )
    return [placed[index] for index in range(expected)]


def usual_dimension(vectors: Sequence[NDArray[np.float32] | None]) -> int | None:
    """Return the dimension of most vectors; None without a vector."""
    lengths = Counter(len(vector) for vector in vectors if vector is not None)
    return lengths.most_common(1)[0][0] if lengths else None


def checked_rows(
    vectors: Sequence[NDArray[np.float32] | None], dimension: int
) -> NDArray[np.float32]:
    """Return the vectors as an array of shape `(n, dimension)`; WrongVector for a bad one."""
    faults = {place: _fault(vector, dimension) for place, vector in enumerate(vectors)}
    wrong = [place for place, fault in faults.items() if fault]
    if wrong:
        more = f", and {len(wrong) - 1} more are wrong" if len(wrong) > 1 else ""
        raise WrongVector(
            f"expected a vector of {dimension} finite numbers for each of {len(vectors)} texts: "
            f"the one for text {wrong[0]} is {faults[wrong[0]]}{more}"
        )
    return np.array(vectors, dtype=np.float32).reshape(len(vectors), dimension)


def _fault(vector: NDArray[np.float32] | None, dimension: int) -> str:
    """Return what is wrong with a vector; empty if nothing."""
    if vector is None:
        return "not a list of numbers"
    if len(vector) != dimension:
        return f"of {len(vector)} dimensions"
    return "" if np.isfinite(vector).all() else "not finite"


def _vector(given: object) -> NDArray[np.float32] | None:
    """Convert a vector of a response; None if it is invalid."""
    try:
        if isinstance(given, str):
            row = np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4")
        elif not _are_numbers(given):
            return None
        else:
            with np.errstate(over="ignore"):
                row = np.asarray(given, dtype=np.float32)
    except Exception:  # whatever the object of a client raises
        return None
    return row if row.ndim == 1 and len(row) else None


def _are_numbers(given: object) -> bool:
    """Return whether a list or array has numbers only; true and "1.0" are none."""
    if not isinstance(given, list | tuple):
        return np.asarray(given).dtype.kind in "fiu"
    kinds = set(map(type, given)) - {float, int, NoneType}  # null becomes NaN
    return all(issubclass(kind, np.floating | np.integer) for kind in kinds)


def _part(whole: object, name: str) -> object:
    """Return an item of a dict, or an attribute of a client's object; None if missing."""
    if isinstance(whole, Mapping):
        return whole.get(name)
    # A text has a method called index.
    return None if type(whole).__module__ == "builtins" else attribute(whole, name)


class Dimension:
    """
    The dimension of an embedder's vectors, and the conversion of responses to rows of it.

    Args:
        asked: the requested dimension; None for the model's own.

    Attributes:
        known: the requested dimension, or that of most vectors of the first response; else None.
    """

    def __init__(self, asked: int | None) -> None:
        if asked is not None:
            check_count("dimensions", asked, at_least=1)
        self._asked = asked
        self._confirmed = False
        self.known = asked

    @property
    def confirmed(self) -> int | None:
        """Dimension of the first response; None before it."""
        return self.known if self._confirmed else None

    def rows_of(self, reply: Reply, expected: int) -> NDArray[np.float32]:
        """Return the vectors of a response as rows in the order of the texts, or raise."""
        vectors = vectors_of(reply, expected)
        usual = usual_dimension(vectors)
        if usual is None:
            raise WrongVector(f"expected vectors for {expected} texts, got none that can be read")
        if self._asked is not None and not self._confirmed and usual != self._asked:
            raise WrongDimension(
                f"expected vectors of dimensions={self._asked}, got {usual} from the service: "
                "leave dimensions out, or name a model that can shorten its vectors"
            )
        known = self.known or usual
        rows = checked_rows(vectors, known)
        self.known, self._confirmed = known, True
        return rows
