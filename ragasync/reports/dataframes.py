"""Results as pandas tables: a row an item, a row a failure, a row a kind of failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ragasync.error_text import live_traceback, traceback_text
from ragasync.outcomes.columns import Columns
from ragasync.outcomes.outcome import FAILED
from ragasync.outcomes.stats import RunResult
from ragasync.reports.error_groups import group_errors
from ragasync.reports.reading import DataFrameBuilder, object_column, string_array

if TYPE_CHECKING:
    import pandas as pd


def to_dataframe(result: RunResult) -> pd.DataFrame:
    """
    Return one row for each item, with everything that is known of it.

    The frame's index (`item_index`) holds the items' original indices, as the column `index`
    does: a part of the frame leads back to its items with
    `result.retry_failed(processor, only=frame.index)`, and after `reset_index` or `merge` with
    `only=frame["index"]`. `print(frame.traceback[7])` shows a traceback in full, as
    `result[7].traceback` does. The frame is a copy.

    Example:
        >>> from ragasync import AsyncBatchProcessor, to_dataframe
        >>> result = AsyncBatchProcessor(int, retry_count=0).process_sync(["7", "seven", "8"])
        >>> frame = to_dataframe(result)
        >>> frame[["item", "status", "value", "error_type"]]
                     item  status value  error_type
        item_index
        0               7    done     7         NaN
        1           seven  failed  None  ValueError
        2               8    done     8         NaN

    Args:
        result: a BatchResult.

    Messages and tracebacks are without the secrets that they quote; those longer than a few
    kilobytes are cut, and say so. Items and values stay as they are.

    Returns:
        | column | dtype | |
        |---|---|---|
        | index | int64 | place in the input |
        | item, value | object | None where there is none |
        | status | category | pending, done, failed, cancelled: always all four |
        | error_type | category | class name without module, of a group that of its first leaf |
        | error_message | string | with its cause, and of a group how many more there are |
        | traceback | string | missing where nothing failed, as the two before |
        | attempts | Int32 | with the first; 0 for an item that was not started |
        | started, seconds, waited, backed_off | float64 | seconds; NaN if not started |
        | batch, worker | Int32 | missing where there is none |
        | stage | category | missing where there is none |
    """
    return _frame(result.columns, range(len(result.columns)))


def errors_dataframe(result: RunResult) -> pd.DataFrame:
    """
    Return one row for each item that failed, with the columns of `to_dataframe`.

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
        The rows in input order; dtypes as in `to_dataframe`.
    """
    return _frame(result.columns, list(result.columns.rows_with(FAILED)))


def error_summary(result: RunResult) -> pd.DataFrame:
    """
    Return one row for each kind of failure, the commonest first.

    Errors are of one kind if their types are the same and their messages differ in numbers and
    quoted values only.

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
        | message | string | where they differ with # for numbers and … for quoted values |
        | count | int64 | items that failed so |
        | share | float64 | of all items that failed |
        | first_index, first_item | int64, object | the first such item |
        | seconds | float64 | in the calls of these items, all attempts |
        | share_of_time | float64 | of the seconds in the calls of all items |
    """
    import pandas as pd

    columns = result.columns
    kinds = group_errors(columns)
    failed, spent = sum(kind.count for kind in kinds), sum(columns.seconds)
    first_items = [columns.item_at(kind.first_row) for kind in kinds]
    return pd.DataFrame(
        {
            "error_type": string_array([kind.error_type for kind in kinds]),
            "message": string_array([kind.message for kind in kinds]),
            "count": pd.array([kind.count for kind in kinds], dtype="int64"),
            "share": pd.array([kind.count / failed for kind in kinds], dtype="float64"),
            "first_index": pd.array(
                [columns.index_of(kind.first_row) for kind in kinds], dtype="int64"
            ),
            "first_item": object_column(first_items),
            "seconds": pd.array([kind.seconds for kind in kinds], dtype="float64"),
            "share_of_time": pd.array(
                [kind.seconds / spent if spent else 0.0 for kind in kinds], dtype="float64"
            ),
        }
    )


def _frame(columns: Columns[Any, Any], rows: Sequence[int]) -> pd.DataFrame:
    """Return these rows as a frame."""
    import pandas as pd

    taken = DataFrameBuilder(columns, rows)
    errors = {at: columns.error_text(rows[at]) for at in taken.sparse(columns.errors)}
    tracebacks = {place: text for place in errors if (text := _traceback(columns, rows[place]))}
    return pd.DataFrame(
        {
            "index": taken.index.to_numpy(copy=True),
            "item": taken.items(),
            "status": taken.status(),
            "value": taken.objects(columns.results),
            "error_type": taken.categories({at: text.kind for at, text in errors.items()}),
            "error_message": taken.strings({at: text.message for at, text in errors.items()}),
            "attempts": taken.integers(taken.attempts),
            "started": taken.seconds(columns.started),
            "seconds": taken.seconds(columns.seconds),
            "waited": taken.seconds(columns.waited),
            "backed_off": taken.seconds(columns.backed_off),
            "batch": taken.batch(),
            "stage": taken.categories(taken.sparse(columns.stages)),
            "worker": taken.worker(),
            "traceback": taken.strings(tracebacks),
        },
        index=taken.index,
        copy=False,  # each column was made for this frame: pandas would hold all of them twice
    )


def _traceback(columns: Columns[Any, Any], row: int) -> str | None:
    """Return an error's traceback as text: the one that was kept, or what it still carries."""
    text, error = columns.traceback_of(row), columns.errors[row]
    if text is None and live_traceback(error) is not None:
        return traceback_text(error)
    return text
