"""
Items from a pandas or polars Series or DataFrame: values, rows as dicts, and labels.

A Series gives a list of its values. A DataFrame gives DataFrameRows, a lazy sequence: a row becomes
a dict when it is read. An object of pandas also gives the Labels of its index. Neither library is
imported to look for its objects: they can only come from a module that is loaded.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from ragasync.errors import SourceFailed
from ragasync.foreign_errors import attribute, is_a

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 256
"""Labels that are converted together."""


class Labels:
    """
    The labels of a run's items: the index of their Series or DataFrame, by position.

    Args:
        index: the index, which is shared with the pandas object.
    """

    def __init__(self, index: pd.Index[Any]) -> None:
        self.index = index
        self._latest: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return len(self.index)

    def at(self, position: int) -> Any:
        """The label at a position; of a MultiIndex, a tuple."""
        # A stream asks for one label after the other: converting them in blocks is much faster.
        start = position - position % BLOCK
        latest, labels = self._latest
        if latest != start:
            labels = self._converted(self.index[start : start + BLOCK])
            self._latest = start, labels
        return labels[position - start]

    def at_all(self, positions: Sequence[int]) -> list[Any]:
        """The labels at some positions."""
        return self._converted(self.take(positions))

    def _converted(self, part: pd.Index[Any]) -> list[Any]:
        """A part of the index as a list of Python values."""
        import pandas as pd

        if isinstance(part, pd.MultiIndex):  # as a list, its whole numbers may become floats
            return [_plain_label(part[place]) for place in range(len(part))]
        return list(map(_plain_label, part.tolist()))

    def take(self, positions: Sequence[int]) -> pd.Index[Any]:
        """The part of the index at these positions; the index itself for all of them in order."""
        if positions == range(len(self.index)):
            return self.index
        import numpy as np

        return self.index.take(np.fromiter(positions, dtype="int64", count=len(positions)))

    def same_as(self, other: Labels) -> bool:
        """Whether two runs have the same labels in the same order."""
        return self.index is other.index or bool(self.index.equals(other.index))

    def positions_in(self, other: Labels, positions: Sequence[int]) -> list[int]:
        """
        Find the positions that some of another run's labels have here.

        Raises:
            ValueError: a label is unknown here, or labels are not unique.
        """
        if not self.index.is_unique or not other.index.is_unique:
            raise ValueError(
                "the two results have different indexes with duplicate labels, so their rows "
                "cannot be matched: use retry_failed(processor, only=labels) instead of merge"
            )
        wanted = other.take(positions)
        found = self.index.get_indexer_for(wanted)
        if (found < 0).any():
            unknown = wanted[found < 0][:5].tolist()
            raise ValueError(
                f"the other result has labels that this one does not have: {unknown!r:.200}; "
                f"merge takes the result of a later run of the same rows, or of some of them"
            )
        return [int(position) for position in found]

    def not_labels(self, only: object) -> str | None:
        """Describe an object that cannot be meant as labels, though it may hold equal values."""
        import pandas as pd

        if isinstance(only, str | bytes) or not isinstance(only, Iterable):
            return f"{only!r:.200}, which is not a collection"
        if isinstance(only, pd.DataFrame):
            return "a DataFrame"
        if not isinstance(only, pd.Series | pd.Index):
            return None
        if only.dtype in ("bool", "boolean") and self.index.inferred_type != "boolean":
            return "a mask"
        # `reset_index` calls a level without a name `index`, or `level_0`.
        names = {*self.index.names, None, "index", "level_0", "first_index"}
        if isinstance(only, pd.Series):
            return None if only.name in names else f"the column {only.name!r}"
        if not names.issuperset(only.names):
            return f"an index of {only.name!r}"
        # A part of an index is a RangeIndex from 0 only if the whole is one.
        is_new = isinstance(only, pd.RangeIndex) and only.start == 0 and only.step == 1
        if not is_new or not len(only) or isinstance(self.index, pd.RangeIndex):
            return None
        return f"{only!r}, which may be new row numbers (if it is meant, pass a list)"

    def find(self, only: Iterable[Any]) -> list[int]:
        """
        Find the positions of labels, in the order given; a duplicate label has several.

        Raises:
            KeyError: a label is unknown.
        """
        # Each label once: a label that n items share and that is given n times has n * n matches.
        wanted = self._as_index(only).unique()
        if not len(wanted):
            return []
        found = self.index.get_indexer_for(wanted)
        is_mask = wanted.inferred_type == "boolean" and self.index.inferred_type != "boolean"
        if is_mask:
            raise TypeError(
                "only= takes labels, got a mask: of a DataFrame df, pass df.index[mask]"
            )
        if (found < 0).any():
            known = wanted.isin(self.index)
            unknown = wanted[~known][:5].tolist() or "another kind of label"
            raise KeyError(
                f"only= names labels that the items' index does not have: {unknown!r:.200}, "
                f"expected labels such as {self.index[:3].tolist()!r:.200}"
            )
        return list(dict.fromkeys(map(int, found)))

    def groups(self, positions: Sequence[int]) -> list[int]:
        """A number for the label of each position, the same for equal labels."""
        if not positions:  # which pandas 2 cannot factorize in a MultiIndex
            return []
        codes, _ = self.take(positions).factorize(use_na_sentinel=False)
        return [int(code) for code in codes]

    def _as_index(self, only: Iterable[Any]) -> pd.Index[Any]:
        """Labels as an index of the kind of these ones."""
        import pandas as pd

        if isinstance(only, pd.Index):
            return only
        labels = list(only)
        if isinstance(self.index, pd.MultiIndex) and labels:
            if not all(isinstance(label, tuple) for label in labels):
                raise KeyError(
                    f"only= must have a tuple for each item, because the items have a MultiIndex, "
                    f"got {labels[:3]!r:.200}"
                )
            return pd.MultiIndex.from_tuples(labels)
        made: pd.Index[Any] = pd.Index(labels, tupleize_cols=False)
        return made


def _plain_label(label: Any) -> Any:
    """Convert numbers of numpy in a label to Python's; a missing label is kept."""
    if type(label) in (str, int, float):
        return label
    if isinstance(label, tuple):
        return tuple(map(_plain_label, label))
    import numpy as np

    is_number = isinstance(label, np.generic) and label.dtype.kind in "biufc"
    return label.item() if is_number else label


