"""How the outcomes of two runs become one: by original index, the later run first."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from ragasync.columns import Columns
from ragasync.outcome import CANCELLED, PENDING


def merged_columns(earlier: Columns[Any, Any], later: Columns[Any, Any]) -> Columns[Any, Any]:
    """
    Return the columns of both runs, ordered by original index.

    An item's outcome comes from the later run, unless that says less: pending says less than
    cancelled, cancelled less than done or failed. So the order in which three runs are merged
    does not matter.
    """
    places: dict[int, tuple[Columns[Any, Any], int]] = {
        earlier.index_of(row): (earlier, row) for row in range(len(earlier))
    }
    for row in range(len(later)):
        index = later.index_of(row)
        known = places.get(index)
        if known is None or _says(later, row) >= _says(*known):
            places[index] = (later, row)
    indices = sorted(places)
    whole = indices == list(range(len(indices)))
    return _gathered([places[index] for index in indices], None if whole else indices)


def _says(columns: Columns[Any, Any], row: int) -> int:
    """Return how much a row says: 0 pending, 1 cancelled, 2 done or failed."""
    return {PENDING: 0, CANCELLED: 1}.get(columns.status[row], 2)


def _gathered(
    places: Sequence[tuple[Columns[Any, Any], int]], origin: list[int] | None
) -> Columns[Any, Any]:
    """Copy rows from several columns into new ones."""
    merged: Columns[Any, Any] = Columns(
        items=[columns.item_at(row) for columns, row in places], origin=origin
    )
    for name in ("waited", "backed_off"):
        if any(getattr(columns, name) is not None for columns, _ in places):
            setattr(merged, name, array("d", bytes(8 * len(places))))
    if any(columns.batch is not None for columns, _ in places):
        merged.batch = array("i", [-1]) * len(places)
    for target, (columns, row) in enumerate(places):
        _copy_row(columns, row, merged, target)
    return merged


def _copy_row(columns: Columns[Any, Any], row: int, merged: Columns[Any, Any], target: int) -> None:
    """Copy every fact of one row."""
    for name in ("results", "status", "attempts", "started", "seconds", "lane"):
        getattr(merged, name)[target] = getattr(columns, name)[row]
    for name in ("waited", "backed_off", "batch"):
        column = getattr(columns, name)
        if column is not None:
            getattr(merged, name)[target] = column[row]
    for name in ("errors", "tracebacks", "stages", "history"):
        sparse = getattr(columns, name)
        if row in sparse:
            getattr(merged, name)[target] = sparse[row]
