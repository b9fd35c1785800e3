"""Merging the outcomes of two runs by original index, and selecting the rows to rerun."""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import repeat, takewhile
from typing import Any, TypeVar

from ragasync._outcomes.columns import EMPTY, Columns
from ragasync._outcomes.misplaced import misplaced_item
from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED, PENDING
from ragasync.dataframe_items import DataFrameRows, Labels

T = TypeVar("T")

_UNKNOWN: Any = object()
"""Marks an item that a run does not know."""

_PRIORITY = bytes({PENDING: 0, CANCELLED: 1}.get(code, 2) for code in range(256))
"""The priority of each status: a final outcome beats cancelled, and cancelled beats pending."""

INDEX_NAMES = ("item_index", "index", "first_index")
"""Names of the DataFrame indexes and columns that hold original indices."""


def _relocated(
    earlier: Columns[Any, Any],
    later: Columns[Any, Any],
    canonical_text: Callable[[object], str | None],
) -> Columns[Any, Any]:
    """The columns of the later run, with the indices that its labels have in the earlier one."""
    ours, theirs = earlier.labels, later.labels
    if ours is not None and theirs is not None and not ours.same_as(theirs):
        indices = ours.positions_in(theirs, _indices_of(later))
        return replace(later, source_index=indices, labels=ours)
    if later.source_index is not None:  # its items were chosen from those of an earlier run
        return later
    if (found := misplaced_item(earlier, later, canonical_text)) is not None:
        label = "" if ours is None else f" with the label {ours.at(found.later)!r:.200}"
        raise ValueError(
            f"the other result has an item{label} at position {found.later} that this one has at "
            f"position {found.earlier}: its items are in another order, or only some of them, so "
            f"a merge would mix up their outcomes. Process the same items in the same order, or "
            f"use retry_failed(processor, only=...) instead of merge"
        )
    return later


