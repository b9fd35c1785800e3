"""From the answer of an embedding service to rows: one for each text, in the texts' order."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders.openai_errors import BrokenReply, WrongVector, short_text
from ragasync.errors import ResultCountError
from ragasync.foreign_errors import attribute, guarded, text_of

_MOST_TOKENS: Final = 2**53
"""A count above this is not one; a float holds every number up to it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """
    An answer as it came.

    Attributes:
        vectors: a vector a text, as a list of numbers or float32 in base64; in any order.
        indices: the number of each one's text; None where the service does not say.
        tokens: what it was counted as; None where the service does not say.
        headers: by lower-case name.
    """

    vectors: Sequence[object]
    indices: Sequence[object]
    tokens: int | None
    headers: Mapping[str, str]


def reply_of(
    answer: object, headers: Mapping[str, str], without_secrets: Callable[[str], str] = str
) -> Reply:
    """
    Return what an answer says, be it parsed JSON or an object of a client's.

    Args:
        answer: the answer.
        headers: by lower-case name.
        without_secrets: takes the key out of a text, which the service may have quoted.

    Raises:
        BrokenReply: it is no list of embeddings.
    """
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
    """
    Return the vectors in the order of the texts, None for what is no vector.

    Raises:
        ResultCountError: there are not as many as texts, or two are of the same text.
    """
    vectors, indices = reply.vectors, reply.indices
    if len(vectors) != expected:
        raise ResultCountError(
            f"expected a vector for each of {expected} texts, got {len(vectors)} from the service"
        )
    read = [_vector(vector) for vector in vectors]
    if all(index is None for index in indices):
        return read
    placed = dict(zip(indices, read, strict=True)) if _are_indices(indices) else {}
    if placed.keys() != set(range(expected)):
        raise ResultCountError(
            f"expected a vector for each of {expected} texts, got {len(placed)} from the service, "
            f"by the index of each: {list(indices)!r:.200}"
        )
    return [placed[index] for index in range(expected)]


def usual_dimension(vectors: Sequence[NDArray[np.float32] | None]) -> int | None:
    """Return the dimension of most vectors; None where there is no vector."""
    lengths = Counter(len(vector) for vector in vectors if vector is not None)
    return lengths.most_common(1)[0][0] if lengths else None


def checked_rows(
    vectors: Sequence[NDArray[np.float32] | None], dimension: int
) -> NDArray[np.float32]:
    """
    Return the vectors as rows, `(n, dimension)`.

    Raises:
        WrongVector: one of them is none, of another dimension, or not finite.
    """
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
    """Say what is wrong with a vector, or nothing."""
    if vector is None:
        return "not a list of numbers"
    if len(vector) != dimension:
        return f"of {len(vector)} dimensions"
    return "" if np.isfinite(vector).all() else "not finite"


def _vector(given: object) -> NDArray[np.float32] | None:
    """Return what was given as a vector; None where it is none."""
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
    """Return whether this is a list or an array of numbers alone; true and "1.0" are none."""
    if not isinstance(given, list | tuple):
        return np.asarray(given).dtype.kind in "fiu"
    kinds = set(map(type, given)) - {float, int, NoneType}  # null becomes NaN
    return all(issubclass(kind, np.floating | np.integer) for kind in kinds)


def _are_indices(indices: Sequence[object]) -> bool:
    """Return whether every index is a whole number."""
    return all(type(index) is int for index in indices)


def _part(whole: object, name: str) -> object:
    """Return an entry of a dict, or an attribute of a client's object; None where there is none."""
    if isinstance(whole, Mapping):
        return whole.get(name)
    # A text has a method called index.
    return None if type(whole).__module__ == "builtins" else attribute(whole, name)
