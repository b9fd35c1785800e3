"""How the outcomes of two runs become one: by original index, the later run first."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat, takewhile
from typing import Any, TypeVar

from ragasync.outcomes.columns import EMPTY, Columns
from ragasync.outcomes.outcome import CANCELLED, PENDING

T = TypeVar("T")

_UNKNOWN: Any = object()
"""Stands for an item that a run does not know."""

_SAYS = bytes({PENDING: 0, CANCELLED: 1}.get(code, 2) for code in range(256))
"""How much each status says."""


def merged_columns(
    earlier: Columns[Any, Any], later: Columns[Any, Any], seconds: float
) -> Columns[Any, Any]:
    """
    Return the columns of both runs, ordered by original index.

    An item's outcome comes from the later run, unless that says less: pending says less than
    cancelled, cancelled less than done or failed. So it does not matter how three runs are
    paired when they are merged.

    Args:
        earlier: the outcomes of the earlier run.
        later: those of the later run.
        seconds: the makespan of the earlier run, after which the later one is to have begun.
    """
    return _Union(earlier, later).columns(seconds)


class _Union:
    """
    The rows of two runs as one list, and the places in it that are kept.

    The later run's rows stand after the earlier's, and every column is gathered by the places.
    """

    def __init__(self, earlier: Columns[Any, Any], later: Columns[Any, Any]) -> None:
        self._runs = (earlier, later)
        self._chosen = _chosen(earlier, later)
        self._indices = sorted(self._chosen)
        self._places = [self._chosen[index] for index in self._indices]

    def columns(self, seconds: float) -> Columns[Any, Any]:
        """Return the rows that are kept, column by column."""
        earlier, later = self._runs
        later_began = array("d", (seconds + began for began in _began(later)))
        return Columns(
            items=self._items(),
            source_index=self._origin(),
            run_began=array("d", self._kept(_began(earlier) + later_began)),
            results=list(self._kept(earlier.results + later.results)),
            status=bytearray(self._kept(earlier.status + later.status)),
            attempts=array("H", self._kept(earlier.attempts + later.attempts)),
            started=array("d", self._kept(earlier.started + later.started)),
            seconds=array("d", self._kept(earlier.seconds + later.seconds)),
            worker=array("H", self._kept(earlier.worker + later.worker)),
            waited=self._optional(earlier.waited, later.waited, "d"),
            backed_off=self._optional(earlier.backed_off, later.backed_off, "d"),
            batch=self._optional(earlier.batch, later.batch, "i"),
            errors=self._sparse(earlier.errors, later.errors),
            tracebacks=self._sparse(earlier.tracebacks, later.tracebacks),
            stages=self._sparse(earlier.stages, later.stages),
            history=self._sparse(earlier.history, later.history),
        )

    def _kept(self, both: Sequence[T]) -> Iterator[T]:
        """Gather a column."""
        return map(both.__getitem__, self._places)

    def _optional(
        self, earlier: array[Any] | None, later: array[Any] | None, code: str
    ) -> array[Any] | None:
        """Gather a column that one or both of the runs did without."""
        if earlier is None and later is None:
            return None
        parts = [
            array(code, EMPTY[code] * len(run)) if part is None else part
            for part, run in zip((earlier, later), self._runs, strict=True)
        ]
        return array(code, self._kept(parts[0] + parts[1]))

    def _sparse(self, earlier: dict[int, T], later: dict[int, T]) -> dict[int, T]:
        """Gather a column that is kept for a few rows only, in order."""
        kept = {}
        for run, column, shift in zip(
            self._runs, (earlier, later), (0, len(self._runs[0])), strict=True
        ):
            for row, value in column.items():
                index = run.index_of(row)
                if self._chosen[index] == row + shift:
                    kept[bisect_left(self._indices, index)] = value
        return dict(sorted(kept.items(), key=lambda entry: entry[0]))

    def _origin(self) -> list[int] | None:
        """Return the original indices, or None where they are the rows themselves."""
        indices = self._indices
        whole = not indices or (indices[0] == 0 and indices[-1] == len(indices) - 1)
        return None if whole else indices

    def _items(self) -> list[Any]:
        """Return the items, up to the first that neither run knows."""
        both = [item for run in self._runs for item in _items_of(run)]
        items = list(self._kept(both))
        if any(item is _UNKNOWN for item in items):
            known = {
                run.index_of(row): item for run in self._runs for row, item in enumerate(run.items)
            }
            items = [
                known.get(index, _UNKNOWN) if item is _UNKNOWN else item
                for index, item in zip(self._indices, items, strict=True)
            ]
        return list(takewhile(lambda item: item is not _UNKNOWN, items))


def _chosen(earlier: Columns[Any, Any], later: Columns[Any, Any]) -> dict[int, int]:
    """Return the place of each index's outcome in the list of both runs' rows."""
    shift = len(earlier)
    says = (earlier.status + later.status).translate(_SAYS)
    chosen = dict(zip(_indices_of(earlier), range(shift), strict=True))
    for place, index in enumerate(_indices_of(later), start=shift):
        if says[place] >= says[chosen.get(index, place)]:
            chosen[index] = place
    return chosen


def _indices_of(columns: Columns[Any, Any]) -> Iterable[int]:
    """Return the original index of each row."""
    return range(len(columns)) if columns.source_index is None else columns.source_index


def _began(columns: Columns[Any, Any]) -> array[float]:
    """Return when the run of each row began: the first of them at 0."""
    return array("d", [0.0]) * len(columns) if columns.run_began is None else columns.run_began


def _items_of(columns: Columns[Any, Any]) -> list[Any]:
    """Return an entry for each row: the item, or that it is not known."""
    return [*columns.items, *repeat(_UNKNOWN, len(columns) - len(columns.items))]