LONG_BLOCK = 20_000
"""Values that are converted together, to share the cost of slicing columns. Meanwhile the loop
stands still: for some milliseconds, or for 40 if all of them are dates."""

BLOCK = 256
"""Rows that are made together: dicts that do not fit into the processor's cache take twice as long;
and an item that is looked up alone costs its whole block."""


class DataFrameLike(Protocol):
    """A DataFrame of pandas or polars, for type checkers: its rows are the items."""

    @property
    def columns(self) -> Any:
        """The names of its columns."""

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of its rows and columns."""


class LabeledItems(NamedTuple):
    """
    Items in memory, and their labels.

    Args:
        items: a list, or DataFrameRows.
        labels: the labels of a pandas object; None if the items have none.
    """

    items: Sequence[Any]
    labels: Labels | None = None


def labeled_items(given: object) -> LabeledItems | None:
    """
    Take the items and the labels of a Series or DataFrame; None for any other object.

    Later changes of the object change neither.

    Raises:
        TypeError: a polars LazyFrame, which holds no rows.
        ValueError: two columns of a DataFrame have the same name.
    """
    if isinstance(given, LabeledItems):
        return given
    frame: Any = given
    if is_instance_of(given, "pandas", "Series"):
        return LabeledItems(_plain_values(_values_of(frame)), Labels(frame.index))
    if is_instance_of(given, "pandas", "DataFrame"):
        return LabeledItems(PandasRows(frame), Labels(frame.index))
    if is_instance_of(given, "polars", "Series"):
        return LabeledItems(frame.to_list())
    if is_instance_of(given, "polars", "DataFrame"):
        return LabeledItems(PolarsRows(frame))
    if is_instance_of(given, "polars", "LazyFrame"):
        raise TypeError("items must be rows, got a polars LazyFrame: pass frame.collect()")
    return None


def is_instance_of(value: object, library: str, kind: str) -> bool:
    """Whether a value is an instance of a class of a library, which is not imported for this."""
    found = attribute(sys.modules.get(library), kind)
    return isinstance(found, type) and is_a(value, found)


# ── rows ────────────────────────────────────────────────────────────────────────────────────────


class DataFrameRows(Sequence[Any]):
    """
    The rows of a DataFrame as a lazy, read-only sequence of dicts, by column name.

    The latest block of rows is kept, so that reading one row after the other is fast.

    Args:
        names: the names of the columns.
        length: the number of rows.
        replaced: items that stand in place of rows, by position.
    """

    def __init__(
        self, names: Sequence[Any], length: int, replaced: Mapping[int, Any] | None = None
    ) -> None:
        self._names = list(names)
        self._length = length
        self._replaced = dict(replaced or {})
        self._latest: tuple[int, list[Any]] = (-1, [])

    @abstractmethod
    def replace(self, items: Mapping[int, Any]) -> DataFrameRows:
        """Make a sequence with other items in some positions, which shares all other rows."""

    @abstractmethod
    def _values(self, start: int, stop: int) -> list[list[Any]]:
        """Convert the values of a slice, a list for each column."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        step = max(BLOCK, LONG_BLOCK // max(1, len(self._names)))
        starts = range(0, self._length, step)
        return chain.from_iterable(
            chain.from_iterable(self._blocks(start, start + step) for start in starts)
        )

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        at = range(self._length)[index]
        if isinstance(at, range):
            return [self[row] for row in at]
        if at in self._replaced:
            return self._replaced[at]
        start = at - at % BLOCK
        latest, rows = self._latest
        if latest != start:
            (rows,) = self._blocks(start, start + BLOCK)
            self._latest = start, rows
        return dict(rows[at - start])  # a caller may change its row, and this block is kept

    def _blocks(self, start: int, stop: int) -> Iterator[list[Any]]:
        """Yield the rows of a slice in blocks."""
        stop = min(stop, self._length)
        try:
            columns = self._values(start, stop)
        except Exception as error:  # of a column of a foreign type
            raise SourceFailed(error) from error
        for first in range(start, stop, BLOCK):
            count = min(BLOCK, stop - first)
            part = slice(first - start, first - start + count)
            rows = _rows_of(self._names, [column[part] for column in columns], count)
            if self._replaced:
                for row in self._replaced.keys() & range(first, first + count):
                    rows[row - first] = self._replaced[row]
            yield rows


