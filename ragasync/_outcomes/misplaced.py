"""Misplaced items: those of a later run whose positions are not the ones of an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ragasync._outcomes.columns import Columns


class Misplaced(NamedTuple):
    """
    An item that two runs have at different positions.

    Args:
        earlier: its position in the earlier run.
        later: its position in the later run.
    """

    earlier: int
    later: int


def misplaced_item(
    earlier: Columns[Any, Any],
    later: Columns[Any, Any],
    canonical_text: Callable[[object], str | None],
) -> Misplaced | None:
    """
    Find an item that shows that a later run had its items in another order, or only some of them.

    It differs from the item that the earlier run has at its position, and equals an item there that
    the later run does not have at the position of that one. An item that equals none is a corrected
    one, which may replace the former. Labels that are unique identify the items without this.

    Args:
        earlier: the outcomes of the earlier run.
        later: the outcomes of the later run; if both have labels, they are the same.
        canonical_text: the text that is equal for equal items; None for an item without one.
    """
    group_of = _groups(earlier, later)
    row_of = {
        earlier.index_of(row): row
        for row in range(len(earlier.items))
        if group_of is None or earlier.index_of(row) in group_of
    }
    if not row_of:
        return None
    in_place: set[int] = set()
    others: list[tuple[int, Any]] = []  # they keep their items alive, so that no id is used twice
    for index, item in _items_by_index(later):
        if (row := row_of.get(index)) is None:
            continue
        if _are_equal(earlier.items[row], item, canonical_text):
            in_place.add(index)
        else:
            others.append((index, item))
    if not others:
        return None
    groups = group_of or {}
    replaced = [
        (index, earlier.items[row]) for index, row in row_of.items() if index not in in_place
    ]
    places = {
        (groups.get(index), _identity(item, canonical_text)): index for index, item in replaced
    }
    for index, item in others:
        place = places.get((groups.get(index), _identity(item, canonical_text)))
        if place is not None and place != index:
            return Misplaced(place, index)
    return None


def _groups(earlier: Columns[Any, Any], later: Columns[Any, Any]) -> dict[int, int] | None:
    """A number for the label of each item that shares it with another; None without labels."""
    labels = earlier.labels
    if labels is None or later.labels is None:
        return None
    if labels.index.is_unique:
        return {}
    positions = labels.index.duplicated(keep=False).nonzero()[0].tolist()
    return dict(zip(positions, labels.groups(positions), strict=True))


def _items_by_index(columns: Columns[Any, Any]) -> Iterator[tuple[int, Any]]:
    """The items that are known, with their original indices."""
    return ((columns.index_of(row), item) for row, item in enumerate(columns.items))


def _are_equal(one: Any, other: Any, canonical_text: Callable[[object], str | None]) -> bool:
    """Whether two items are equal, also if they hold NaN or arrays."""
    if one is other:
        return True
    try:
        if (one == other) is True:
            return True
    except Exception:  # of a foreign class; of an array, whose comparison is not one truth value
        pass
    return _identity(one, canonical_text) == _identity(other, canonical_text)


def _identity(item: Any, canonical_text: Callable[[object], str | None]) -> str | int:
    """A text for the data of an item; of another object, its id."""
    text = canonical_text(item)
    return id(item) if text is None else text