class Merge:
    """
    The merged columns of two runs, ordered by original index.

    An item's outcome comes from the later run, unless its status has a lower priority there
    (pending < cancelled < done or failed). This makes the merge associative: three runs give the
    same result however they are paired.

    The rows of both runs are seen as one list (the later run's rows last), and each merged column
    is gathered from the positions to keep.

    Args:
        earlier: the outcomes of the earlier run.
        later: the outcomes of the later run. If both runs have labels, and these differ, the rows
            of the later run are those with its labels in the earlier one.
        canonical_text: the text that is equal for equal items; None for an item without one.

    Raises:
        ValueError: the later run has labels that the earlier one does not have, or the labels are
            not unique, or its items are in another order.
    """

    def __init__(
        self,
        earlier: Columns[Any, Any],
        later: Columns[Any, Any],
        canonical_text: Callable[[object], str | None],
    ) -> None:
        later = _relocated(earlier, later, canonical_text)
        self._runs = (earlier, later)
        self._position_of = _positions(earlier, later)
        self._indices = sorted(self._position_of)
        self._positions = [self._position_of[index] for index in self._indices]

    def stopped_because(self, earlier: str | None, later: str | None) -> str | None:
        """
        Why the latest stopped run ended early, unless what it did not reach has ended since.

        An item that failed before, and whose rerun a budget prevented, shows the earlier failure:
        only this reason tells that it was not tried again.

        Args:
            earlier: why the earlier run ended early, or None.
            later: why the later run ended early, or None.
        """
        first, last = self._runs
        if later is not None:
            statuses = {at: self._status(self._position_of[at]) for at in _unreached(last)}
            if not statuses or any(status != DONE for status in statuses.values()):
                return later
        if earlier is not None:
            unreached = set(_unreached(first))
            ended = {last.index_of(row) for row in last.rows_with(DONE, FAILED)}
            if not unreached or not unreached <= ended:
                return earlier
        return None

    def _status(self, position: int) -> int:
        """The status at a position in the list of both runs' rows."""
        first, last = self._runs
        shift = len(first)
        return first.status[position] if position < shift else last.status[position - shift]

    def columns(self, seconds: float) -> Columns[Any, Any]:
        """Gather every column; the later run is placed after the `seconds` of the earlier one."""
        earlier, later = self._runs
        later_began = array("d", (seconds + began for began in _began(later)))
        return Columns(
            items=self._items(),
            source_index=self._source_index(),
            labels=self._labels(),
            run_began=array("d", self._gather(_began(earlier) + later_began)),
            results=list(self._gather(earlier.results + later.results)),
            status=bytearray(self._gather(earlier.status + later.status)),
            attempts=array("H", self._gather(earlier.attempts + later.attempts)),
            started=array("d", self._gather(earlier.started + later.started)),
            seconds=array("d", self._gather(earlier.seconds + later.seconds)),
            worker=array("H", self._gather(earlier.worker + later.worker)),
            waited=self._optional(earlier.waited, later.waited, "d"),
            backed_off=self._optional(earlier.backed_off, later.backed_off, "d"),
            batch=self._optional(earlier.batch, later.batch, "i"),
            tokens=self._optional(earlier.tokens, later.tokens, "q"),
            cost=self._optional(earlier.cost, later.cost, "d"),
            errors=self._sparse(earlier.errors, later.errors),
            tracebacks=self._sparse(earlier.tracebacks, later.tracebacks),
            stages=self._sparse(earlier.stages, later.stages),
            history=self._sparse(earlier.history, later.history),
        )

    def _gather(self, both: Sequence[T]) -> Iterator[T]:
        """Gather a column that every run has."""
        return map(both.__getitem__, self._positions)

    def _optional(
        self, earlier: array[Any] | None, later: array[Any] | None, code: str
    ) -> array[Any] | None:
        """Gather a column that a run may lack."""
        if earlier is None and later is None:
            return None
        parts = [
            array(code, EMPTY[code] * len(run)) if part is None else part
            for part, run in zip((earlier, later), self._runs, strict=True)
        ]
        return array(code, self._gather(parts[0] + parts[1]))

    def _sparse(self, earlier: dict[int, T], later: dict[int, T]) -> dict[int, T]:
        """Gather a sparse column, ordered by row."""
        kept = {}
        for run, column, shift in zip(
            self._runs, (earlier, later), (0, len(self._runs[0])), strict=True
        ):
            for row, value in column.items():
                index = run.index_of(row)
                if self._position_of[index] == row + shift:
                    kept[bisect_left(self._indices, index)] = value
        return dict(sorted(kept.items(), key=lambda entry: entry[0]))

    def _source_index(self) -> list[int] | None:
        """The original indices, or None if they equal the row numbers."""
        indices = self._indices
        whole = not indices or (indices[0] == 0 and indices[-1] == len(indices) - 1)
        return None if whole else indices

    def _labels(self) -> Labels | None:
        """The labels of one of the runs, if they cover all rows."""
        last = self._indices[-1] if self._indices else -1
        known = (run.labels for run in self._runs)
        return next((each for each in known if each is not None and last < len(each)), None)

    def _items(self) -> Sequence[Any]:
        """Gather the items, up to the first that neither run knows."""
        earlier, later = self._runs
        rows = earlier.items
        if isinstance(rows, DataFrameRows) and self._indices == list(range(len(rows))):
            # Rows of a DataFrame stay lazy; only those of the later run are kept as items.
            places = zip(self._indices, self._positions, strict=True)
            latest = {at: row - len(earlier) for at, row in places if row >= len(earlier)}
            return rows.replace({at: later.items[row] for at, row in latest.items()})
        both = [
            item
            for run in self._runs
            for item in (*run.items, *repeat(_UNKNOWN, len(run) - len(run.items)))
        ]
        items = list(self._gather(both))
        if any(item is _UNKNOWN for item in items):
            known = {
                run.index_of(row): item for run in self._runs for row, item in enumerate(run.items)
            }
            items = [
                known.get(index, _UNKNOWN) if item is _UNKNOWN else item
                for index, item in zip(self._indices, items, strict=True)
            ]
        return list(takewhile(lambda item: item is not _UNKNOWN, items))


def _unreached(columns: Columns[Any, Any]) -> list[int]:
    """
    The original indices of the items that a stopped run did not bring to their end.

    If it has an outcome for each item, it may have stopped before a rerun of those that failed. If
    all are done, the rest of its source was not read: the list is empty.
    """
    rows = list(columns.rows_with(PENDING, CANCELLED)) or columns.rows_with(FAILED)
    return list(map(columns.index_of, rows))


def _positions(earlier: Columns[Any, Any], later: Columns[Any, Any]) -> dict[int, int]:
    """Map each original index to the position, in the list of both runs' rows, to keep."""
    shift = len(earlier)
    priority = (earlier.status + later.status).translate(_PRIORITY)
    position_of = dict(zip(_indices_of(earlier), range(shift), strict=True))
    for position, index in enumerate(_indices_of(later), start=shift):
        if priority[position] >= priority[position_of.get(index, position)]:
            position_of[index] = position
    return position_of


def _indices_of(columns: Columns[Any, Any]) -> Sequence[int]:
    """The original index of each row."""
    return range(len(columns)) if columns.source_index is None else columns.source_index


def _began(columns: Columns[Any, Any]) -> array[float]:
    """When the run of each row began, in seconds after the start of the first run."""
    return array("d", [0.0]) * len(columns) if columns.run_began is None else columns.run_began


# ── what to run again ─────────────────────────────────────────────────────────────────────────