def _rows_of(names: Sequence[Any], columns: Sequence[list[Any]], count: int) -> list[Any]:
    """Make dicts of columns of values."""
    if not columns:
        return [{} for _ in range(count)]
    # Column by column takes half the time of dict(zip(...)) for each row.
    rows: list[Any] = [{names[0]: value} for value in columns[0]]
    for name, values in zip(names[1:], columns[1:], strict=True):
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


class PandasRows(DataFrameRows):
    """
    The rows of a pandas DataFrame.

    Raises:
        ValueError: two columns have the same name.
    """

    def __init__(
        self, frame: pd.DataFrame, replaced: Mapping[int, Any] | None = None, *, own: bool = False
    ) -> None:
        super().__init__(list(frame.columns), len(frame), replaced)
        if not frame.columns.is_unique:
            double = frame.columns[frame.columns.duplicated()].unique().tolist()
            raise ValueError(
                f"the columns of a DataFrame must have different names, because its rows become "
                f"dicts, got {double!r:.200} more than once: rename them"
            )
        # pandas 3 copies on write, as long as this object lives; pandas 2 has to copy now.
        self._frame = frame if own else frame.copy(deep=not _copies_on_write())
        self._columns = [
            _values_of(self._frame.iloc[:, place]) for place in range(len(self._names))
        ]

    def replace(self, items: Mapping[int, Any]) -> PandasRows:
        """Make a sequence with other items in some positions, which shares all other rows."""
        return PandasRows(self._frame, {**self._replaced, **items}, own=True)

    def _values(self, start: int, stop: int) -> list[list[Any]]:
        """Convert the values of a slice, a list for each column."""
        return [_plain_values(column[start:stop]) for column in self._columns]


class PolarsRows(DataFrameRows):
    """The rows of a polars DataFrame."""

    def __init__(self, frame: Any, replaced: Mapping[int, Any] | None = None) -> None:
        super().__init__(frame.columns, frame.height, replaced)
        self._frame = frame.clone()  # shares the data; methods that work in place replace it

    def replace(self, items: Mapping[int, Any]) -> PolarsRows:
        """Make a sequence with other items in some positions, which shares all other rows."""
        return PolarsRows(self._frame, {**self._replaced, **items})

    def _values(self, start: int, stop: int) -> list[list[Any]]:
        """Convert the values of a slice, a list for each column."""
        part = self._frame.slice(start, stop - start)
        return [column.to_list() for column in part.get_columns()]


def _copies_on_write() -> bool:
    """Whether a shallow copy of a DataFrame is safe from changes of the original."""
    import pandas as pd

    return int(pd.__version__.partition(".")[0]) >= 3


# ── values ──────────────────────────────────────────────────────────────────────────────────────


def _values_of(series: pd.Series[Any]) -> Any:
    """The values of a column, as the array whose slices become lists fastest."""
    import numpy as np

    # pandas' own wrapper around a numpy array takes 30 times as long as the array itself.
    has_wrapper = isinstance(series.dtype, np.dtype) and series.dtype.kind in "biufcO"
    return series.to_numpy() if has_wrapper else series.array


def _plain_values(values: Any) -> list[Any]:
    """
    Convert an array to a list of plain Python values.

    Scalars of numpy become Python's. A missing value (NaN, NaT, pandas.NA) becomes None, but stays
    NaN in a column of floats. All other objects are kept.
    """
    import numpy as np
    import pandas as pd

    if isinstance(values, pd.Categorical) and len(values.categories) <= len(values):
        kinds = [*_plain_values(_values_of(pd.Series(values.categories))), None]
        return [kinds[code] for code in values.codes.tolist()]  # a missing one has the code -1
    found: list[Any] = list(values.tolist())
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return found
    if isinstance(values.dtype, pd.StringDtype) and not values.isna().any():
        return found
    if any(map(_may_need_conversion, set(map(type, found)))):
        return list(map(plain_value, found))
    return found


def _may_need_conversion(kind: type) -> bool:
    """Whether `plain_value` may change an object of this class."""
    import numpy as np
    import pandas as pd

    return kind in (float, type(pd.NA), type(pd.NaT)) or np.generic in kind.__mro__


def plain_value(value: Any) -> Any:
    """Convert a scalar of numpy to Python's, and a missing value to None; keep other objects."""
    import numpy as np
    import pandas as pd

    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    elif isinstance(value, np.timedelta64):
        value = pd.Timedelta(value)
    elif isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    return value
