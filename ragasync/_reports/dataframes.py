"""DataFrames of a result: a row for each item, for each failure, or for each kind of error."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE, FAILED, PENDING, STATUSES
from ragasync._outcomes.stats import RunResult
from ragasync._reports.error_groups import group_errors
from ragasync._reports.summary import one_line
from ragasync.dataframe_items import DataFrameRows
from ragasync.error_text import live_traceback, traceback_text
from ragasync.foreign_errors import attribute, guarded
from ragasync.object_views import QUIET, TEXT, element, short_view, three_digits

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Array: TypeAlias = np.ndarray[Any, Any]

T = TypeVar("T")


_ORDER = (
    *("item", "status", "value", "error_type", "error_message", "attempts", "started", "seconds"),
    *("waited", "backed_off", "batch", "stage", "worker", "tokens", "cost", "traceback"),
)
"""The columns of to_dataframe, in order."""


def to_dataframe(result: RunResult) -> pd.DataFrame:
    """
    Build a DataFrame with one row for each item.

    Its index is that of the items, if they were a Series or DataFrame of pandas, so that
    `frame.join(result.to_dataframe()[["status", "error_message"]])` is aligned. For other items it
    is `item_index`, their positions in the input. Either way you can filter the frame and run just
    those items again: `result.retry_failed(processor, only=frame.index)`.
    `print(frame.traceback[7])` shows a whole traceback, like `result[7].traceback`. The frame is a
    copy. For polars, see `BatchResult.to_dataframe`.

    Messages and tracebacks have secrets masked; those longer than a few kilobytes are cut and
    marked as cut. Items and values stay as they are, except that a file or document is shown as its
    path or id.

    Example:
        >>> import pandas as pd
        >>> from ragasync import AsyncBatchProcessor, to_dataframe
        >>> texts = pd.Series(["7", "seven", "8"], index=["a", "b", "c"])
        >>> result = AsyncBatchProcessor(int, retry_count=0).process_sync(texts)
        >>> to_dataframe(result)[["item", "status", "value", "error_type"]]
            item  status value  error_type
        a      7    done     7         NaN
        b  seven  failed  <NA>  ValueError
        c      8    done     8         NaN

    Args:
        result: a BatchResult.

    Returns:
        | column | dtype | |
        |---|---|---|
        | item | object | pandas.NA if it was never read from its source |
        | status | category | always four categories: pending, done, failed, cancelled |
        | value | object | None if the call returned None; pandas.NA if there is no value |
        | error_type | category | class name without module; of the first leaf of a group |
        | error_message | string | with the cause; of a group, with the number of other errors |
        | attempts | Int32 | includes the first; 0 if the item was not started |
        | started, seconds | float64 | seconds; NaN if not started |
        | waited | float64 | seconds at rate limiters, in all attempts; of a batch: of its call |
        | backed_off | float64 | seconds between attempts |
        | batch | Int32 | missing if the item was in no batch |
        | stage | category | the stage that failed; missing if there is none |
        | worker | Int32 | missing if the item was not started |
        | tokens, cost | Int64, Float64 | only if reported; missing for items without a report |
        | traceback | string | missing, as error_type and error_message, if it did not fail |
    """
    columns = result.columns
    builder = DataFrameBuilder(columns, range(len(columns)))
    found = _outcome_columns(columns, builder)
    found |= {"status": builder.status(), "value": builder.values()}
    if columns.cost is not None:
        found |= {"tokens": builder.tokens(), "cost": builder.cost(columns.cost)}
    return builder.frame({name: found[name] for name in _ORDER if name in found})


def errors_dataframe(result: RunResult) -> pd.DataFrame:
    """
    Build a DataFrame with one row for each item that failed, without the columns status and value.

    The columns that a reader looks for come first. Index and dtypes are those of `to_dataframe`.
    A cell shows these columns only, with long items and messages cut; the frame has all of them in
    full: `frame.error_message[7]` is a whole message, `print(frame.traceback[7])` a traceback.

    Example:
        >>> from ragasync import AsyncBatchProcessor, errors_dataframe
        >>> result = AsyncBatchProcessor(int, retry_count=0).process_sync(["7", "seven", "8"])
        >>> errors_dataframe(result)[["item", "error_type", "attempts"]]
                     item  error_type  attempts
        item_index
        1           seven  ValueError         1

    Args:
        result: a BatchResult.

    Returns:
        The rows in input order, with the columns item (of a document: its path), error_type,
        error_message, attempts, seconds, stage, started, waited, backed_off, batch, worker and
        traceback.
    """
    columns = result.columns
    builder = DataFrameBuilder(columns, list(columns.rows_with(FAILED)))
    return _errors_frame()(builder.frame(_outcome_columns(columns, builder)), copy=False)


_COLUMNS_SHOWN = ("item", "error_type", "error_message", "attempts", "seconds", "stage")

_ITEM_CHARS, _MESSAGE_CHARS, _MESSAGE_CHARS_HTML = 30, 60, 200
"""Characters of an item and of a message that a table of errors shows."""


@cache
def _errors_frame() -> type[pd.DataFrame]:
    """
    Define a DataFrame that shows the columns that matter in a failure, with narrow cells.

    Only the display differs: whatever is derived from it, or pickled, is a plain DataFrame.
    """
    import pandas as pd

    class ErrorsDataFrame(pd.DataFrame):
        def __repr__(self) -> str:
            wide = ("display.width", 1_000, "display.max_columns", None)
            with pd.option_context(*wide, "display.max_colwidth", None):
                return repr(self._shown(_MESSAGE_CHARS))

        def _repr_html_(self) -> str | None:
            with pd.option_context("display.max_colwidth", None):
                shown = self._shown(_MESSAGE_CHARS_HTML)
                html: str | None = shown._repr_html_()  # type: ignore[operator]
            if html is None or self.empty:
                return html
            for tag in ("td", "th"):  # JupyterLab aligns all cells on the right, ragged texts too
                html = html.replace(f"<{tag}>", f'<{tag} style="text-align:left">')
            others = ", ".join(str(name) for name in self.columns if name not in _COLUMNS_SHOWN)
            note = f"also: {others}"
            if "error_message" in shown and (first := _first_cut(shown["error_message"])):
                note += f"; a whole message: result.errors_dataframe().error_message[{first}]"
            return html + element("div", f"{TEXT};{QUIET}", escape(note))

        def __reduce__(self) -> Any:
            return pd.DataFrame(self).__reduce__()

        def _shown(self, message_chars: int) -> pd.DataFrame:
            """The columns to show, as short texts; of many rows, the first and last are shown."""
            is_empty = self.isna().all()
            if "item" in self:  # an item may be None, and is then to be seen
                is_empty["item"] = all(item is pd.NA for item in self["item"])
            names = [n for n in _COLUMNS_SHOWN if n in self and (self.empty or not is_empty[n])]
            shown = pd.DataFrame(self)[names].copy()
            most = pd.get_option("display.max_rows") or len(shown)
            for name, chars in (("item", _ITEM_CHARS), ("error_message", message_chars)):
                if name in names:
                    texts = [
                        _cell(value, chars) if at < most or at >= len(shown) - most else ""
                        for at, value in enumerate(self[name])
                    ]
                    shown[name] = pd.Series(texts, index=shown.index, dtype=object)
            if "seconds" in names:
                shown["seconds"] = [three_digits(time) for time in self["seconds"]]
            return shown

    return ErrorsDataFrame


def _first_cut(messages: pd.Series[Any]) -> str:
    """The label of the first message that a table shows without its end; empty if none is cut."""
    labels = messages.index[messages.str.endswith("…")].tolist()
    return short_view(labels[0]) if labels else ""


def _cell(value: object, chars: int) -> str:
    """Write a value in one line of a narrow column; a text without quotes."""
    if type(value) is str:
        return one_line(value, chars)
    return one_line(short_view(value, chars), chars)


def _outcome_columns(columns: Columns[Any, Any], builder: DataFrameBuilder) -> dict[str, Any]:
    """The columns that both tables of outcomes have, in the order of errors_dataframe."""
    rows = builder.rows
    errors = {at: columns.error_text(rows[at]) for at in builder.sparse(columns.errors)}
    tracebacks = {at: text for at in errors if (text := _traceback(columns, rows[at]))}
    return {
        "item": builder.items(),
        "error_type": builder.categories({at: text.kind for at, text in errors.items()}),
        "error_message": builder.strings({at: text.message for at, text in errors.items()}),
        "attempts": builder.integers(builder.attempts),
        "seconds": builder.seconds(columns.seconds),
        "stage": builder.categories(builder.sparse(columns.stages)),
        "started": builder.seconds(columns.started),
        "waited": builder.seconds(columns.waited),
        "backed_off": builder.seconds(columns.backed_off),
        "batch": builder.batch(),
        "worker": builder.worker(),
        "traceback": builder.strings(tracebacks),
    }


def error_summary(result: RunResult) -> pd.DataFrame:
    """
    Build a DataFrame with one row for each kind of error, the most common first.

    Errors are of one kind if their types are equal and their messages differ only in numbers and
    quoted values.

    Example:
        >>> from ragasync import AsyncBatchProcessor, error_summary
        >>> processor = AsyncBatchProcessor(int, retry_count=0)
        >>> result = processor.process_sync(["7", "seven", "eight", None])
        >>> error_summary(result)[["error_type", "count", "share", "first_item"]].round(2)
           error_type  count  share first_item
        0  ValueError      2   0.67      seven
        1   TypeError      1   0.33       None

    Args:
        result: a BatchResult.

    Returns:
        | column | dtype | |
        |---|---|---|
        | error_type | string | class name without module |
        | message | string | # stands for numbers that differ, … for quoted values |
        | count | int64 | number of items that failed this way |
        | share | float64 | share of all items that failed |
        | first_index | int64 | position of the first such item; its label, if the items have any |
        | first_item | object | the item itself |
        | seconds | float64 | time in the calls of these items, all attempts |
        | share_of_time | float64 | share of the time in the calls of all items |
    """
    import pandas as pd

    columns = result.columns
    errors = group_errors(columns)
    groups, failed, spent = errors.ranked(), errors.count, sum(columns.seconds)
    first_rows = [group.first_row for group in groups]
    first = DataFrameBuilder(columns, first_rows)
    return pd.DataFrame(
        {
            "error_type": string_array([group.error_type for group in groups]),
            "message": string_array([group.message for group in groups]),
            "count": pd.array([group.count for group in groups], dtype="int64"),
            "share": pd.array([group.count / failed for group in groups], dtype="float64"),
            "first_index": first.index_column(),
            "first_item": first.items().reset_index(drop=True),
            "seconds": pd.array([group.seconds for group in groups], dtype="float64"),
            "share_of_time": pd.array(
                [group.seconds / spent if spent else 0.0 for group in groups], dtype="float64"
            ),
        }
    )


def _traceback(columns: Columns[Any, Any], row: int) -> str | None:
    """The traceback of an error as text: the archived one, or the one that the error carries."""
    text, error = columns.traceback_of(row), columns.errors[row]
    if text is None and live_traceback(error) is not None:
        return traceback_text(error)
    return text


def item_name(item: object) -> object:
    """
    An item as tables show it: the path of a file and the id of a document, other items unchanged.

    The class of an item says so by a property `_table_name_`.
    """
    return attribute(item, "_table_name_") if _has_name(type(item)) else item


def _has_name(kind: type) -> bool:
    """Whether items of a class have a name for tables."""
    return guarded(hasattr, kind, "_table_name_") is True


@cache
def frame_with_floats(text_of: Callable[[float], str]) -> type[pd.DataFrame]:
    """
    Define a DataFrame that shows its floats as `text_of` writes them.

    Only the display differs, also of the DataFrames made from it, such as a selection of columns;
    pickled, it is a plain DataFrame.
    """
    import pandas as pd

    class FormattedDataFrame(pd.DataFrame):
        @property
        def _constructor(self) -> type[pd.DataFrame]:
            return FormattedDataFrame

        def __repr__(self) -> str:
            with pd.option_context("display.float_format", text_of):
                return super().__repr__()

        def _repr_html_(self) -> str | None:
            with pd.option_context("display.float_format", text_of):
                html: str | None = super()._repr_html_()  # type: ignore[misc]
                return html

        def __reduce__(self) -> Any:
            return pd.DataFrame(self).__reduce__()

    return FormattedDataFrame


# ── columns as pandas arrays ────────────────────────────────────────────────────────────────────


def object_column(values: Sequence[object], index: pd.Index[Any] | None = None) -> pd.Series[Any]:
    """
    Make a column of objects; a list or an array among them is one object.

    It is a Series, because pandas 3 turns a plain array that holds only strings into strings.
    """
    import numpy as np
    import pandas as pd

    objects = np.fromiter(values, dtype=object, count=len(values))
    return pd.Series(objects, index=index, dtype=object)


def string_array(values: Sequence[object] | Array) -> pd.api.extensions.ExtensionArray:
    """
    Make an array of strings and pandas.NA.

    Its storage is Python's, not Arrow's: Arrow refuses lone surrogates, which occur in messages
    about files whose names are not valid text.
    """
    import numpy as np
    import pandas as pd

    return pd.array(np.asarray(values, dtype=object), dtype="string[python]")


def number_array(values: Sequence[object], dtype: str) -> pd.api.extensions.ExtensionArray:
    """Make an array of numbers or flags; the dtype holds for an empty one too."""
    import pandas as pd

    any_dtype: Any = dtype  # pandas' stubs want a literal
    numbers: pd.api.extensions.ExtensionArray = pd.array(list(values), dtype=any_dtype)
    return numbers


class DataFrameBuilder:
    """
    Copies rows of columns into pandas arrays, which become the columns of a DataFrame.

    Args:
        columns: the columns to read.
        rows: the rows to copy, in order; a range stands for all rows.

    Attributes:
        rows: the rows.
        index: the labels of the rows' items, or their original indices if they have none.
        attempts: the number of attempts in each row; 0 if the item was not started.
    """

    def __init__(self, columns: Columns[Any, Any], rows: Sequence[int]) -> None:
        import numpy as np
        import pandas as pd

        self._columns = columns
        self.rows = rows
        self._all = isinstance(rows, range)
        self._selected = slice(len(columns)) if self._all else np.array(rows, dtype="int64")
        self._status = self._copy(columns.status, "uint8")
        pending = self._status == PENDING
        is_whole = self._all and columns.source_index is None
        indices = rows if is_whole else list(map(columns.index_of, rows))
        self.index: pd.Index[Any]
        if columns.labels is not None:
            self.index = columns.labels.take(indices)
        else:
            numbers = np.fromiter(indices, dtype="int64", count=len(rows))
            self.index = pd.Index(numbers, name="item_index")
        if columns.history:  # what was to be retried when the run stopped has been tried
            log, places = columns.history, range(len(rows))
            pending[list(log) if self._all else [at for at in places if rows[at] in log]] = False
        self.attempts = np.where(pending, 0, self._copy(columns.attempts, "uint16"))

    def frame(self, columns: Mapping[str, Any]) -> pd.DataFrame:
        """A DataFrame of these columns, each of which was made for it, with the rows' index."""
        import pandas as pd

        # A copy would hold every column twice.
        return pd.DataFrame(columns, index=self.index, copy=False)

    def index_column(self) -> pd.Series[Any]:
        """The index as a column; the labels of a MultiIndex are tuples."""
        import pandas as pd

        if self._columns.labels is None:
            return pd.Series(self.index.to_numpy(copy=True))
        return self.index.to_series(index=pd.RangeIndex(len(self.index)), name="index")

    def status(self) -> pd.Categorical:
        """The status column, with all four categories in their order."""
        import pandas as pd

        names = pd.Index(STATUSES, dtype=object)
        return pd.Categorical.from_codes(self._status, categories=names)

    def items(self) -> pd.Series[Any]:
        """The item column; missing if an item is not known."""
        import pandas as pd

        items = self._columns.items
        known = len(items)
        if self._all and known == len(self.rows):
            chosen: Sequence[object] = items
        else:
            chosen = [items[row] if row < known else pd.NA for row in self.rows]
        if not isinstance(chosen, DataFrameRows) and any(map(_has_name, set(map(type, chosen)))):
            chosen = list(map(item_name, chosen))
        return object_column(chosen, self.index)

    def values(self) -> pd.Series[Any]:
        """The column of values; missing if the item is not done."""
        import numpy as np
        import pandas as pd

        values: Sequence[object] = self._columns.results
        if not self._all:
            values = [values[row] for row in self.rows]
        column = np.fromiter(values, dtype=object, count=len(values))
        column[self._status != DONE] = pd.NA
        return pd.Series(column, index=self.index, dtype=object)

    def seconds(self, column: array[float] | None) -> Array:
        """A column of seconds; NaN if the item was not started."""
        import numpy as np

        times = np.zeros(len(self.rows)) if column is None else self._copy(column, "float64")
        times[self.attempts == 0] = np.nan
        return times

    def worker(self) -> pd.api.extensions.ExtensionArray:
        """The worker column; missing if the item was not started."""
        return self.integers(self._copy(self._columns.worker, "uint16"), self.attempts == 0)

    def batch(self) -> pd.api.extensions.ExtensionArray:
        """The batch column; missing if the item was in no batch."""
        import numpy as np

        column = self._columns.batch
        numbers = np.full(len(self.rows), -1) if column is None else self._copy(column, "int32")
        return self.integers(numbers, numbers < 0)

    def tokens(self) -> pd.api.extensions.ExtensionArray:
        """The tokens column; missing for items without a report."""
        import numpy as np
        import pandas as pd

        column = self._columns.tokens
        counts = np.full(len(self.rows), -1) if column is None else self._copy(column, "int64")
        return pd.arrays.IntegerArray(counts, counts < 0)

    def cost(self, column: array[float]) -> pd.api.extensions.ExtensionArray:
        """The cost column; missing for items without a report."""
        import pandas as pd

        return pd.arrays.FloatingArray(self._copy(column, "float64"), self.tokens().isna())

    def integers(
        self, values: Array, missing: Array | None = None
    ) -> pd.api.extensions.ExtensionArray:
        """A nullable column of integers."""
        import numpy as np
        import pandas as pd

        mask = np.zeros(len(values), dtype=bool) if missing is None else missing
        return pd.arrays.IntegerArray(values.astype("int32"), mask)

    def sparse(self, column: Mapping[int, T]) -> dict[int, T]:
        """Read a sparse column: its values in these rows, by position among the rows."""
        status = self._columns.status
        rows = column.keys() if self._all else self.rows
        positions = zip(rows if self._all else range(len(self.rows)), rows, strict=True)
        return {
            at: column[row] for at, row in positions if row in column and status[row] != PENDING
        }

    def strings(self, texts: Mapping[int, str]) -> pd.api.extensions.ExtensionArray:
        """A column of strings; missing at all other positions."""
        import numpy as np
        import pandas as pd

        column = np.full(len(self.rows), pd.NA, dtype=object)
        for at, text in texts.items():
            column[at] = text
        return string_array(column)

    def categories(self, names: Mapping[int, str]) -> pd.Categorical:
        """A column of categories; missing at all other positions."""
        import numpy as np
        import pandas as pd

        categories = sorted(set(names.values()))
        code_of = {name: code for code, name in enumerate(categories)}
        codes = np.full(len(self.rows), -1, dtype="int32")
        for at, name in names.items():
            codes[at] = code_of[name]
        # An explicit dtype: pandas infers another one from an empty list.
        return pd.Categorical.from_codes(codes, categories=pd.Index(categories, dtype=object))

    def _copy(self, column: bytearray | array[Any], dtype: str) -> Array:
        """Copy a column: a view would forbid a running job to let its buffer grow."""
        import numpy as np

        whole: Array = np.frombuffer(column, dtype=dtype)
        return whole[self._selected].copy()