def rows_to_rerun(columns: Columns[Any, Any], only: Iterable[Any] | None) -> list[int]:
    """
    Select the failed rows, or the rows whose labels or original indices are in `only`, each once.

    Items from a Series or DataFrame of pandas go by label. A label that several items share stands
    for those of them that are not done, or for all if all are done.

    Raises:
        IndexError: these columns do not have an index of `only`.
        KeyError: these columns do not have a label of `only`.
        TypeError: `only` is not a collection of indices, but a number, a DataFrame, a mask, another
            column, or the new index of a DataFrame after reset_index or merge.
        ValueError: the item of a row is not known.
    """
    rows = list(columns.rows_with(FAILED)) if only is None else _rows_of(columns, only)
    if rows and max(rows) >= len(columns.items):
        raise ValueError(
            "the items are not known to this result (it was made without them, or its source "
            "was not read that far): process them again and merge(other)"
        )
    return rows


def items_of(columns: Columns[Any, Any], rows: Sequence[int]) -> list[Any]:
    """Collect the items of some rows, in the order given."""
    # Read in order, because a row of a DataFrame that is read alone costs its whole block.
    items = {row: columns.items[row] for row in sorted(rows)}
    return [items[row] for row in rows]


def _rows_of(columns: Columns[Any, Any], only: Iterable[Any]) -> list[int]:
    """Find the rows of these labels or original indices."""
    if columns.labels is not None:
        return _rows_with_labels(columns, columns.labels, only)
    n = len(columns)
    if (received := _not_indices(only, n)) is not None:
        raise TypeError(
            f"only= takes the original indices of items, got {received}: of a DataFrame df, pass "
            f"df.index, or df.index[mask]; after reset_index, df['item_index']"
        )
    wanted = dict.fromkeys(map(_as_index, only))
    row_of = dict(zip(_indices_of(columns), range(n), strict=True))
    unknown = [index for index in wanted if index not in row_of]
    if unknown:
        raise IndexError(
            f"only= names items that this result of {n} items does not have: {unknown[:5]!r}"
        )
    return [row_of[index] for index in wanted]


def _rows_with_labels(columns: Columns[Any, Any], labels: Labels, only: Iterable[Any]) -> list[int]:
    """Find the rows of these labels."""
    if (received := labels.not_labels(only)) is not None:
        raise TypeError(
            f"only= takes labels of the items' index, got {received}: of a DataFrame df, pass "
            f"df.index, or df.index[mask]; after reset_index, the column that holds the labels"
        )
    positions = labels.find(only)
    if columns.source_index is not None:
        row_of = dict(zip(columns.source_index, range(len(columns)), strict=True))
        absent = [position for position in positions if position not in row_of]
        if absent and labels.index.is_unique:
            names = [labels.at(position) for position in absent[:5]]
            raise KeyError(f"only= names items that this result does not have: {names!r:.200}")
        rows = [row_of[position] for position in positions if position in row_of]
    else:
        rows = positions
    if labels.index.is_unique:
        return rows
    groups = labels.groups([columns.index_of(row) for row in rows])
    is_open = [columns.status[row] != DONE for row in rows]
    open_groups = {group for group, each in zip(groups, is_open, strict=True) if each}
    return [
        row
        for row, group, each in zip(rows, groups, is_open, strict=True)
        if each or group not in open_groups
    ]


def _not_indices(only: object, total: int) -> str | None:
    """Describe an object that cannot be meant as indices, though it may hold whole numbers."""
    if not isinstance(only, Iterable):
        return f"{only!r}, which is not a collection"
    # By name, because importing pandas only to ask takes half a second.
    kinds = {
        cls.__name__ for cls in type(only).__mro__ if cls.__module__.partition(".")[0] == "pandas"
    }
    if "DataFrame" in kinds:
        return "a DataFrame"
    if not kinds & {"Series", "Index"}:
        return None
    pandas_object: Any = only
    if str(pandas_object.dtype) in ("bool", "boolean"):
        return "a mask"
    if pandas_object.name in INDEX_NAMES:
        return None
    if "Series" in kinds:
        return f"the column {pandas_object.name!r}"
    if pandas_object.name is not None:
        return f"an index of {pandas_object.name!r}"
    # A DataFrame that was filtered and then reset or merged is renumbered from 0.
    starts_at_0 = "RangeIndex" in kinds and pandas_object.start == 0 and pandas_object.step == 1
    if not starts_at_0 or pandas_object.stop >= total:
        return None
    return f"{only!r}, which may be new row numbers (if it is meant, pass a list)"


def _as_index(index: object) -> int:
    """Convert any kind of whole number to an index; the True of a mask is rejected."""
    if not isinstance(index, bool) and hasattr(index, "__index__"):
        with suppress(TypeError):  # numpy's bool has the method and raises
            return operator.index(index)
    raise TypeError(
        f"only= takes the original indices of items, got {index!r}: "
        f"of a DataFrame df, pass df.index, or df.index[mask]"
    )
