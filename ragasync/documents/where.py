"""Conditions on metadata, which restrict what a search may find."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Where: TypeAlias = Mapping[str, object]
"""
Conditions by metadata key, all of which have to hold.

    {"lang": "en"}                              # this value
    {"lang": ["en", "de"]}                      # any of these
    {"year": {"$gte": 2020, "$lt": 2025}}       # "$gt", "$gte", "$lt", "$lte", "$ne"
    {"source": "/docs/guide.md", "draft": None} # the document's own; without one, or with None

A condition on "heading" is one on all headings above a chunk or in it: it holds where it does of
one of them, by its title or as "Install > On Linux"; "$ne" where it does of each.

The keys of a chunk's metadata go over those of its document; "id" and "source" are always the
document's own. Numbers are compared with numbers and texts with texts: 1 is 1.0 and is neither "1"
nor True. A value that is itself a list or a dict equals nothing. "$ne" holds too where the key is
missing, and no comparison does.

Example:
    >>> from ragasync import AsyncDocumentProcessor
    >>> from ragasync.documents import Document, MemoryStore
    >>> store = MemoryStore()
    >>> guides = [Document(str(year), "A bucket refills.", {"year": year}) for year in (2019, 2024)]
    >>> _ = AsyncDocumentProcessor(store=store).process_sync(guides)
    >>> [hit.document_id for hit in store.search("bucket", where={"year": {"$gte": 2020}})]
    ['2024']
    >>> store.close()
"""

HEADING, HEADINGS = "heading", "headings"
"""The keys of the heading above a chunk, and of the list of all that are above it or in it."""

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_OPERATORS = (*_ORDER, "$ne")


@dataclass(frozen=True, slots=True)
class Condition:
    """
    Hold what has to be true of the value under one key.

    Args:
        key: The metadata key.
        operator: "in" for any of the values, or one of Where's operators, with one value.
        values: What is compared with: texts, finite or infinite numbers, booleans, None.
    """

    key: str
    operator: str
    values: tuple[object, ...]

    def holds(self, value: object) -> bool:
        """Return whether it is true of a value; a missing one is None."""
        if self.operator == "in":
            return any(_equal(value, one) for one in self.values)
        [bound] = self.values
        if self.operator == "$ne":
            return not _equal(value, bound)
        return kind_of(value) == kind_of(bound) and _ORDER[self.operator](value, bound)


def conditions_of(where: Where | None) -> tuple[Condition, ...]:
    """
    Return the conditions that a user's `where` states; none for None or an empty one.

    Raises:
        TypeError: When it is no mapping by texts, or a value is none that metadata can equal.
        ValueError: When an operator is unknown, or a number is not a number.
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise TypeError(f"where must be a dict of metadata keys to values, got {where!r:.200}")
    return tuple(one for key, wanted in where.items() for one in _of_key(key, wanted))


def matches(
    conditions: tuple[Condition, ...],
    document_id: str,
    source: str | None,
    of_document: Mapping[str, object],
    of_chunk: Mapping[str, object],
) -> bool:
    """
    Return whether all conditions hold of one chunk.

    Args:
        conditions: What has to hold.
        document_id: The id of its document.
        source: Where the document came from.
        of_document: The document's metadata.
        of_chunk: The chunk's own, which goes over it.
    """
    for condition in conditions:  # `all` would make a generator for each chunk
        value = value_of(condition.key, document_id, source, of_document, of_chunk)
        if condition.key == HEADING and (titles := titles_of(of_chunk)):
            held = map(condition.holds, (value, *titles))
            if not (all(held) if condition.operator == "$ne" else any(held)):
                return False
        elif not condition.holds(value):
            return False
    return True


def titles_of(of_chunk: Mapping[str, object]) -> list[str]:
    """Return the titles of the headings above a chunk and in it, as far as its metadata tells."""
    titles = of_chunk.get(HEADINGS)
    if not isinstance(titles, list | tuple):
        return []
    return [title for title in titles if isinstance(title, str)]


def value_of(
    key: str,
    document_id: str,
    source: str | None,
    of_document: Mapping[str, object],
    of_chunk: Mapping[str, object],
) -> object:
    """Return what a chunk has under a key, None where it has nothing; see `matches`."""
    if key == "id":
        return document_id
    if key == "source":
        return source
    return of_chunk[key] if key in of_chunk else of_document.get(key)


def kind_of(value: object) -> str | None:
    """Return what a value can be compared with; None for a list, a dict or anything else."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _of_key(key: object, wanted: object) -> list[Condition]:
    """Return the conditions on one key."""
    if not isinstance(key, str):
        raise TypeError(f"the keys of where must be texts, got {key!r:.200}")
    if isinstance(wanted, Mapping):
        return [_by_operator(key, name, bound) for name, bound in wanted.items()]
    if isinstance(wanted, list | tuple | set | frozenset):
        return [Condition(key, "in", tuple(_checked(key, value) for value in wanted))]
    return [Condition(key, "in", (_checked(key, wanted),))]


def _by_operator(key: str, name: object, bound: object) -> Condition:
    """Return the condition that an operator states."""
    if name not in _OPERATORS:
        raise ValueError(
            f"where knows {', '.join(_OPERATORS)}, and of the key {key!r} was asked {name!r:.200}"
        )
    value = _checked(key, bound)
    if name != "$ne" and kind_of(value) not in ("text", "number"):
        raise TypeError(
            f"only texts and numbers have an order, and the key {key!r} was to be {name} {value!r}"
        )
    return Condition(key, str(name), (value,))


def _checked(key: str, value: object) -> object:
    """Return a value that metadata can equal; of a number of numpy's the plain number."""
    item = getattr(value, "item", None)
    plain = item() if callable(item) and getattr(value, "ndim", None) == 0 else value
    kind = kind_of(plain)
    if kind is None:
        raise TypeError(
            f"where compares with texts, numbers, booleans, None, or a list of them, and the key "
            f"{key!r} with {value!r:.200}"
        )
    if isinstance(plain, float) and math.isnan(plain):
        raise ValueError(f"no metadata is equal to or beyond NaN: give {key!r} a number, or None")
    return plain


def _equal(one: object, other: object) -> bool:
    """Return whether two values are of one kind and equal."""
    return one == other and kind_of(one) == kind_of(other) is not None
