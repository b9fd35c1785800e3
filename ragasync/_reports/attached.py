"""Outcomes as a Series, or attached to the DataFrame whose rows were processed."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.stats import RunResult
from ragasync._reports.dataframes import DataFrameBuilder, to_dataframe
from ragasync.dataframe_items import is_instance_of

if TYPE_CHECKING:
    import pandas as pd


def to_series(result: RunResult) -> pd.Series[Any]:
    """Build a Series of the values, with the index of the items; see BatchResult.to_series."""
    columns = result.columns
    builder = DataFrameBuilder(columns, range(len(columns)))
    if not builder.index.is_unique:
        double = builder.index[builder.index.duplicated()].unique()[:3].tolist()
        warnings.warn(
            f"the items' index has duplicate labels, such as {double!r:.200}, by which pandas "
            f"cannot align this Series with a frame: use result.attach(frame) instead",
            UserWarning,
            stacklevel=3,
        )
    return builder.values().rename("value")


def attach(
    result: RunResult, frame: pd.DataFrame, columns: Collection[str] | None, prefix: str
) -> pd.DataFrame:
    """Add columns of to_dataframe to a copy of a frame, by position; see BatchResult.attach."""
    import pandas as pd

    if is_instance_of(frame, "polars", "DataFrame"):
        raise TypeError(
            "attach takes a DataFrame of pandas, got one of polars: "
            "use frame.with_columns(pl.Series('value', result.results))"
        )
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"attach takes a DataFrame of pandas, got {frame!r:.200}")
    _check_rows(result.columns, frame)
    outcomes = to_dataframe(result)
    names = _chosen(columns, [name for name in outcomes.columns if name != "item"])
    added = outcomes[names].rename(columns=lambda name: f"{prefix}{name}")
    double = [name for name in added.columns if name in frame.columns]
    if double:
        raise ValueError(
            f"the frame already has columns named {double!r}: choose others with columns=[...], or "
            f"pass prefix="
        )
    return pd.concat([frame, added.set_axis(frame.index)], axis=1)


def _chosen(columns: Collection[str] | None, available: list[str]) -> list[str]:
    """Check the names of columns; None stands for all."""
    if columns is None:
        return available
    names = [columns] if isinstance(columns, str) else list(columns)
    unknown = [name for name in names if name not in [*available, "item"]]
    if unknown:
        raise ValueError(f"columns= names columns of to_dataframe, {available!r}, got {unknown!r}")
    return names


def _check_rows(columns: Columns[Any, Any], frame: pd.DataFrame) -> None:
    """Check that the rows of a frame are those that were processed, in the same order."""
    import pandas as pd

    if columns.source_index is not None:
        raise ValueError(
            "this result has only a part of the items, so it cannot be attached by position: "
            "merge it with the result of the others first, or join its to_dataframe()"
        )
    if len(frame) != len(columns):
        raise ValueError(
            f"attach goes by position and expects the frame whose {len(columns):,} rows were "
            f"processed, got one of {len(frame):,} rows: join result.to_dataframe() by label"
        )
    if columns.labels is None or columns.labels.index.equals(frame.index):
        return
    is_renumbered = isinstance(frame.index, pd.RangeIndex) and not (
        columns.labels.index.isin(frame.index).any()
    )
    if not is_renumbered:
        raise ValueError(
            f"attach goes by position and expects the frame whose rows were processed, got one "
            f"with another index, {frame.index[:3].tolist()!r:.100} instead of "
            f"{columns.labels.index[:3].tolist()!r:.100}: join result.to_dataframe() by label, or "
            f"sort the frame as it was"
        )
