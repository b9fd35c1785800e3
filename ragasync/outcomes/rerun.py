"""Which rows of a result are to run again."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED


def rows_to_rerun(columns: Columns[Any, Any], only: Iterable[int] | None) -> list[int]:
    """
    Return the rows that failed, or those whose original indices `only` names, each once.

    Raises:
        IndexError: an index that these columns do not have.
        TypeError: something in `only` is not an index.
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
    wanted = dict.fromkeys(map(_checked, only))
    n = len(columns)
    indices = range(n) if columns.origin is None else columns.origin
    row_of = dict(zip(indices, range(n), strict=True))
    unknown = [index for index in wanted if index not in row_of]
    if unknown:
        raise IndexError(
            f"only= names items that this result of {n} items does not have: {unknown[:5]!r}"
        )
    return [row_of[index] for index in wanted]


def _checked(index: object) -> int:
    """Return an index, whatever kind of whole number it is; a mask's True is none."""
    if not isinstance(index, bool) and hasattr(index, "__index__"):
        return operator.index(index)
    raise TypeError(
        f"only= takes the original indices of items, got {index!r}: "
        f"of a frame, pass frame.index, or frame.index[mask]"
    )
