"""Which rows of a result are to run again."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED

NAMES = ("item_index", "index", "first_index")
"""What a frame's index and columns are called that hold original indices."""


def rows_to_rerun(columns: Columns[Any, Any], only: Iterable[int] | None) -> list[int]:
    """
    Return the rows that failed, or those whose original indices `only` names, each once.

    Raises:
        IndexError: an index that these columns do not have.
        TypeError: `only` is no collection of indices: a number, a frame, a mask, a column of
            something else, or the numbering of a frame that was reset or merged.
        ValueError: the item of a row is not known.
    """
    rows = list(columns.rows_with(FAILED)) if only is None else _rows_named(columns, only)
    if rows and max(rows) >= len(columns.items):
        raise ValueError(
            "the items are not known to this result (it was made without them, or its source "
            "was not read that far): process them anew and merge(other)"
        )
    return rows


def _rows_named(columns: Columns[Any, Any], only: Iterable[int]) -> list[int]:
    """Return the rows of these original indices."""
    n = len(columns)
    if (given := _something_else(only, n)) is not None:
        raise TypeError(
            f"only= takes the original indices of items, got {given}: of a frame, "
            f"pass frame.index, or frame.index[mask]; after reset_index or merge, frame['index']"
        )
    wanted = dict.fromkeys(map(_checked, only))
    indices = range(n) if columns.source_index is None else columns.source_index
    row_of = dict(zip(indices, range(n), strict=True))
    unknown = [index for index in wanted if index not in row_of]
    if unknown:
        raise IndexError(
            f"only= names items that this result of {n} items does not have: {unknown[:5]!r}"
        )
    return [row_of[index] for index in wanted]


def _something_else(only: object, total: int) -> str | None:
    """Return what this is if it must not be taken for indices, though it may hold whole numbers."""
    if not isinstance(only, Iterable):
        return f"{only!r}, which is not several"
    kinds = {
        cls.__name__ for cls in type(only).__mro__ if cls.__module__.partition(".")[0] == "pandas"
    }
    if "DataFrame" in kinds:
        return "a DataFrame"
    if not kinds & {"Series", "Index"}:
        return None
    given: Any = only
    if str(given.dtype) in ("bool", "boolean"):
        return "a mask"
    if given.name in NAMES:
        return None
    if "Series" in kinds:
        return f"the column {given.name!r}"
    if given.name is not None:
        return f"an index of {given.name!r}"
    # A frame that was filtered and then reset or merged is numbered anew, from 0.
    is_anew = "RangeIndex" in kinds and given.start == 0 and given.step == 1
    if not is_anew or given.stop >= total:
        return None
    return f"{only!r}, which may be a frame's own (if it is meant, make it a list)"


def _checked(index: object) -> int:
    """Return an index, whatever kind of whole number it is; a mask's True is none."""
    if not isinstance(index, bool) and hasattr(index, "__index__"):
        with suppress(TypeError):  # numpy's bool has the method, and refuses it
            return operator.index(index)
    raise TypeError(
        f"only= takes the original indices of items, got {index!r}: "
        f"of a frame, pass frame.index, or frame.index[mask]"
    )
