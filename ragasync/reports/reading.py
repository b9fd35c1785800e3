"""Columns read out as the arrays that a pandas table is made of."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import PENDING, STATUSES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Array: TypeAlias = np.ndarray[Any, Any]

T = TypeVar("T")


def object_column(values: Sequence[object], index: pd.Index[Any] | None = None) -> pd.Series[Any]:
    """
    Return the objects as they are, lists and arrays among them one object each.

    A bare array would not do: pandas 3 makes strings of one that holds nothing else.
    """
    import numpy as np
    import pandas as pd

    objects = np.fromiter(values, dtype=object, count=len(values))
    return pd.Series(objects, index=index, dtype=object)


def string_array(values: Sequence[object] | Array) -> pd.api.extensions.ExtensionArray:
    """
    Return an array of strings, or of pandas.NA where there is none.

    Stored by Python, not by Arrow, which refuses the lone surrogates that stand in messages about
    files with names that are not valid text.
    """
    import numpy as np
    import pandas as pd

    return pd.array(np.asarray(values, dtype=object), dtype="string[python]")


def number_array(values: Sequence[object], dtype: str) -> pd.api.extensions.ExtensionArray:
    """Return an array of numbers or flags, of this type also without any."""
    import pandas as pd

    kind: Any = dtype
    numbers: pd.api.extensions.ExtensionArray = pd.array(list(values), dtype=kind)
    return numbers


class DataFrameBuilder:
    """
    Copies some rows out of columns, an array a fact.

    Args:
        columns: what to read.
        rows: which rows, in order; a range stands for all of them.
    """

    def __init__(self, columns: Columns[Any, Any], rows: Sequence[int]) -> None:
        import numpy as np
        import pandas as pd

        self._columns = columns
        self._rows = rows
        self._all = isinstance(rows, range)
        self._taken = slice(len(columns)) if self._all else np.array(rows, dtype="int64")
        self._status = self._copy(columns.status, "uint8")
        pending = self._status == PENDING
        if self._all and columns.source_index is None:
            numbers = np.arange(len(rows))
        else:
            numbers = np.fromiter(map(columns.index_of, rows), dtype="int64", count=len(rows))
        self.index = pd.Index(numbers, name="item_index")
        self.attempts = np.where(pending, 0, self._copy(columns.attempts, "uint16"))

    def status(self) -> pd.Categorical:
        """Return the status, all four categories in their order."""
        import pandas as pd

        names = pd.Index(STATUSES, dtype=object)
        return pd.Categorical.from_codes(self._status, categories=names)

    def items(self) -> pd.Series[Any]:
        """Return the items, None where one is not known."""
        items = self._columns.items
        missing = len(self._columns) - len(items)
        return self.objects([*items, *[None] * missing] if missing else items)

    def objects(self, values: Sequence[object]) -> pd.Series[Any]:
        """Return a column of objects."""
        chosen = values if self._all else [values[row] for row in self._rows]
        return object_column(chosen, self.index)

    def seconds(self, column: array[float] | None) -> Array:
        """Return a column of times, NaN for an item that was not started."""
        import numpy as np

        times = np.zeros(len(self._rows)) if column is None else self._copy(column, "float64")
        times[self.attempts == 0] = np.nan
        return times

    def worker(self) -> pd.api.extensions.ExtensionArray:
        """Return the workers, missing for an item that was not started."""
        return self.integers(self._copy(self._columns.worker, "uint16"), self.attempts == 0)

    def batch(self) -> pd.api.extensions.ExtensionArray:
        """Return the numbers of the batches, missing for an item that went in none."""
        import numpy as np

        column = self._columns.batch
        numbers = np.full(len(self._rows), -1) if column is None else self._copy(column, "int32")
        return self.integers(numbers, numbers < 0)

    def integers(
        self, values: Array, missing: Array | None = None
    ) -> pd.api.extensions.ExtensionArray:
        """Return a nullable column of whole numbers."""
        import numpy as np
        import pandas as pd

        mask = np.zeros(len(values), dtype=bool) if missing is None else missing
        return pd.arrays.IntegerArray(values.astype("int32"), mask)

    def sparse(self, column: Mapping[int, T]) -> dict[int, T]:
        """Return what a sparse column says of these rows, by their place among them."""
        status = self._columns.status
        rows = column.keys() if self._all else self._rows
        places = zip(rows if self._all else range(len(self._rows)), rows, strict=True)
        return {
            place: column[row] for place, row in places if row in column and status[row] != PENDING
        }

    def strings(self, texts: Mapping[int, str]) -> pd.api.extensions.ExtensionArray:
        """Return a column of texts, missing at all other places."""
        import numpy as np
        import pandas as pd

        column = np.full(len(self._rows), pd.NA, dtype=object)
        for place, text in texts.items():
            column[place] = text
        return string_array(column)

    def categories(self, names: Mapping[int, str]) -> pd.Categorical:
        """Return a column of a few names, missing at all other places."""
        import numpy as np
        import pandas as pd

        kinds = sorted(set(names.values()))
        code_of = {kind: code for code, kind in enumerate(kinds)}
        codes = np.full(len(self._rows), -1, dtype="int32")
        for place, name in names.items():
            codes[place] = code_of[name]
        # Of object dtype even without any: an empty list alone would be a category of nothing.
        return pd.Categorical.from_codes(codes, categories=pd.Index(kinds, dtype=object))

    def _copy(self, column: bytearray | array[Any], dtype: str) -> Array:
        """Copy a column: the frame must hold no buffer that a running job would still grow."""
        import numpy as np

        whole: Array = np.frombuffer(column, dtype=dtype)
        return whole[self._taken].copy()
